"""Two and four gloo processes against the trajectory of a single one."""

import time

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from htsr.optim.distributed import assign_owners
from tests.optim import distributed_workers as workers

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch without gloo")


def run(size, folder, *names):
    """Run the named checks in so many processes; all must succeed within five minutes."""
    processes = mp.spawn(workers.run_all, args=(size, folder, names), nprocs=size, join=False)
    end = time.monotonic() + 300
    while not processes.join(timeout=5):
        if time.monotonic() > end:
            for process in processes.processes:
                process.kill()
            pytest.fail("a process hangs")


@pytest.mark.slow
def test_two_and_four_processes_follow_a_single_one(tmp_path):
    """What each check is stands in distributed_workers.py."""
    run(2, tmp_path, "fsdp", "real_fsdp", "missing_gradients", "ddp", "save")
    run(4, tmp_path, "fsdp", "missing_gradients", "ddp", "other_placements", "load", "save")
    run(2, tmp_path, "load")


def test_matrices_are_dealt_out_evenly():
    costs = [5, 1, 4, 1, 3, 2]
    owners = assign_owners(costs, 2)
    assert sorted(sum(c for c, o in zip(costs, owners, strict=True) if o == rank) for rank in range(2)) == [8, 8]
    assert assign_owners(costs, 1) == [0] * 6
    assert assign_owners([], 3) == []

"""DDP and FSDP2 with two gloo processes."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

import htsr

TRAIN = """
import json, os, sys, time
from datetime import timedelta
import torch, torch.distributed as dist
from torch import nn
import htsr

kind, rank, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
meeting = f"file://{directory}/rendezvous"
dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(seconds=60))
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 24), nn.ReLU(), nn.Linear(24, 20))
if kind == "ddp" or kind == "gone":
    model = nn.parallel.DistributedDataParallel(model)
else:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    mesh = init_device_mesh("cpu", (2,))
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
told = []
monitor = None
if os.environ.get("WATCH") != "no":
    monitor = htsr.Monitor(
        model, optimizer, every=2, run_dir=f"{directory}/run" if rank == 0 else None, log=lambda m, s: told.append(s),
        capture=("weights", "gradients", "momentum", "updates"), timeout=10 if kind == "gone" else 60,
    )
    monitor.on("N > 0", lambda m, v: told.append("acted"))
draw = torch.Generator().manual_seed(rank)
for step in range(5):
    if kind == "gone" and rank == 1 and step == 3:
        time.sleep(1000)
    if kind == "gone" and step == 3:
        start = time.perf_counter()
        for _ in range(4):
            optimizer.step()  # of its own, with no message to the other rank
        print(json.dumps({"waited": time.perf_counter() - start, "failed": monitor.failed}))
        sys.stdout.flush()
        os._exit(0)
    model(torch.randn(8, 40, generator=draw)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
if monitor is not None:
    monitor.close()
full = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]
if rank == 0:
    torch.save([p.detach().clone() for p in full], f"{directory}/weights-{os.environ.get('WATCH', 'yes')}.pt")
print(json.dumps({"told": told, "failed": monitor.failed if monitor else [], "step": monitor.step_count if monitor else 0}))
dist.destroy_process_group()
"""


def launch(kind, directory, **environment):
    import os

    directory.joinpath("rendezvous").unlink(missing_ok=True)
    return [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN, kind, str(rank), str(directory)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        for rank in range(2)
    ]  # fmt: skip


def results(processes):
    found = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        found.append(json.loads(out.splitlines()[-1]))
    return found


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_ranks_watch_one_model(kind, tmp_path):
    told = results(launch(kind, tmp_path))
    assert [rank["failed"] for rank in told] == [[], []]
    assert [rank["step"] for rank in told] == [5, 5]
    captured = [step for step in told[0]["told"] if step != "acted"]
    assert [step for step in told[1]["told"] if step != "acted"] == []  # rank 0 logs
    assert "acted" in told[0]["told"]
    assert told[1]["told"].count("acted") == told[0]["told"].count("acted")  # both act
    history = htsr.History(tmp_path / "run")
    assert history.steps == captured
    assert captured == [0, 2, 4, 5]
    assert history.details.groupby(["step", "quantity"]).size().eq(3).all()
    weights = torch.load(tmp_path / "weights-yes.pt")
    names = list(history.alpha())
    assert [name.split(".")[-1] for name in names] == ["0", "2", "4"]
    for name, weight in zip(names, weights[::2], strict=True):
        assert np.allclose(history.spectrum(5, name).eigenvalues, htsr.esd(weight), rtol=1e-10)
    results(launch(kind, tmp_path, WATCH="no"))
    alone = torch.load(tmp_path / "weights-no.pt")
    assert all(torch.equal(a, b) for a, b in zip(weights, alone, strict=True))


def test_a_rank_that_stops_does_not_hang_the_others(tmp_path):
    rank0, rank1 = launch("gone", tmp_path)
    try:
        start = time.time()
        (told,) = results([rank0])
        assert time.time() - start < 200
        assert told["waited"] < 60  # the timeout of 10 s once, not at every capture
        assert len(told["failed"]) == 1
        assert "capture" in told["failed"][0][1]
    finally:
        rank1.kill()
        rank1.communicate()
    assert htsr.History(tmp_path / "run").steps == [0, 2]


def test_layers_are_dealt_out_evenly_and_completely(monkeypatch):
    from htsr.training.ranks import Ranks
    from htsr.weights import open_source

    layers = open_source(nn.Sequential(*(nn.Linear(side, side) for side in (64, 64, 48, 32, 32, 16)))).layers
    hands = []
    for rank in range(3):
        ranks = Ranks.__new__(Ranks)
        ranks.rank, ranks.size = rank, 3
        hands.append(ranks.deal(layers))
    assert sorted(name for hand in hands for name in hand) == ["0", "1", "2", "3", "4", "5"]
    assert all(hands)

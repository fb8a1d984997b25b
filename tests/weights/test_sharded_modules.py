"""Modules that torch.distributed wraps or shards give the same table as the plain module, in two processes over gloo."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys, warnings
import torch
from torch import distributed, nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

warnings.simplefilter("ignore")
distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=int(sys.argv[2]), world_size=2)
import htsr

torch.manual_seed(0)
plain = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 16))
expected = htsr.analyze(plain).details
for kind in ("ddp", "fsdp2", "fsdp1-flat", "fsdp1-orig"):
    model = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 16))
    model.load_state_dict(plain.state_dict())
    if kind == "ddp":
        model = nn.parallel.DistributedDataParallel(model)
    elif kind == "fsdp2":
        fully_shard(model[0]); fully_shard(model)
    else:
        model = FullyShardedDataParallel(model, use_orig_params=kind == "fsdp1-orig", device_id=torch.device("cpu"))
    found = htsr.analyze(model).details
    columns = ["name", "layer_type", "N", "M", "alpha", "spectral_norm"]
    assert expected[columns].equals(found[columns]), (kind, found[columns])
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_every_rank_sees_the_whole_model_under_clean_names(tmp_path):
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "rendezvous"), str(rank)], stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(errors)

"""What the processes of test_distributed.py run; a module of its own because spawned processes import it."""

from collections import OrderedDict
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn

from htsr.optim import HTMuon, parameter_groups

SETTINGS = {
    "plain": {"power": 0.3, "method": "svd"},
    "rows": {"power": 0.3, "method": "svd", "row_normalize": True},
    "stream": {"method": "stream"},
    "raw interval": {"power": 0.25, "scale": "raw", "interval": 2, "method": "eigh"},
}


def run_all(rank, size, folder, names):
    """One process group, the named checks one after the other."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / f"store {size} {' '.join(names)}"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=60))
    for name in names:
        globals()[name](rank, size, folder)
    dist.destroy_process_group()


def make_model():
    torch.manual_seed(0)
    layers = {
        "first": nn.Linear(6, 10),  # 10 rows do not divide by 4
        "second": nn.Linear(10, 3),  # fewer rows than ranks
        "conv": nn.Conv1d(3, 5, 2),
        "third": nn.Linear(6, 10),  # the shape of the first: stacked with it
        "unused": nn.Linear(4, 4),
        "head": nn.Linear(5, 2),
    }
    return nn.Sequential(OrderedDict(layers))


def make_optimizer(model, **settings):
    return HTMuon(parameter_groups(model, **settings), lr=0.05, adamw_lr=0.01)


def gradients(model, step, skip=("unused",)):
    """The same full gradients on every rank, as after an all-reduce."""
    draw = torch.Generator().manual_seed(step)
    for name, p in model.named_parameters():
        full = torch.randn(p.shape, generator=draw)
        if name.split(".")[0] in skip:
            continue
        p.grad = place_like(full, p)


def place_like(full, p):
    from torch.distributed.tensor import DTensor, distribute_tensor

    return distribute_tensor(full, p.device_mesh, p.placements) if isinstance(p, DTensor) else full


def full_state(model):
    whole = {}
    for name, p in model.named_parameters():
        whole[name] = (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().clone()
    return whole


def single_trajectory(steps, **settings):
    model = make_model()
    optimizer = make_optimizer(model, **settings)
    for step in range(steps):
        gradients(model, step)
        optimizer.step()
    return full_state(model)


def assert_close(found, expected):
    for name, p in expected.items():
        torch.testing.assert_close(found[name], p, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


class CountCollectives(torch.utils._python_dispatch.TorchDispatchMode):
    """Names of the collectives that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace in {"c10d", "_c10d_functional"}:
            self.names.append(func._schema.name.split("::")[1])
        return func(*args, **(kwargs or {}))


def shard(model):
    from torch.distributed.fsdp import fully_shard

    for layer in model:
        fully_shard(layer)
    return fully_shard(model)


def fsdp(rank, size, folder):
    for settings in SETTINGS.values():
        model = shard(make_model())
        optimizer = make_optimizer(model, **settings)
        for step in range(4):
            gradients(model, step)
            optimizer.step()
        assert_close(full_state(model), single_trajectory(4, **settings))
    gradients(model, 5)
    with CountCollectives() as counted:
        optimizer.step()
    assert len(counted.names) == 3, counted.names


def real_fsdp(rank, size, folder):
    """Forward and backward through FSDP2, each rank its part of the batch."""
    from torch.distributed.fsdp import fully_shard

    x, y = torch.randn(8, 6, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3

    def train(model, x, y):
        optimizer = make_optimizer(model, power=0.3)
        for _ in range(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        return full_state(model)

    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))

    model = make()
    for layer in model:
        fully_shard(layer)
    assert_close(train(fully_shard(model), x.chunk(size)[rank], y.chunk(size)[rank]), train(make(), x, y))


def missing_gradients(rank, size, folder):
    """A rank without any gradient, and a NaN on one rank: nobody waits for ever, all agree."""
    model = shard(make_model())
    optimizer = make_optimizer(model)
    gradients(model, 0)
    if rank == 1:
        optimizer.zero_grad()
    optimizer.step()
    before = full_state(model)
    gradients(model, 1)
    if rank == size - 1:
        model.first.weight.grad.to_local()[0] = float("nan")
    with pytest.raises(ValueError, match=r"'first.weight'.*at step 1"):
        optimizer.step()
    assert_close(full_state(model), before)


def ddp(rank, size, folder):
    for settings in SETTINGS.values():
        for group in (None, dist.group.WORLD):
            model = nn.parallel.DistributedDataParallel(make_model(), find_unused_parameters=True)
            optimizer = HTMuon(parameter_groups(model.module, **settings), lr=0.05, adamw_lr=0.01, process_group=group)
            for step in range(4):
                gradients(model.module, step)
                optimizer.step()
            assert_close(full_state(model.module), single_trajectory(4, **settings))
    gradients(model.module, 5)
    with CountCollectives() as counted:
        optimizer.step()
    assert len(counted.names) == 2, counted.names


def other_placements(rank, size, folder):
    """Columns sharded, replicated, and two mesh dimensions."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    line, square = init_device_mesh("cpu", (size,)), init_device_mesh("cpu", (2, size // 2))
    placed = [
        (line, [Shard(1)]),
        (line, [Replicate()]),
        (square, [Replicate(), Shard(0)]),
        (square, [Shard(0), Shard(1)]),
    ]
    fulls = [torch.randn(6, 5, generator=torch.Generator().manual_seed(i)) for i in range(len(placed))]
    params = [nn.Parameter(distribute_tensor(f, *where)) for f, where in zip(fulls, placed, strict=True)]
    alone = [nn.Parameter(f.clone()) for f in fulls]
    optimizers = [HTMuon(these, method="svd", row_normalize=True) for these in (params, alone)]
    for step in range(3):
        draw = torch.Generator().manual_seed(100 + step)
        for p, a in zip(params, alone, strict=True):
            a.grad = torch.randn(a.shape, generator=draw)
            p.grad = place_like(a.grad, p)
        for optimizer in optimizers:
            optimizer.step()
    assert_close({i: p.full_tensor().detach() for i, p in enumerate(params)}, dict(enumerate(alone)))


def save(rank, size, folder):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict

    model = shard(make_model())
    optimizer = make_optimizer(model, row_normalize=True, power=[0.5, 0.4, 0.3, 0.2], method="svd")
    for step in range(3):
        gradients(model, step)
        optimizer.step()
    weights, state = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=folder / f"checkpoint of {size}")


def load(rank, size, folder):
    """What another number of processes saved."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    model = shard(make_model())
    settings = {"row_normalize": True, "power": [0.5, 0.4, 0.3, 0.2], "method": "svd"}
    optimizer = make_optimizer(model, **settings)
    weights, state = get_state_dict(model, optimizer)
    there = {"model": weights, "optimizer": state}
    dcp.load(there, checkpoint_id=folder / f"checkpoint of {6 - size}")
    set_state_dict(model, optimizer, model_state_dict=there["model"], optim_state_dict=there["optimizer"])
    assert optimizer.param_groups[0]["step"] == 3
    for step in range(3, 5):
        gradients(model, step)
        optimizer.step()
    assert optimizer.param_groups[0]["power"] == 0.2
    assert_close(full_state(model), single_trajectory(5, **settings))

"""Optimizer state is listed under the names of the weights, and under its place where nobody can tell the weight."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, get_state_dict

import htsr
from htsr.optim import HTMuon
from htsr.weights import open_source


class Block(nn.Module):
    """An attention-like block: four weights of one shape, in an order that is not that of their names."""

    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(16, 16), nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 48), nn.Linear(48, 16)

    def forward(self, x):
        return self.down(self.up(self.norm(self.q_proj(x) * self.k_proj(x))))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


MATRICES = ["embed", *(f"blocks.{i}.{name}" for i in range(2) for name in ("q_proj", "k_proj", "up", "down"))]


def step(model, *optimizers):
    model(torch.arange(20)).square().mean().backward()
    for optimizer in optimizers:
        optimizer.step()


def decay_groups(model):
    """Groups as the Trainer of transformers and nanoGPT make them."""
    decay = [p for p in model.parameters() if p.ndim > 1]
    return [{"params": decay}, {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0}]


def trained(make):
    torch.manual_seed(0)
    model = Net()
    optimizer = make(model)
    step(model, optimizer)
    return model, optimizer


def is_state_of(inventory, model, optimizer, kind, names=MATRICES):
    """Whether the layers are these, each with the values that the optimizer keeps for the parameter of that name."""
    parameters = dict(model.named_parameters())
    layers = {layer.name: layer for layer in inventory.layers if layer.tied_to is None}
    assert list(layers) == names
    return all(
        torch.equal(layer.load(), optimizer.state[parameters[f"{name}.weight"]][kind]) for name, layer in layers.items()
    )


MAKERS = {
    "one group": lambda model: torch.optim.AdamW(model.parameters()),
    "decay groups": lambda model: torch.optim.AdamW(decay_groups(model)),
    "named": lambda model: torch.optim.AdamW(list(model.named_parameters())[::-1]),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_numbers_become_the_names_of_weights(make):
    model, optimizer = trained(make)
    for model_key, optimizer_key in (("model", "optimizer"), ("model_state", "optimizer_state_dict"), ("net", "opt")):
        source = {"epoch": 3, model_key: model.state_dict(), optimizer_key: optimizer.state_dict()}
        for kind in ("exp_avg", "exp_avg_sq"):
            inventory = open_source(source, state=kind)
            assert is_state_of(inventory, model, optimizer, kind)
            assert {layer.name: layer.tied_to for layer in inventory.layers}["head"] == "embed"
    assert open_source(source, state="exp_avg").state == "exp_avg"


@pytest.mark.parametrize("old_format", [False, True])
def test_a_file_of_torch_with_model_and_optimizer(tmp_path, old_format):
    model, optimizer = trained(MAKERS["decay groups"])
    path = tmp_path / "last.pt"
    checkpoint = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 7}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=not old_format)
    assert is_state_of(open_source(path, state="exp_avg"), model, optimizer, "exp_avg")
    a = htsr.analyze(path, state="exp_avg", bulk=False)
    b = htsr.analyze({f"{name}.weight": optimizer.state[dict(model.named_parameters())[f"{name}.weight"]]["exp_avg"]
                      for name in MATRICES}, bulk=False)  # fmt: skip
    assert list(a.details.query("tied_to == ''")["alpha"]) == list(b.details["alpha"])
    assert a.headline().startswith(f"exp_avg of {path}: 10 layers")
    c = htsr.compare(path, path, state="exp_avg", bulk=False)
    assert set(c.details["status"]) == {"unchanged"}


def test_weights_say_that_state_lies_beside_them(tmp_path):
    model, optimizer = trained(MAKERS["one group"])
    source = {"net": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": {"last_epoch": 3}}
    torch.save(source, tmp_path / "a.pt")
    for given in (source, tmp_path / "a.pt"):
        inventory = open_source(given)
        assert [layer.name for layer in inventory.layers if layer.tied_to is None] == MATRICES
        reasons = {item.name: item.reason for item in inventory.skipped}
        assert "state='exp_avg'" in reasons["optimizer"]
        assert "state=" not in reasons["scheduler"]


def test_an_unknown_state_names_those_that_are_there(tmp_path):
    model, optimizer = trained(MAKERS["one group"])
    source = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    with pytest.raises(htsr.InputError, match=r"keeps no 'momentum_buffer', only exp_avg, exp_avg_sq$"):
        open_source(source, state="momentum_buffer")
    for nothing in (model, model.state_dict(), torch.ones(3, 4)):
        with pytest.raises(
            htsr.InputError, match=r"expected the state of an optimizer for state='exp_avg', found none"
        ):
            open_source(nothing, state="exp_avg")
    with pytest.raises(TypeError, match="expected state to be the name"):
        open_source(source, state=1)
    with pytest.raises(ValueError, match="got it for an inventory"):
        htsr.analyze(open_source(source), state="exp_avg")
    with pytest.raises(htsr.InputError, match="either base= or state="):
        open_source(source, base=source, state="exp_avg")


def test_several_optimizers_share_the_model(tmp_path):
    model = Net()
    muon = torch.optim.Muon([p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name])
    adam = torch.optim.AdamW([p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name])
    step(model, muon, adam)
    source = {"pytorch-lightning_version": "2.6", "state_dict": {f"net.{k}": v for k, v in model.state_dict().items()},
              "optimizer_states": [muon.state_dict(), adam.state_dict()]}  # fmt: skip
    torch.save(source, tmp_path / "last.ckpt")
    inventory = open_source(tmp_path / "last.ckpt", state="momentum_buffer")
    assert is_state_of(inventory, model, muon, "momentum_buffer", MATRICES[1:])
    reasons = {item.name: item.reason for item in inventory.skipped}
    assert reasons["embed.weight"] == "the optimizer keeps no momentum_buffer of it, only exp_avg, exp_avg_sq"
    assert is_state_of(open_source(source, state="exp_avg"), model, adam, "exp_avg", MATRICES[:1])


def test_htmuon_names_its_parameters():
    model, optimizer = trained(lambda model: HTMuon(model.named_parameters()))
    source = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    names = [
        name
        for name in MATRICES
        if "momentum_buffer" in optimizer.state[dict(model.named_parameters())[f"{name}.weight"]]
    ]
    assert set(names) >= set(MATRICES[1:])
    assert is_state_of(open_source(source, state="momentum_buffer"), model, optimizer, "momentum_buffer", names)


def test_what_cannot_be_decided_keeps_its_number():
    # one group a layer, in an order of its own: which of the equal shapes is which, nobody can tell
    model, optimizer = trained(
        lambda model: torch.optim.AdamW(
            [{"params": list(part.parameters())} for part in (model.blocks[1], model.blocks[0], model.embed)]
        )
    )
    inventory = open_source({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, state="exp_avg")
    names = [layer.name for layer in inventory.layers]
    assert names[:2] == ["embed", "head"]
    assert names[2:6] == [f"param_groups.0.params.{i}" for i in (0, 2, 6, 8)]
    assert all("does not say which weight" in layer.note for layer in inventory.layers[2:])
    assert torch.equal(inventory.layers[2].load(), optimizer.state[model.blocks[1].q_proj.weight]["exp_avg"])
    reasons = {item.name: item.reason for item in inventory.skipped}
    assert reasons["blocks.0.q_proj.weight"] == "the checkpoint does not say which exp_avg is its own"


def test_frozen_weights_make_equal_shapes_undecided():
    model = Net()
    model.blocks[0].requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    step(model, optimizer)
    inventory = open_source({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, state="exp_avg")
    assert [layer.name for layer in inventory.layers] == [
        "embed", "head", *(f"param_groups.0.params.{i}" for i in (1, 3, 7, 9)),
    ]  # fmt: skip


def test_a_parameter_that_was_never_stepped_keeps_its_place():
    model = Net()
    model.blocks[0].q_proj.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters())
    step(model, optimizer)
    inventory = open_source({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, state="exp_avg")
    assert is_state_of(inventory, model, optimizer, "exp_avg", [n for n in MATRICES if n != "blocks.0.q_proj"])
    reasons = {item.name: item.reason for item in inventory.skipped}
    assert reasons["blocks.0.q_proj.weight"] == "the optimizer keeps no exp_avg of it, nothing: it has not stepped it"


def test_the_directory_of_a_trainer(tmp_path):
    model, optimizer = trained(MAKERS["decay groups"])
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (reason,) = [item.reason for item in open_source(tmp_path).skipped if item.name == "optimizer.pt"]
    assert "state='exp_avg'" in reason
    assert is_state_of(open_source(tmp_path, state="exp_avg"), model, optimizer, "exp_avg")
    (tmp_path / "pytorch_model.bin").unlink()
    # safetensors keeps no order, so that only a shape that occurs once tells its weight
    save_file(
        {k: v.clone() for k, v in model.state_dict().items() if k != "head.weight"}, tmp_path / "model.safetensors"
    )
    names = [layer.name for layer in open_source(tmp_path, state="exp_avg").layers]
    assert names == ["embed", *(f"param_groups.0.params.{i}" for i in range(1, 9))]


def test_an_optimizer_alone(tmp_path):
    _, optimizer = trained(MAKERS["one group"])
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    for source in (tmp_path / "optimizer.pt", optimizer.state_dict()):
        with pytest.raises(htsr.InputError, match="holds the state of an optimizer and no weights; state= analyses it"):
            open_source(source)
        layers = open_source(source, state="exp_avg_sq").layers
        assert layers[0].name == "param_groups.0.params.0"
        assert len(layers) == len(MATRICES)


@pytest.mark.parametrize("layout", ["numbers", "names", "flat"])
def test_distributed_checkpoints(tmp_path, layout):
    model, optimizer = trained(MAKERS["one group"])
    optimizer.param_groups[0].pop("param_names", None)
    key, states = "optimizer", optimizer.state_dict()
    if layout == "names":
        key, states = "optim", get_state_dict(model, optimizer)[1]
    elif layout == "flat":
        flat = StateDictOptions(flatten_optimizer_state_dict=True)
        states = get_optimizer_state_dict(model, optimizer, options=flat)
    dcp.save({"model": model.state_dict(), key: states}, checkpoint_id=tmp_path, no_dist=True)
    reasons = {item.reason for item in open_source(tmp_path).skipped if ".exp_avg" in item.name}
    assert len(reasons) == 1
    assert "state='exp_avg'" in reasons.pop()
    inventory = open_source(tmp_path, state="exp_avg")
    if layout == "numbers":  # the order of the model is not kept
        assert inventory.layers[-1].name.startswith("optimizer.state.")
        values = [optimizer.state[p]["exp_avg"] for p in model.parameters() if p.ndim > 1]
        assert all(any(torch.equal(layer.load(), value) for value in values) for layer in inventory.layers)
    else:
        layers = {layer.name: layer.load() for layer in inventory.layers}
        assert set(layers) - {"head"} == set(MATRICES)
        parameters = dict(model.named_parameters())
        for name in MATRICES:
            assert torch.equal(layers[name], optimizer.state[parameters[f"{name}.weight"]]["exp_avg"])


def test_the_journal_of_weights_is_none_of_their_state(tmp_path):
    model, optimizer = trained(MAKERS["one group"])
    path = tmp_path / "last.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    options = {"bulk": False, "layers": "*.up", "journal": tmp_path / "journal"}
    htsr.analyze(path, state="exp_avg", **options)
    with pytest.raises(htsr.InputError, match="holds another audit, which differs in state"):
        htsr.analyze(path, state="exp_avg_sq", **options)
    with pytest.raises(htsr.InputError, match="holds another audit, which differs in state"):
        htsr.analyze(path, **options)


def test_configuration_and_kernels_hold_for_states():
    conv = nn.Conv2d(3, 8, 3)
    qkv = nn.MultiheadAttention(16, 4)
    model = nn.ModuleDict({"conv": conv, "attn": qkv})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss = conv(torch.randn(1, 3, 8, 8)).sum() + qkv(*[torch.randn(5, 2, 16)] * 3)[0].square().sum()
    loss.backward()
    optimizer.step()
    source = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    of_weights, of_state = open_source(source).layers, open_source(source, state="momentum_buffer").layers
    assert [(layer.name, layer.layer_type, layer.shape) for layer in of_weights] == [
        (layer.name, layer.layer_type, layer.shape) for layer in of_state
    ]

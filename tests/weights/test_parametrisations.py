"""The tensors that weight_norm, spectral_norm and pruning store give the weight that the module computes."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations, prune

from htsr.weights import open_source

pytestmark = pytest.mark.filterwarnings("ignore:.*_norm.* is deprecated")


def moved(model):
    """Return the model after a few passes in training mode, and a step that its stored vectors have not seen."""
    torch.manual_seed(0)
    layer = model["body"]
    inputs = torch.randn(
        2, layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels, *[6] * (layer.weight.ndim - 2)
    )
    with torch.no_grad():
        for _ in range(5):
            layer(inputs)
        for parameter in model.parameters():
            parameter.mul_(1.5).add_(torch.randn_like(parameter) * 0.01)
    return model


def pruned_twice(layer):
    prune.l1_unstructured(layer, "weight", 0.3)
    return prune.random_structured(layer, "weight", 1, dim=0)


WRAPPED = {
    **{f"weight_norm, dim {dim}": (lambda m, dim=dim: nn.utils.weight_norm(m, dim=dim), nn.Conv1d(6, 8, 5)) for dim in (0, 1, 2)},
    **{f"new weight_norm, dim {dim}": (lambda m, dim=dim: parametrizations.weight_norm(m, dim=dim), nn.Conv1d(6, 8, 5))
       for dim in (0, 1, 2)},
    "one norm": (lambda m: nn.utils.weight_norm(m, dim=None), nn.Linear(7, 5)),
    "spectral_norm": (nn.utils.spectral_norm, nn.Linear(9, 7)),
    "spectral_norm of a kernel": (nn.utils.spectral_norm, nn.Conv2d(6, 10, 3)),
    "spectral_norm of a transposed kernel": (nn.utils.spectral_norm, nn.ConvTranspose2d(6, 10, 3)),
    "spectral_norm of a kernel with equal sides": (nn.utils.spectral_norm, nn.Conv1d(8, 8, 3)),
    "spectral_norm of a transposed kernel with equal sides": (nn.utils.spectral_norm, nn.ConvTranspose1d(8, 8, 3)),
    "new spectral_norm": (parametrizations.spectral_norm, nn.Linear(9, 7)),
    "new spectral_norm of a kernel": (parametrizations.spectral_norm, nn.Conv1d(8, 8, 3)),
    "pruning": (lambda m: prune.l1_unstructured(m, "weight", 0.4), nn.Linear(9, 7)),
    "pruning twice": (pruned_twice, nn.Linear(9, 7)),
    "pruning of a kernel": (lambda m: prune.ln_structured(m, "weight", 2, n=2, dim=0), nn.Conv2d(6, 10, 3)),
}  # fmt: skip


@pytest.mark.parametrize("case", WRAPPED)
def test_a_file_gives_the_weight_of_the_module(case, tmp_path):
    wrap, layer = WRAPPED[case]
    model = moved(nn.ModuleDict({"body": wrap(layer)})).eval()
    (live,) = open_source(model).layers
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    stored = open_source(tmp_path / "model.safetensors")
    (found,) = stored.layers
    assert found.name == live.name == "body"
    # a file does not say that a kernel is transposed
    truth = live.load().transpose(0, 1) if "transpose" in live.layer_type else live.load()
    torch.testing.assert_close(found.load(), truth)
    assert "effective weight of" in found.note
    assert all(x.reason for x in stored.skipped)


@pytest.mark.parametrize(
    "shapes",
    [
        {"fc.weight_v": (8, 6), "fc.weight_g": (3, 6)},
        {"fc.weight_v": (8, 6), "fc.weight_u": (8, 8)},
        {"a.weight_orig": (8, 6), "b.weight_mask": (8, 6)},
        {"a.weight_orig": (8, 6), "a.weight_mask": (6, 8)},
        {"parametrizations.original": (8, 6), "weight.parametrizations.original1": (8, 6)},
    ],
)
def test_parts_that_do_not_fit_stay_apart(shapes):
    inventory = open_source({key: torch.randn(shape) for key, shape in shapes.items()})
    assert [layer.shape for layer in inventory.layers] == list(shapes.values())


@pytest.mark.parametrize(
    "wrap", [parametrizations.orthogonal, lambda m: parametrizations.spectral_norm(parametrizations.orthogonal(m))]
)
def test_a_parametrisation_of_another_kind_is_skipped_in_a_file_and_computed_in_memory(wrap):
    model = nn.Sequential(wrap(nn.Linear(7, 7)), nn.Linear(7, 5))
    assert [layer.name for layer in open_source(model).layers] == ["0", "1"]
    stored = open_source(model.state_dict())
    assert [layer.name for layer in stored.layers] == ["1"]
    assert any("pass the module" in item.reason for item in stored.skipped)

"""The two tensors that weight_norm stores give the effective weight."""

import pytest
import torch
from torch import nn

from htsr.weights import open_source


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_a_state_dict_gives_the_weight_of_the_module(wrap, dim):
    torch.manual_seed(0)
    model = nn.ModuleDict({"conv": wrap(nn.Conv1d(6, 8, 5), dim=dim)})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5).add_(0.1)
    (live,) = open_source(model).layers
    stored = open_source(model.state_dict())
    (layer,) = stored.layers
    assert (
        (layer.name, layer.layer_type, layer.shape)
        == (live.name, live.layer_type, live.shape)
        == ("conv", "conv1d", (8, 6, 5))
    )
    torch.testing.assert_close(layer.load(), live.load())
    assert any("computed from it" in x.reason for x in stored.skipped)


def test_parts_that_do_not_fit_stay_apart():
    inventory = open_source({"fc.weight_v": torch.randn(8, 6), "fc.weight_g": torch.randn(3, 6)})
    assert [layer.name for layer in inventory.layers] == ["fc.weight_v", "fc.weight_g"]

"""WeightWatcher's options, beside WeightWatcher itself where powerlaw 2 lets it compute them."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from htsr.compat import DEFAULT_PARAMS, WeightWatcher
from htsr.compat.crosscheck import quiet_weightwatcher
from htsr.errors import InputError

OWN = {"sv_min", "matrix_rank", "rank_loss"}  # these differ on purpose


def net(seed=0):
    """A network with heavy rows, so that there are fingers to clip."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(24, 32, 2), nn.Conv2d(32, 40, 2), nn.Linear(90, 40), nn.Linear(40, 60))
    with torch.no_grad():
        model[0].weight[2] *= 10
        model[2].weight[3] *= 30
        model[3].weight[:, 5] *= 40
    return model


OPTIONS = {
    "slices": {"pool": False},
    "slices as they are": {"pool": False, "conv2d_norm": False},
    "kernels as they are": {"conv2d_norm": False},
    "one left out": {"xmax": -1},
    "three left out": {"xmax": 3},
    "clipped": {"fix_fingers": "clip_xmax"},
    "clipped early": {"fix_fingers": "clip_xmax", "finger_thresh": 0.2},
    "products": {"intra": True, "sparsify": False},
    "stacked": {"stacked": True},
    "inverse": {"layers": [3, 4], "inverse": True},
    "change": {},  # with a base model
}
DESCRIBES = ("pool", "stacked")


@pytest.fixture(scope="module")
def real():
    """WeightWatcher's own tables and layers."""
    said = {}
    with quiet_weightwatcher() as weightwatcher:
        for name, options in OPTIONS.items():
            base = net(1) if name == "change" else None
            watcher = weightwatcher.WeightWatcher(model=net(), base_model=base)
            said[name] = watcher.analyze(**options)
            told = {key: value for key, value in options.items() if key in DESCRIBES}
            said["describe", name] = watcher.describe(**told)
        for method, percent in (("svd", 0.3), ("svd", -0.1), ("detX", 0.8), ("alpha_min", 0.8)):
            model = weightwatcher.WeightWatcher(model=net()).SVDSmoothing(method=method, percent=percent)
            said[method, percent] = [model[i].weight.detach().double().numpy() for i in (0, 2)]
        layers = weightwatcher.WeightWatcher(model=net()).make_layer_iterator(net())
        said["layers"] = [
            (layer.layer_id, layer.name, layer.longname, layer.N, layer.M, layer.Wmats) for layer in layers
        ]
    return said


@pytest.mark.parametrize("name", OPTIONS)
def test_options_give_the_same_numbers(real, name):
    ours = WeightWatcher(model=net(), base_model=net(1) if name == "change" else None).analyze(**OPTIONS[name])
    theirs = real[name]
    assert list(ours) == list(theirs)
    for column in set(ours) - OWN:
        if pd.api.types.is_numeric_dtype(theirs[column]):
            pair = (ours[column].astype(float), theirs[column].astype(float))
            np.testing.assert_allclose(*pair, rtol=2e-6, atol=1e-9, err_msg=column)
        else:
            assert list(ours[column]) == list(theirs[column]), column


@pytest.mark.parametrize("name", ["slices", "stacked", "change"])
def test_describe_with_options(real, name):
    told = {key: value for key, value in OPTIONS[name].items() if key in DESCRIBES}
    ours = WeightWatcher(model=net(), base_model=net(1) if name == "change" else None).describe(
        **told, savefig="unused"
    )
    pd.testing.assert_frame_equal(ours, real["describe", name], check_dtype=False, check_column_type=False)


@pytest.mark.parametrize(
    ("options", "alpha"),
    [
        ({}, [2.0061041, 5.0621612, 1.940605, 1.7936086]),
        ({"xmax": "force"}, [2.0061041, 4.9327871, 1.940605, 1.7936086]),
        ({"fix_fingers": "xmin_peak"}, [2.0061041, 5.0621612, 1.940605, 1.7936086]),
        ({"fix_fingers": "xmin_peak", "xmin_max": 0.18}, [2.0061041, 5.0621612, 1.940605, 1.6746036]),
    ],
)
def test_fits_that_need_an_old_powerlaw(options, alpha):
    # the numbers are WeightWatcher 0.7.7's with powerlaw 1.5; with powerlaw 2 its alpha is -1
    np.testing.assert_allclose(
        WeightWatcher(model=net()).analyze(pl_package="powerlaw", **options)["alpha"], alpha, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fit": "TPL"}, "truncated_power_law"),
        ({"fit": "E_TPL", "pl_package": "powerlaw"}, "xmin='peak'"),
        ({"fit": "lognormal"}, "expected 'PL'"),
        ({"xmax": "force"}, "pl_package='powerlaw'"),
        ({"xmax": 0}, "expected 'force' or how many"),
        ({"fix_fingers": True}, "expected 'clip_xmax'"),
        ({"fix_fingers": "clip_xmax", "xmax": 2}, "together with xmax"),
        ({"vectors": True}, "vectors=True"),
        ({"peft": True}, "adapter_directory"),
        ({"intra": True, "randomize": True}, "randomize=False"),
        ({"savefig": -1}, "expected savefig"),
        ({"layers": [-3, 4]}, "got both"),
    ],
)
def test_what_is_refused_says_why_and_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        WeightWatcher(model=net()).analyze(**arguments)
    with pytest.raises(NotImplementedError, match="reads a checkpoint where it is"):
        WeightWatcher.extract_pytorch_bins(model_dir="somewhere")


def test_a_layer_without_a_partner_in_the_base_model_is_skipped():
    watcher = WeightWatcher(model=net(), base_model={"2.weight": torch.zeros(40, 90), "3.weight": torch.zeros(9, 9)})
    assert list(watcher.analyze()["longname"]) == ["2"]
    assert "of shape (9, 9) in base_model" in list(watcher.skipped["reason"])
    assert (WeightWatcher(model=net()).analyze(base_model=net())["status"] == "failed").all()


def test_products_without_a_common_side_are_skipped():
    watcher = WeightWatcher(model={"a": torch.randn(20, 30), "b": torch.randn(25, 40), "c": torch.randn(25, 30)})
    assert list(watcher.describe(intra=True)["name"]) == ["2 X 3 "]
    assert "shares no side with a" in list(watcher.skipped["reason"])


def test_layers_one_at_a_time(real):
    layers = list(WeightWatcher().make_layer_iterator(net()))
    for ours, (layer_id, name, longname, N, M, Wmats) in zip(layers, real["layers"], strict=True):
        assert (ours.layer_id, ours.name, ours.longname, ours.N, ours.M) == (layer_id, name, longname, N, M)
        for W, their_W in zip(ours.Wmats, Wmats, strict=True):
            np.testing.assert_array_equal(W, their_W)
    watcher = WeightWatcher(model=net())
    limited = {**DEFAULT_PARAMS, "min_evals": 50, "pool": False, "layer_ids_start": 1}
    assert [layer.layer_id for layer in watcher.make_layer_iterator(params=limited | {"min_evals": 40})] == [4, 5]
    before = layers[2].Wmats[0].copy()
    assert (watcher.apply_permute_W(layers[2]).Wmats[0] != before).any()
    np.testing.assert_array_equal(watcher.apply_unpermute_W(layers[2]).Wmats[0], before)
    delta = list(watcher.make_delta_layer_iterator(net(), net()))
    assert all((W == 0).all() for layer in delta for W in layer.Wmats)
    assert isinstance(watcher.get_framework_layer(layer=3), nn.Linear)
    assert [W.shape for W in watcher.get_Weights(layer=1)] == [(32, 24)] * 4


@pytest.mark.parametrize(("method", "percent"), [("svd", 0.3), ("svd", -0.1), ("detX", 0.8), ("alpha_min", 0.8)])
def test_smoothing(real, method, percent):
    model = net()
    weight = model[2].weight
    assert WeightWatcher(model=model).SVDSmoothing(method=method, percent=percent) is model
    assert model[2].weight is weight
    for number, theirs in zip((0, 2), real[method, percent], strict=True):
        ours = model[number].weight.detach().double().numpy()
        ours, theirs = (W.reshape(*W.shape[:2], -1)[:, :, 0] for W in (ours, theirs))
        assert np.linalg.matrix_rank(ours, tol=1e-4) == np.linalg.matrix_rank(theirs, tol=1e-4)
        assert np.linalg.norm(ours - theirs) < 0.02 * np.linalg.norm(theirs)  # its SVD is a randomised one


@pytest.mark.parametrize("method", ["rmt", "auto"])
def test_smoothing_by_the_bulk_keeps_the_spikes(method):
    torch.manual_seed(0)
    W = torch.randn(80, 60) + 10 * torch.outer(torch.randn(80), torch.randn(60)) / 8
    model = {"w.weight": W.clone()}
    WeightWatcher(model=model).SVDSmoothing(method=method)
    assert torch.linalg.matrix_rank(model["w.weight"]) < 60
    assert torch.linalg.norm(model["w.weight"]) > 0.5 * torch.linalg.norm(W)
    if method == "rmt":
        assert torch.linalg.matrix_rank(model["w.weight"]) == 1


def test_sharpness_takes_off_as_many_directions_as_there_are_traps():
    torch.manual_seed(0)
    W = torch.randn(80, 60)
    trapped = W.clone()
    trapped[3, 4] = 50
    model = {"plain.weight": W, "trapped.weight": trapped}
    WeightWatcher(model=model).SVDSharpness()
    assert torch.linalg.matrix_rank(model["plain.weight"]) == 60
    assert torch.linalg.matrix_rank(model["trapped.weight"]) == 59
    assert torch.linalg.matrix_norm(model["trapped.weight"], 2) < 20


def test_what_cannot_be_replaced():
    fused = nn.MultiheadAttention(16, 2)
    with pytest.raises(InputError, match="only whole weights"):
        WeightWatcher(model=fused).SVDSmoothing(method="svd")
    (layer,) = WeightWatcher().make_layer_iterator({"w": np.ones((10, 9), dtype=np.float32)})
    with pytest.raises(InputError, match=r"shape \(10, 9\)"):
        layer.replace_layer_weights(np.ones((9, 10)))
    layer.replace_layer_weights(np.zeros((10, 9)))
    assert layer.weights.sum() == 0


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({}, True),
        ({"fit": "TPL"}, False),
        ({"fit": "TPL", "pl_package": "powerlaw"}, True),
        ({"xmax": "force"}, False),
        ({"xmax": 0}, False),
        ({"xmax": -1}, True),
        ({"max_N": 10, "max_evals": 100}, False),
        ({"fix_fingers": "clip_xmax", "xmax": 1}, False),
        ({"intra": True}, False),
        ({"savefig": -1}, False),
        ({"layers": [-1, 1]}, False),
        ({"channels": "middle"}, False),
        ({"inverse": True}, False),
        ({"inverse": True, "vectors": False}, True),
    ],
)
def test_valid_params(changes, valid):
    assert WeightWatcher.valid_params(DEFAULT_PARAMS | changes) is valid

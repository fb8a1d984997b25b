"""WeightWatcher's interface, beside the real one."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import htsr
from htsr.compat import WeightWatcher
from htsr.compat.crosscheck import quiet_weightwatcher
from htsr.errors import InputError

# These columns differ on purpose (see the class): ranks depend on the stored precision, sv_min is the smallest of all slices.
OWN = {"sv_min", "matrix_rank", "rank_loss"}


class Net(nn.Module):
    """Every kind of layer that WeightWatcher decomposes as htsr does, with at least 20 eigenvalues."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.emb = nn.Embedding(300, 40)
        self.norm = nn.LayerNorm(40)
        self.conv = nn.Conv2d(16, 32, 3)
        self.wide = nn.Conv2d(32, 24, 3)
        self.block = nn.Sequential(nn.Linear(120, 40), nn.ReLU(), nn.Linear(40, 30))
        self.double = nn.Linear(60, 50).double()
        self.tiny = nn.Linear(40, 4)


@pytest.fixture(scope="module")
def models():
    return Net(0), Net(1)


@pytest.fixture(scope="module")
def real(models):
    """The results of WeightWatcher itself."""
    with quiet_weightwatcher() as weightwatcher:
        watcher = weightwatcher.WeightWatcher(model=models[0])
        said = {"describe": watcher.describe(), "analyze": watcher.analyze(), "summary": watcher.get_summary()}
        said["options"] = watcher.analyze(mp_fit=True, randomize=True, ERG=True)
        said["state dict"] = weightwatcher.WeightWatcher(model=models[0].state_dict()).analyze()
        said["esd"] = {layer: watcher.get_ESD(layer=layer) for layer in (1, "conv", "double")}
        for method in ("raw", "euclidean", "cka"):
            for kind, pair in (("modules", models), ("state dicts", [model.state_dict() for model in models])):
                said[method, kind] = weightwatcher.WeightWatcher().distances(*pair, method=method)
        said["filters"] = {
            repr(f): list(watcher.analyze(layers=f)["longname"])
            for f in ([3, 4], [-3, -4], ["conv2d"], "double", ["-double", "-conv"], ["embedding", "conv2d"], ["2"])
        }
        said["limits"] = list(watcher.analyze(min_evals=45, max_evals=200, max_N=200)["longname"])
        said["start"] = list(watcher.describe(start_ids=1)["layer_id"])
    return said


def assert_same_numbers(ours, theirs, but=()):
    assert list(ours) == list(theirs)
    for column in ours:
        if column in but:
            continue
        if pd.api.types.is_numeric_dtype(theirs[column]):
            np.testing.assert_allclose(
                ours[column].astype(float), theirs[column].astype(float), rtol=2e-6, atol=1e-9, err_msg=column
            )
        else:
            assert list(ours[column]) == list(theirs[column]), column


def test_describe(models, real):
    pd.testing.assert_frame_equal(WeightWatcher(model=models[0]).describe(), real["describe"], check_column_type=False)


def test_analyze(models, real):
    watcher = WeightWatcher(model=models[0])
    details = watcher.analyze()
    assert_same_numbers(details, real["analyze"], but=OWN)
    assert list(details.dtypes) == list(real["analyze"].dtypes)
    assert watcher.get_details() is details
    assert (details["matrix_rank"] == details["num_evals"]).all()
    assert "eigenvalues, fewer than min_evals=8" in dict(watcher.skipped[["name", "reason"]].to_numpy())["tiny"]


def test_analyze_of_a_state_dict(models, real):
    for source in (models[0].state_dict(), {"state_dict": models[0].state_dict()}):
        details = WeightWatcher(model=source).analyze()
        assert_same_numbers(
            details, real["state dict"], but={*OWN, "layer_type"}
        )  # WeightWatcher calls an embedding dense


def test_options_add_the_same_columns(models, real):
    details = WeightWatcher(model=models[0]).analyze(mp_fit=True, randomize=True, ERG=True)
    theirs = real["options"]
    assert list(details) == list(theirs)
    same = [
        "W_scale",
        "detX_num",
        "num_ERG_spikes",
        "ERG_gap",
        "detX_val",
        "detX_val_unrescaled",
        "rand_W_scale",
        "alpha",
    ]
    assert_same_numbers(details[same], theirs[same])
    # the shuffles and the fit differ, so these columns agree only roughly
    for column in (
        "max_rand_eval",
        "ww_softrank",
        "sigma_mp",
        "mp_softrank",
        "bulk_max",
        "rand_sigma_mp",
        "rand_bulk_max",
    ):
        np.testing.assert_allclose(details[column], theirs[column], rtol=0.3, err_msg=column)
    again = WeightWatcher(model=models[0]).analyze(mp_fit=True, randomize=True, ERG=True)
    pd.testing.assert_frame_equal(details, again)


def test_shuffling_finds_a_planted_trap():
    W = torch.randn(120, 100, generator=torch.Generator().manual_seed(0))
    W[3, 4] = 50
    details = WeightWatcher(model={"w": W}).analyze(randomize=True)
    assert details.loc[0, "num_traps"] == 1
    assert details.loc[0, "rand_num_spikes"] == 1


def test_get_summary(models, real):
    watcher = WeightWatcher(model=models[0])
    assert watcher.get_summary() == {}
    watcher.analyze()
    assert list(watcher.get_summary()) == list(real["summary"])
    assert watcher.get_summary() == pytest.approx({k: float(v) for k, v in real["summary"].items()}, rel=1e-6)
    assert watcher.get_summary(watcher.details[:1])["alpha"] == watcher.details.loc[0, "alpha"]


@pytest.mark.parametrize("layer", [1, "conv", "double"])
def test_get_esd(models, real, layer):
    np.testing.assert_allclose(WeightWatcher(model=models[0]).get_ESD(layer=layer), real["esd"][layer], rtol=1e-9)


def test_get_esd_random(models):
    watcher = WeightWatcher(model=models[0])
    shuffled, esd = watcher.get_ESD(layer="conv", random=True), watcher.get_ESD(layer="conv")
    assert shuffled.sum() == pytest.approx(esd.sum(), rel=1e-9)
    assert shuffled.max() != esd.max()
    np.testing.assert_array_equal(shuffled, watcher.get_ESD(layer="conv", random=True))
    np.testing.assert_array_equal(watcher.get_ESD(), watcher.get_ESD(layer="emb"))


@pytest.mark.parametrize("kind", ["modules", "state dicts"])
@pytest.mark.parametrize("method", ["raw", "euclidean", "cka"])
def test_distances(models, real, method, kind):
    pair = models if kind == "modules" else [model.state_dict() for model in models]
    mean_W, mean_b, table = WeightWatcher().distances(*pair, method=method)
    their_W, their_b, theirs = real[method, kind]
    assert list(table) == list(theirs)
    assert table.index.equals(theirs.index)
    assert table.index.name == theirs.index.name
    assert_same_numbers(table.drop(columns="b_shape"), theirs.drop(columns="b_shape"))
    assert (mean_W, mean_b) == pytest.approx((float(their_W), float(their_b)), rel=1e-5)
    assert [str(shape) for shape in table["b_shape"]] == [str(shape).strip("(),") for shape in theirs["b_shape"]]


def test_distances_of_files_and_of_what_does_not_match(models, tmp_path):
    for number, model in enumerate(models):
        save_file(model.state_dict(), tmp_path / f"{number}.safetensors")
    mean_W, mean_b, _ = WeightWatcher().distances(tmp_path / "0.safetensors", tmp_path / "1.safetensors")
    assert mean_W == pytest.approx(WeightWatcher().distances(*models)[0])
    assert np.isnan(mean_b)
    watcher = WeightWatcher()
    watcher.distances({"a": torch.ones(9, 9), "b": torch.ones(9, 9)}, {"a": torch.ones(9, 9), "b": torch.ones(9, 10)})
    assert "of shape (9, 10) in model_2" in list(watcher.skipped["reason"])
    with pytest.raises(InputError, match="no layer of"):
        watcher.distances({"a": torch.ones(9, 9)}, {"b": torch.ones(9, 9)})
    with pytest.raises(ValueError, match="expected method="):
        watcher.distances(*models, method="cosine")


@pytest.mark.parametrize(
    "layers", [[3, 4], [-3, -4], ["conv2d"], "double", ["-double", "-conv"], ["embedding", "conv2d"], ["2"]]
)
def test_filters(models, real, layers):
    assert list(WeightWatcher(model=models[0]).analyze(layers=layers)["longname"]) == real["filters"][repr(layers)]


def test_limits_and_start(models, real):
    watcher = WeightWatcher(model=models[0])
    assert list(watcher.analyze(min_evals=45, max_evals=200, max_N=200)["longname"]) == real["limits"]
    assert list(watcher.describe(start_ids=1)["layer_id"]) == real["start"]


def test_filters_that_match_nothing(models):
    watcher = WeightWatcher(model=models[0])
    for layers, message in (([99], "expected an id"), ("blok", "block")):
        with pytest.raises(InputError, match=message):
            watcher.analyze(layers=layers)
    with pytest.raises(TypeError, match="expected ids, names or types"):
        watcher.analyze(layers=[2.5])
    with pytest.raises(InputError, match=r"is left to analyse: .* fewer than min_evals=9999"):
        watcher.analyze(min_evals=9999)


def test_names_that_are_globs_or_types():
    W = {
        name: torch.randn(20, 20, generator=torch.Generator().manual_seed(i))
        for i, name in enumerate(("dense", "a[1]", "a1", "*"))
    }
    for name in W:
        assert name in list(WeightWatcher(model=W).analyze(layers=[1, 2, 3, 4])["longname"])
    assert list(WeightWatcher(model=W).analyze(layers="a[1]")["longname"]) == ["a[1]"]
    assert list(WeightWatcher(model=W).analyze(layers=["*"])["longname"]) == ["*"]


def test_a_failed_fit_is_missing_and_left_out_of_the_summary():
    W = {"good": torch.randn(60, 40, generator=torch.Generator().manual_seed(0)), "zero": torch.zeros(60, 40)}
    W["nan"] = torch.full((30, 20), float("nan"))
    watcher = WeightWatcher(model=W)
    details = watcher.analyze(mp_fit=True, ERG=True, randomize=True)
    assert list(details["status"]) == ["success", "failed", "failed"]
    assert details["alpha"].isna().tolist() == [False, True, True]
    assert list(details["warning"])[1:] == ["", ""]
    assert watcher.get_summary()["alpha"] == details.loc[0, "alpha"]
    assert details.loc[1, "rank_loss"] == 40
    assert not details.loc[2, "has_esd"]


def test_a_shared_module_has_one_row_and_a_shared_weight_two():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(30, 30, bias=False)
            self.again = self.a
            self.b = nn.Linear(30, 30, bias=False)
            self.b.weight = self.a.weight

    model = Shared()
    with quiet_weightwatcher() as weightwatcher:
        theirs = weightwatcher.WeightWatcher(model=model).analyze()
    ours = WeightWatcher(model=model).analyze()
    assert list(ours["layer_id"]) == list(theirs["layer_id"])
    assert list(ours["longname"]) == ["a", "b"]


def test_arguments_at_their_default_are_accepted(models):
    ours = WeightWatcher(model=models[0])
    same = ours.analyze(fit="PL", pool=True, svd_method="accurate", conv2d_norm=True, fix_fingers=None, base_model=None)
    pd.testing.assert_frame_equal(same, ours.analyze())
    with pytest.raises(TypeError, match="unexpected argument"):
        ours.analyze(nonsense=1)
    with pytest.raises(AttributeError, match="lists the methods"):
        ours.combined_eigenvalues()
    with pytest.raises(TypeError, match="expected a model"):
        WeightWatcher().analyze()


def test_plots(models, tmp_path):
    WeightWatcher(model=models[0]).analyze(layers=[3], plot=True, savefig=str(tmp_path / "a" / "b"))
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["ww.layer3.esd.png"]


def test_models_are_not_changed(models):
    assert not hasattr(models[1].conv, "longname") or isinstance(models[1].conv.longname, str)
    fresh = Net(2)
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    WeightWatcher(model=fresh).analyze(randomize=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in fresh.state_dict().items())
    assert not hasattr(fresh.conv, "longname")


def test_to_weightwatcher(models, real):
    table = htsr.analyze(models[0], convention="weightwatcher", skip="tiny").to_weightwatcher()
    assert_same_numbers(table, real["analyze"], but={*OWN, "layer_id"})
    assert list(table["layer_id"]) == list(range(len(table)))
    own = htsr.analyze(models[0], skip="tiny", randomize=True)
    assert list(own.to_weightwatcher(mp_fit=True, ERG=True, randomize=True)) == list(real["options"])

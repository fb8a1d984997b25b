"""analyze() end to end: agreement with WeightWatcher on a trained model, honesty about what failed, outputs."""

import copy
import json
import logging

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import htsr
from htsr.audit.columns import COLUMNS
from htsr.compat.crosscheck import quiet_weightwatcher
from tests.conftest import pareto, planted


@pytest.fixture(scope="module")
def audit(minilm):
    return htsr.analyze(minilm)


@pytest.fixture(scope="module")
def weightwatcher_details(minilm):
    with quiet_weightwatcher() as weightwatcher:
        return weightwatcher.WeightWatcher(model=load_file(minilm)).analyze(detX=True)


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(40, 24), nn.Linear(24, 64), nn.LayerNorm(64), nn.Linear(64, 24), nn.Linear(24, 1))


def test_minilm_agrees_with_weightwatcher(audit, weightwatcher_details):
    """alpha, D and xmin of every matrix of a trained Transformer, to 1e-8."""
    both = audit.details.merge(weightwatcher_details, on="longname", suffixes=("", "_ww"))
    both = both[both["num_evals"] >= 20]
    assert len(both) == 39
    for name in ("alpha", "D", "xmin", "sigma", "xmax", "log_norm", "stable_rank", "alpha_weighted", "log_alpha_norm"):
        np.testing.assert_allclose(both[name], both[f"{name}_ww"], rtol=1e-8, err_msg=name)
    np.testing.assert_allclose(both["entropy"], both["entropy_ww"], rtol=1e-6)
    for name in ("num_pl_spikes", "num_ERG_spikes", "ERG_gap", "N", "M"):
        assert list(both[name]) == list(both[f"{name}_ww"]), name
    differ = both[both["warning"] != both["warning_ww"]]  # WeightWatcher knows no noise
    assert list(differ["longname"]) == ["pooler.dense"]
    assert differ[["warning", "warning_ww"]].to_numpy().tolist() == [["noise", "under-trained"]]


def test_minilm_summary_agrees_with_weightwatcher(audit, weightwatcher_details):
    summary = audit.summary()
    for name in ("alpha", "alpha_weighted", "log_norm", "log_spectral_norm", "log_alpha_norm", "stable_rank"):
        assert summary[name] == pytest.approx(weightwatcher_details[name].mean(), rel=1e-8)


def test_every_tensor_of_a_file_is_accounted_for(audit, minilm):
    assert len(audit.details) + len(audit.skipped) == len(load_file(minilm))


def test_module_state_dict_and_file_give_the_same_rows(tmp_path):
    model = small_model()
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    tables = [
        htsr.analyze(source).details for source in (model, model.state_dict(), tmp_path, tmp_path / "m.safetensors")
    ]
    same = [table.drop(columns="layer_type") for table in tables]  # a bare tensor does not say that it is an embedding
    for table in same[1:]:
        pd.testing.assert_frame_equal(same[0], table)


def test_columns_and_types_do_not_depend_on_the_model(tmp_path):
    for source in (small_model(), {"v": torch.zeros(3)}, {"w": torch.zeros(30, 20)}):
        details = htsr.analyze(source).details
        assert list(details.columns) == [column.name for column in COLUMNS]
        for column in COLUMNS:
            assert details[column.name].dtype == pd.Series([], dtype=column.dtype).dtype


def test_a_second_call_gives_the_same_rows():
    model = small_model()
    pd.testing.assert_frame_equal(htsr.analyze(model).details, htsr.analyze(model).details)


def test_the_model_is_not_changed():
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(30, 20)), nn.Linear(20, 10)).train()
    before, attributes = copy.deepcopy(model.state_dict()), [sorted(vars(module)) for module in model.modules()]
    htsr.analyze(model)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert attributes == [sorted(vars(module)) for module in model.modules()]


def test_one_nan_layer_does_not_take_the_others_with_it():
    model = small_model()
    reference = htsr.analyze(model).details.set_index("name")
    with torch.no_grad():
        model[1].weight[3, 4] = float("nan")
        model[1].weight[0, 0] = float("inf")
    details = htsr.analyze(model).details.set_index("name")
    assert details.loc["1", "status"] == "failed"
    assert details.loc["1", "reason"] == "non-finite (2 of 1536)"
    assert np.isnan(details.loc["1", "alpha"])
    assert details.loc["1", "warning"] == ""
    others = ["0", "3", "4"]
    pd.testing.assert_frame_equal(details.loc[others], reference.loc[others])
    assert "1" not in htsr.analyze(model).spectra


def test_a_failed_fit_is_never_a_number():
    a = htsr.analyze(small_model())
    row = a.details.set_index("name").loc["4"]
    assert (row["status"], row["warning"]) == ("failed", "")
    assert np.isnan(row["alpha"])
    assert row["num_pl_spikes"] is pd.NA
    assert row["stable_rank"] == pytest.approx(1)
    assert a.summary()["num_failed"] == 1
    assert a.summary()["alpha"] == a.details["alpha"].dropna().mean()


def test_a_zero_layer_is_a_failed_row():
    row = htsr.analyze({"w": torch.zeros(30, 20)}).details.iloc[0]
    assert row["status"] == "failed"
    assert row["hard_rank"] == 0
    assert np.isnan(row["log_norm"])


def test_tied_weights_are_counted_once():
    shared = torch.randn(60, 30, generator=torch.Generator().manual_seed(0))
    other = torch.randn(60, 30, generator=torch.Generator().manual_seed(1))
    a = htsr.analyze({"wte.weight": shared, "fc.weight": other, "head.weight": shared})
    assert list(a.details["tied_to"]) == ["", "", "wte"]
    assert a.details.loc[2, "alpha"] == a.details.loc[0, "alpha"]
    assert a.summary()["num_tied"] == 1
    assert a.summary()["alpha"] == a.details["alpha"][:2].mean()


def test_warnings_are_weightwatchers():
    tensors = {f"alpha{alpha}": planted(pareto(alpha, 400), 500) for alpha in (1.5, 3.0, 9.0)}
    assert list(htsr.analyze(tensors).details["warning"]) == ["over-trained", "", "under-trained"]


def test_weightwatcher_convention():
    """Conv2d eigenvalues are halved, and fits leave out what is below 1e-5."""
    conv = {"w": torch.randn(32, 16, 3, 3, generator=torch.Generator().manual_seed(0))}
    ours, theirs = htsr.analyze(conv).details.iloc[0], htsr.analyze(conv, convention="weightwatcher").details.iloc[0]
    assert theirs["spectral_norm"] == pytest.approx(ours["spectral_norm"] / 2)
    assert theirs["alpha"] == pytest.approx(ours["alpha"])
    tiny = {"w": planted(pareto(2.5, 100), 150) * 1e-3}
    assert (
        htsr.analyze(tiny).details.loc[0, "num_pl_spikes"]
        == htsr.analyze({"w": tiny["w"] * 1e3}).details.loc[0, "num_pl_spikes"]
    )
    fit = htsr.analyze(tiny, convention="weightwatcher")["w"].fit
    assert fit.n == int((htsr.esd(tiny["w"]) > 1e-5).sum()) < 100


@pytest.mark.parametrize(("argument", "value"), [("convention", "ww"), ("xmin", "best"), ("xmin", -1.0)])
def test_unknown_settings_are_errors(argument, value):
    with pytest.raises(ValueError, match=f"expected {argument}"):
        htsr.analyze(small_model(), **{argument: value})


def test_one_layer_by_name(audit):
    layer = audit["pooler.dense"]
    assert layer.row["alpha"] == layer.fit.alpha
    assert layer.spectrum is audit.spectra["pooler.dense"]
    with pytest.raises(KeyError, match=r"expected one of the 40 layers, embeddings\.position_embeddings"):
        audit["pooler"]


def test_bulk_can_be_left_out():
    assert htsr.analyze(small_model(), bulk=False).details["sigma_mp"].isna().all()
    assert htsr.analyze(small_model()).details["sigma_mp"].notna().any()


def test_repr_shows_the_numbers_and_the_reasons(audit):
    text, html = repr(audit), audit._repr_html_()
    for shown in (text, html):
        assert "40 layers (1 failed, 0 tied), 64 skipped" in shown
        assert "median 3.55" in shown
        assert "failed: 2 distinct positive values" in shown
        assert "pooler.dense" in shown
    assert "nan" not in text.lower()


def test_csv_and_parquet_round_trip(audit, tmp_path):
    from_csv = pd.read_csv(audit.save(tmp_path / "a.csv"), keep_default_na=False, na_values={"alpha": [""]})
    assert list(from_csv["alpha"].dropna()) == list(audit.details["alpha"].dropna())
    pd.testing.assert_frame_equal(pd.read_parquet(audit.save(tmp_path / "a.parquet")), audit.details)


def test_json_is_strict_and_exact(audit, tmp_path):
    text = audit.save(tmp_path / "a.json").read_text()
    assert "NaN" not in text
    document = json.loads(text)
    assert len(document["details"]) == 40
    assert len(document["skipped"]) == 64
    alphas = [row["alpha"] for row in document["details"]]
    assert alphas[1] is None
    assert [a for a in alphas if a is not None] == list(audit.details["alpha"].dropna())


@pytest.mark.parametrize(
    ("name", "message"), [("a.xlsx", "expected a suffix among .htsr"), ("no/a.csv", "does not exist")]
)
def test_save_refuses_what_it_cannot_write(audit, tmp_path, name, message):
    with pytest.raises(htsr.InputError, match=message):
        audit.save(tmp_path / name)


def test_import_touches_no_global_state():
    """Root logger and warning filters are left alone, here by the modules of htsr themselves."""
    assert logging.getLogger("htsr").handlers == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(256, 256), (300, 100)])
def test_orthogonal_matrices_have_no_tail_in_any_type(dtype, shape):
    """Their eigenvalues differ by the rounding of the stored type alone."""
    torch.manual_seed(0)
    fit = htsr.analyze({"w": nn.init.orthogonal_(torch.empty(shape)).to(dtype)})["w"].fit
    assert fit.status == "failed"
    assert "equal to within" in fit.reason


def test_resampled_columns():
    tensors = {f"alpha{alpha}": planted(pareto(alpha, 200), 250) for alpha in (2.0, 4.0)}
    a = htsr.analyze(tensors, bootstrap=100, seed=3)
    row = a.details.set_index("name").loc["alpha4.0"]
    assert row["alpha_low"] < row["alpha"] < row["alpha_high"]
    assert 0 <= row["goodness_of_fit"] <= 1
    assert htsr.analyze(tensors).details["alpha_low"].isna().all()
    alone = htsr.analyze(tensors, layers="alpha4.0", bootstrap=100, seed=3).details.iloc[0]
    assert (alone["alpha_low"], alone["goodness_of_fit"]) == (row["alpha_low"], row["goodness_of_fit"])
    other = htsr.analyze(tensors, layers="alpha4.0", bootstrap=100, seed=4).details.iloc[0]
    assert other["alpha_low"] != row["alpha_low"]


def test_alternatives_column():
    values = torch.tensor(np.random.default_rng(0).exponential(size=300) + 1.0).sort().values
    tensors = {"pareto": planted(pareto(2.5, 300), 300), "exponential": planted(values, 300)}
    details = htsr.analyze(tensors, alternatives=True, xmin=1.0).details.set_index("name")
    assert details.loc["pareto", "alternative"] == ""
    assert details.loc["exponential", "alternative"] != ""
    assert details.loc["exponential", "alternative_p_value"] < 0.1


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8(gaussian, dtype):
    row = htsr.analyze({"w": gaussian.to(dtype)})["w"].row
    assert row["status"] == "success"
    assert row["log_norm"] == htsr.analyze({"w": gaussian.to(dtype).float()})["w"].row["log_norm"]


@pytest.mark.parametrize(
    ("dtype", "shape", "options"),
    [
        (torch.float8_e4m3fn, (36, 40), {}),
        (torch.float8_e5m2, (12, 10, 3, 3), {"convention": "weightwatcher"}),
        (torch.float8_e4m3fnuz, (40, 36), {"vectors": True, "randomize": True}),
        (torch.float8_e5m2fnuz, (12, 10, 3, 3), {"vectors": True, "alternatives": True}),
    ],
)
def test_8_bit_floats_fill_every_cell(dtype, shape, options):
    """From 32 columns on, matrices are also compared with fixed bases."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for values in (weight, weight.abs(), weight * 0):
        narrow, wide = (htsr.analyze({"w": W}, **options)["w"].row for W in (values.to(dtype), values))
        assert narrow["status"] == wide["status"]
        assert {name for name, cell in wide.items() if not pd.isna(cell)} <= {
            name for name, cell in narrow.items() if not pd.isna(cell)
        }
        assert htsr.compare({"w": values.to(dtype)}, {"w": values.to(dtype)}).details.loc[0, "hard_rank_of_delta"] == 0


W = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (12, 9, 3), (12, 9, 3, 3)])
@pytest.mark.parametrize("kind", [lambda T: T, lambda T: T.numpy(), nn.Parameter, lambda T: T.bfloat16()])
def test_one_array_is_a_layer_called_weight(shape, kind):
    array = kind(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    a, named = htsr.analyze(array), htsr.analyze({"weight": array})
    assert list(a.keys()) == ["weight"]
    pd.testing.assert_frame_equal(a.details, named.details)
    assert " x ".join(map(str, shape)) in a.source
    assert repr(a).startswith(a.source)


@pytest.mark.parametrize("collection", [list, tuple])
def test_arrays_in_a_list_are_called_by_their_positions(collection):
    arrays = collection([W, W.numpy().T.copy(), torch.zeros(3), W])
    a = htsr.analyze(arrays)
    assert list(a.keys()) == ["0", "1", "3"]
    assert list(a.details["tied_to"]) == ["", "", "0"]
    assert a.skipped.to_dict("records") == [{"name": "2", "shape": "3", "reason": "1-D: not a matrix"}]
    named = htsr.analyze({str(number): array for number, array in enumerate(arrays)})
    pd.testing.assert_frame_equal(a.details, named.details)
    assert htsr.compare(arrays, [2 * array for array in arrays]).details["status"].tolist() == ["changed"] * 3


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (torch.zeros(3), htsr.InputError, r"two dimensions or more, got an array of shape \(3,\)"),
        (np.array(3.0), htsr.InputError, r"got an array of shape \(\)"),
        ([], htsr.InputError, "got an empty one"),
        ([W, "a.safetensors"], TypeError, "list of arrays or a list of paths, got str at 1"),
        (["a.safetensors", W], TypeError, "list of arrays or a list of paths, got str at 0"),
        ([nn.Linear(3, 2)], TypeError, "got Linear at 0"),
        ([[1.0, 2.0], [3.0, 4.0]], TypeError, "got list at 0"),
        (3, TypeError, "an array, a path to a checkpoint file or directory, or a list of arrays or of paths, got int"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_what_is_no_source(source, error, message):
    with pytest.raises(error, match=message):
        htsr.analyze(source)


@pytest.mark.parametrize("names", [("a.safetensors", "b.safetensors"), ("1/m.safetensors", "2/m.safetensors")])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_list_of_paths_is_one_analysis(tmp_path, names, n_jobs):
    model = nn.ModuleDict({"emb": nn.Embedding(50, 30), "head": nn.Linear(30, 50)})
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, path)
    a = htsr.analyze(paths, n_jobs=n_jobs)
    assert list(a.keys()) == [f"{name}:{layer}" for name in names for layer in ("emb", "head")]
    assert list(a.details["longname"]) == list(a.details["name"])
    assert list(a.skipped["name"]) == [f"{name}:head.bias" for name in names]
    alone = htsr.analyze(paths[1]).details
    numbers = list(alone.select_dtypes("number"))
    pd.testing.assert_frame_equal(a.details[numbers][2:].reset_index(drop=True), alone[numbers])
    assert all(str(path) in a.source for path in paths)
    assert len(htsr.analyze(paths, layers=f"{names[0]}:*").details) == 2
    assert len(htsr.analyze([str(path) for path in paths]).details) == 4


def test_lists_of_paths_are_checked(tmp_path):
    save_file({"w": W}, tmp_path / "m.safetensors")
    with pytest.raises(htsr.InputError, match="got one of them twice"):
        htsr.analyze([tmp_path / "m.safetensors", str(tmp_path / "m.safetensors")])
    with pytest.raises(FileNotFoundError):
        htsr.analyze([tmp_path / "m.safetensors", tmp_path / "n.safetensors"])
    save_file({"w": W}, tmp_path / "n.safetensors")
    with pytest.raises(htsr.InputError, match="needs a source of one path"):
        htsr.analyze([tmp_path / "m.safetensors", tmp_path / "n.safetensors"], journal=tmp_path / "kept")


def test_ties_stay_inside_their_checkpoint(tmp_path):
    for name in ("a.pt", "b.pt"):
        torch.save({"wte.weight": W, "head.weight": W}, tmp_path / name)
    a = htsr.analyze([tmp_path / "a.pt", tmp_path / "b.pt"])
    assert list(a.details["tied_to"]) == ["", "a.pt:wte", "", "b.pt:wte"]
    assert a["b.pt:head"].row["alpha"] == a["b.pt:wte"].row["alpha"]


@pytest.mark.parametrize("weight", [nn.Linear(3, 2), {"w": W}, "m.safetensors", [nn.Linear(3, 2)], None, object()])
def test_esd_takes_one_weight(weight):
    with pytest.raises(
        TypeError, match=r"expected one weight, a tensor or array .*got an object of type .*; use htsr\.analyze"
    ):
        htsr.esd(weight)


@pytest.mark.parametrize("weight", [W, W.numpy(), W.tolist(), np.asfortranarray(W.numpy())])
def test_esd_takes_whatever_is_an_array(weight):
    assert np.allclose(htsr.esd(weight), np.linalg.svd(W.double().numpy(), compute_uv=False)[::-1] ** 2)


@pytest.mark.parametrize("argument", ["n_jobs", "min_eigenvalues"])
@pytest.mark.parametrize("value", ["2", 2.0, True, [1]])
def test_what_is_no_whole_number(argument, value):
    with pytest.raises(TypeError, match=f"expected {argument} to be a whole number, got {type(value).__name__}"):
        htsr.analyze({"w": W}, **{argument: value})


@pytest.mark.parametrize(("argument", "value"), [("n_jobs", 0), ("min_eigenvalues", -1)])
def test_numbers_out_of_range(argument, value):
    with pytest.raises(ValueError, match=f"expected {argument} to be a"):
        htsr.analyze({"w": W}, **{argument: value})

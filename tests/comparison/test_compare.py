"""Two sources side by side, against closed forms."""

import importlib
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import htsr
from htsr.comparison.layer import COMPARISON_COLUMNS
from htsr.errors import InputError
from htsr.weights import open_source
from tests.conftest import pareto, planted


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_planted_change():
    """The change is planted: its eigenvalues, norms and tail are known."""
    evals = pareto(2.5, 200) * 1e-4
    W, change = normal(300, 200).double(), planted(evals, 300)
    c = htsr.compare({"w": W}, {"w": W + change})
    row = c["w"].row
    assert row["frobenius"] == pytest.approx(math.sqrt(evals.sum()), rel=1e-9)
    assert row["relative_change"] == pytest.approx(math.sqrt(evals.sum()) / float(W.norm()), rel=1e-9)
    assert row["spectral"] == pytest.approx(math.sqrt(evals.max()), rel=1e-9)
    assert row["relative_spectral"] == pytest.approx(row["spectral"] / float(torch.linalg.matrix_norm(W, 2)), rel=1e-9)
    np.testing.assert_allclose(c.delta.spectra["w"].eigenvalues, evals, rtol=1e-6)
    assert row["alpha_of_delta"] == pytest.approx(htsr.fit_power_law(evals.numpy()).alpha, rel=1e-4)
    assert row["alpha_a"] == htsr.analyze({"w": W})["w"].row["alpha"]
    assert row["alpha_b"] == htsr.analyze({"w": W + change})["w"].row["alpha"]
    assert row["alpha_change"] == row["alpha_b"] - row["alpha_a"]
    assert row["status"] == "changed"


def test_a_merged_lora_changes_by_its_rank_whatever_the_precision():
    base = nn.Sequential(nn.Linear(120, 90), nn.Linear(90, 70)).requires_grad_(False)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        merged = {name: tensor.clone() for name, tensor in base.state_dict().items()}
        merged["0.weight"] += 0.1 * normal(90, 6) @ normal(6, 120, seed=1)
        c = htsr.compare(base.to(dtype), {name: tensor.to(dtype) for name, tensor in merged.items()})
        assert c["0"].row["hard_rank_of_delta"] == 6, dtype
        assert list(c.details["status"]) == ["changed", "unchanged"]
        base.float()


def test_a_low_rank_is_no_alarm():
    """A merged LoRA, and the gradient steps of a small batch, change a weight by a low rank: that is no rank collapse."""
    base = {"w": normal(120, 90), "v": normal(120, 90, seed=3)}
    c = htsr.compare(base, base | {"w": base["w"] + 0.1 * normal(120, 6, seed=1) @ normal(6, 90, seed=2)})
    assert c["w"].row["phase_of_delta"] == "low-rank"
    assert set(c.findings["severity"]) == {"note"}
    assert set(c.findings["kind"]) == {"low-rank"}
    assert not any("ollapse" in text for text in (c.verdict, repr(c), c.delta.verdict, str(c.delta.findings)))
    assert c.verdict.startswith("merged-lora: 1 of 2 matrices changed by exactly rank 6")
    assert "most in w" in c.verdict


def test_the_verdict_names_what_was_left_out():
    bad = normal(30, 20)
    bad[0, 0] = math.nan
    a = {"x": normal(30, 20), "y": normal(30, 20), "z": normal(40, 20)}
    c = htsr.compare(a, {"x": bad, "y": normal(30, 20, seed=1)}, bulk=False)
    assert c.findings["kind"].tolist() == ["not-compared", "replaced"]  # the worst first
    assert c.verdict.endswith("1 could not be compared: x; 1 has no partner of the same name and shape: z.")
    assert len(c.verdict.splitlines()) == 1


def test_only_what_could_be_compared_is_called_identical():
    W, bad = normal(30, 20), torch.full((30, 20), math.nan)
    a = {"x": W, "y": W[:25].clone()}
    alone = htsr.compare(a | {"z": W + 1}, a, bulk=False)
    assert alone.verdict.startswith("identical: All 2 matrices that both have are equal in A and B")
    assert alone.verdict.endswith("1 has no partner of the same name and shape: z.")
    failed = htsr.compare(a | {"z": W + 1}, a | {"z": bad}, bulk=False)
    assert failed.verdict.startswith("identical: All 2 matrices that could be compared are equal")
    assert failed.verdict.endswith("1 could not be compared: z.")


def test_the_verdict_ranks_layers_only_where_they_differ():
    a = {name: normal(30, 20, seed=seed) for seed, name in enumerate("xyz")}
    by = {"x": 0.02, "y": 0.02, "z": 0.02}
    assert htsr.compare(a, {name: (1 + by[name]) * W for name, W in a.items()}, bulk=False).verdict.endswith(
        "The change is 2 % of the weights by norm."
    )
    by["y"] = 0.04
    assert (
        "most in y (4 %), " in htsr.compare(a, {name: (1 + by[name]) * W for name, W in a.items()}, bulk=False).verdict
    )


def test_a_change_that_is_noise_is_called_so():
    W = normal(200, 150)
    noise = htsr.compare({"w": W}, {"w": W + 0.01 * normal(200, 150, seed=2)})
    assert noise["w"].row["num_spikes_of_delta"] == 0
    assert noise["w"].row["phase_of_delta"] == "random-like"
    assert noise["w"].row["null_p_value_of_delta"] > 0.05
    assert noise["w"].row["null_alpha_of_delta"] == htsr.analyze({"w": W})["w"].row["null_alpha"]
    assert "looks like noise" in noise["w"].row["reason"]
    spiked = htsr.compare({"w": W}, {"w": W + 0.01 * normal(200, 150, seed=2) + 0.01})
    assert spiked["w"].row["num_spikes_of_delta"] == 1
    assert spiked["w"].row["reason"] == ""


def test_a_change_that_is_rounding_is_called_so():
    W = normal(200, 150)
    row = htsr.compare({"w": W}, {"w": W.bfloat16()})["w"].row
    assert row["rounding"] == 1
    assert row["hard_rank_of_delta"] == 0
    assert row["frobenius"] == pytest.approx(float((W - W.bfloat16().float()).norm()), rel=1e-6)
    assert row["spectral"] == pytest.approx(float(torch.linalg.matrix_norm(W - W.bfloat16().float(), 2)), rel=1e-6)
    assert "stored as float32 in A, as bfloat16 in B" in row["reason"]
    assert "rounding" in row["reason"]


def test_nothing_changed():
    model = nn.Sequential(nn.Conv2d(8, 12, 3), nn.Linear(60, 40))
    c = htsr.compare(model, model.state_dict())
    assert list(c.details["status"]) == ["unchanged", "unchanged"]
    assert list(c.details["relative_change"]) == [0, 0]
    np.testing.assert_allclose(c.details[["cka", "cka_uncentred", "overlap_out", "overlap_in"]], 1)
    np.testing.assert_allclose(c.details[["angle_out", "angle_in"]], 0, atol=1e-5)
    assert c.details["alpha_of_delta"].isna().all()
    assert c.summary()["relative_change"] == 0
    assert c.verdict.startswith("identical: All 2 matrices are equal in A and B")
    assert c.findings.empty


def test_convolutions_by_slices_and_unfolded():
    W = normal(12, 8, 3, 3)
    change = torch.zeros(12, 8, 3, 3)
    change[:, :, 1, 2] = 0.5 * normal(12, 8, seed=2)
    row = htsr.compare({"c": W}, {"c": W + change})["c"].row
    assert row["spectral"] == pytest.approx(float(torch.linalg.matrix_norm(change[:, :, 1, 2], 2)), rel=1e-5)
    assert row["frobenius"] == pytest.approx(float(change.norm()), rel=1e-5)
    X, Y = (T.flatten(1) - T.flatten(1).mean(0) for T in (W, W + change))
    assert row["cka"] == pytest.approx(float((X.mT @ Y).norm() ** 2 / (X.mT @ X).norm() / (Y.mT @ Y).norm()), rel=1e-5)


def test_layers_without_a_partner_are_listed_with_the_reason(tmp_path):
    a = {
        "same": normal(30, 20),
        "shape": normal(30, 20),
        "gone": normal(30, 20),
        "pre.x": normal(25, 20),
        "h": normal(9, 9),
    }
    b = {
        "same": normal(30, 20, seed=1),
        "shape": normal(30, 21),
        "new": normal(9, 8),
        "y.pre.x": normal(25, 20),
        "h": normal(9),
    }
    a["bias"] = b["bias"] = normal(30)
    save_file(b, tmp_path / "b.safetensors")
    c = htsr.compare(a, tmp_path / "b.safetensors")
    assert list(c.details["name"]) == ["same"]
    reasons = {row["name"]: (row["source"], row["reason"]) for row in c.unmatched.to_dict("records")}
    assert reasons == {
        "shape": ("both", "30 x 20 in A, 30 x 21 in B"),
        "gone": ("A", "no such name in B"),
        "new": ("B", "no such name in A"),
        "pre.x": ("A", "no such name in B, which has y.pre.x of the same shape"),
        "y.pre.x": ("B", "no such name in A, which has pre.x of the same shape"),
        "h": ("A", "not analysed in B: 1-D: not a matrix"),
    }
    assert list(c.skipped[c.skipped["name"] == "bias"]["source"]) == ["both"]


def test_nothing_in_common():
    with pytest.raises(InputError, match="has a partner of the same name and shape"):
        htsr.compare({"a": normal(30, 20)}, {"b": normal(30, 20)})
    with pytest.raises(InputError, match="matches none"):
        htsr.compare({"a": normal(30, 20)}, {"a": normal(30, 20)}, layers="z*")
    for rank, error in ((0, ValueError), (-1, ValueError), (2.5, TypeError), (True, TypeError), ("3", TypeError)):
        with pytest.raises(error, match="expected rank to be a whole number"):
            htsr.compare({"a": normal(30, 20)}, {"a": normal(30, 20)}, rank=rank)


def test_what_is_not_finite_leaves_the_rest():
    bad = normal(30, 20)
    bad[0, 0] = float("nan")
    c = htsr.compare({"x": normal(30, 20), "y": normal(30, 20)}, {"x": bad, "y": normal(30, 20, seed=1)})
    assert list(c.details["status"]) == ["failed", "changed"]
    assert c["x"].row["reason"] == "B: non-finite (1 of 600)"
    assert c["x"].row["alpha_a"] > 1
    assert math.isnan(c.details.loc[0, "frobenius"])
    assert "failed: B: non-finite" in repr(c)
    assert c.summary()["num_failed"] == 1


def test_what_cannot_be_read_leaves_the_rest(monkeypatch):
    def load():
        raise ValueError("packed in 3 bits: no reader")

    a = {"x": normal(30, 20), "y": normal(30, 20)}
    inventory = open_source(a)
    broken = replace(inventory, layers=[replace(inventory.layers[0], load=load), inventory.layers[1]])
    monkeypatch.setattr(
        importlib.import_module("htsr.comparison.compare"),
        "open_source",
        lambda source, **options: broken if source is a else open_source(source, **options),
    )
    c = htsr.compare(a, {"x": normal(30, 20), "y": normal(30, 20, seed=1)})
    assert list(c.details["status"]) == ["failed", "changed"]
    assert c["x"].row["reason"] == "packed in 3 bits: no reader"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.zeros(30, 20), normal(30, 20)),
        (normal(30, 20), torch.zeros(30, 20)),
        (torch.zeros(30, 20), torch.zeros(30, 20)),
        (normal(2, 20), normal(2, 20, seed=1)),
        (normal(30, 20) * 1e-30, normal(30, 20, seed=1) * 1e-30),
        (normal(30, 20), normal(30, 20).half()),
        (normal(30, 20), normal(30, 20).to(torch.float8_e4m3fn)),
        (normal(30, 20).to(torch.float8_e4m3fn), normal(30, 20).to(torch.float8_e4m3fn)),
        (normal(30, 20).double() * 1e150, -normal(30, 20).double() * 1e150),
        (torch.full((30, 20), 3e38), torch.full((30, 20), -3e38)),
        (normal(30, 20).numpy(), normal(30, 20).numpy()[:, ::-1]),
    ],
)
def test_awkward_weights(a, b, tmp_path):
    c = htsr.compare({"w": a}, {"w": b})
    assert len(c.details) == 1
    assert c.details.loc[0, "status"] in ("changed", "unchanged", "failed")
    for suffix in (".html", ".csv", ".json", ".parquet"):
        c.save(tmp_path / f"c{suffix}")
    repr(c), c._repr_html_(), c.summary()


def test_tied_layers_are_compared_once():
    def tied(seed):
        model = nn.Sequential(nn.Embedding(50, 30), nn.Linear(30, 50, bias=False))
        model[0].weight.data = normal(50, 30, seed=seed)
        model[1].weight = model[0].weight
        return model

    c = htsr.compare(tied(0), tied(1))
    assert list(c.details["tied_to"]) == ["", "0"]
    assert c.details.loc[0, "frobenius"] == c.details.loc[1, "frobenius"]
    assert list(c.details["layer_type"]) == ["embedding", "dense"]
    assert c.summary()["num_tied"] == 1
    assert list(c.most_changed()["name"]) == ["0"]
    untied = htsr.compare(tied(0), {"0.weight": normal(50, 30, seed=1), "1.weight": normal(50, 30, seed=2)})
    assert list(untied.details["tied_to"]) == ["", ""]
    assert untied.details["frobenius"].nunique() == 2


def test_models_are_not_changed():
    a, b = nn.Linear(30, 20), nn.Linear(30, 20)
    before = [T.clone() for T in (a.weight, b.weight)]
    htsr.compare(a, b)
    assert torch.equal(a.weight, before[0])
    assert torch.equal(b.weight, before[1])


@pytest.fixture(scope="module")
def comparison():
    W = {name: normal(60, 40, seed=i) for i, name in enumerate("xyz")}
    return htsr.compare(
        W, {"x": W["x"] + 0.1 * normal(60, 40, seed=9), "y": 2 * W["y"], "z": W["z"], "n": normal(9, 9)}
    )


def test_what_changed_most(comparison):
    assert list(comparison.most_changed(2)["name"]) == ["y", "x"]
    assert comparison["y"].row["relative_change"] == pytest.approx(1)
    assert comparison["y"].row["cka"] == pytest.approx(1)
    assert list(comparison.most_changed(1, by="alpha_change")["name"]) == ["x"]
    with pytest.raises(ValueError, match="numeric columns"):
        comparison.most_changed(by="name")


def test_summary(comparison):
    summary = comparison.summary()
    counts = ("num_layers", "num_unchanged", "num_failed", "num_tied", "num_unmatched", "num_skipped")
    assert [summary[name] for name in counts] == [3, 1, 0, 0, 1, 0]
    W = [normal(60, 40, seed=i) for i in range(3)]
    change = math.hypot(float(0.1 * normal(60, 40, seed=9).norm()), float(W[1].norm()))
    assert summary["relative_change"] == pytest.approx(change / float(torch.cat(W).norm()), rel=1e-5)


def test_formats(comparison, tmp_path):
    paths = {suffix: comparison.save(tmp_path / f"c{suffix}") for suffix in (".html", ".csv", ".json", ".parquet")}
    columns = [column.name for column in COMPARISON_COLUMNS]
    assert list(comparison.details) == columns
    assert list(pd.read_csv(paths[".csv"])) == columns
    pd.testing.assert_frame_equal(pd.read_parquet(paths[".parquet"]), comparison.details)
    document = json.loads(paths[".json"].read_text())
    assert [row["name"] for row in document["details"]] == ["x", "y", "z"]
    assert document["unmatched"][0]["reason"] == "no such name in A"
    assert document["details"][2]["alpha_of_delta"] is None
    assert "no such name in A" in paths[".html"].read_text()
    with pytest.raises(InputError, match="expected a suffix"):
        comparison.save(tmp_path / "c.docx")


def test_parts(comparison):
    assert [layer.name for layer in comparison] == ["x", "y", "z"]
    assert comparison.delta["x"].plot() is not None
    assert len(comparison["x"].angles_in) == 10
    with pytest.raises(KeyError, match="expected one of the 3 layers"):
        comparison["n"]
    assert len(htsr.compare({"w": normal(30, 20)}, {"w": normal(30, 20, seed=1)}, rank=3)["w"].angles_out) == 3


def test_the_same_call_gives_the_same_table(comparison):
    W = {name: normal(60, 40, seed=i) for i, name in enumerate("xyz")}
    again = htsr.compare(
        W, {"x": W["x"] + 0.1 * normal(60, 40, seed=9), "y": 2 * W["y"], "z": W["z"], "n": normal(9, 9)}
    )
    pd.testing.assert_frame_equal(again.details, comparison.details)


def test_an_adapter_stands_for_what_it_makes_of_its_base(tmp_path):
    """LoRA: W + lora_alpha / r * B A."""
    base = {"q_proj.weight": normal(24, 16), "head.weight": normal(10, 24)}
    A, B = normal(3, 16, seed=1), normal(24, 3, seed=2)
    names = ("base_model.model.q_proj.lora_A.weight", "base_model.model.q_proj.lora_B.weight")
    save_file(dict(zip(names, (A, B), strict=True)), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 3, "lora_alpha": 6}))
    c = htsr.compare(base, tmp_path)
    assert list(c.details["name"]) == ["q_proj", "head"]
    assert list(c.details["status"]) == ["changed", "unchanged"]
    assert c["q_proj"].row["hard_rank_of_delta"] == 3
    assert c["q_proj"].row["frobenius"] == pytest.approx(float((2 * B @ A).norm()), rel=1e-5)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_jobs_and_threads_change_no_row(n_jobs, tmp_path):
    """Layers have the same rows in the same order, wherever they are compared; a tied one repeats its first layer's."""
    shapes = {"z": (40, 30), "wide": (1600, 800), "a": (30, 40), "conv": (8, 6, 3, 3)}  # one of them is no small one
    a = {name: normal(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}
    b = {name: W + 0.1 * normal(*W.shape, seed=9) for name, W in a.items()}
    for name, weights in (("a", a), ("b", b)):
        save_file(weights, tmp_path / f"{name}.safetensors")
    expected = htsr.compare(a | {"tied": a["a"]}, b | {"tied": b["a"]}, bulk=False)
    found = htsr.compare(a | {"tied": a["a"]}, b | {"tied": b["a"]}, bulk=False, n_jobs=n_jobs, device="cpu")
    assert list(found.keys()) == [*shapes, "tied"]
    pd.testing.assert_frame_equal(found.details, expected.details, rtol=1e-9)
    assert found.kind == expected.kind
    of_files = htsr.compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors", bulk=False, n_jobs=n_jobs)
    assert sorted(of_files.keys()) == sorted(shapes)


def test_jobs_and_devices_are_checked():
    w = {"w": normal(30, 20)}
    with pytest.raises(ValueError, match="n_jobs"):
        htsr.compare(w, w, n_jobs=0)
    with pytest.raises(ValueError, match="device"):
        htsr.compare(w, w, device="nowhere")


def test_columns_are_drawn_by_depth():
    base = {f"layers.{block}.{name}": normal(30, 20, seed=block) for block in range(3) for name in ("up", "down")}
    c = htsr.compare(base, {name: W + 0.1 * normal(30, 20, seed=5) for name, W in base.items()}, bulk=False)
    assert len(c.plot("relative_change").axes) >= 1
    with pytest.raises(ValueError, match="numeric column"):
        c.plot("status")


def test_a_change_is_not_called_untrained():
    torch.manual_seed(0)
    a = {"w": torch.randn(64, 48)}
    low_rank = htsr.compare(a, {"w": a["w"] + torch.randn(64, 4) @ torch.randn(4, 48)}).delta
    noise = htsr.compare(a, {"w": a["w"] + torch.randn(64, 48)}).delta
    for delta in (low_rank, noise):
        assert delta.verdict == ""
        assert "trained" not in repr(delta)
    assert low_rank["w"].row["phase"] == "low-rank"
    assert low_rank["w"].row["severity"] != "problem"

"""The audit command as a person or a pipe meets it."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import htsr
from htsr.cli import main
from tests.cli.conftest import run
from tests.conftest import pareto, planted


def test_audit_prints_the_table(checkpoint, capsys):
    status, out, err = run(capsys, "audit", checkpoint)
    assert status == 0
    assert "2 layers (0 failed, 0 tied), 2 skipped" in out
    assert f"{htsr.analyze(checkpoint).details.loc[0, 'alpha']:.2f}" in out
    assert err == ""


def test_audit_writes_every_format_at_once(checkpoint, tmp_path, capsys):
    outputs = [tmp_path / f"a{suffix}" for suffix in (".html", ".csv", ".json", ".parquet")]
    status, out, _ = run(capsys, "audit", checkpoint, *[part for path in outputs for part in ("-o", path)])
    assert status == 0
    assert all(f"wrote {path}" in out for path in outputs)
    assert (
        len(pd.read_csv(outputs[1]))
        == len(pd.read_parquet(outputs[3]))
        == len(json.loads(outputs[2].read_text())["details"])
        == 2
    )


def test_json_owns_stdout(checkpoint, tmp_path, capsys):
    status, out, err = run(capsys, "audit", checkpoint, "--json", "-o", tmp_path / "a.csv")
    assert status == 0
    assert json.loads(out)["summary"]["num_layers"] == 2
    assert "2 layers" in err
    assert "wrote" in err


def test_layers_and_skip(checkpoint, capsys):
    _, out, _ = run(capsys, "audit", checkpoint, "--json", "--skip", "1")
    assert [row["name"] for row in json.loads(out)["details"]] == ["0"]


def test_a_nan_layer_leaves_the_rest_of_the_table(checkpoint, capsys):
    tensors = {"good.weight": torch.randn(60, 40), "bad.weight": torch.full((20, 10), float("nan"))}
    save_file(tensors, checkpoint)
    status, out, _ = run(capsys, "audit", checkpoint)
    assert status == 0
    assert "failed: non-finite (200 of 200)" in out
    assert "1 failed" in out


@pytest.fixture
def three_layers(tmp_path):
    """A tail planted at alpha 2, one at alpha 6, and a layer of NaN."""
    path = tmp_path / "gated.safetensors"
    tensors = {
        "heavy": planted(pareto(2, 100), 120).float(),
        "light": planted(pareto(9, 100), 120).float(),
        "bad": torch.full((20, 10), float("nan")),
    }
    save_file(tensors, path)
    return path


def test_a_gate_that_fails_names_its_layers_and_what_it_could_not_check(three_layers, tmp_path, capsys):
    status, out, err = run(capsys, "audit", three_layers, "--fail-on", "alpha > 5", "-o", tmp_path / "a.csv")
    alpha = htsr.analyze(three_layers)["light"].row["alpha"]
    assert alpha > 5
    assert status == 1
    assert "3 layers" in out  # the table comes all the same
    assert (tmp_path / "a.csv").exists()
    assert f"htsr: failed on alpha > 5: holds for 1 layer: light (alpha {alpha:.4g})" in err
    assert "not evaluated for 1 layer with missing values (missing values never match): bad" in err


def test_a_gate_on_the_phase(tmp_path, capsys):
    draw = torch.Generator().manual_seed(0)
    collapsed = torch.randn(80, 20, generator=draw) @ torch.randn(20, 60, generator=draw)
    save_file({"noise": torch.randn(80, 60, generator=draw), "collapsed": collapsed}, tmp_path / "x.safetensors")
    status, _, err = run(capsys, "audit", tmp_path / "x.safetensors", "--fail-on", "phase == 'rank-collapse'")
    assert status == 1
    assert "holds for 1 layer: collapsed (phase 'rank-collapse')" in err


def test_one_failing_gate_of_several_is_enough(three_layers, capsys):
    passing = ["--fail-on", "alpha > 100", "--fail-on", "median(alpha) < 1.1"]
    status, _, err = run(capsys, "audit", three_layers, *passing)
    assert status == 0
    assert "failed on" not in err
    status, out, err = run(capsys, "audit", three_layers, "--json", *passing, "--fail-on", "status == 'failed'")
    assert status == 1
    assert json.loads(out)["summary"]["num_failed"] == 1
    assert "failed on status == 'failed': holds for 1 layer: bad" in err


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("alpah > 8", "did you mean alpha"),
        ("alpha = 8", "equality is written =="),
        ("__import__('os').abort() == 1", "cannot use"),
        ("layer_type > 3", "compares a number with a text"),
        ("goodness_of_fit < 0.1", "--bootstrap"),
        ("alternative == 'lognormal'", "--alternatives"),
        ("num_traps > 0", "--randomize"),
    ],
)
def test_a_condition_that_cannot_be_is_refused_before_the_work(checkpoint, capsys, condition, message, monkeypatch):
    monkeypatch.setattr(
        "htsr.audit.analysis.analyze", lambda *_, **__: pytest.fail("analysed before the condition was checked")
    )
    status, out, err = run(capsys, "audit", checkpoint, "--fail-on", condition)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


def test_a_gate_fails_also_when_nobody_reads_the_table(three_layers):
    command = f"{sys.executable} -m htsr audit {three_layers} --fail-on 'alpha > 5' | head -0"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "light" in result.stderr


def broken(tmp_path, kind):
    path = tmp_path / "x.safetensors"
    if kind == "text":
        path.write_text("these are not weights\n" * 10)
    if kind == "truncated":
        save_file({"w": torch.zeros(50, 50)}, path)
        path.write_bytes(path.read_bytes()[:3000])
    if kind == "empty model":
        save_file({}, path)
    if kind == "vectors only":
        save_file({"v": torch.zeros(5)}, path)
    if kind == "empty directory":
        path = tmp_path / "empty"
        path.mkdir()
    if kind == "other format":
        path = tmp_path / "model.bin"
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file"),
        ("text", "not a readable safetensors file"),
        ("truncated", "truncated"),
        ("empty model", "is empty"),
        ("vectors only", "none of its 1 tensors is a weight matrix (1 x 1-D: not a matrix)"),
        ("empty directory", "found nothing"),
        ("other format", "not a readable torch checkpoint"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, capsys, kind, message):
    status, out, err = run(capsys, "audit", broken(tmp_path, kind))
    assert status == 2
    assert out == ""
    assert err.startswith("htsr: ")
    assert err.count("\n") == 1
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("output", "message"), [("a.docx", "expected a suffix"), ("no/such/a.csv", "does not exist")])
def test_an_output_that_cannot_be_is_refused_before_the_work(
    checkpoint, tmp_path, capsys, output, message, monkeypatch
):
    monkeypatch.setattr(
        "htsr.audit.analysis.analyze", lambda *_, **__: pytest.fail("analysed before the output was checked")
    )
    status, _, err = run(capsys, "audit", checkpoint, "-o", tmp_path / output)
    assert status == 2
    assert message in err


def test_a_layer_pattern_without_match(checkpoint, capsys):
    status, _, err = run(capsys, "audit", checkpoint, "--layers", "encoder*")
    assert status == 2
    assert "matches none of the 2 layers" in err


def test_findings_traps_and_vectors(tmp_path, capsys):
    W = torch.randn(90, 70, generator=torch.Generator().manual_seed(0))
    W[3, 5] = 40
    save_file({"w.weight": W}, tmp_path / "m.safetensors")
    out = tmp_path / "a.csv"
    assert main(["audit", str(tmp_path / "m.safetensors"), "--randomize", "--vectors", "-o", str(out)]) == 0
    assert "w: 1 correlation trap survives a shuffle of the entries: element (3, 5) = 40." in capsys.readouterr().out
    (row,) = pd.read_csv(out).to_dict("records")
    assert row["num_traps"] == 1
    assert row["participation_left"] == pytest.approx(1 / 90, rel=0.5)


def test_options_that_cut_and_leave_out(tmp_path, capsys):
    torch.manual_seed(0)
    model = nn.ModuleDict({"conv": nn.Conv2d(16, 12, 2), "attn": nn.MultiheadAttention(32, 4), "tiny": nn.Linear(9, 3)})
    torch.save({"model": model.state_dict()}, tmp_path / "m.ckpt")
    options = ("--conv", "slices", "--min-eigenvalues", 4, "--skip", "re:attn.*[qk]", "--json")
    status, out, _ = run(capsys, "audit", tmp_path / "m.ckpt", *options)
    assert status == 0
    names = [row["name"] for row in json.loads(out)["details"]]
    assert names == ["conv[0,0]", "conv[0,1]", "conv[1,0]", "conv[1,1]", "attn.in_proj_weight[v]", "attn.out_proj"]


def test_adapters_and_their_base(checkpoint, tmp_path, capsys):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    factors = {
        "base_model.model.0.lora_A.weight": torch.randn(12, 60),
        "base_model.model.0.lora_B.weight": torch.randn(40, 12),
    }
    save_file(factors, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 12, "lora_alpha": 12}))
    for base, expected in (((), ["0[delta]"]), (("--base", checkpoint), ["0", "1", "0[delta]"])):
        status, out, _ = run(capsys, "audit", adapter, *base, "--json")
        assert status == 0
        assert [row["name"] for row in json.loads(out)["details"]] == expected


def test_a_url(checkpoint, capsys):
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    status, out, _ = run(capsys, "audit", f"file://{checkpoint}", "--json")
    assert status == 0
    assert len(json.loads(out)["details"]) == 2


def test_the_state_of_an_optimizer(tmp_path, capsys):
    model = nn.Sequential(nn.Linear(60, 40), nn.Linear(40, 30))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(50, 60)).square().sum().backward()
    optimizer.step()
    path = tmp_path / "last.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    status, out, _ = run(capsys, "audit", path, "--state", "exp_avg", "--json")
    assert status == 0
    assert json.loads(out)["state"] == "exp_avg"
    assert [row["name"] for row in json.loads(out)["details"]] == ["0", "1"]
    assert json.loads(run(capsys, "audit", path, "--json")[1])["state"] is None
    status, _, err = run(capsys, "audit", path, "--state", "momentum")
    assert status == 2
    assert err == f"htsr: {path}: its optimizer keeps no 'momentum', only exp_avg, exp_avg_sq\n"
    status, out, _ = run(capsys, "compare", path, path, "--state", "exp_avg", "--json")
    assert (status, json.loads(out)["state"]) == (0, "exp_avg")

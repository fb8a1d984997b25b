"""Parquet is an extra: without pyarrow everything else works, and a message names the extra."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import htsr
from htsr.cli.main import main
from tests.training.store.test_tables import write

WITHOUT = r"Parquet needs the library pyarrow.*pip install 'htsr\[parquet\]'"
# A process in which pyarrow was never there: pandas and our own modules must not miss it.
EVERYTHING_ELSE = """
import sys
sys.modules["pyarrow"] = None
import torch, htsr
from htsr.cli.main import main
model = torch.nn.Sequential(torch.nn.Linear(40, 30), torch.nn.Linear(30, 25))
a = htsr.analyze(model)
c = htsr.compare(model, {k: v + 0.01 * torch.randn_like(v) for k, v in model.state_dict().items()})
for suffix in ("htsr", "html", "md", "csv", "json"):
    a.save(f"a.{suffix}"), c.save(f"c.{suffix}")
assert htsr.load("a.htsr").details.equals(a.details)
with htsr.Monitor(model, run_dir="runs/one") as monitor:
    monitor.step(loss=1.0)
history = htsr.History("runs/one")
for suffix in ("html", "csv", "json"):
    history.save(f"h.{suffix}")
torch.save(model.state_dict(), "w.pt")
assert main(["audit", "w.pt", "-o", "b.csv"]) == 0
assert main(["report", "runs/one", "-o", "r.html"]) == 0
assert main(["audit", "w.pt", "-o", "b.parquet"]) == 2
"""


@pytest.fixture
def _no_pyarrow(monkeypatch):
    monkeypatch.setattr("htsr.files.parquet.find_spec", lambda name: None)


@pytest.mark.slow
def test_everything_else_works_without_it(tmp_path):
    command = [sys.executable, "-c", EVERYTHING_ELSE]
    environment = os.environ | {"PYTHONPATH": str(Path(htsr.__file__).parents[1])}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr.rstrip().endswith("pip install 'htsr[parquet]', or choose another suffix")


@pytest.mark.usefixtures("_no_pyarrow")
def test_parquet_names_the_extra(tmp_path, capsys, monkeypatch):
    analysis = htsr.analyze({"w": torch.randn(30, 20)}, bulk=False, progress=False)
    path = tmp_path / "a.parquet"
    with pytest.raises(htsr.InputError, match=WITHOUT):
        analysis.save(path)
    torch.save({"w": torch.randn(30, 20)}, tmp_path / "w.pt")
    monkeypatch.setattr("htsr.audit.analysis.analyze", None)  # refused before the work
    assert main(["audit", str(tmp_path / "w.pt"), "-o", str(path)]) == 2
    assert "pip install 'htsr[parquet]'" in capsys.readouterr().err
    assert not path.exists()
    path.write_bytes(b"PAR1")
    with pytest.raises(htsr.InputError, match=WITHOUT):
        htsr.load(path)


@pytest.mark.usefixtures("_no_pyarrow")
def test_a_history_names_the_extra(tmp_path):
    write(tmp_path / "run", 1).close()
    with pytest.raises(htsr.InputError, match=WITHOUT):
        htsr.History(tmp_path / "run").to_parquet(tmp_path / "x.parquet")

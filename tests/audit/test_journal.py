"""The journal: an interrupted audit goes on where it was, another one is refused."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import htsr
from htsr.audit import jobs
from htsr.cli import main
from htsr.errors import InputError


@pytest.fixture
def file(tmp_path):
    generator = torch.Generator().manual_seed(0)
    weights = {f"w{i}.weight": torch.randn(60 + i, 50, generator=generator) for i in range(6)}
    weights["w5.weight"][0, 0] = torch.nan
    save_file(weights, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def interrupt_after(monkeypatch, count):
    """Ctrl-C while the layer after so many is analysed."""
    names = []

    def counting(real):
        def analyze(layer, *args, **options):
            if len(names) == count:
                raise KeyboardInterrupt
            names.append(layer.name)
            return real(layer, *args, **options)

        return analyze

    for step in (
        "analyze_layer",
        "analyze_eigenvalues",
        "failed_layer",
    ):  # one thread, or several; what has no spectrum
        monkeypatch.setattr(jobs, step, counting(getattr(jobs, step)))
    return names


@pytest.mark.parametrize("options", [{}, {"bootstrap": 20, "randomize": True}, {"convention": "weightwatcher"}])
def test_only_what_is_missing_is_analysed(file, tmp_path, monkeypatch, options):
    whole = htsr.analyze(file, **options)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            htsr.analyze(file, journal=tmp_path / "kept", **options)
    names = interrupt_after(monkeypatch, 99)
    resumed = htsr.analyze(file, journal=tmp_path / "kept", **options)
    assert names == ["w4", "w5"]
    pd.testing.assert_frame_equal(resumed.details, whole.details)
    assert repr(resumed["w0"].fit) == repr(whole["w0"].fit)
    assert resumed["w0"].bulk.spike_threshold == whole["w0"].bulk.spike_threshold
    names.clear()
    again = htsr.analyze(file, journal=tmp_path / "kept", **options)
    assert names == []
    assert again["w5"].spectrum is None
    pd.testing.assert_frame_equal(again.details, whole.details)


def test_another_audit_is_refused(file, tmp_path):
    htsr.analyze(file, journal=tmp_path / "kept")
    with pytest.raises(InputError, match="differs in seed;"):
        htsr.analyze(file, journal=tmp_path / "kept", seed=1)
    with pytest.raises(InputError, match="differs in layers;"):
        htsr.analyze(file, journal=tmp_path / "kept", layers="w1")
    with pytest.raises(InputError, match="expected the folder of an interrupted audit"):
        htsr.analyze(file, journal=tmp_path)


def test_a_changed_file_is_another_audit(file, tmp_path):
    htsr.analyze(file, journal=tmp_path / "kept")
    save_file({f"w{i}.weight": torch.randn(60 + i, 50) for i in range(6)}, file)
    with pytest.raises(InputError, match="differs in files;"):
        htsr.analyze(file, journal=tmp_path / "kept")


def test_a_damaged_part_is_analysed_again(file, tmp_path, monkeypatch):
    whole = htsr.analyze(file, journal=tmp_path / "kept")
    (tmp_path / "kept" / "000002.npz").write_bytes(b"PK half")
    names = interrupt_after(monkeypatch, 99)
    pd.testing.assert_frame_equal(htsr.analyze(file, journal=tmp_path / "kept").details, whole.details)
    assert names == ["w2"]


def test_resume_on_the_command_line(file, tmp_path, monkeypatch, capsys):
    out = tmp_path / "a.csv"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        assert main(["audit", str(file), "-o", str(out)]) == 130
    assert "--resume" in capsys.readouterr().err
    assert not out.exists()
    names = interrupt_after(monkeypatch, 99)
    assert main(["audit", str(file), "-o", str(out), "--resume"]) == 0
    assert names == ["w3", "w4", "w5"]
    assert len(pd.read_csv(out)) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "m.safetensors"]
    with pytest.raises(SystemExit, match="2"):
        main(["audit", str(file), "--resume"])
    assert "needs the -o FILE" in capsys.readouterr().err


def test_without_resume_it_begins_anew(file, tmp_path, monkeypatch):
    out = tmp_path / "a.csv"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        main(["audit", str(file), "-o", str(out)])
    names = interrupt_after(monkeypatch, 99)
    assert main(["audit", str(file), "-o", str(out), "--seed", "1"]) == 0
    assert len(names) == 6


def test_kill_9(tmp_path):
    generator = torch.Generator().manual_seed(0)
    file, out = tmp_path / "m.safetensors", tmp_path / "a.json"
    save_file({f"w{i:02d}.weight": torch.randn(400, 300, generator=generator) for i in range(40)}, file)
    command = [sys.executable, "-m", "htsr", "audit", str(file), "-o", str(out), "--randomize"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kept = tmp_path / "a.json.partial"
    while len(list(kept.glob("0*.npz"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    result = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=True)
    assert "of 40 layers were already analysed" in result.stderr
    assert not kept.exists()
    assert out.stat().st_size > 10_000


def test_a_model_in_memory_has_no_journal(tmp_path):
    with pytest.raises(InputError, match="needs a source of files"):
        htsr.analyze({"w": torch.randn(20, 20)}, journal=tmp_path / "kept")


def test_journal_and_output_inside_the_audited_directory(file, monkeypatch):
    folder = file.parent
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        assert main(["audit", str(folder), "-o", str(folder / "a.csv")]) == 130
    monkeypatch.chdir(folder)
    names = interrupt_after(monkeypatch, 99)
    assert main(["audit", ".", "-o", "a.csv", "--resume", "--device", "cpu"]) == 0
    assert names == ["w3", "w4", "w5"]

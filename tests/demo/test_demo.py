"""The demo, run for real with few steps."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

import htsr
from htsr.cli import main
from htsr.demo.page import conclusions
from htsr.demo.sweep import LEARNING_RATES


def demo(output, steps):
    return [sys.executable, "-m", "htsr", "demo", "-o", str(output), "--steps", str(steps)]


@pytest.mark.slow
def test_the_demo_writes_its_pages_twice(minilm, tmp_path):
    for _ in range(2):  # the second run replaces the first
        result = subprocess.run(demo(tmp_path, 6), capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    page = (tmp_path / "index.html").read_text()
    assert page.count('"label":"p = ') >= 4
    assert "For p = -1/8, 0, 1/8, 1/2 the median alpha was" in page
    assert "Weight spectra of model.safetensors" in (tmp_path / "minilm.html").read_text()
    assert (tmp_path / "runs.png").stat().st_size > 10_000
    for power in ("-0.125", "0", "0.125", "0.5"):
        history = htsr.History(tmp_path / "runs" / f"p-{power}")
        assert history.steps == list(range(7))
        assert set(history.groups.query("algorithm == 'htmuon'")["power"]) == {float(power)}
        assert history.scalars["train_loss"].notna().sum() == 6
        assert history.groups.query("algorithm == 'htmuon'")["lr"].max() == pytest.approx(LEARNING_RATES[float(power)])
    assert '"minilm.html"' in page
    opening, *_, address = result.stdout.splitlines()
    assert opening.startswith("htsr shows two things.")
    assert str(tmp_path / "index.html") in address
    assert [line[0] for line in result.stdout.splitlines()[-4:-1]] == ["-", "-", "-"]


@pytest.mark.slow
def test_a_killed_demo_leaves_runs_that_open(minilm, tmp_path):
    process = subprocess.Popen(demo(tmp_path, 100_000), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    captures = tmp_path / "runs" / "p--0.125" / "captures"
    try:
        deadline = time.time() + 120
        while not list(captures.glob("step-*.npz")):
            assert time.time() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(1)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    history = htsr.History(tmp_path / "runs" / "p--0.125")
    assert history.steps == [0]
    assert len(history.details) == 18
    assert history.damaged == {}


def test_without_its_extra_the_demo_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("htsr.demo.run.PACKAGE", "no_such_package")
    assert main(["demo", "-o", str(tmp_path / "out")]) == 2
    assert "pip install 'htsr[demo]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def table(alphas, losses):
    return pd.DataFrame(
        {"power": [0, 0.125, 0.25, 0.5], "alpha": alphas, "stable_rank": [4.0, 3, 2, 1], "held_out_loss": losses}
    )


@pytest.mark.parametrize(
    ("alphas", "losses", "spectra", "loss"),
    [
        (
            [4.0, 3, 2, 1],
            [1.0, 2, 3, 4],
            "each larger p made the tails heavier",
            "lowest at p = 0: no other p lowered it",
        ),
        (
            [1.0, 2, 3, 4],
            [2.0, 1.5, 3, 4],
            "each larger p made the tails lighter",
            "lowest at p = 1/8: 0.500 below Muon, with a single seed",
        ),
        ([1.0, 3, 2, 4], [2.0, 3, 1, 4], "did not move in one direction", "lowest at p = 1/4: 1.000 below Muon"),
    ],
)
def test_the_sentences_follow_the_numbers(alphas, losses, spectra, loss):
    first, second = conclusions(table(alphas, losses))
    assert spectra in first
    assert loss in second
    assert ", ".join(f"{value:.2f}" for value in alphas) in first

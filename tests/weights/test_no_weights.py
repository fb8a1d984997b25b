"""Sources without weights: the message says what came, and what to do."""

import numpy as np
import pytest
import torch

import htsr

CAPTURE = {"about": np.zeros(3, dtype=np.uint8), "eigenvalues": np.ones(4)}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run directory as a Monitor leaves it, seen from the folder that holds it."""
    monkeypatch.chdir(tmp_path)
    captures = tmp_path / "run" / "captures"
    captures.mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text("{}")
    np.savez(captures / "step-000000000000.npz", **CAPTURE)


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("run", htsr.InputError, r"got the run of a Monitor: open it with htsr.History\('run'\)"),
        (
            "run/captures/step-000000000000.npz",
            htsr.InputError,
            r"a capture .* open the run with htsr.History\('run'\)",
        ),
        ({"a": "x", "b": 1}, htsr.InputError, "found no tensor, only 'a' of type str, 'b' of type int"),
        ("org/name", FileNotFoundError, "pass hf://org/name"),
        ("gpt2", FileNotFoundError, "of the form hf://organisation/name"),
        ("gpt2.bin", FileNotFoundError, "no such file or directory$"),
    ],
)
def test_messages(source, error, message):
    with pytest.raises(error, match=message):
        htsr.analyze(source)


@pytest.mark.parametrize("bootstrap", [5, -1])
@pytest.mark.parametrize("watch", [htsr.analyze, htsr.Monitor])
def test_a_wrong_number_of_resamples_is_named_as_the_user_knows_it(bootstrap, watch):
    with pytest.raises(ValueError, match=f"got bootstrap={bootstrap}|from 0 on") as caught:
        watch(torch.nn.Linear(9, 9), bootstrap=bootstrap)
    assert "n_boot" not in str(caught.value)

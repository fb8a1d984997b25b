"""The entry point: usage, streams, and what becomes of errors."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

import htsr
from htsr.cli import main
from htsr.tails.resampling import MIN_RESAMPLES


@pytest.mark.parametrize(
    "arguments", [[], ["audit"], ["audit", "a", "--convention", "x"], ["demo", "--steps", "0"], ["nonsense"]]
)
def test_wrong_usage_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_help_and_version(capsys):
    for arguments, shown in (
        (["--help"], "audit"),
        (["audit", "--help"], ".safetensors"),
        (["--version"], htsr.__version__),
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
        assert shown in capsys.readouterr().out


def test_python_dash_m_and_a_reader_that_leaves(checkpoint):
    command = f"{sys.executable} -m htsr audit {checkpoint} | head -1"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert "2 layers" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("redirect", ["| cat", ">&-", "2>&- >&-"])
def test_streams_that_cannot_show_everything(tmp_path, redirect):
    path = tmp_path / "x.safetensors"
    save_file({"层²": torch.randn(60, 40)}, path)
    command = f"PYTHONIOENCODING=ascii {sys.executable} -m htsr audit {path} {redirect}"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
    if "cat" in redirect:
        assert "\\u5c42" in result.stdout


def test_an_abbreviated_option_is_refused_with_the_usage_of_the_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["audit", "model.safetensors", "--random"])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("usage: htsr audit ")
    assert err.endswith("htsr audit: error: unrecognized arguments: --random\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bootstrap", str(MIN_RESAMPLES - 1)], f"argument --bootstrap: expected 0 or at least {MIN_RESAMPLES}"),
        (["--bootstrap", "50", "--clip-fingers"], "argument --clip-fingers: resamples of a clipped fit"),
        (["--device", "abacus"], "argument --device: expected a device of this machine"),
        (["--resume"], "--resume needs the -o FILE"),
    ],
)
def test_options_that_only_the_loaded_libraries_can_judge(checkpoint, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(["audit", str(checkpoint), *arguments])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("usage: htsr audit ")
    assert message in err


INTERRUPTED = """
import signal, sys

class CtrlC:
    def find_spec(self, name, *_):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, CtrlC())
from htsr.cli import main
from htsr.tails.resampling import MIN_RESAMPLES
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("module", ["argparse", "htsr.cli.parser", "torch", "htsr.spectra.metrics"])
@pytest.mark.parametrize(("output", "remedy"), [([], ""), (["-o", "a.csv"], "; add --resume to the same command")])
def test_ctrl_c_during_an_import_is_one_line(module, output, remedy, tmp_path):
    command = [sys.executable, "-c", INTERRUPTED.format(module=module), "audit", "model.safetensors", *output]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 130
    assert result.stderr.count("\n") == 1
    parsed = not module.startswith(("argparse", "htsr.cli"))
    assert result.stderr.startswith(f"htsr: interrupted{remedy if parsed else ''}")


@pytest.mark.parametrize(
    "error", [ValueError("one\ntwo"), TypeError("one two"), KeyError("one two"), RuntimeError("one two")]
)
def test_an_unforeseen_error_is_called_a_bug(error, checkpoint, capsys, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("htsr.audit.analysis.analyze", fail)
    assert main(["audit", str(checkpoint)]) == 70
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert f"bug of htsr {htsr.__version__}" in err
    assert type(error).__name__ in err
    assert "one two" in err
    assert "HTSR_DEBUG=1" in err

    monkeypatch.setenv("HTSR_DEBUG", "1")
    assert main(["audit", str(checkpoint)]) == 70
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "in fail" in err


@pytest.mark.parametrize("error", [htsr.InputError("one\ntwo"), OSError("one two"), MemoryError("one two")])
def test_bad_input_has_a_traceback_only_on_request(error, checkpoint, capsys, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("htsr.audit.analysis.analyze", fail)
    assert main(["audit", str(checkpoint)]) == 2
    assert capsys.readouterr().err == "htsr: one two\n"
    monkeypatch.setenv("HTSR_DEBUG", "1")
    assert main(["audit", str(checkpoint)]) == 2
    assert capsys.readouterr().err.startswith("Traceback")


def test_help_for_a_reader_that_leaves():
    command = f"{sys.executable} -m htsr audit --help | head -0"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_shell_completes_commands_options_and_names(tmp_path):
    pytest.importorskip("argcomplete")

    def completions(line):
        environment = os.environ | {
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_IFS": "\n",
            "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "answer"),
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
        }
        subprocess.run([sys.executable, "-m", "htsr"], env=environment, timeout=60, check=False)
        return [word.strip() for word in (tmp_path / "answer").read_text().split("\n")]

    assert completions("htsr com") == ["compare"]
    assert "--bootstrap" in completions("htsr audit --b")
    assert "stable_rank" in completions("htsr explain stab")

"""``htsr explain``: every name that a person sees is explained, and a typing error is answered with what was meant."""

import subprocess
import sys

import pytest

from htsr.audit.columns import BY_NAME
from htsr.audit.findings import KINDS
from htsr.audit.phases import PHASES
from htsr.cli.explain import explained
from htsr.cli.main import main
from htsr.comparison.kinds import KINDS as KINDS_OF_CHANGE
from htsr.comparison.meanings import CHANGE_MEANINGS, KIND_MEANINGS


@pytest.mark.parametrize("name", [*BY_NAME, *KINDS, *PHASES])
def test_every_name_is_explained(name):
    assert len(explained(name)) > 5


def test_kinds_and_changes_are_explained():
    assert list(KIND_MEANINGS) == list(KINDS_OF_CHANGE)
    assert {"", *CHANGE_MEANINGS} == set(BY_NAME["change"].values)
    for meanings in (KIND_MEANINGS, CHANGE_MEANINGS):
        assert all(text in explained(name) for name, text in meanings.items())
    both = explained("pruned")
    assert "As the kind of a comparison: " in both
    assert "As the change of a layer: " in both


def test_several_names(capsys):
    assert main(["explain", "alpha", "bulk-decay", "angle_out"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("alpha: alpha is the exponent of the power law")
    assert "htsr explain phase" in out
    assert "Unit: degrees" in out
    assert all(len(line) <= 100 for line in out.splitlines())


def test_the_list_and_a_typing_error(capsys):
    assert main(["explain"]) == 0
    assert "short-tail" in capsys.readouterr().out
    assert main(["explain", "alpah"]) == 2
    assert "did you mean alpha" in capsys.readouterr().err


def test_it_loads_no_torch():
    code = "import sys; from htsr.cli.main import main; main(['explain', 'alpha']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=60).returncode == 0

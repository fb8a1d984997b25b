"""Explanations: five sentences each, on names that exist."""

import re

import pytest

from htsr.audit.columns import BY_NAME
from htsr.audit.explanations import EXPLANATIONS
from htsr.audit.findings import KINDS
from htsr.audit.phases import MEANINGS, PHASES


@pytest.mark.parametrize("name", EXPLANATIONS)
def test_five_sentences(name):
    text = re.sub(r"\d\.\d|\]\.", "x", EXPLANATIONS[name])  # neither a number nor code ends a sentence
    assert len(re.findall(r"\.(?= |$)", text)) == 5
    assert text.endswith(".")


def test_every_name_exists_and_every_kind_and_phase_is_explained():
    assert set(EXPLANATIONS) <= {*BY_NAME, *KINDS, "ESD", "kind"}
    assert set(KINDS) <= set(EXPLANATIONS)
    assert set(MEANINGS) == set(PHASES)

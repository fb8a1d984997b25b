"""Patterns select layers; a pattern that matches nothing is an error."""

import re

import pytest
import torch

from htsr import InputError
from htsr.weights import open_source, select

TENSORS = {
    "enc.0.q.weight": torch.zeros(4, 4),
    "enc.0.k.weight": torch.zeros(4, 4),
    "enc.1.q.weight": torch.zeros(4, 4),
    "conv.weight": torch.zeros(4, 4, 3, 3),
    "conv.bias": torch.zeros(4),
}


@pytest.mark.parametrize(
    ("layers", "skip", "kept"),
    [
        (None, None, ["enc.0.q", "enc.0.k", "enc.1.q", "conv"]),
        ("enc.0.q", None, ["enc.0.q"]),
        ("*.q", None, ["enc.0.q", "enc.1.q"]),
        (["conv2d", "*.k"], None, ["enc.0.k", "conv"]),
        (None, "dense", ["conv"]),
        ("enc.*", ["*.q"], ["enc.0.k"]),
        (r"re:\.[01]\.k$", None, ["enc.0.k"]),
        (re.compile("ENC", re.I), None, ["enc.0.q", "enc.0.k", "enc.1.q"]),
        ("4x4x3x3", None, ["conv"]),
        ("* x 4", None, ["enc.0.q", "enc.0.k", "enc.1.q"]),
        ("enc.[1-9].q", None, ["enc.1.q"]),
    ],
)
def test_names_globs_and_types(layers, skip, kept):
    chosen = select(open_source(TENSORS), layers, skip)
    assert [x.name for x in chosen.layers] == kept
    assert len(chosen.layers) + len(chosen.skipped) == len(TENSORS)
    assert all(item.reason for item in chosen.skipped)


def test_a_pattern_without_a_match_is_an_error_that_helps():
    with pytest.raises(InputError, match=r"'enc.0.query' matches none of the 4 layers .* names look like enc.0.q"):
        select(open_source(TENSORS), "enc.0.query")


def test_tied_layers_whose_first_is_left_out_belong_to_the_next():
    shared = torch.randn(6, 4)
    source = open_source({"wte.weight": shared, "head.weight": shared, "more.weight": shared})
    assert [(x.name, x.tied_to) for x in select(source).layers] == [("wte", None), ("head", "wte"), ("more", "wte")]
    assert [(x.name, x.tied_to) for x in select(source, skip="wte").layers] == [("head", None), ("more", "head")]


def test_patterns_must_be_text():
    with pytest.raises(TypeError, match="got 3"):
        select(open_source(TENSORS), 3)


def test_parts_by_their_brackets():
    source = open_source({"0.in_proj_weight": torch.zeros(12, 4), "q": torch.zeros(4, 4)})
    assert [x.name for x in select(source, "*[q]").layers] == ["0.in_proj_weight[q]"]
    assert [x.name for x in select(source, skip="0.in_proj_weight[q]").layers] == [
        "0.in_proj_weight[k]",
        "0.in_proj_weight[v]",
        "q",
    ]


def test_few_eigenvalues():
    source = open_source({"small": torch.zeros(3, 9), "conv": torch.zeros(3, 9, 2, 2)})
    chosen = select(source, min_eigenvalues=10)
    assert [x.name for x in chosen.layers] == ["conv"]
    assert chosen.skipped[0].reason == "3 eigenvalues, fewer than min_eigenvalues=10"


def test_a_broken_regular_expression_is_an_error():
    with pytest.raises(InputError, match="expected a regular expression after re:"):
        select(open_source(TENSORS), "re:(")

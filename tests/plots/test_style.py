"""Colours that read on white and on black, names that fit, and the axes that a caller brings."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from htsr.plots.models.phases import PHASE_COLOURS
from htsr.plots.style import (
    CATEGORIES,
    GREY,
    axes_for,
    end_names,
    figure_of,
    folded,
    put_legend,
    sequence_colours,
    short_names,
)


def luminance(colour):
    """Relative luminance by WCAG 2."""
    parts = np.array(to_rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("ground", ["white", "#111111"])
@pytest.mark.parametrize("colour", [*CATEGORIES, GREY, *sequence_colours(5), *PHASE_COLOURS.values()])
def test_colours_stand_out_from_white_and_from_black(colour, ground):
    low, high = sorted((luminance(colour), luminance(ground)))
    assert (high + 0.05) / (low + 0.05) > 1.9


def test_short_names_drop_what_nearly_all_begin_with():
    names = [f"model.language_model.layers.{i}.self_attn.q_proj" for i in range(9)]
    assert short_names([*names, "lm_head"]) == [*(f"layers.{i}.self_attn.q_proj" for i in range(9)), "lm_head"]
    assert short_names(["0", "2"]) == ["0", "2"]
    assert short_names(["a.fc", "b.fc"]) == ["a.fc", "b.fc"]
    assert short_names([]) == []
    assert len(set(short_names([f"{'x' * 40}{i}.w" for i in range(5)], 12))) == 5


def test_names_are_folded_in_the_middle():
    assert folded("encoder.layers.11.attention.query", 20) == "enco...tention.query"
    assert len(folded("x" * 500, 30)) == 30
    assert folded("$a$_b", 30) == "\\$a\\$_b"


def test_ends_that_tell_names_apart():
    assert end_names(["embeddings.word_embeddings", "embeddings.position_embeddings"]) == ["word", "position"]
    assert end_names(["model.embed_tokens"]) == ["embed_tokens"]
    assert end_names(["pooler.dense"]) == ["pooler.dense"]
    assert end_names(["a.fc", "b.fc"]) == ["a.fc", "b.fc"]


def test_own_figures_are_opaque_and_others_keep_their_colours():
    with plt.rc_context({"figure.facecolor": (1, 1, 1, 0)}):
        assert figure_of(axes_for(None, width=3, height=2)).get_facecolor() == (1, 1, 1, 1)
    with plt.style.context("dark_background"):
        (ax,) = axes_for(None, width=3, height=2)[0]
        assert luminance(ax.get_facecolor()[:3]) < 0.1 < luminance(ax.xaxis.label.get_color())


def test_too_few_axes_and_no_axes_are_refused():
    figure, ax = plt.subplots()
    plt.close(figure)
    with pytest.raises(ValueError, match="expected 2 axes, one for each panel, got 1"):
        axes_for(ax, 2, width=3, height=2)
    with pytest.raises(TypeError, match="expected ax= to be matplotlib axes"):
        axes_for([figure], width=3, height=2)


@pytest.mark.parametrize(("entries", "inside"), [(2, True), (9, False)])
def test_a_legend_that_would_cover_the_data_stands_below(entries, inside):
    figure, ax = plt.subplots(figsize=(3.5, 2.5), layout="constrained")
    plt.close(figure)
    for number in range(entries):
        ax.plot([0, 1], [number, 1], label=f"run {number}")
    put_legend(ax, own=False)
    figure.draw_without_rendering()
    box = ax.get_legend().get_window_extent()
    assert (box.y0 >= ax.bbox.y0) == inside
    assert figure.bbox.y0 <= box.y0
    assert box.x1 <= figure.bbox.x1


def test_folded_names_keep_the_number_of_the_block():
    names = [f"encoder.layer.{i}.attention.self.{part}" for i in range(12) for part in ("query", "value")]
    short = short_names(names, 26)
    assert len(set(short)) == len(names)
    assert max(map(len, short)) == 26
    assert short[0].startswith("layer.0")

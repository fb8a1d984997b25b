"""All layers of a model: against depth, as a histogram, and by phase."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from htsr.plots import depth_table, histogram_of_layers, phase_grid, plot_depth, plot_histogram, plot_phases


def table(blocks=12, **columns):
    """A table as a file gives it: sorted by the alphabet."""
    names = [f"model.layers.{i}.{part}" for i in range(blocks) for part in ("mlp.up_proj", "self_attn.q_proj")]
    names = sorted([*names, "lm_head", "model.embed_tokens"])
    number = [int(name.split(".")[2]) if "layers" in name else -1 for name in names]
    details = pd.DataFrame({"name": names, "tied_to": "", "layer_type": "dense", "alpha": 3.0 + 0.1 * np.array(number)})
    details = details.assign(sigma=0.5, alpha_low=np.nan, alpha_high=np.nan, null_alpha_low=4.0, null_alpha_high=9.0)
    details.loc[details["name"] == "model.embed_tokens", "layer_type"] = "embedding"
    return details.assign(**columns)


def test_depth_follows_the_blocks_and_not_the_alphabet():
    found = depth_table(table())
    assert list(found["name"][:2]) == ["model.embed_tokens", "model.layers.0.mlp.up_proj"]
    assert found["name"].iloc[-1] == "lm_head"
    queries = found[found["role"] == "q"]
    assert list(queries["block"]) == list(range(12))
    np.testing.assert_allclose(queries["value"], 3 + 0.1 * np.arange(12))
    np.testing.assert_allclose(found["high"] - found["low"], 1.0)  # one sigma each way
    assert set(found["null_low"]) == {4.0}
    assert set(found["null_high"]) == {9.0}


def test_an_interval_replaces_sigma_and_a_median_stands_for_noise():
    found = depth_table(table(alpha_low=2.0, alpha_high=7.0, stable_rank=5.0, null_stable_rank=8.0))
    assert set(found["low"]) == {2.0}
    found = depth_table(table(stable_rank=5.0, null_stable_rank=8.0), "stable_rank")
    assert found["low"].isna().all()
    assert set(found["null_low"]) == set(found["null_high"]) == {8.0}


def test_tied_layers_are_left_out_and_nothing_is_an_error():
    details = table()
    details.loc[details["name"] == "lm_head", "tied_to"] = "model.embed_tokens"
    assert "lm_head" not in set(depth_table(details)["name"])
    with pytest.raises(ValueError, match="expected one of the numeric columns alpha, sigma"):
        depth_table(details, "name")
    with pytest.raises(ValueError, match="no layer has a value of alpha"):
        depth_table(details.assign(alpha=np.nan))


def test_each_role_has_a_panel():
    axes = plot_depth(table())
    assert [ax.get_title(loc="left") for ax in axes] == ["embedding", "q", "up", "other"]
    points = axes[1].lines[0]
    np.testing.assert_allclose(points.get_xydata(), np.c_[np.arange(12), 3 + 0.1 * np.arange(12)])
    bars = axes[1].patches[:12]
    assert {(bar.get_y(), bar.get_height()) for bar in bars} == {(4.0, 5.0)}
    assert axes[3].get_xticklabels()[0].get_text() == "lm_head"


def test_experts_stand_side_by_side_in_their_block():
    details = table()
    experts = details[details["name"].str.contains("up_proj")]
    experts = experts.assign(name=experts["name"].str.replace("mlp.", "mlp.experts.1."))
    up = plot_depth(pd.concat([details, experts]))[2].lines[0]
    assert len(np.unique(up.get_xdata())) == 24


def test_one_axes_holds_all_roles():
    figure, ax = plt.subplots(layout="constrained")
    plt.close(figure)
    (drawn,) = plot_depth(table(), ax=ax)
    assert drawn is ax
    roles = [text.get_text() for text in ax.get_legend().get_texts()]
    assert roles[:4] == ["embedding", "q", "up", "other"]


def test_layers_without_blocks_are_named():
    details = table().iloc[:2].assign(name=["first", "second"], layer_type="dense")
    (ax,) = plot_depth(details)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["first", "second"]


def test_layers_are_counted_by_alpha():
    details = table(blocks=2, null_alpha=[4.0, 4.0, 4.1, 4.1, 50.0, np.nan]).assign(
        alpha=[2.0, 2.1, 2.2, 3.0, 3.1, 90.0]
    )
    counts = histogram_of_layers(details)
    assert counts.layers.sum() == 5
    assert counts.beyond == 1
    assert counts.median == pytest.approx(2.6)
    assert counts.edges[-1] <= 8
    ax = plot_histogram(details)
    assert ax.texts[0].get_text() == "1 more $\\rightarrow$"


def test_phases_stand_by_role_and_block():
    details = table(blocks=3, phase="heavy-tailed")
    details.loc[details["name"] == "model.layers.2.self_attn.q_proj", "phase"] = "random-like"
    grid = phase_grid(details)
    assert grid.across == "block"
    assert list(grid.phases.index) == ["embed_tokens", "q", "up", "lm_head"]
    assert list(grid.phases.columns) == ["in", 0, 1, 2, "out"]
    assert list(grid.phases.loc["embed_tokens"]) == ["heavy-tailed", "", "", "", ""]
    assert list(grid.phases.loc["q"]) == ["", "heavy-tailed", "heavy-tailed", "random-like", ""]
    assert list(grid.phases.loc["lm_head"]) == ["", "", "", "", "heavy-tailed"]
    ax = plot_phases(details)
    shown = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert shown == ["random-like", "heavy-tailed"]
    with pytest.raises(ValueError, match="no layer has a phase"):
        plot_phases(details.assign(phase=""))


def test_phases_of_a_history_stand_by_layer_and_step():
    rows = [
        {"step": step, "name": name, "tied_to": "", "quantity": quantity, "phase": f"{name}-{step}"}
        for step in (0, 10)
        for name in ("b", "a")
        for quantity in ("weights", "gradients")
        if quantity == "weights" or step
    ]
    grid = phase_grid(pd.DataFrame(rows))
    assert grid.across == "optimizer step"
    assert grid.phases.to_dict() == {0: {"b": "b-0", "a": "a-0"}, 10: {"b": "b-10", "a": "a-10"}}
    assert list(grid.phases.index) == ["b", "a"]


def test_a_role_without_a_value_has_no_panel():
    details = table()
    details.loc[~details["name"].str.contains("q_proj"), "alpha"] = np.nan
    (ax,) = plot_depth(details)
    assert ax.get_title(loc="left") == "q"
    assert ax.figure.legends[0].get_texts()[0].get_text() == "14 of 26 layers: no alpha"


@pytest.mark.parametrize(
    ("column", "floor", "text"), [("null_p_value", 3e-6, "< 3e-6"), ("bulk_p_value", 1e-6, "< 1e-6")]
)
def test_a_p_value_at_its_floor_is_a_bound(column, floor, text):
    details = table(blocks=2, **{column: [floor, floor, 0.5, floor, 0.2, floor]})
    axes = plot_depth(details, column)
    drawn = [(line.get_marker(), y) for ax in axes for line in ax.lines for y in line.get_ydata() if y == y]
    assert sorted(drawn) == [("o", 0.2), ("o", 0.5), *[("v", floor)] * 4]
    assert axes[0].get_yscale() == "log"
    assert text in [entry.get_text() for entry in axes[0].figure.legends[0].get_texts()]


def test_the_mark_of_noise_lies_inside_the_axes():
    details = table(stable_rank=5.0, null_stable_rank=8.0).assign(null_stable_rank=np.r_[np.full(25, 8.0), 40.0])
    assert plot_depth(details, "stable_rank")[0].get_ylim()[1] > 41

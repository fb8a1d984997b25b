"""Where the points of a panel by depth stand."""

import numpy as np
import pandas as pd

from htsr.report.page.depth import depth_of


def details(names, **columns):
    return pd.DataFrame({"name": names, "tied_to": "", "layer_type": "dense"} | columns)


def test_one_panel_a_role_blocks_in_their_order_and_the_rest_behind():
    names = [
        f"layers.{block}.{role}"
        for block in (0, 1, 10)
        for role in ("q_proj", "experts.0.up_proj", "experts.1.up_proj")
    ]
    depth = depth_of(details([*names, "lm_head"], alpha=np.arange(10) + 2.0), "alpha")
    panels = {panel["role"]: panel for panel in depth["panels"]}
    assert list(panels) == ["q", "up", "other"]
    assert panels["q"]["x"] == [0, 1, 2]
    assert panels["q"]["rows"] == [0, 3, 6]
    assert panels["up"]["x"] == [0, 0.18, 1, 1.18, 2, 2.18]
    assert panels["other"]["rows"] == [9]
    assert depth["blocks"] == 3


def test_intervals_noise_and_range():
    table = details(
        ["a", "b", "c"],
        alpha=[2.0, 3.0, np.nan],
        sigma=[0.5, 0.1, np.nan],
        null_alpha_low=[4.0, np.nan, 1.0],
        null_alpha_high=[9.0, np.nan, 2.0],
    )
    depth = depth_of(table, "alpha")
    (panel,) = depth["panels"]
    assert panel["rows"] == [0, 1]
    assert panel["low"] == [1.5, 2.9]
    assert panel["high"] == [2.5, 3.1]
    assert panel["noise"] == [[4.0, 9.0], [None, None]]
    low, high = depth["range"]
    assert depth["log"]
    assert low < 1.5 < 9 < high


def test_tied_layers_and_tables_without_values_are_left_out():
    table = details(["a", "b"], alpha=[2.0, 3.0]).assign(tied_to=["", "a"])
    assert depth_of(table, "alpha")["panels"][0]["rows"] == [0]
    assert depth_of(table.assign(alpha=np.nan), "alpha") is None

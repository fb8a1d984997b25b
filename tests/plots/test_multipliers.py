import pandas as pd
import pytest

from htsr.plots import plot_multipliers


def test_a_staircase_for_each_layer():
    table = pd.DataFrame({
        "step": [0, 0, 10, 10], "name": ["b", "a"] * 2, "signal": 1.0, "multiplier": [0.5, 1.5, 0.75, 1.25]
    })  # fmt: skip
    axes = plot_multipliers(table)
    stairs = {line.get_label(): list(line.get_ydata()) for line in axes.lines if line.get_label() in {"a", "b"}}
    assert stairs == {"a": [1.5, 1.25], "b": [0.5, 0.75]}
    assert plot_multipliers(table.rename(columns={"multiplier": "power"})).get_ylabel() == "power"
    with pytest.raises(ValueError, match="at least one reading"):
        plot_multipliers(table.drop(columns="multiplier"))

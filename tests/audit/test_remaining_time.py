"""The remaining time of an audit, on audits whose times are known."""

import pytest
import torch

from htsr.audit.progress import LayerBar
from htsr.audit.remaining_time import RemainingTime, expected_cost
from htsr.weights import Layer

# (out, in), seconds with a warm start
LARGE, SMALL, TABLE = ((11008, 4096), 5.0), ((4096, 4096), 4.0), ((32000, 4096), 9.0)
BLOCK = [LARGE] * 3 + [SMALL] * 4


def named(shapes):
    return [Layer(f"w{n}", f"w{n}", "dense", shape, torch.empty, dtype="bfloat16") for n, shape in enumerate(shapes)]


def errors(times, workers=1, start=0.0, first=0.0):
    """Yield the share of the time that is over and the relative error of the estimate, at each layer that is done.

    The workers take the layers in turn, after ``start`` seconds; the first layer of each shape takes ``first`` seconds more.
    """
    layers = named(shape for shape, _ in times)
    free, arrivals, seen = [start] * workers, [], set()
    for layer, (shape, seconds) in zip(layers, times, strict=True):
        worker = free.index(min(free))
        free[worker] += seconds + (0 if shape in seen else first)
        seen.add(shape)
        arrivals.append((free[worker], layer))
    remaining, end = RemainingTime(layers), max(free)
    for elapsed, layer in sorted(arrivals, key=lambda arrival: arrival[0]):
        remaining.done(layer, elapsed)
        if elapsed < end:
            yield elapsed / end, remaining.seconds() / (end - elapsed) - 1
    assert remaining.seconds() == 0


@pytest.mark.parametrize("first", [0, 10])
def test_one_after_the_other(first):
    """In the order of the model, also where noise of each shape is drawn first."""
    found = list(errors([TABLE, TABLE, *BLOCK * 32], first=first))
    assert all(abs(error) < 0.2 for share, error in found if 0.1 < share < 0.9)


def test_biggest_first_on_two_workers_that_start_slowly():
    found = list(errors([TABLE] * 2 + [LARGE] * 96 + [SMALL] * 128, workers=2, start=20))
    assert all(abs(error) < 0.2 for share, error in found if 0.1 < share < 0.9)


def test_what_every_layer_costs_more_is_learned():
    """Half a second for every layer, as ``alternatives`` takes, however small the layer."""
    times = [((4096, 1024), 0.74), *[((768, 64), 0.5), ((64, 64), 0.5)] * 50]
    found = list(errors(times))
    assert all(abs(error) < 0.05 for share, error in found if share > 0.1)


def test_layers_that_arrive_together():
    """A device takes 8 layers at a time, and the first of them brings the time of all."""
    layers = named([(768, 768)] * 32)
    remaining = RemainingTime(layers)
    for number, layer in enumerate(layers[:16]):
        remaining.done(layer, 8.0 * (number // 8 + 1))
    assert remaining.seconds() == pytest.approx(16.0)


def test_costs_follow_measured_times():
    """One thread of a Xeon; the table in the module says within 40 %."""
    measured = {
        (64, 64): 0.0043, (2048, 128): 0.0118, (256, 256): 0.0102, (512, 512): 0.0311, (1024, 1024): 0.161,
        (16384, 1024): 0.602, (2048, 2048): 1.36, (8192, 2048): 1.93,
    }  # fmt: skip
    costs = [expected_cost(layer) for layer in named(measured)]
    ratios = [cost / seconds / 3.5e10 for cost, seconds in zip(costs, measured.values(), strict=True)]
    assert all(0.6 < ratio < 1.4 for ratio in ratios)


def test_the_bar_begins_where_the_earlier_run_stopped(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("htsr.audit.progress.time.monotonic", lambda: clock[0])
    layers = named([(64, 64)] * 4)
    with LayerBar(layers, {"w0", "w1"}, True) as bar:
        bar._bar.delay = 0
        bar._bar._time = lambda: bar._bar.start_t + clock[0]
        clock[0] = 30.0
        bar.done("w2")
    line = capsys.readouterr().err.split("\r")[-1]
    assert " 75%" in line
    assert "00:30<00:30, 3/4 layers, w2" in line

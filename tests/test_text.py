"""Names from strangers' files, at every place where a person reads them."""

import csv
import io
import json
import logging
import unicodedata
from contextlib import suppress

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import htsr
from htsr import plots, text
from htsr.audit.conditions import Condition
from htsr.cli.main import main
from htsr.report import analysis_page, comparison_page, runs_page
from htsr.training.live import screen

NAMES = [
    "\x1b[2J\x1b[31mred",  # clears the screen
    "\x1b]0;title\x07\x1b]8;;http://evil.example\x1b\\link",  # OSC: title, link
    "\x9b31mone byte",  # C1
    "a\r::error::forged",
    "a\n::error::forged",
    "nul\0byte",
    "\u202egnp.exe\u2066\u200f",  # right to left
    "line\u2028paragraph\u2029",
    "tag\U000e0041\ufeff\u200b",
    "long" * 1250,
    "=HYPERLINK(0)",
    "+1",
    "-1",
    "@SUM(1)",
    "\uff1d1",
    "\t=1",
    "\r=1",
    "$\\frac{$",
    "$$",
    "\\$x$",
    "$a$ and $b$",
    "_hidden",
    "<script>alert(1)</script>",
    "&amp;'\"",
    "{{ 1 + 1 }}{% raw %}",
    "%s%(name)s{0}",
    "层.\u0645\u062b\u0627\u0644",
]
# Control characters, formulas of three kinds, what cannot be parsed, what legends hide, and length.
WORST = [NAMES[0], NAMES[9], "$\\frac{$", "$$", "\\$x$", "$a$ and $b$", "_hidden"]
LONE_SURROGATE = "lone\ud800surrogate"


def assert_safe(shown: str, newlines: bool = True, longest: int = 400) -> None:
    """Nothing that a terminal, a log or a page acts on, no line of a stranger's, no endless one."""
    lines = shown.split("\n") if newlines else [shown]
    for line in lines:
        assert line.isprintable(), ascii(line[:200])
        assert not line.lstrip().startswith("::error::")
    assert "long" * (longest // 4) not in shown


@pytest.fixture(scope="module")
def weights():
    draw = torch.Generator().manual_seed(0)
    return {name: torch.randn(24, 16, generator=draw) for name in [*NAMES, LONE_SURROGATE]}


@pytest.fixture(scope="module")
def analysis(weights):
    return htsr.analyze({**weights, "bias\x1b[0m": torch.zeros(3), "bad\x1b[0m": torch.full((20, 10), float("nan"))})


@pytest.fixture(scope="module")
def comparison(weights):
    changed = {name: weight + 0.1 * torch.eye(24, 16) for name, weight in weights.items()}
    return htsr.compare({**weights, "only\x1b[0m": torch.randn(9, 9)}, changed)


class Named(nn.Module):
    """A model whose layers have hostile names."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        for name in NAMES:
            self.add_module(name.replace(".", "_"), nn.Linear(16, 12))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    model = Named()
    with htsr.Monitor(model, every=1, run_dir=tmp_path_factory.mktemp("runs") / "run") as monitor:
        monitor.on("alpha > 0", "warn")
        for step in range(2):
            monitor.record(**{"loss\x1b[0m": 0.5, "$\\frac{$": 1.0 + step})
            monitor.step()
    return monitor.history.run_dir


@pytest.fixture(scope="module")
def history(run_dir):
    return htsr.History(run_dir)


@given(st.text())
def test_what_is_visible_is_printable_and_says_which_character_it_hides(given_text):
    shown = text.visible(given_text)
    assert shown.isprintable()
    assert len(shown) <= text.MAX_LENGTH
    bad = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert not any(unicodedata.category(character) in bad for character in text.escaped(given_text))
    if given_text.isprintable():
        assert text.escaped(given_text) == given_text


@given(st.text())
def test_a_csv_cell_is_one_line_and_no_formula(given_text):
    cell = text.csv_cell(given_text)
    assert cell.isprintable()
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


@given(st.text(st.characters() | st.characters(categories=["Cs"])))
def test_what_is_encodable_can_be_encoded_and_is_else_unchanged(given_text):
    stored = text.encodable(given_text)
    stored.encode()
    try:
        given_text.encode()
    except UnicodeEncodeError:
        assert stored != given_text
    else:
        assert stored == given_text


def test_the_data_keep_the_true_names(analysis, history):
    assert list(analysis.details["name"])[: len(NAMES)] == NAMES
    assert [*analysis.keys()][: len(NAMES) + 1] == [*NAMES, LONE_SURROGATE]
    assert analysis.details["name"][len(NAMES)] == "lone\\ud800surrogate"  # UTF-8 holds no other
    assert set(history.details["name"]) == {name.replace(".", "_") for name in NAMES}


def test_reprs_and_headlines(analysis, comparison, history):
    for result in (
        analysis,
        comparison,
        analysis[0],
        comparison[0],
        history,
        htsr.History.load_many([history.run_dir]),
    ):
        assert_safe(repr(result))
    for result in (analysis, comparison):
        assert_safe(result.headline())
        assert len(result.headline().split("\n")) <= 7
    assert len(repr(analysis).split("\n")) == len(analysis.headline().split("\n")) + 1 + len(analysis)


def texts_of(value):
    """Yield every text inside the data of a page, names of settings and scalars too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (key, *texts_of(item))
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)


@pytest.mark.filterwarnings("ignore:Glyph:UserWarning", "ignore:.*constrained_layout:UserWarning")
def test_notebooks_and_pages(analysis, comparison, history, read_page):
    runs = htsr.History.load_many({name: history.run_dir for name in NAMES[:6]})
    pages = [analysis._repr_html_(), comparison._repr_html_(), history._repr_html_(), runs._repr_html_()]
    for page in (analysis_page(analysis), comparison_page(comparison), runs_page(runs, NAMES[0], NAMES, NAMES)):
        pages.append(page[: page.index("<style>")])
        for shown in texts_of(read_page(page)):
            assert_safe(shown, longest=1000)
    for page in pages:
        assert "<script" not in page
        assert_safe(page.replace(">\xa0<", "><"), longest=1000)  # matplotlib's own, between the letters of a formula
        page.encode()


@pytest.mark.parametrize(
    "draw",
    [
        lambda a, c, h: [a.plot("alpha"), a.plot("esd")],
        lambda a, c, h: [a[name].plot(kind) for name, kind in zip(WORST, ("esd", "xmin", "bulk") * 3, strict=False)],
        lambda a, c, h: [c.plot("change"), *(c.plot(name) for name in WORST)],
        lambda a, c, h: [h.plot("alpha"), *(h.plot(name) for name in WORST)],
        lambda a, c, h: [
            plots.figure_of(plots.plot_runs_over_steps({name: h for name in NAMES})),
            plots.figure_of(plots.plot_against_power({0.5: h})),
        ],
        lambda a, c, h: [
            plots.figure_of(plots.plot_scalars({name: h for name in NAMES}, ("loss\x1b[0m", "$\\frac{$")))
        ],
    ],
    ids=["analysis", "layers", "comparison", "history", "runs", "scalars"],
)
@pytest.mark.filterwarnings("ignore:Glyph:UserWarning", "ignore:.*constrained_layout:UserWarning")
def test_plots_draw_names_as_they_are(analysis, comparison, history, draw):
    for figure in draw(analysis, comparison, history):
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg")
        for label in figure.findobj(plt.Text):
            assert_safe(label.get_text())
        for legend in [*figure.legends, *(ax.get_legend() for ax in figure.axes)]:
            assert legend is None or all(len(entry.get_text()) <= 200 for entry in legend.get_texts())


def test_a_dollar_is_a_dollar_and_an_underscore_hides_nothing(history):
    (ax,) = plots.plot_scalars({"_run": history, "$\\frac{$": history}, ("loss\x1b[0m",))
    (legend,) = plots.figure_of(ax).legends
    assert [entry.get_text().strip() for entry in legend.get_texts()] == ["_run", "\\$\\frac{\\$"]
    assert ax.get_ylabel() == "loss\\x1b[0m"


def test_csv_cells_are_lines_without_formulas(analysis, comparison, history, tmp_path):
    for number, result in enumerate((analysis, comparison, history)):
        path = result.save(tmp_path / f"{number}.csv")
        rows = list(csv.reader(io.StringIO(path.read_text())))
        assert len(rows) == len(result.details) + 1
        texts = [row[rows[0].index("name")] for row in rows[1:]]
        assert all(cell.isprintable() and not cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in texts)
        assert "'=HYPERLINK(0)" in texts
        alphas = pd.read_csv(path, float_precision="round_trip").filter(regex="^alpha(_a)?$").iloc[:, 0]
        np.testing.assert_array_equal(alphas, result.details[alphas.name])  # numbers stay numbers, also below zero


def test_json_and_parquet_hold_the_true_names(analysis, tmp_path):
    document = json.loads(analysis.save(tmp_path / "a.json").read_text())
    assert [row["name"] for row in document["details"]][: len(NAMES)] == NAMES
    assert list(pd.read_parquet(analysis.save(tmp_path / "a.parquet"))["name"])[: len(NAMES)] == NAMES


@pytest.fixture(scope="module")
def checkpoints(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    tensors = {name: weight for name, weight in weights.items() if name != LONE_SURROGATE}
    save_file(tensors, folder / "a.safetensors")
    save_file({name: weight + 0.1 * torch.eye(24, 16) for name, weight in tensors.items()}, folder / "b.safetensors")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        [
            "audit",
            "{folder}/a.safetensors",
            "--fail-on",
            "alpha > 0",
            "--fail-on",
            "goodness_of_fit > 2",
            "--bootstrap",
            "20",
        ],
        ["audit", "{folder}/a.safetensors", "--json"],
        ["audit", "{folder}/a.safetensors", "--layers", "\x1b[31mnone"],
        ["audit", "{folder}/\x1b[31mnone\n::error::"],
        ["compare", "{folder}/a.safetensors", "{folder}/b.safetensors", "--fail-on", "relative_change > 0"],
        ["compare", "{folder}/a.safetensors", "{folder}/\x1b[31mnone"],
        ["report", "{run}", "-o", "{folder}/r.html"],
        ["report", "\x1b[31mnone"],
        ["watch", "{run}", "--once"],
        ["watch", "\x1b[31mnone"],
        ["demo", "--steps", "\x1b[31m"],
        ["audit", "a", "\x1b[31m"],
        ["\x1b[31m"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40].encode("ascii", "backslashreplace").decode(),
)
def test_commands_print_nothing_that_a_terminal_acts_on(checkpoints, run_dir, capsys, arguments):
    with suppress(SystemExit):
        main([argument.format(folder=checkpoints, run=run_dir) for argument in arguments])
    out, err = capsys.readouterr()
    assert_safe(err)
    if "--json" in arguments:
        assert out.isascii()
        assert not any(ord(character) < 32 for character in out.replace("\n", ""))
    else:
        assert_safe(out)


def test_the_screen_of_watch(history):
    assert_safe(screen(history))
    assert len(screen(history).split("\n")) == 3 + len(NAMES) + len(history.events.tail(5))


@pytest.mark.parametrize("name", [*NAMES, LONE_SURROGATE])
def test_messages(analysis, comparison, name):
    refusals = [
        lambda: htsr.analyze({name: torch.randn(9, 9)}, layers="nothing like it"),
        lambda: htsr.analyze({"w": torch.randn(9, 9)}, layers=name),
        lambda: htsr.compare({name: torch.randn(9, 9)}, {"other": torch.randn(9, 9)}),
        lambda: analysis[f"{name}!"],
        lambda: comparison.plot(f"{name}!"),
        lambda: Condition(f"alpha === {name}"),
    ]
    for refusal in refusals:
        with pytest.raises((ValueError, KeyError)) as raised:
            refusal()
        assert str(raised.value).isprintable(), ascii(str(raised.value))


def test_verdicts_and_what_the_log_says(analysis, caplog):
    for verdict in (
        Condition("alpha > 0").check(analysis.details),
        Condition("goodness_of_fit > 2").check(analysis.details),
    ):
        assert_safe(str(verdict), newlines=False)
        assert_safe(verdict.doubts(), newlines=False)
    model = Named()
    with caplog.at_level(logging.WARNING), htsr.Monitor(model, every=1) as monitor:
        monitor.on("alpha > 0", "warn")
        monitor.step()
    assert caplog.records
    for record in caplog.records:
        assert_safe(record.getMessage(), newlines=False)


def test_progress_bars(weights, capsys):
    htsr.analyze(weights, progress=True)
    htsr.compare(weights, weights, progress=True)
    drawn = capsys.readouterr().err
    assert all(part.isprintable() for part in drawn.replace("\x1b[A", "").replace("\r", "\n").split("\n"))

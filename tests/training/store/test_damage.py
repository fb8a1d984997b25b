"""Damage to a run directory: what is read is right, and what is left out is named."""

import io
import json
import os
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import htsr
from htsr.files import seal
from htsr.training.store import tables, writer
from htsr.training.store.capture import Capture
from htsr.training.store.files import SCHEMA, append_line, read_lines
from htsr.training.store.writer import RunWriter

ABOUT = {"schema": SCHEMA, "htsr": "0", "model": "M", "optimizer": "SGD", "budget": None}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Two tables of three captures, two captures alone, scalars and events; every capture has other numbers."""
    torch.manual_seed(0)
    run_dir = tmp_path_factory.mktemp("damage") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for module in (tables, writer):
            patch.setattr(module, "CAPTURES_PER_TABLE", 3)
        run_writer = RunWriter(run_dir, ABOUT, 0)
        for step in range(0, 80, 10):
            analysis = htsr.analyze({"a": torch.randn(20, 12), "b/ü": torch.randn(15, 11)}, bulk=False, progress=False)
            rows = [layer.row | {"quantity": "weights"} for layer in analysis]
            spectra = {("weights", name): spectrum for name, spectrum in analysis.spectra.items()}
            groups = [{"lr": 0.1 / (1 + step), "algorithm": "muon"}]
            run_writer.save(Capture(step, step / 7, 0.5, rows, spectra, groups))
            run_writer.record(step, {"loss": 1 / (1 + step), "norm": float("nan") if step == 50 else 2.5})
            run_writer.event(step, "skipped", "J is one bit away from a line break")
        run_writer.close()
    return run_dir


@pytest.fixture
def run(original, tmp_path, monkeypatch):
    """A copy of the run, whose next writer makes tables as large."""
    for module in (tables, writer):
        monkeypatch.setattr(module, "CAPTURES_PER_TABLE", 3)
    return Path(shutil.copytree(original, tmp_path / "run"))


def seen(history):
    """Everything that a history tells."""
    return {
        "about": history.about,
        "details": history.details.set_index("step"),
        "captures": history.captures.set_index("step"),
        "groups": history.groups.set_index("step"),
        "scalars": history.scalars.set_index("step"),
        "events": history.events.set_index("step"),
        "spectra": {(name, step): s for name in ("a", "b/ü") for step, s in history.spectra(name).items()},
    }


def assert_right(now, truth, damaged):
    """What is there is right; what is not there is named."""
    for name in ("details", "captures", "groups", "scalars", "events"):
        there = truth[name].loc[truth[name].index.isin(now[name].index)]
        if len(there):  # a table without a row lacks columns, too
            pd.testing.assert_frame_equal(now[name], there)
        assert damaged or len(there) == len(truth[name])
    for key, spectrum in now["spectra"].items():
        assert np.array_equal(spectrum.eigenvalues, truth["spectra"][key].eigenvalues)
        assert spectrum.shape == truth["spectra"][key].shape
    assert damaged or now["spectra"].keys() == truth["spectra"].keys()
    assert now["about"] == truth["about"] or "run.json" in damaged


def flip_bits(run, count, seed):
    """Flip one bit at a time, in each file as often; return how often everything was right and how often damage was named."""
    truth, draw = seen(htsr.History(run)), random.Random(seed)
    files = sorted(path for path in run.rglob("*") if path.is_file())
    alone = [path for path in files if path.parent == run or path.parent.name == "tables"]
    captures = [path for path in files if path.parent.name == "captures"]
    right = named = 0
    for number in range(count):
        path = draw.choice(alone if number % 2 else captures)
        whole = path.read_bytes()
        bit = draw.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            history = htsr.History(run)
            now = seen(history)
        except htsr.InputError as err:
            refused = str(err)
            named += 1
        else:
            refused = ""
            assert all(name.startswith(path.name) for name in history.damaged), history.damaged
            assert_right(now, truth, history.damaged)
            named += bool(history.damaged)
            right += not history.damaged
        assert not refused or (path.name == "run.json" and ("run.json" in refused or "expected schema" in refused))
        path.write_bytes(whole)
    assert seen(htsr.History(run)).keys() == truth.keys()
    return right, named


def test_a_hundred_flipped_bits(run):
    right, named = flip_bits(run, 100, seed=0)
    assert right + named == 100
    assert named > 75


@pytest.mark.slow
def test_a_thousand_flipped_bits(run):
    right, named = flip_bits(run, 1000, seed=1)
    assert right + named == 1000
    print(f"right {right}, named {named}")


def test_each_bit_of_a_line(tmp_path):
    """Of any line, the last one too: it is right or it is named, and no other line suffers."""
    path = tmp_path / "scalars.jsonl"
    for step in range(3):
        append_line(path, {"step": step, "loss": 0.5 + step})
    whole = path.read_bytes()
    truth, _ = read_lines(path, numbers=True)
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        lines, damaged = read_lines(path, numbers=True)
        assert all(line in truth for line in lines), bit
        assert lines == truth or damaged, bit
        assert len(lines) >= 1, bit


@pytest.mark.parametrize("end", range(1, 30, 3))
def test_a_line_that_is_being_written_is_no_damage(tmp_path, end):
    path = tmp_path / "scalars.jsonl"
    append_line(path, {"step": 1, "loss": 0.5})
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:end])
    assert read_lines(path, numbers=True) == ([{"step": 1, "loss": 0.5}], {})


LINES = [
    '{"step": 1e999}', '{"step": NaN}', '{"step": true}', '{"step": "1"}', '{"step": null}', '{"step": -1}', "{}",
    '{"step": 1.0}', '{"step": [1]}', '{"step": ' + "9" * 5000 + "}", '{"step": 99999999999999999999}',
    '{"resumed": NaN}', '{"resumed": "x"}', '{"resumed": 1e999}', '{"resumed": null}', "[]", "5", "null", '"text"', "NaN",
    "[" * 100_000, '{"step": 1' + ', "x": [' * 5000, "\xff\xfe", '{"step": 1, "kind": 2, "message": "x"}',
    '{"step": 1, "kind": "x"}',
]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("name", ["scalars.jsonl", "events.jsonl"])
def test_a_line_of_other_types_is_named(run, line, name):
    truth = seen(htsr.History(run))
    with (run / name).open("ab") as file:
        file.write(f"\n{line}\n".encode("latin-1"))
    history = htsr.History(run)
    now = seen(history)
    for table in ("scalars", "events", "details"):
        pd.testing.assert_frame_equal(now[table], truth[table])
    assert len(history.damaged) == 1
    assert next(iter(history.damaged)).startswith(name)


@pytest.mark.parametrize("value", ["x", True, None, [1.0], {"a": 1}, 10**400, 2**63])
def test_a_scalar_that_is_no_number_is_named(run, value):
    truth = htsr.History(run).scalars
    with (run / "scalars.jsonl").open("a") as file:
        file.write(f"\n{json.dumps({'step': 400, 'loss': value})}\n")
    history = htsr.History(run)
    pd.testing.assert_frame_equal(history.scalars, truth)
    assert list(history.damaged.values()) == ["expected numbers only"]


def test_lines_of_older_versions_have_no_checksum(run):
    with (run / "scalars.jsonl").open("a") as file:
        file.write('\n{"step": 400, "loss": 0.25}')
    assert htsr.History(run).scalars.set_index("step").loc[400, "loss"] == 0.25


def rewritten(path, change, sealed=True, compression=zipfile.ZIP_STORED):
    """Write a capture anew with another description or other eigenvalues."""
    with np.load(path) as parts:
        about, eigenvalues = json.loads(parts["about"].tobytes()), parts["eigenvalues"]
    about, eigenvalues = change(about, eigenvalues)
    content = io.BytesIO()
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, array in (("about", np.frombuffer(text, dtype=np.uint8)), ("eigenvalues", eigenvalues)):
            member = io.BytesIO()
            np.save(member, array)
            archive.writestr(f"{name}.npy", member.getvalue())
    data = content.getvalue()
    path.write_bytes(seal(data) if sealed else data)


def with_row(**cells):
    return lambda about, e: ({**about, "rows": [{**about["rows"][0], **cells}, *about["rows"][1:]]}, e)


CHANGES = {
    "step 1e999": lambda about, e: (json.dumps(about).replace('"step": 70', '"step": 1e999').encode(), e),
    "step nan": lambda about, e: ({**about, "step": float("nan")}, e),
    "step text": lambda about, e: ({**about, "step": "70"}, e),
    "other step": lambda about, e: ({**about, "step": 60}, e),
    "no step": lambda about, e: ({name: about[name] for name in about if name != "step"}, e),
    "schema list": lambda about, e: ({**about, "schema": [3]}, e),
    "schema text": lambda about, e: ({**about, "schema": "3"}, e),
    "seconds": lambda about, e: ({**about, "seconds": "1"}, e),
    "seconds huge": lambda about, e: ({**about, "seconds": 10**400}, e),
    "digits": lambda about, e: (json.dumps(about).replace('"step": 70', '"step": ' + "9" * 5000).encode(), e),
    "groups": lambda about, e: ({**about, "groups": {"lr": 1}}, e),
    "group": lambda about, e: ({**about, "groups": [1]}, e),
    "setting": lambda about, e: ({**about, "groups": [{"lr": 10**400}]}, e),
    "a list": lambda about, e: ([about], e),
    "deep": lambda about, e: (b"[" * 100_000, e),
    "rows": lambda about, e: ({**about, "rows": 5}, e),
    "row": lambda about, e: ({**about, "rows": [None]}, e),
    "row without N": lambda about, e: ({**about, "rows": [{"name": "a"}]}, e),
    "alpha text": with_row(alpha="2.5"),
    "alpha huge": with_row(alpha=10**400),
    "alpha null": with_row(alpha=None),
    "N fraction": with_row(N=20.5),
    "N infinite": with_row(N=float("inf")),
    "count huge": with_row(num_spikes=2**63),
    "name number": with_row(name=5),
    "phase list": with_row(phase=["x"]),
    "spectra": lambda about, e: ({**about, "spectra": {"a": 1}}, e),
    "size": lambda about, e: ({**about, "spectra": [{**about["spectra"][0], "size": -1}]}, e),
    "shape": lambda about, e: ({**about, "spectra": [{**item, "shape": 5} for item in about["spectra"]]}, e),
    "too few": lambda about, e: (about, e[:-1]),
    "negative": lambda about, e: (about, -e),
    "nan": lambda about, e: (about, e * np.nan),
    "texts": lambda about, e: (about, e.astype(str)),
    "two rows": lambda about, e: (about, np.stack([e, e])),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_capture_of_other_types_is_named(run, change):
    truth = seen(htsr.History(run))
    path = run / "captures" / "step-000000000070.npz"
    rewritten(path, change)
    history = htsr.History(run)
    now = seen(history)
    assert list(history.damaged) == [path.name]
    assert_right(now, truth, history.damaged)
    assert 70 not in history.steps


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99])
def test_a_compressed_capture_is_named(run, compression, sealed):
    path = run / "captures" / "step-000000000070.npz"
    if compression == 99:  # a method that zipfile does not know
        content = bytearray(path.read_bytes())
        for start, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
            at = content.find(start) + offset
            content[at : at + 2] = (99).to_bytes(2, "little")
        path.write_bytes(content)
    else:
        rewritten(path, lambda about, e: (about, e), sealed, compression)
    history = htsr.History(run)
    assert len(history.details) == 14
    assert list(history.damaged) == [path.name]


def test_a_capture_that_lost_its_checksum_is_named(run):
    path = run / "captures" / "step-000000000070.npz"
    rewritten(path, lambda about, e: (about, e), sealed=False)
    history = htsr.History(run)
    assert 70 not in history.steps
    assert history.damaged == {path.name: "it does not end with a checksum"}


def change_table(path, change, compress=False):
    """Write a table anew with other arrays, and seal it, as nobody but a deceiver would."""
    with np.load(path) as arrays:
        held = dict(arrays)
    about = json.loads(held["about"].tobytes())
    change(held, about)
    held["about"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    content = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(content, **held)
    path.write_bytes(seal(content.getvalue(), path.name))


TABLE_CHANGES = {
    "no steps": lambda held, about: held.pop("step"),
    "no N": lambda held, about: held.pop("N"),
    "N float": lambda held, about: held.update(N=held["N"] * 1.0),
    "alpha whole": lambda held, about: held.update(alpha=held["alpha"].astype("int64")),
    "alpha text": lambda held, about: held.update(alpha=held["alpha"].astype(str)),
    "alpha short": lambda held, about: held.update(alpha=held["alpha"][:-1]),
    "alpha square": lambda held, about: held.update(alpha=held["alpha"][None]),
    "place beyond": lambda held, about: held.update(name=held["name"] + 1),
    "place before": lambda held, about: held.update(name=held["name"] - 1),
    "no texts": lambda held, about: about.pop("texts"),
    "a text less": lambda held, about: about["texts"].pop("phase"),
    "number for text": lambda held, about: about["texts"].update(name=[1, 2]),
    "texts in a text": lambda held, about: about["texts"].update(phase=5),
    "captures": lambda held, about: about.update(captures=[]),
    "about a list": lambda held, about: about.update(parts=[1]),
}


@pytest.mark.parametrize("change", TABLE_CHANGES.values(), ids=TABLE_CHANGES)
def test_a_table_of_other_types_is_named(run, change):
    truth = seen(htsr.History(run))
    table = run / "tables" / "rows-000000000030-000000000050.npz"
    change_table(table, change)
    history = htsr.History(run)
    now = seen(history)
    assert list(history.damaged) == [table.name]
    assert_right(now, truth, {})


def test_a_compressed_table_is_named(run):
    table = run / "tables" / "rows-000000000030-000000000050.npz"
    change_table(table, lambda held, about: None, compress=True)
    history = htsr.History(run)
    assert len(history.details) == 16
    assert history.damaged == {table.name: "expected members that are not compressed; its captures are read instead"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
@pytest.mark.parametrize(
    "name", ["captures/step-000000000070.npz", "tables/rows-000000000000-000000000020.npz", "scalars.jsonl"]
)
def test_a_pipe_is_named_and_never_waited_for(run, name):
    truth, path = seen(htsr.History(run)), run / name
    path.unlink()
    os.mkfifo(path)
    history = htsr.History(run)
    assert_right(seen(history), truth, history.damaged)
    assert list(history.damaged) == [path.name]


def test_a_damaged_table_is_made_anew_by_the_next_writer(run):
    truth = seen(htsr.History(run))
    table = run / "tables" / "rows-000000000030-000000000050.npz"
    table.write_bytes(table.read_bytes()[:-9])
    resumed = RunWriter(run, ABOUT, 70)
    assert not table.exists()
    step = Capture.load(run / "captures" / "step-000000000070.npz")
    for number in range(80, 150, 10):
        resumed.save(Capture(number, 1.0, 0.5, step.rows, step.spectra, step.groups))
    history = htsr.History(run)
    assert table.exists()
    assert history.damaged == {}
    assert table.name in history.events.query("kind == 'damaged'")["message"].iloc[0]
    before = history.details.set_index("step").loc[:70]
    pd.testing.assert_frame_equal(before, truth["details"])


def test_a_table_that_is_damaged_after_it_was_opened(run):
    history = htsr.History(run)
    truth = history.details
    table = run / "tables" / "rows-000000000000-000000000020.npz"
    status, content = table.stat(), bytearray(table.read_bytes())
    content[200] ^= 4
    table.write_bytes(content)
    os.utime(table, ns=(status.st_atime_ns, status.st_mtime_ns))
    pd.testing.assert_frame_equal(history.details, truth)
    assert list(history.damaged) == [table.name]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"schema": [1], "htsr": 1}'])
def test_a_resumed_run_replaces_a_damaged_description(run, content):
    (run / "run.json").write_bytes(content)
    RunWriter(run, ABOUT, 70).close()
    history = htsr.History(run)
    assert history.about == ABOUT | {"resumed_at": 70}
    assert "run.json" in history.events.query("kind == 'damaged'")["message"].iloc[0]


def test_two_live_writers_are_refused(run):
    first = RunWriter(run, ABOUT, 70)
    with pytest.raises(htsr.InputError, match=rf"another Monitor writes this run.*process {os.getpid()} "):
        RunWriter(run, ABOUT, 70)
    first.close()
    second = RunWriter(run, ABOUT, 70)
    del second  # a writer that nobody keeps is no obstacle
    RunWriter(run, ABOUT, 70).close()


def test_a_refused_writer_changes_nothing(run):
    first = RunWriter(run, ABOUT, 70)
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "writer.lock"}
    for step in (0, 50):
        with pytest.raises(htsr.InputError, match="another Monitor writes this run"):
            RunWriter(run, ABOUT, step)
    assert files == {
        path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "writer.lock"
    }
    first.close()

"""Kept results: what is loaded is what was saved, to the last bit, and a damaged file is named."""

import json
import struct
import warnings
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import htsr
from htsr.audit.about import About
from htsr.audit.saved import ABOUT
from htsr.cli.main import main
from htsr.files.archive import DOCUMENT, read_archive, write_archive

# Written by _write_samples on 2026-11-27; htsr reads them for ever.
SAMPLE, SAMPLE_OF_COMPARISON = (
    Path(__file__).parent.parent / "data" / f"{name}-1.htsr" for name in ("analysis", "comparison")
)


def model():
    """Every kind of layer that a result tells apart: fitted, failed, tied, broken, pooled, with a name that needs escaping."""
    torch.manual_seed(0)
    first, second = torch.nn.Linear(40, 64), torch.nn.Linear(40, 64)
    second.weight = first.weight
    net = torch.nn.Sequential(
        first, second, torch.nn.Conv2d(12, 16, 3), torch.nn.Linear(64, 1), torch.nn.Linear(30, 20)
    )
    with torch.no_grad():
        net[4].weight[0, 0] = torch.nan
        net[0].weight[0] *= 30
    return net


OPTIONS = {"bootstrap": 20, "randomize": True, "alternatives": True, "vectors": True, "seed": 3}


def assert_same(a, b):
    pd.testing.assert_frame_equal(a.details, b.details, check_exact=True)
    pd.testing.assert_frame_equal(a.skipped, b.skipped)
    pd.testing.assert_frame_equal(a.findings, b.findings)
    assert repr(a) == repr(b)
    assert a.summary().keys() == b.summary().keys()
    assert str(a.summary()) == str(b.summary())
    assert a.about.settings == b.about.settings
    for x, y in zip(a, b, strict=True):
        assert x.row.keys() == y.row.keys()
        assert [str(v) for v in x.row.values()] == [str(v) for v in y.row.values()]
        assert repr(x.fit) == repr(y.fit)
        np.testing.assert_array_equal(x.fit.values, y.fit.values)
        assert (x.spectrum is None) == (y.spectrum is None)
        if x.spectrum is not None:
            np.testing.assert_array_equal(x.spectrum.eigenvalues, y.spectrum.eigenvalues)
            assert x.spectrum.shape == y.spectrum.shape
        assert str(x.bulk) == str(y.bulk)
        assert str(x.shuffled) == str(y.shuffled)
        if x.fit.status == "success":
            assert x.fit.confidence_interval(n_boot=20, seed=1) == y.fit.confidence_interval(n_boot=20, seed=1)


@pytest.fixture(scope="module")
def analysis():
    return htsr.analyze(model(), **OPTIONS)


@pytest.mark.parametrize("options", [{}, OPTIONS, {"bulk": False}, {"convention": "weightwatcher"}, {"xmin": "median"}])
def test_what_is_loaded_is_what_was_saved(tmp_path, options):
    a = htsr.analyze(model(), **options)
    b = htsr.load(a.save(tmp_path / "a.htsr"))
    assert_same(a, b)
    assert b.about.settings == options
    assert b.save(tmp_path / "b.htsr").read_bytes() == (tmp_path / "a.htsr").read_bytes()


def test_pages_plots_and_tables_of_a_loaded_result_are_the_same(tmp_path, analysis):
    loaded = htsr.load(analysis.save(tmp_path / "a.htsr"))
    for suffix in ("html", "md", "json", "csv"):
        written = [result.save(tmp_path / f"{i}.{suffix}").read_bytes() for i, result in enumerate((analysis, loaded))]
        assert written[0] == written[1], suffix


def versions():
    before = model().state_dict()
    after = {name: weight.clone() for name, weight in before.items()}
    after["2.weight"] += 0.1 * torch.randn_like(after["2.weight"])
    return before, after


def test_a_comparison(tmp_path):
    c = htsr.compare(*versions())
    d = htsr.load(c.save(tmp_path / "c.htsr"))
    pd.testing.assert_frame_equal(c.details, d.details, check_exact=True)
    for name in ("unmatched", "skipped", "findings"):
        pd.testing.assert_frame_equal(getattr(c, name), getattr(d, name))
    assert (c.kind, c.kind_evidence, c.verdict) == (d.kind, d.kind_evidence, d.verdict)
    for side in ("a", "b", "delta"):
        assert_same(getattr(c, side), getattr(d, side))
    for x, y in zip(c, d, strict=True):
        np.testing.assert_array_equal(x.angles_out, y.angles_out)
        np.testing.assert_array_equal(x.angles_in, y.angles_in)
    assert c.save(tmp_path / "c.html").read_text() == d.save(tmp_path / "d.html").read_text()


def test_a_file_is_kept_with_its_digest(tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, w=np.random.default_rng(0).normal(size=(40, 30)))
    a = htsr.analyze(path)
    digest = htsr.load(a.save(tmp_path / "a.htsr")).about.files[str(path)]
    assert len(digest) == 128
    np.savez(path, w=np.random.default_rng(1).normal(size=(40, 30)))
    assert htsr.load(a.save(tmp_path / "b.htsr")).about.files[str(path)] == "changed since the analysis"
    assert torch.__version__.startswith(
        htsr.load(tmp_path / "b.htsr").about.versions["torch"]
    )  # +cu130 is not in metadata


def test_a_file_of_the_first_schema():
    a = htsr.load(SAMPLE)
    assert list(a.details["name"]) == ["0", "1", "2", "3", "4"]
    assert a.details["tied_to"][1] == "0"
    assert a.details["reason"][4] == "non-finite (1 of 600)"
    assert a["0"].spectrum.shape == (64, 40)
    assert len(a["2"].spectrum) == 108
    assert a.about.settings["bootstrap"] == 20
    assert a["0"].plot() is not None


def test_a_comparison_of_the_first_schema():
    c = htsr.load(SAMPLE_OF_COMPARISON)
    assert dict(zip(c.details["name"], c.details["status"], strict=True))["2"] == "changed"
    assert c.kind == "few-layers"
    assert c["2"].delta.spectrum.shape == (16, 12, 3, 3)
    assert 0.1 < c["2"].row["relative_change"] < 10
    assert c.details["alpha_of_delta"].notna().sum() == 1


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_other_formats_load_as_tables_and_say_what_they_lack(tmp_path, analysis, suffix):
    path = analysis.save(tmp_path / f"a.{suffix}")
    with pytest.warns(UserWarning, match="has no spectra, fits, plots or settings"):
        table = htsr.load(path)
    pd.testing.assert_frame_equal(table, analysis.details)


def tampered(change):
    def write(path):
        document, arrays = read_archive(path)
        change(document, arrays)
        write_archive(path, document, arrays)

    return write


def recompressed(path):
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in content.items():
            archive.writestr(name, value)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def with_pickle(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(DOCUMENT, json.dumps({"schema": 1, "result": "analysis"}))
        header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
        archive.writestr(
            "eigenvalues.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"cos\nsystem\n."
        )


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "damaged or cut off"),
        (lambda path: path.write_bytes(b""), "damaged or cut off"),
        (lambda path: path.write_bytes(b"\x93NUMPY" * 100), "damaged or cut off"),
        (flipped, "is damaged"),
        (recompressed, "htsr compresses nothing"),
        (with_pickle, "'eigenvalues.npy' in it is damaged"),
        (tampered(lambda d, a: d.update(schema=99, htsr="7.0")), "has schema 99, written by htsr 7.0; .* upgrade htsr"),
        (tampered(lambda d, a: d.update(schema=0)), "has schema 0"),
        (tampered(lambda d, a: d.update(result="survey")), "without schema and result"),
        (tampered(lambda d, a: d.pop("layers")), "does not fit together"),
        (tampered(lambda d, a: a.pop("eigenvalues")), "does not fit together"),
        (tampered(lambda d, a: a.update(eigenvalues=a["eigenvalues"][1:])), "does not fit together"),
        (tampered(lambda d, a: a.update(eigenvalues=-a["eigenvalues"])), "does not fit together"),
        (tampered(lambda d, a: d["layers"][0]["row"].update(alpha="high")), "does not fit together"),
        (tampered(lambda d, a: d["layers"][0]["row"].update(name=3)), "does not fit together"),
        (tampered(lambda d, a: d["layers"][0].update(num_eigenvalues=10**12)), "does not fit together"),
        (tampered(lambda d, a: d["layers"][0].update(num_eigenvalues=-1)), "does not fit together"),
        (tampered(lambda d, a: d["layers"][0].update(shape="big")), "does not fit together"),
        (tampered(lambda d, a: d["layers"][0]["fit"].update(n_tail=10**12)), "does not fit together"),
        (tampered(lambda d, a: d.update(layers=[[[[]]]])), "does not fit together"),
        (tampered(lambda d, a: d["about"].update(num_params_skipped="many")), "does not fit together"),
        (tampered(lambda d, a: d["about"].update(metadata={"format": 3})), "does not fit together"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, analysis, damage, said):
    path = analysis.save(tmp_path / "a.htsr")
    damage(path)
    with pytest.raises(htsr.InputError, match=said) as caught:
        htsr.load(path)
    assert str(path) in str(caught.value)


def test_what_about_holds_is_what_a_document_holds():
    assert set(ABOUT) == {field.name for field in fields(About) if not field.name.startswith("_")}


def test_a_newer_column_is_left_out(tmp_path, analysis):
    path = analysis.save(tmp_path / "a.htsr")
    tampered(lambda d, a: d["layers"][0]["row"].update(new_number=3.0))(path)
    assert_same(analysis, htsr.load(path))


def test_missing_and_strange_paths(tmp_path):
    with pytest.raises(FileNotFoundError):
        htsr.load(tmp_path / "none.htsr")
    with pytest.raises(htsr.InputError, match=r"expected a result, that is \.htsr"):
        htsr.load(tmp_path / "x.safetensors")
    for suffix in ("csv", "json", "parquet"):
        path = tmp_path / f"x.{suffix}"
        path.write_bytes(b'{"a": [')
        with pytest.raises(htsr.InputError, match="expected a table of layers"), warnings.catch_warnings():
            htsr.load(path)


def test_a_saved_result_is_no_checkpoint(capsys):
    with pytest.raises(htsr.InputError, match="got a result that htsr saved, which holds none"):
        htsr.analyze(SAMPLE)
    assert main(["audit", str(SAMPLE)]) == 2
    assert "htsr report" in capsys.readouterr().err


def _write_samples():
    SAMPLE.parent.mkdir(exist_ok=True)
    htsr.analyze(model(), **OPTIONS).save(SAMPLE)
    htsr.compare(*versions()).save(SAMPLE_OF_COMPARISON)

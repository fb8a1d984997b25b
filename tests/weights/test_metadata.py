"""What a file says about itself is kept within bounds, and shown as one safe line."""

import json

import torch
from safetensors.torch import save_file

import htsr
from htsr.weights import open_source
from htsr.weights.metadata import MAX_ENTRIES, MAX_KEY, MAX_VALUE, bounded_metadata


def test_long_texts_are_cut_and_many_entries_left_out():
    kept = bounded_metadata({f"{i}" + "k" * 200: "v" * 5000 for i in range(100)} | {"last": 1})
    assert len(kept) == MAX_ENTRIES
    assert {len(key) for key in kept} == {MAX_KEY}
    assert {len(value) for value in kept.values()} == {MAX_VALUE}
    assert bounded_metadata({"version": 3, "name": "\ud800"}) == {"version": "3", "name": "\\ud800"}


def test_metadata_of_safetensors_is_shown_everywhere(tmp_path, read_page):
    said = {"format": "pt", "modelspec.title": "A\x1b[31m <b>title</b>\n", "long": "x" * 5000}
    save_file({"w.weight": torch.randn(12, 10)}, tmp_path / "m.safetensors", metadata=said)
    a = htsr.analyze(tmp_path / "m.safetensors", bulk=False)
    assert a.metadata["modelspec.title"] == said["modelspec.title"]
    line = next(line for line in a.headline().split("\n") if line.startswith("metadata: "))
    assert "modelspec.title=A\\x1b[31m <b>title</b>\\n" in line
    assert "format" not in line
    assert len(line) < 330
    assert json.loads(a.save(tmp_path / "a.json").read_text())["metadata"] == a.metadata
    page = a.save(tmp_path / "a.html").read_text()
    assert "modelspec.title=A\\x1b[31m <b>title</b>\\n" in dict(read_page(page)["foot"])["metadata"]
    assert "<b>title" not in page


def test_metadata_of_shards_and_of_several_files(tmp_path):
    for number in (1, 2):
        save_file(
            {f"w{number}": torch.randn(9, 8)},
            tmp_path / f"model-{number:05d}-of-00002.safetensors",
            metadata={"both": "same", f"only {number}": "x"},
        )
    assert open_source(tmp_path).metadata == {"both": "same", "only 1": "x", "only 2": "x"}
    files = sorted(tmp_path.glob("*.safetensors"))
    assert open_source(files).metadata[f"{files[1].name}:only 2"] == "x"


def test_no_metadata_is_no_line():
    a = htsr.analyze({"w": torch.randn(12, 10)}, bulk=False)
    assert a.metadata == {}
    assert "metadata" not in a.headline()

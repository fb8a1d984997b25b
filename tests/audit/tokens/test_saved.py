"""Named directions in a kept result: the same tables, without the weights; damage is named; older files have none."""

import json

import pandas as pd
import pytest

import htsr
from htsr.cli.main import main
from htsr.errors import InputError
from htsr.files.archive import read_archive, write_archive
from tests.audit.test_saved import SAMPLE, SAMPLE_OF_COMPARISON
from tests.audit.tokens.conftest import DOWN, OUT, UP, normal, row_of, weights, write


@pytest.fixture
def pair(tmp_path):
    """Two models: one word was added to DOWN, noise to OUT."""
    tensors = weights()
    changed = {
        f"{DOWN}.weight": tensors[f"{DOWN}.weight"] + row_of(tensors, 7)[:, None] * normal(1, 60),
        f"{OUT}.weight": tensors[f"{OUT}.weight"] + 0.1 * normal(40, 40, seed=3),
    }
    return write(tmp_path / "a", tensors), write(tmp_path / "b", tensors | changed)


def test_what_was_named_is_kept(pair, tmp_path):
    a, b = pair
    layers = [DOWN, OUT, UP]
    for kind, result in (
        ("a", htsr.analyze(a, bulk=False, tokens=3, layers=layers)),
        ("c", htsr.compare(a, b, bulk=False, tokens=3, layers=layers)),
    ):
        loaded = htsr.load(result.save(tmp_path / f"{kind}.htsr"))
        pd.testing.assert_frame_equal(loaded.tokens_named, result.tokens_named, check_exact=True)
        assert loaded.tokens_lines() == result.tokens_lines()
        for name in layers:
            pd.testing.assert_frame_equal(loaded[name].tokens(2), result[name].tokens(2), check_exact=True)
        with pytest.raises(InputError, match="3 directions were asked for when it was made"):
            loaded[OUT].tokens(4)
        plain = htsr.load(htsr.load(tmp_path / f"{kind}.htsr").save(tmp_path / "again.htsr"))
        assert plain.tokens_named.equals(result.tokens_named)
        records = json.loads(result.save(tmp_path / "x.json").read_text())["tokens"]
        assert [record["promoted"] for record in records] == list(result.tokens_named["promoted"])


def test_without_tokens_a_kept_result_says_so(pair, tmp_path):
    a = htsr.load(htsr.analyze(pair[0], bulk=False, layers=OUT).save(tmp_path / "a.htsr"))
    assert not len(a.tokens_named)
    assert a.tokens_lines() == []
    with pytest.raises(InputError, match=r"keeps no weights and no named directions.*--tokens"):
        a[OUT].tokens()


@pytest.mark.parametrize("sample", [SAMPLE, SAMPLE_OF_COMPARISON])
def test_files_from_before_there_were_tokens(sample):
    assert not len(htsr.load(sample).tokens_named)


@pytest.mark.parametrize(
    "damage",
    [
        lambda tokens: tokens.update(asked="3"),
        lambda tokens: tokens.pop("columns"),
        lambda tokens: tokens["columns"].pop(),
        lambda tokens: tokens["layers"].update(nobody=[]),
        lambda tokens: tokens["layers"][OUT][0].__setitem__(0, "first"),
        lambda tokens: tokens["layers"][OUT][0].__setitem__(0, True),
        lambda tokens: tokens.update(layers=[]),
    ],
)
def test_damage(pair, tmp_path, damage):
    path = htsr.analyze(pair[0], bulk=False, tokens=1, layers=OUT).save(tmp_path / "a.htsr")
    document, arrays = read_archive(path)
    damage(document["tokens"])
    write_archive(path, document, arrays)
    with pytest.raises(InputError, match="does not fit together"):
        htsr.load(path)


def test_on_the_command_line(pair, tmp_path, capsys):
    a, b = map(str, pair)
    only = ["--layers", "*down_proj", "--layers", "*o_proj"]
    assert main(["compare", a, b, "--tokens=2", *only, "-o", str(tmp_path / "c.md")]) == 0
    shown = capsys.readouterr().out.split("Directions by the tokens that they promote")[1].splitlines()
    assert "lm_head, the output embedding" in shown[0]
    assert shown[1].strip() == DOWN
    assert shown[2].strip().startswith("1 (writes 100 % of the squared norm, p < 0.002): w7, ")
    assert shown[3].strip() == "2 of 3 directions, in 2 matrices, single out tokens no more than random ones do"
    assert "| writes | 1 | p \\< 0.002 | w7, " in (tmp_path / "c.md").read_text().replace(f"| {DOWN} | 1 ", "")
    assert main(["audit", a, *only, "--tokens"]) == 0
    assert "of 10 directions, in 2 matrices" in capsys.readouterr().out
    assert main(["audit", a, *only]) == 0
    assert "Directions" not in capsys.readouterr().out
    (pair[0] / "tokenizer.json").unlink()
    assert main(["audit", a, *only, "--tokens"]) == 2
    assert "expected tokenizer.json beside the weights" in capsys.readouterr().err


def test_a_path_behind_the_option_is_told_from_a_number(capsys):
    with pytest.raises(SystemExit):
        main(["audit", "--tokens", "model"])
    assert "put --tokens behind the paths, or write --tokens=5" in capsys.readouterr().err

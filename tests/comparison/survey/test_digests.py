"""Files with the same bytes."""

import os

from htsr.comparison.survey.digests import HEAD, same_files
from htsr.comparison.survey.files import WeightFile


def entries(*groups):
    return [WeightFile(files[0], tuple(files)) for files in groups]


def write(path, content):
    path.write_bytes(content)
    return path


def test_copies_links_and_files_that_only_begin_alike(tmp_path):
    long = bytes(HEAD + 10)
    a = write(tmp_path / "a", long)
    b = write(tmp_path / "b", long)
    late = write(tmp_path / "late", long[:-1] + b"x")
    early = write(tmp_path / "early", b"x" + long[1:])
    shorter = write(tmp_path / "shorter", long[:-1])
    soft, hard = tmp_path / "soft", tmp_path / "hard"
    soft.symlink_to(b)
    os.link(b, hard)
    found = same_files(entries([a], [soft], [late], [early], [shorter], [hard], [b]))
    assert found == {1: (0, "same bytes"), 5: (0, "same file"), 6: (0, "same file")}


def test_shards_are_compared_in_order(tmp_path):
    one, two = write(tmp_path / "1", b"one"), write(tmp_path / "2", b"two")
    copies = [write(tmp_path / "3", b"one"), write(tmp_path / "4", b"two")]
    assert same_files(entries([one, two], copies, copies[::-1])) == {1: (0, "same bytes")}


def test_what_cannot_be_read_equals_nothing(tmp_path):
    missing = tmp_path / "missing"
    assert same_files([*entries([missing], [missing]), WeightFile(tmp_path, ()), WeightFile(tmp_path, ())]) == {}

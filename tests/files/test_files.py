"""Files appear whole or not at all, no error names a hidden one, and seals show any damage."""

import errno
import os
import stat

import pytest

from htsr.files import is_sealed, open_regular, read_regular, seal, through_links, unseal, written_aside


def test_an_error_names_the_file_that_was_asked_for(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left") as raised, written_aside(tmp_path / "o.csv") as file:
            file.write(b"x")
    assert raised.value.filename == str(tmp_path / "o.csv")
    for path in (tmp_path / "missing" / "o.csv", tmp_path / "folder"):
        with pytest.raises(OSError, match=path.name) as raised, written_aside(path) as file:
            file.write(b"x")
        assert ".htsr-" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "a" * 5000, "missing", "", "."])
def test_a_name_that_no_file_has(tmp_path, name):
    with pytest.raises(OSError, match=r"name|such|expected a file"):
        open_regular(tmp_path / name)


@pytest.mark.parametrize("links", [["a.csv"], ["b", "a.csv"], ["b", "c", "b"]])
def test_a_link_that_leads_to_itself_is_no_place(tmp_path, links):
    for link, target in zip(["a.csv", *links], links, strict=False):
        if not (tmp_path / link).is_symlink():
            (tmp_path / link).symlink_to(target)
    with pytest.raises(OSError, match=r"a\.csv"):
        through_links(tmp_path / "a.csv")
    (tmp_path / "there").symlink_to("nowhere")
    assert through_links(tmp_path / "there") == (tmp_path / "nowhere").resolve()


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "o.csv"
    with written_aside(path) as first, written_aside(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"  # whose block ends last
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_permissions_stay(tmp_path):
    path = tmp_path / "o.csv"
    path.write_bytes(b"old")
    path.chmod(0o600)
    with written_aside(path) as file:
        file.write(b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
def test_what_is_no_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match=path.name):
            read_regular(path)


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 4])
def test_every_bit_counts(data):
    whole = seal(data, "name")
    assert unseal(whole, "name") == data
    assert is_sealed(whole)
    assert not is_sealed(data)
    for bit in range(0, 8 * len(whole), 7):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="checksum"):
            unseal(bytes(flipped), "name")
    for other in (whole[:-1], whole + b"x", data):
        with pytest.raises(ValueError, match="checksum"):
            unseal(other, "name")
    with pytest.raises(ValueError, match="does not fit"):
        unseal(whole, "another name")

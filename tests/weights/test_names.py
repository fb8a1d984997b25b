"""Names: what tells paths apart."""

from pathlib import Path

import pytest

from htsr.errors import InputError
from htsr.weights.names import distinct_ends


@pytest.mark.parametrize(
    ("paths", "ends"),
    [
        ([], []),
        (["a/m.pt"], ["m.pt"]),
        (["a/m.pt", "a/n.pt"], ["m.pt", "n.pt"]),
        (["a/m.pt", "b/m.pt"], ["a/m.pt", "b/m.pt"]),
        (["x/a/m.pt", "y/a/m.pt", "n.pt"], ["x/a/m.pt", "y/a/m.pt", None]),
        (["hf://org/one/m.safetensors", "hf://org/two/m.safetensors"], ["one/m.safetensors", "two/m.safetensors"]),
        (["/", "/a"], ["/", "a"]),
    ],
)
def test_the_shortest_ends_that_differ(paths, ends):
    found = distinct_ends(paths)
    assert all(end == expected for end, expected in zip(found, ends, strict=True) if expected is not None)
    assert len(set(found)) == len(paths)
    assert distinct_ends([Path(path) for path in paths if "://" not in path]) is not None


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "./a"], ["a", Path("a")], ["a", "b", Path.cwd() / "a"]])
def test_the_same_path_twice(paths):
    with pytest.raises(InputError, match="expected different paths, got one of them twice"):
        distinct_ends(paths)

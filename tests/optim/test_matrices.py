"""Parameters as matrices and back."""

import pytest
import torch

from htsr.optim import Reading

READINGS = [
    (Reading(), (6, 4), [(1, 6, 4)]),
    (Reading(), (6, 3, 2, 2), [(1, 6, 12)]),
    (Reading("stack"), (5, 6, 4), [(5, 6, 4)]),
    (Reading("stack"), (2, 5, 6, 4), [(10, 6, 4)]),
    (Reading("transposed"), (4, 6), [(1, 6, 4)]),
    (Reading(split=3), (6, 4), [(3, 2, 4)]),
    (Reading(split=(4, 1, 1)), (6, 4), [(1, 4, 4), (1, 1, 4), (1, 1, 4)]),
    (Reading(split=2, split_dim=1), (6, 4), [(2, 6, 2)]),
    (Reading("transposed", 3), (4, 6), [(3, 2, 4)]),
    (Reading("stack", (2, 4)), (5, 6, 4), [(5, 2, 4), (5, 4, 4)]),
]


@pytest.mark.parametrize(("reading", "shape", "shapes"), READINGS)
def test_pieces_join_again(reading, shape, shapes):
    tensor = torch.arange(float(torch.Size(shape).numel())).view(shape)
    pieces = reading.pieces(tensor)
    assert [tuple(piece.shape) for piece in pieces] == shapes
    assert [tuple(s) for s in reading.shapes(torch.Size(shape))] == shapes
    assert torch.equal(reading.join(pieces, torch.Size(shape)), tensor)


def test_parts_are_rows_that_belong_together():
    qkv = torch.arange(24.0).view(6, 4)
    (parts,) = Reading(split=3).pieces(qkv)
    assert torch.equal(parts[1], qkv[2:4])
    (heads,) = Reading(split=2, split_dim=1).pieces(qkv)
    assert torch.equal(heads[1], qkv[:, 2:])


@pytest.mark.parametrize(
    ("reading", "shape", "message"),
    [
        (Reading(split=4), (6, 4), "adds up to 6 rows, got 4 for w"),
        (Reading(split=(2, 3)), (6, 4), r"adds up to 6 rows, got \(2, 3\)"),
        (Reading(split=3, split_dim=1), (6, 4), "adds up to 4 columns"),
        (Reading(split=3, split_dim=2), (6, 4), "split_dim 0"),
        (Reading("columns"), (6, 4), "layout to be one of flatten, stack, transposed"),
        (Reading("transposed"), (6, 4, 2), "two dimensions"),
    ],
)
def test_readings_that_do_not_fit_are_refused(reading, shape, message):
    with pytest.raises(ValueError, match=message):
        reading.check(torch.Size(shape), "w")

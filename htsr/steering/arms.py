"""The four arms of an experiment on steering: what was measured, and three controls."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from htsr.audit.arguments import check_whole_number

Arm = Literal["measured", "shuffled", "inverted", "uniform"]
ARMS: tuple[Arm, ...] = get_args(Arm)


def in_arm(values: ArrayLike, arm: Arm, order: Sequence[int] | None = None, neutral: float = 1.0) -> np.ndarray:
    """Hand the layers' values out as an arm says.

    Args:
        values: The multiplier of each layer, as measured.
        arm: ``"measured"`` changes nothing. ``"shuffled"`` permutes the values over the layers. ``"inverted"`` mirrors them by
            rank: the layer with the largest value gets the smallest. ``"uniform"`` gives every layer ``neutral``.
        order: For ``"shuffled"``, a permutation that ``drawn_order`` drew: layer ``i`` gets the value of layer ``order[i]``.
        neutral: What ``"uniform"`` gives.

    Returns:
        The values. Except for ``"uniform"`` they are the same numbers, so any mean stays what it was.

    Raises:
        ValueError: If the arm is unknown, or the order does not fit.

    Example:
        >>> in_arm([1.0, 3.0, 2.0], "inverted")
        array([3., 1., 2.])
    """
    check_arm(arm)
    given = np.asarray(values, dtype=np.float64)
    if arm == "shuffled":
        if order is None or sorted(order) != list(range(len(given))):
            raise ValueError(f"expected order to be a permutation of {len(given)} layers, got {order}")
        return given[np.asarray(order, dtype=np.intp)]
    if arm == "inverted":
        ranks = np.argsort(given, kind="stable")
        mirrored = np.empty_like(given)
        mirrored[ranks] = given[ranks[::-1]]
        return mirrored
    return np.full_like(given, neutral) if arm == "uniform" else given


def drawn_order(count: int, seed: int) -> list[int]:
    """Draw the permutation of the arm ``"shuffled"``.

    Args:
        count: Number of layers.
        seed: Seed of numpy's default generator.

    Returns:
        A permutation of ``range(count)`` that is not the identity, unless there is only one layer.

    Raises:
        TypeError: If the seed is not a whole number.
        ValueError: If it is negative.
    """
    check_whole_number("seed", seed, least=0)
    generator = np.random.default_rng(seed)
    order = list(range(count))
    while count > 1 and order == sorted(order):
        order = [int(place) for place in generator.permutation(count)]
    return order


def restricted(order: Sequence[int], present: Sequence[int]) -> list[int]:
    """Return the permutation that an order makes among the layers that have a value, numbered by their place in ``present``.

    A layer whose donor has no value gets the value of the donor's donor, and so on.
    """
    places = {layer: place for place, layer in enumerate(present)}
    donors = []
    for layer in present:
        donor = order[layer]
        while donor not in places:
            donor = order[donor]
        donors.append(places[donor])
    return donors


def check_arm(arm: object) -> None:
    """Raise ValueError unless this is an arm."""
    if arm not in ARMS:
        raise ValueError(f"expected arm to be one of {', '.join(ARMS)}, got {arm!r}")

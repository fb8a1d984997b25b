"""Recurrent weights, split by gate."""

import re
from collections.abc import Mapping

from htsr.weights.parts import Part

# torch's names: weight_ih_l0, weight_hh_l1_reverse, weight_hr_l0 (the projection of an LSTM); cells have no level.
RECURRENT = re.compile(r"(^|.*\.)weight_(ih|hh|hr)(_l\d+)?(_reverse)?$")
# Gates in torch's order: torch.nn.LSTM and torch.nn.GRU, the section Variables.
TYPES = {"": "rnn", "ifgo": "lstm", "rzn": "gru"}


def gates_by_shape(key: str, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The gates of a tensor with one of torch's recurrent names, by its shape and those beside it.

    ``weight_hh`` is ``(gates * hidden, hidden)``, or ``(gates * hidden, projection)`` beside a ``weight_hr`` of
    ``(projection, hidden)``, which only an LSTM has.

    Args:
        key: The name.
        shapes: Shapes of all tensors of the source.

    Returns:
        ``ifgo``, ``rzn`` or empty for a plain RNN; None if the name or the shapes are others.
    """
    named = RECURRENT.fullmatch(key)
    if named is None:
        return None
    path, _, level, reverse = (group or "" for group in named.groups())
    if f"{path}weight_hr{level}{reverse}" in shapes:
        return "ifgo"
    rows, *columns = shapes.get(f"{path}weight_hh{level}{reverse}", (0,))
    if len(columns) != 1 or not columns[0] or rows % columns[0]:
        return None
    return {1: "", 3: "rzn", 4: "ifgo"}.get(rows // columns[0])


def gate_parts(weight: Part, gates: str) -> list[Part]:
    """Cut a recurrent weight into one matrix a gate, named by torch's letters and in torch's order.

    Args:
        weight: ``(gates * hidden, in)``.
        gates: Letters in the order of the rows; empty for a plain RNN, which has one matrix.

    Returns:
        The parts.
    """
    if not gates:
        return [weight]
    rows = weight.shape[0] // len(gates)
    order = next(known for known in TYPES if sorted(known) == sorted(gates))
    return [weight.narrow(0, gates.index(gate) * rows, rows, f"[{gate}]") for gate in order]

"""Split recurrent weights by gate."""

import re
from collections.abc import Mapping

from htsr.weights.parts import Part

# torch's names: weight_ih_l0, weight_hh_l1_reverse, weight_hr_l0 (the projection of an LSTM). Cells have no level.
RECURRENT = re.compile(r"(^|.*\.)weight_(ih|hh|hr)(_l\d+)?(_reverse)?$")
# Layer types by their gates in torch's order; see the section Variables of torch.nn.LSTM and torch.nn.GRU.
TYPES = {"": "rnn", "ifgo": "lstm", "rzn": "gru"}


def torch_order(gates: str) -> str:
    """Return the same gates in the order in which torch stacks them; q, k and v of an attention as they are."""
    return next((known for known in TYPES if sorted(known) == sorted(gates)), gates)


def recurrent_type(gates: str) -> str:
    """Return the layer type that has these gates, whatever their order."""
    return TYPES[torch_order(gates)]


def gates_by_shape(key: str, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Infer the gates of a weight with one of torch's recurrent names from shapes; return None if they do not fit."""
    # weight_hh is (gates * hidden, hidden), or (gates * hidden, projection) beside a weight_hr of (projection, hidden), which
    # only an LSTM has.
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
    """Cut a recurrent weight ``(gates * hidden, in)`` into one matrix for each gate, in torch's order."""
    if not gates:
        return [weight]
    rows = weight.shape[0] // len(gates)
    return [weight.narrow(0, gates.index(gate) * rows, rows, f"[{gate}]") for gate in torch_order(gates)]

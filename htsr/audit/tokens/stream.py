"""Which side of a matrix lies in the residual stream: the output of what writes to it, the input of what reads from it."""

from typing import Literal, get_args

from htsr.errors import InputError
from htsr.weights import Layer

# "out": the left singular vectors of a matrix (out, in); "in": the right ones.
Side = Literal["out", "in"]
WRITERS = ("o", "down")
READERS = ("q", "k", "v", "kv", "qkv", "router", "gate", "up", "head")


def side_in_stream(layer: Layer, d_model: int, asked: Side | None = None) -> tuple[Side, str]:
    """Return the side of a layer that lies in a residual stream of width ``d_model``, and ``"writes"`` or ``"reads"``.

    The role of the layer decides, by its name; without a known role, the only side of that length. Raise ``InputError`` if
    there is none.
    """
    from htsr.plots.models.places import places  # loads matplotlib

    role = places([layer.name], [layer.layer_type])[0].role
    rows, columns = layer.shape[:2]
    if len(layer.shape) > 2:
        raise InputError(f"{layer.name}: expected a matrix, got a kernel of shape {layer.shape}")
    if asked is not None and asked not in get_args(Side):
        raise ValueError(f"expected side='out', side='in' or None, got {asked!r}")
    by_length: dict[Side, bool] = {"out": rows == d_model, "in": columns == d_model}
    if asked is not None:
        by_role: Side | None = asked
    elif role in WRITERS:
        by_role = "out"
    elif role in READERS or role == "embedding":  # a row of an embedding is what it writes for a token
        by_role = "in"
    else:
        by_role = None
    if by_role is None and all(by_length.values()):
        raise InputError(
            f"{layer.name}: both sides of the matrix have the width of the embedding, {d_model}, and its name does not say "
            "whether it writes to the residual stream or reads from it: say side='out' or side='in'"
        )
    sides = [side for side, fits in by_length.items() if fits and by_role in (None, side)]
    if not sides:
        of = {"out": "an output", "in": "an input", None: "an output or an input"}[by_role]
        raise InputError(
            f"{layer.name}: expected {of} of the width of the embedding, {d_model}, got a matrix ({rows}, {columns}): it does "
            "not lie in the residual stream"
        )
    (side,) = sides
    return side, "writes" if side == "out" or role == "embedding" else "reads"

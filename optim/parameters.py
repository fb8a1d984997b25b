"""The parameters of a group: which ones can be matrices, what messages call them, and which ones HTMuon refuses."""

from typing import Any

from torch import Tensor

from htsr.errors import InputError
from htsr.optim.matrices import Reading


def tensor_of(item: Tensor | tuple[str, Tensor]) -> Tensor:
    """Return the tensor of an item of ``params``, which may be a pair of name and tensor."""
    tensor = item[1] if isinstance(item, tuple) and len(item) == 2 else item
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"expected parameters, or pairs of a name and a parameter, got {item!r} of type {type(item).__name__}"
        )
    return tensor


def may_be_matrix(p: Tensor) -> bool:
    """Return whether HTMuon can update a parameter as matrices: complex and integer parameters are left to AdamW."""
    return p.ndim >= 2 and p.is_floating_point()


def label_of(group: dict[str, Any], index: int) -> str:
    """Return what messages call a parameter of a group: its name, if the group has names, and its shape."""
    names = group.get("param_names")
    return _label(names[index] if names else None, group["params"][index])


def check_parameter(item: Tensor | tuple[str, Tensor], algorithm: str, reading: Reading) -> None:
    """Raise InputError if the algorithm cannot update a parameter, ValueError if the reading does not fit its shape."""
    p = tensor_of(item)
    label = _label(item[0] if isinstance(item, tuple) else None, p)
    if algorithm == "htmuon":
        if not may_be_matrix(p):
            raise InputError(
                f"expected real matrices in a group with algorithm='htmuon', got {label} and {p.dtype}: put it in a group "
                "with algorithm='adamw', or let htsr.optim.parameter_groups(model) make the groups"
            )
        reading.check(p.shape, label)


def _label(name: str | None, p: Tensor) -> str:
    return f"{repr(name) if name else 'a parameter'} of shape {tuple(p.shape)}"

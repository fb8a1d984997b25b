"""What HTMuon refuses: settings out of range, and tensors that it cannot read as matrices."""

from typing import Any

from torch import Tensor

from htsr.errors import InputError
from htsr.optim.matrices import Reading
from htsr.optim.spectral_power import check_method, check_power, check_scale
from htsr.optim.update import check_adjust_lr

ALGORITHMS = ("htmuon", "adamw")


def tensor_of(item: Tensor | tuple[str, Tensor]) -> Tensor:
    """The tensor of an item of ``params``, which may carry its name.

    Args:
        item: The item.

    Returns:
        The tensor.
    """
    return item[1] if isinstance(item, tuple) else item


def label_of(group: dict[str, Any], index: int) -> str:
    """What to call a parameter in a message.

    Args:
        group: Its group.
        index: Its place there.

    Returns:
        Its name, where the group has names, and its shape.
    """
    names = group.get("param_names")
    return _label(names[index] if names else None, group["params"][index])


def _label(name: str | None, p: Tensor) -> str:
    return f"{repr(name) if name else 'a parameter'} of shape {tuple(p.shape)}"


def check_algorithm(algorithm: object) -> None:
    """Refuse an unknown algorithm.

    Args:
        algorithm: A group's.

    Raises:
        InputError: If it is none of ``ALGORITHMS``.
    """
    if algorithm not in ALGORITHMS:
        raise InputError(f"expected algorithm to be one of {', '.join(ALGORITHMS)}, got {algorithm!r}")


def check_settings(group: dict[str, Any]) -> None:
    """Refuse settings out of range.

    Args:
        group: All settings of a group.

    Raises:
        InputError: If one is out of range or unknown.
    """
    check_power(group["power"])
    check_scale(group["scale"])
    check_method(group["method"], group["steps"], group["dtype"])
    check_adjust_lr(group["adjust_lr"])
    for name in ("lr", "weight_decay", "eps"):
        if not group[name] >= 0:
            raise InputError(f"expected {name} >= 0, got {group[name]}")
    for name in ("momentum", "row_beta"):
        if not 0 <= group[name] < 1:
            raise InputError(f"expected {name} in [0, 1), got {group[name]}")
    if not all(0 <= beta < 1 for beta in group["betas"]):
        raise InputError(f"expected betas in [0, 1), got {group['betas']}")
    if not (isinstance(group["interval"], int) and group["interval"] >= 1):
        raise InputError(f"expected interval to be a whole number >= 1, got {group['interval']!r}")


def check_parameter(item: Tensor | tuple[str, Tensor], algorithm: str, reading: Reading) -> None:
    """Refuse a parameter that the algorithm of its group has no use for.

    Args:
        item: The parameter, possibly with its name.
        algorithm: Its group's.
        reading: How matrices are read from the parameters of the group.

    Raises:
        InputError: If it is not real floating point, no matrix where one is needed, or cannot be split as asked.
    """
    p = tensor_of(item)
    label = _label(item[0] if isinstance(item, tuple) else None, p)
    if not p.is_floating_point():
        raise InputError(f"expected real floating-point parameters, got {label} with dtype {p.dtype}")
    if algorithm == "htmuon" and p.ndim < 2:
        raise InputError(
            f"expected matrices in a group with algorithm='htmuon', got {label}: put it in a group with "
            "algorithm='adamw', or let htsr.optim.parameter_groups(model) make the groups"
        )
    if algorithm == "htmuon":
        reading.check(p.shape, label)

"""How much of a matrix may be rounding: the type that its values need, and the energy of that type's rounding errors."""

import torch

# Types that a matrix may have been rounded to before it was stored in a wider one.
NARROW = (torch.bfloat16, torch.float16)
# Values that are looked at before all of them are.
FIRST = 4096


def needed_type(weight: torch.Tensor) -> torch.dtype:
    """Return the narrower of the 16-bit types that hold all values of a matrix exactly, or the type it is stored in."""
    if weight.dtype not in (torch.float32, torch.float64):
        return weight.dtype
    values = weight.reshape(-1)
    for dtype in NARROW:
        if all(torch.equal(part.to(dtype).to(part.dtype), part) for part in (values[:FIRST], values)):
            return dtype
    return weight.dtype


def rounding_energy(weight: torch.Tensor, square: float) -> float:
    """Return the most that the squared errors of rounding may add up to; ``square`` is the squared norm of the matrix."""
    # The error of a value x is uniform in a step of at most eps |x|, or of the subnormal numbers.
    about = torch.finfo(needed_type(weight))
    smallest = about.smallest_normal * about.eps
    return (about.eps**2 * square + weight.numel() * smallest**2) / 12

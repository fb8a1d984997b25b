"""How two matrices differ: equal, equal up to rounding, up to quantisation, changed, or unrelated."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from htsr.comparison.survey.matching import CORRELATED
from htsr.comparison.survey.networks import PLAIN, Axes, without_ones

# Values that are compared at a time: as float64, a few copies fit into a processor's cache.
CHUNK = 2**16
# Values that are looked at before all of a chunk are.
FIRST = 2**10
# Two computations of one effective weight in float32, by weight_norm for instance, may differ by a few units in the last place.
FLOAT32_STEPS = 4.0
# Half a unit in the last place, and a little more for values that were rounded to a wider type before.
HALF_STEP = 0.5 * 1.01
# Quantisation keeps the order of the values that share a scale. A change that is independent of them, of relative size r,
# reverses a share arctan(r) / pi of the pairs. Half of that or less is called quantisation: rounding to the nearest level gives
# none, the error feedback of GPTQ some, and a fine-tuning of the size of the rounding error about half.
REVERSED = 0.5
# Neighbours that share a scale in every scheme that htsr reads, and blocks of them that are looked at.
BLOCK, MAX_BLOCKS = 16, 4096
# A correlation counts only if it is beyond this many of its standard errors, 1 / sqrt(n).
STANDARD_ERRORS = 6.0

SAME = ("equal", "rounded")
NARROW = {
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.float8_e4m3fn: "float8_e4m3fn",
    torch.float8_e5m2: "float8_e5m2",
}
HALF, FLOAT32 = (torch.float16, torch.bfloat16), (torch.float32,)
# Types that can have rounded one of two matrices, or one each.
ROUNDINGS: list[tuple[torch.dtype, ...]] = [*((dtype,) for dtype in NARROW), HALF]


@dataclass(frozen=True)
class Difference:
    """How a matrix A differs from its partner B.

    Attributes:
        kind: ``equal``, ``rounded``, ``quantised``, ``changed`` or ``unrelated``.
        rounding: The type within whose rounding they are equal, if they are ``rounded``.
        relative_change: Frobenius norm of A - B over that of B.
        largest: The largest absolute difference of two values.
        correlation: Pearson correlation of their values; 1 for two equal ones.
        reversed: Share of pairs of neighbouring values whose order differs, if one of them is quantised; otherwise NaN.
    """

    kind: str
    rounding: str
    relative_change: float
    largest: float
    correlation: float
    reversed: float = math.nan


@dataclass
class _Sums:
    """What is added up over the chunks of two matrices."""

    n: int = 0
    a: float = 0.0
    b: float = 0.0
    aa: float = 0.0
    bb: float = 0.0
    ab: float = 0.0
    dd: float = 0.0
    largest: float = 0.0
    mismatched: int = 0  # values of which only one is finite

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Add a chunk of finite values."""
        difference = x - y
        self.n += x.numel()
        self.a += float(x.sum())
        self.b += float(y.sum())
        self.aa += float(x @ x)
        self.bb += float(y @ y)
        self.ab += float(x @ y)
        self.dd += float(difference @ difference)
        self.largest = max(self.largest, float(difference.abs().max()))

    @property
    def correlation(self) -> float:
        """Pearson correlation; NaN if a matrix is constant."""
        spread = (self.aa - self.a * self.a / self.n) * (
            self.bb - self.b * self.b / self.n
        )  # ** raises where * overflows
        return (self.ab - self.a * self.b / self.n) / math.sqrt(spread) if spread > 0 else math.nan

    @property
    def noise(self) -> float:
        """Root mean square of the difference over the standard deviation of B."""
        spread = self.bb - self.b * self.b / self.n
        return math.sqrt(self.dd / spread) if spread > 0 else math.inf


def difference(a: torch.Tensor, b: torch.Tensor, axes: Axes, dtypes: tuple[str, str]) -> Difference:
    """Return how A differs from B, whose axes without sides of 1 are put into the order ``axes`` first.

    ``dtypes`` are the types in which the two are stored.
    """
    a, b = without_ones(a), without_ones(b).permute(axes)
    x, y = a.reshape(-1), b.reshape(-1)
    sums, rounding = _Sums(), _Rounding(dtypes)
    for start in range(0, x.numel(), CHUNK):
        one, two = x[start : start + CHUNK].double(), y[start : start + CHUNK].double()
        if not math.isfinite(float(one.sum()) + float(two.sum())):  # fifteen times as fast as to look at each value
            finite = one.isfinite() & two.isfinite()
            same = (one == two) | (one.isnan() & two.isnan())
            sums.mismatched += int((~finite & ~same).sum())
            one, two = one.where(finite, 0.0), two.where(finite, 0.0)
        sums.add(one, two)
        rounding.look(one, two)
    change = math.sqrt(sums.dd / sums.bb) if sums.bb else (0.0 if sums.dd == 0 else math.inf)
    correlation = 1.0 if sums.dd == 0 else sums.correlation
    if sums.mismatched == 0:
        if sums.dd == 0:
            return Difference("equal", "", 0.0, 0.0, correlation)
        if rounding.type:
            return Difference("rounded", rounding.type, change, sums.largest, correlation)
        if not all(dtype in PLAIN for dtype in dtypes) and correlation > CORRELATED:
            out_of_order = min(reversed_share(a, b), reversed_share(a.mT, b.mT) if a.ndim == 2 else 1.0)
            independent = math.atan(sums.noise) / math.pi
            kind = "quantised" if out_of_order <= REVERSED * independent else "changed"
            return Difference(kind, "", change, sums.largest, correlation, out_of_order)
    least = max(CORRELATED, STANDARD_ERRORS / math.sqrt(sums.n))
    return Difference("changed" if correlation > least else "unrelated", "", change, sums.largest, correlation)


class _Rounding:
    """Finds the type whose rounding explains every difference that it has seen, if there is one."""

    def __init__(self, stored: tuple[str, str]) -> None:
        self.stored = [{dtype for dtype, name in NARROW.items() if name == dtype_name} for dtype_name in stored]
        self.fits: list[set[torch.dtype]] = [set(HALF), set(HALF)]  # types that hold all values of a matrix exactly
        self.within = {*ROUNDINGS, FLOAT32}

    def look(self, one: torch.Tensor, two: torch.Tensor) -> None:
        """Take a chunk of finite float64 values into account."""
        for values, types in zip((one, two), self.fits, strict=True):
            for some in (values[:FIRST], values):
                types -= {dtype for dtype in types if not torch.equal(some.to(dtype).double(), some)}
        held = set().union(*self.fits, *self.stored)  # of no other type, a later chunk can make a possible one
        self.within = {types for types in self.within if types == FLOAT32 or held.intersection(types)}
        if self.within and not torch.equal(one, two):
            apart, size = (one - two).abs(), torch.maximum(one.abs(), two.abs())
            self.within -= {
                types
                for types in self.within
                if bool((apart > sum(_most_by_rounding(dtype, size) for dtype in types)).any())
            }

    @property
    def type(self) -> str:
        """Name of the narrowest such type; empty if there is none."""
        one, two = (stored | fitting for stored, fitting in zip(self.stored, self.fits, strict=True))
        if one == two:  # two roundings of one value to one 16-bit type are equal
            return "float32" if not one and FLOAT32 in self.within else ""
        for types in ROUNDINGS:
            first, last = types[0], types[-1]
            if len(types) == 1:
                possible = (first in one) != (first in two)  # the other matrix was not rounded
            else:
                possible = (first in one and last in two) or (first in two and last in one)
            if possible and types in self.within:
                return NARROW[last]
        return ""


def _most_by_rounding(dtype: torch.dtype, size: torch.Tensor) -> torch.Tensor:
    """Return how far rounding to a type moves values of a size at most."""
    about = torch.finfo(dtype)
    steps = FLOAT32_STEPS if dtype == torch.float32 else HALF_STEP
    smallest = about.smallest_normal * about.eps  # the distance of two subnormal numbers
    return steps * torch.clamp(about.eps * size, min=smallest)


def reversed_share(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the share of pairs of values in one row, near each other, whose order differs in A and B; ties count as neither."""
    rows = a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)
    count, columns = rows[0].shape
    block = min(BLOCK, columns)
    if block < 2:
        return 1.0
    per_row = columns // block
    chosen = np.linspace(0, count * per_row - 1, min(MAX_BLOCKS, count * per_row)).astype(np.int64)
    where = torch.from_numpy(chosen // per_row)[:, None]
    places = torch.from_numpy(chosen % per_row)[:, None] * block + torch.arange(block)
    orders = []
    for matrix in rows:
        values = matrix[where, places].double()
        orders.append((values[:, :, None] - values[:, None, :]).sign())
    products = orders[0] * orders[1]
    compared = int((products != 0).sum())
    return int((products < 0).sum()) / compared if compared else 0.0

"""How p-values are printed: never as 0.000, and the least one that a method can give as a bound."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PValue:
    """One kind of p-value.

    Attributes:
        floor: The least value that the method gives.
        bound: What is printed for the floor: the p-value is smaller than this.
    """

    floor: float
    bound: str

    def text(self, p: float) -> str:
        """The value for people: ``0.34``, ``0.012``, ``3e-5``, or ``< 3e-6`` at the floor."""
        if p <= self.floor * (1 + 1e-9):
            return f"< {self.bound}"
        if p >= 0.001:
            return f"{p:.2f}" if p >= 0.1 else f"{p:.3f}"
        digit, exponent = f"{p:.0e}".split("e")
        return f"{digit}e{int(exponent)}"

    def equals(self, p: float) -> str:
        """The value in a sentence: ``p = 0.012``, or ``p < 3e-6``."""
        text = self.text(p)
        return f"p {text}" if text.startswith("<") else f"p = {text}"


# ``htsr.bulk.nulls`` extrapolates shares of noise to 1e-6, and combines three statistics (Bonferroni) in gaussian_p_value;
# ``htsr.bulk.independence`` stops at the same bound.
BULK_P = PValue(1e-6, "1e-6")
NULL_P = PValue(3e-6, "3e-6")
# A goodness of fit is a share of the resamples, of which there are at least 20.
GOODNESS_P = PValue(0.0, "0.05")
# Vuong's normal approximation ends where float64 does.
VUONG_P = PValue(0.0, "1e-300")
# By the column that holds it; of a change, ``_of_delta`` stands behind the name.
P_VALUES: Mapping[str, PValue] = {
    "bulk_p_value": BULK_P,
    "null_p_value": NULL_P,
    "gaussian_p_value": NULL_P,
    "goodness_of_fit": GOODNESS_P,
    "alternative_p_value": VUONG_P,
}

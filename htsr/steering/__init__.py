"""Settings from spectra: a signal of each layer, a map to multipliers, a mean that is held, and an arm."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from htsr.steering.allocation import experts, ranks, sparsities
    from htsr.steering.arms import ARMS, drawn_order, in_arm
    from htsr.steering.layerwise import LayerwiseSchedule
    from htsr.steering.maps import Linear, Sigmoid, Step, with_mean_one
    from htsr.steering.presets import AlphaDecay, TBSigmoid, TempBalance
    from htsr.steering.rounding import largest_remainders
    from htsr.steering.signals import TailAlpha
    from htsr.steering.target_alpha import TargetAlpha
else:
    from htsr.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "allocation": ["experts", "ranks", "sparsities"],
            "arms": ["ARMS", "drawn_order", "in_arm"],
            "layerwise": ["LayerwiseSchedule"],
            "maps": ["Linear", "Sigmoid", "Step", "with_mean_one"],
            "presets": ["AlphaDecay", "TBSigmoid", "TempBalance"],
            "rounding": ["largest_remainders"],
            "signals": ["TailAlpha"],
            "target_alpha": ["TargetAlpha"],
        },
    )

__all__ = [  # noqa: RUF022 - grouped by what they are for
    # steer a training run
    "LayerwiseSchedule", "TempBalance", "TBSigmoid", "AlphaDecay", "TargetAlpha",
    # give a whole model
    "sparsities", "ranks", "experts", "largest_remainders",
    # signal -> map -> mean -> arm
    "TailAlpha", "Linear", "Sigmoid", "Step", "with_mean_one", "in_arm", "drawn_order", "ARMS",
]  # fmt: skip

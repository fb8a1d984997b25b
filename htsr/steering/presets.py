"""Published schedules as presets of ``LayerwiseSchedule``, as their code runs them, and what differs."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from htsr.steering.layerwise import LayerwiseSchedule
from htsr.steering.maps import Linear, Sigmoid
from htsr.training.monitor import Monitor


def TempBalance(
    optimizer: Optimizer, source: nn.Module | Monitor, *, low: float = 0.5, high: float = 1.5, **settings: Any
) -> LayerwiseSchedule:
    """Balance learning rates as TempBalance does (Zhou et al., NeurIPS 2023): a larger alpha gets a larger rate.

    ``lr_l = lr * interp(alpha_l; [min alpha, max alpha] -> [low, high])``, with Hill's alpha of the larger half of the
    eigenvalues.

    Args:
        optimizer: As in ``LayerwiseSchedule``.
        source: As in ``LayerwiseSchedule``.
        low: Multiplier of the layer with the smallest alpha; 0.5 is that of the paper's CIFAR runs.
        high: Multiplier of the layer with the largest alpha; 1.5 is that of the paper's CIFAR runs.
        **settings: Other settings of ``LayerwiseSchedule``, which replace those of the preset: ``arm="shuffled"``, or
            ``mean="arithmetic"`` to hold the mean at 1, which the paper does not.

    Returns:
        The schedule.

    Notes:
        The released code (github.com/YefanZhou/TempBalance) reads alpha after every epoch; pass ``every=`` accordingly. It leaves
        out the first and last layer by their place; here their role decides, so that the first attention matrix behind a table
        of embeddings is steered. Biases follow their matrix there, too, and a batch norm follows its convolution only if
        replacing ``bn`` by ``conv`` in its name finds one. Matrices with fewer than 50 eigenvalues are left out here. The code
        keeps zero eigenvalues, htsr leaves them out. With torch's SGD the rate also multiplies the weight decay. The mean
        multiplier is not 1: it depends on how the alphas lie between their extremes.
    """
    preset = {
        "setting": "lr",
        "signal": "hill",
        "map": Linear(low, high),
        "mean": None,
        "dead_band": 0.0,
        "follow": True,
    }
    return LayerwiseSchedule(optimizer, source, **{**preset, **settings})


def TBSigmoid(
    optimizer: Optimizer,
    source: nn.Module | Monitor,
    *,
    strength: float = 1.0,
    slope: float = 10.0,
    strength_low: float | None = None,
    **settings: Any,
) -> LayerwiseSchedule:
    """Balance learning rates as TB-Sigmoid of Model Balancing does (EMNLP 2024, arXiv 2410.12178).

    ``lr_l = lr * 10 ** (strength * (sigmoid(slope * (alpha_l - mean alpha)) - 1/2))``, one rate for each block, by the mean alpha
    of its layers.

    Args:
        optimizer: As in ``LayerwiseSchedule``.
        source: As in ``LayerwiseSchedule``.
        strength: The paper's s, which it tunes for each share of the data from 0.25 to 2.
        slope: The paper's tau, which it tunes from 1 to 180. 10 was chosen here, as alphas differ by tenths.
        strength_low: The s below the mean, where it differs.
        **settings: Other settings of ``LayerwiseSchedule``, which replace those of the preset; ``per="layer"`` is the paper's
            formula without blocks.

    Returns:
        The schedule.

    Notes:
        The paper takes Hill's alpha with k = n/2, as this preset does. The released scripts for RoBERTa start the tail at the
        eigenvalue number n / 1.5, so that k = n/3, and average over blocks; they also have a switch that divides by the mean rate
        (``mean="arithmetic"`` here).
    """
    preset = {
        "setting": "lr", "signal": "hill", "map": Sigmoid(strength, slope, strength_low), "mean": None, "dead_band": 0.0,
        "per": "block", "follow": True,
    }  # fmt: skip
    return LayerwiseSchedule(optimizer, source, **{**preset, **settings})


def AlphaDecay(
    optimizer: Optimizer, source: nn.Module | Monitor, *, low: float = 2 / 3, high: float = 5.0, **settings: Any
) -> LayerwiseSchedule:
    """Spread weight decay as AlphaDecay does (arXiv 2506.14562): a larger alpha gets more decay.

    ``decay_l = decay * interp(alpha_l; [min alpha, max alpha] -> [low, high])``, with Hill's alpha of the larger half of the
    eigenvalues, read every 500 steps.

    Args:
        optimizer: As in ``LayerwiseSchedule``. Its decay should be decoupled, as AdamW's is.
        source: As in ``LayerwiseSchedule``.
        low: Multiplier of the layer with the smallest alpha.
        high: Multiplier of the layer with the largest alpha.
        **settings: Other settings of ``LayerwiseSchedule``, which replace those of the preset.

    Returns:
        The schedule.

    Notes:
        2/3 and 5 are what the released scripts for AdamW pass (github.com/hed-ucas/AlphaDecay); the README's Adam runs have 3 in
        place of 5, the parser's defaults are 0.666 and 3, the class's 0.5 and 1.5. The mean multiplier is then well above 1, so
        that the mean decay grows: compare with ``mean="arithmetic"`` or with a uniform decay as large before you credit the
        spectra. In the released code the switch between uniform and module-wise decay is on whatever one passes
        (``type=bool`` with a default of True), so that runs called uniform are module-wise, and the scripts pass an argument that
        the parser does not know.
    """
    preset = {
        "setting": "weight_decay", "signal": "hill", "map": Linear(low, high), "mean": None, "dead_band": 0.0,
        "every": None if isinstance(source, Monitor) else 500, "follow": True,
    }  # fmt: skip
    return LayerwiseSchedule(optimizer, source, **{**preset, **settings})

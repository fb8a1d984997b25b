"""What a whole model can be given by its spectra: sparsities of layers, ranks of adapters, numbers of experts."""

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np
import pandas as pd

from htsr.audit.analysis import Analysis
from htsr.audit.arguments import check_whole_number
from htsr.errors import InputError
from htsr.steering.arms import Arm, drawn_order, in_arm
from htsr.steering.maps import Linear
from htsr.steering.matrices import Per, blocks_of
from htsr.steering.rounding import largest_remainders

ColumnOrFunction = str | Callable[[pd.DataFrame], pd.Series]
Budget = Literal["ranks", "parameters"]


def sparsities(
    analysis: Analysis,
    sparsity: float,
    *,
    spread: float = 0.3,
    signal: ColumnOrFunction = "alpha",
    per: Per = "block",
    arm: Arm = "measured",
    seed: int = 0,
) -> dict[str, float]:
    """Share out the weights to prune as AlphaPruning does (arXiv 2410.10912): a larger alpha is pruned more.

    ``interp(mean alpha of the block; [min, max] -> [1 - spread, 1 + spread])`` times the one factor that brings the share of all
    weights to ``sparsity``.

    Args:
        analysis: The model's analysis. All its layers but embeddings and shared ones are pruned; select with ``layers=`` and
            ``skip=`` of ``analyze``. The paper's alpha is that of ``analyze(model, xmin="peak")``.
        sparsity: Share of the weights to prune, between 0 and 1.
        spread: The paper's epsilon, 0.3 by default there.
        signal: A column of ``analysis.details``, or a function from it to a Series with the same index.
        per: ``"block"`` as in the paper, or ``"layer"``.
        arm: As in ``LayerwiseSchedule``: ``"shuffled"``, ``"inverted"`` and ``"uniform"`` are the controls.
        seed: Seed of the permutation.

    Returns:
        The sparsity of each layer by name, ready as ``amount=`` of ``torch.nn.utils.prune``. Weighted by the numbers of weights
        they average to ``sparsity``. A layer without a signal gets that of a mean layer. Parts of one weight, such as
        ``self_attn.in_proj_weight[q]``, have a sparsity each, the same in all three with ``per="block"``.

    Raises:
        InputError: If the analysis has no layer with a signal.
        TypeError: If ``analysis`` is none, or ``seed`` is not a whole number.
        ValueError: If ``sparsity`` or ``spread`` is out of range, or a layer would lose more than all of its weights.

    Notes:
        The released code (github.com/haiquanlu/AlphaPruning) reads the alphas from files and takes the layers of a block by
        counting, as many for each block; here names tell the blocks. Its rule for the peak of the spectrum has one end on a wrong
        scale (``xmin="peak-as-published"``). It divides by zero where all blocks have one alpha, and shuffles nothing.
    """
    if not 0 <= sparsity < 1 or not 0 <= spread <= 1:
        raise ValueError(f"expected sparsity in [0, 1) and spread in [0, 1], got {sparsity} and {spread}")
    table = _prunable(analysis)
    factors = _spread_over(table, _signal(table, signal), Linear(1 - spread, 1 + spread), per, arm, seed)
    weights = table["N"] * table["M"] * table["rf"]
    amounts = factors * (sparsity * weights.sum() / (weights * factors).sum())
    if amounts.max() > 1:
        raise ValueError(
            f"expected a smaller spread: with {spread}, {amounts.idxmax()!r} would lose {amounts.max():.3g} of its weights"
        )
    return {str(name): float(amount) for name, amount in amounts.items()}


def ranks(
    analysis: Analysis,
    budget: int,
    *,
    count: Budget = "ranks",
    low: float = 0.5,
    high: float = 1.5,
    least: int = 1,
    signal: ColumnOrFunction = "alpha",
    per: Per = "layer",
    arm: Arm = "measured",
    seed: int = 0,
) -> dict[str, int]:
    """Share out the ranks of LoRA adapters: a larger alpha, less trained by the theory's reading, gets a larger rank.

    The ranks stand in the ratio of ``interp(alpha; [min, max] -> [low, high])``.

    Args:
        analysis: The analysis of the base model, with the layers that get adapters. Only dense layers do.
        budget: The sum of the ranks, or of the adapters' parameters.
        count: What the budget counts. ``"ranks"`` is met exactly. ``"parameters"`` counts ``rank * (in + out)`` for each layer,
            and what is left over would not pay for another rank.
        low: Share of the layer with the smallest signal.
        high: Share of the layer with the largest signal.
        least: The least rank.
        signal: As in ``sparsities``.
        per: ``"layer"``, or ``"block"`` to give all layers of a block one share.
        arm: As in ``sparsities``.
        seed: Seed of the permutation.

    Returns:
        The rank of each layer by name, for ``rank_pattern=`` of peft's ``LoraConfig``. No rank exceeds the smaller side.

    Raises:
        InputError: If the analysis has no dense layer with a signal.
        TypeError: If ``analysis`` is none, or ``budget``, ``least`` or ``seed`` is not a whole number.
        ValueError: If the budget is too small for ``least`` everywhere, or larger than the layers can take.

    Notes:
        Nobody published this rule; AlphaLoRA, whose reading of alpha it follows, shares out experts.
    """
    if count not in get_args(Budget):
        raise ValueError(f"expected count to be ranks or parameters, got {count!r}")
    budget, least = check_whole_number("budget", budget), check_whole_number("least", least, least=0)
    table = _prunable(analysis)
    table = table[(table["layer_type"] == "dense") & ~table.index.str.contains("[", regex=False)]
    shares = _spread_over(table, _signal(table, signal), Linear(low, high), per, arm, seed).to_numpy()
    sides = table["M"].to_numpy()
    costs = np.ones(len(table), dtype=np.int64) if count == "ranks" else (table["N"] + table["M"]).to_numpy()
    if not least * costs.sum() <= budget <= (sides * costs).sum():
        raise ValueError(
            f"expected a budget from {least * costs.sum()} to {(sides * costs).sum()} {count} for these layers, got {budget}"
        )
    found = _ranks_within(budget, shares, costs, least, sides)
    return {str(name): int(rank) for name, rank in zip(table.index, found, strict=True)}


def experts(
    analysis: Analysis,
    total: int,
    *,
    exponent: float = 2.5,
    least: int = 1,
    signal: ColumnOrFunction = "alpha",
    arm: Arm = "measured",
    seed: int = 0,
) -> dict[str, int]:
    """Share out experts over blocks as AlphaLoRA does (EMNLP 2024, arXiv 2410.10054): ``n ~ (mean alpha of the block) ** 2.5``.

    Args:
        analysis: The model's analysis. The paper's alpha is that of ``analyze(model, xmin="peak")``; it averages all Linear
            layers of a block.
        total: The sum of the experts; the paper has 160 for 32 blocks.
        exponent: The paper's beta.
        least: Experts that every block gets.
        signal: As in ``sparsities``; its values must be positive.
        arm: As in ``sparsities``.
        seed: Seed of the permutation.

    Returns:
        The number of experts by block, such as ``model.layers.3``; they add up to ``total``.

    Raises:
        InputError: If the analysis has no block with a signal, or one without.
        TypeError: If ``analysis`` is none, or ``total``, ``least`` or ``seed`` is not a whole number.
        ValueError: If the total is too small.

    Notes:
        The paper rounds each share and then repairs the sum. The released loop (github.com/morelife2017/alphalora) compares the
        powers themselves with the whole numbers, in place of the quotas, so it may change a block whose rounding was right, and
        the same one again; here the largest remainders decide. The code can give a block no expert at all. It routes to two
        experts where a block has more than one.
    """
    total, least = check_whole_number("total", total), check_whole_number("least", least, least=0)
    table = _prunable(analysis)
    blocks = table.index.to_series().map(blocks_of(table.index))
    values = _signal(table, signal)[blocks != table.index].groupby(blocks, sort=False).mean()
    if values.isna().any() or values.empty or not (values > 0).all():
        raise InputError("expected a positive signal of every block, whose layers' names hold its number")
    shares = in_arm(values.to_numpy() ** exponent, arm, drawn_order(len(values), seed))
    numbers = largest_remainders(shares, total, least=least)
    return {str(name): int(number) for name, number in zip(values.index, numbers, strict=True)}


def _prunable(analysis: Analysis) -> pd.DataFrame:
    """Return the rows of layers that are neither embeddings nor shared, indexed by name."""
    if not isinstance(analysis, Analysis):
        raise TypeError(f"expected an Analysis, as analyze() returns it, got {type(analysis).__name__} {analysis!r}")
    details = analysis.details
    table = details[(details["layer_type"] != "embedding") & (details["tied_to"] == "")]
    if table.empty:
        raise InputError("expected an analysis with layers beside embeddings, got none")
    return table.set_index(table["name"].astype(str))


def _signal(table: pd.DataFrame, signal: ColumnOrFunction) -> pd.Series:
    """Return the signal of each row as numbers; refuse one that no row has."""
    if isinstance(signal, str) and signal not in table.select_dtypes("number"):
        raise ValueError(f"expected signal to be a numeric column of this analysis, got {signal!r}")
    found = table[signal] if isinstance(signal, str) else signal(table)
    if not isinstance(found, pd.Series):
        raise TypeError(f"expected signal(details) to return a pandas Series, got {type(found).__name__}")
    values = found.reindex(table.index).astype("float64")
    if values.isna().all():
        raise InputError("expected a signal of at least one layer, got none")
    return values


def _spread_over(table: pd.DataFrame, values: pd.Series, mapped: Linear, per: Per, arm: Arm, seed: int) -> pd.Series:
    """Return the factor of each row, from the mean signal of its block or its own, handed out as the arm says."""
    if per not in get_args(Per):
        raise ValueError(f"expected per to be layer or block, got {per!r}")
    units = table.index.to_series()
    if per == "block":
        units = units.map(blocks_of(table.index))
    means = values.groupby(units, sort=False).mean()
    known = means.dropna()
    factors: Mapping[str, float] = dict(
        zip(known.index, in_arm(mapped(known), arm, drawn_order(len(known), seed)), strict=True)
    )
    middle = float(np.mean(list(factors.values())))
    return units.map(lambda unit: factors.get(unit, middle)).astype("float64")


def _ranks_within(budget: int, shares: np.ndarray, costs: np.ndarray, least: int, most: np.ndarray) -> np.ndarray:
    """Return whole ranks between ``least`` and ``most`` in the ratio of shares, as far as the budget lets them, and spend it."""
    if not shares.any():
        raise ValueError("expected low or high above 0, got 0 for both")
    low, high = 0.0, 2 * float(most.max() / shares[shares > 0].min())  # of the factor between shares and ranks
    for _ in range(200):
        middle = (low + high) / 2
        spent = (np.clip(middle * shares, least, most) * costs).sum()
        low, high = (middle, high) if spent <= budget else (low, middle)
    quotas = np.clip(low * shares, least, most)
    found = np.floor(quotas + 1e-9).astype(np.int64)
    left = budget - int((found * costs).sum())
    while True:
        open_ = np.flatnonzero((found < most) & (costs <= left))
        if not len(open_):
            return found
        chosen = open_[np.argmax((quotas - found)[open_])]
        found[chosen] += 1
        left -= int(costs[chosen])

"""The matrices that WeightWatcher decomposes under its options: slices, differences, products and stacks of weights."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from htsr.audit.about import About
from htsr.audit.analysis import Analysis, analyze
from htsr.audit.layer import FAILURES, WEIGHTWATCHER_CONV2D_SCALE, Settings, analyze_eigenvalues, failed_layer
from htsr.audit.table import skipped_frame
from htsr.compat.arguments import Options
from htsr.spectra.spectrum import esd
from htsr.weights import Inventory, Layer
from htsr.weights.inventory import Skipped

Load = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Matrix:
    """One matrix, or one pooled kernel, that gives a row.

    Attributes:
        layer: Its weight.
        layer_id: WeightWatcher's id of the layer that it comes from.
        num_components: Only so many of its largest eigenvalues count; None for all.
        cells: What WeightWatcher's row says differently from htsr's.
    """

    layer: Layer
    layer_id: int
    num_components: int | None = None
    cells: dict[str, Any] = field(default_factory=dict)


def matrices(
    chosen: Inventory, ids: dict[str, int], options: Options, base: Inventory | None = None, seed: int = 0
) -> tuple[list[Matrix], list[Skipped]]:
    """Return the matrices that the options make of the chosen layers, and what they leave out."""
    layers, skipped = (chosen.layers, []) if base is None else _differences(chosen.layers, base)
    if options.stacked:
        return [_stack(layers)], skipped
    if options.intra:
        found = list(_products(layers, ids, options, seed))
        return [pair for pair in found if isinstance(pair, Matrix)], skipped + [
            pair for pair in found if isinstance(pair, Skipped)
        ]
    made = []
    for layer in layers:
        if not options.pool:
            made += _slices(layer, ids[layer.name], options)
        elif len(layer.shape) == 4 and not options.conv2d_norm:
            # htsr multiplies the eigenvalues of a 4-D weight by WEIGHTWATCHER_CONV2D_SCALE
            scale = WEIGHTWATCHER_CONV2D_SCALE**-0.5
            made.append(Matrix(replace(layer, load=partial(_scaled, layer.load, scale)), ids[layer.name]))
        else:
            made.append(Matrix(layer, ids[layer.name]))
    return made, skipped


def _scaled(load: Load, scale: float) -> torch.Tensor:
    """Return a weight times a number, in float64 so that the product is not rounded."""
    return load().double() * scale


def _sliced(load: Load, place: tuple[int, int], scale: float) -> torch.Tensor:
    """Return one slice of a kernel times a number."""
    return load()[:, :, place[0], place[1]].double() * scale


def _difference(load: Load, load_base: Load) -> torch.Tensor:
    """Return a weight less that of the base model."""
    weight = load()
    return weight - load_base().to(weight)


def _differences(layers: list[Layer], base: Inventory) -> tuple[list[Layer], list[Skipped]]:
    """Return the layers with the weight of the base model taken off, and those that it lacks."""
    partners = {layer.name: layer for layer in base.layers}
    kept, skipped = [], []
    for layer in layers:
        partner = partners.get(layer.name)
        if partner is None or partner.shape != layer.shape:
            why = "no such name" if partner is None else f"of shape {partner.shape}"
            skipped.append(Skipped(layer.name, layer.shape, f"{why} in base_model"))
        else:
            kept.append(replace(layer, load=partial(_difference, layer.load, partner.load), tied_to=None))
    return kept, skipped


def _slices(layer: Layer, layer_id: int, options: Options) -> list[Matrix]:
    """Return the slices of a kernel, or a matrix as it is; WeightWatcher scales slices by half their number."""
    if len(layer.shape) != 4:
        return [Matrix(layer, layer_id, cells={"slice_id": 0})]
    scale = math.sqrt(layer.rf / 2) if options.conv2d_norm else 1.0
    return [
        Matrix(
            replace(
                layer,
                name=f"{layer.name}[{i},{j}]",
                shape=layer.shape[:2],
                load=partial(_sliced, layer.load, (i, j), scale),
                tied_to=None,
            ),
            layer_id,
            cells={"slice_id": number, "rf": layer.rf},
        )
        for number, (i, j) in enumerate(itertools.product(*map(range, layer.shape[2:])))
    ]


def slices_of(weight: torch.Tensor) -> list[np.ndarray]:
    """Return the slices of a kernel as WeightWatcher keeps them, with the longer side first, or a matrix as it is."""
    array = weight.detach().cpu()
    array = array.float() if array.itemsize < 4 else array
    if array.ndim == 2:
        return [array.numpy()]
    parts = array.reshape(*array.shape[:2], -1).unbind(-1)
    return [(part.T if part.shape[0] < part.shape[1] else part).contiguous().numpy() for part in parts]


def _products(layers: list[Layer], ids: dict[str, int], options: Options, seed: int) -> Iterator[Matrix | Skipped]:
    """Return the product of each layer with the one before it."""
    for before, layer in itertools.pairwise(layers):
        shapes = _aligned_shapes(before, layer)
        name = f"{ids[before.name]} X {ids[layer.name]} "
        if shapes is None:
            yield Skipped(name, layer.shape, f"shares no side with {before.name}")
            continue
        load = partial(_product, before.load, layer.load, options, seed + ids[layer.name])
        product = replace(layer, name=name, shape=shapes, load=load, tied_to=None)
        yield Matrix(product, ids[layer.name], layer.num_evals, {"Xflag": True, "name": name, "rf": layer.rf})


def _aligned(first: Any, second: Any) -> tuple[Any, Any]:
    """Return two matrices, transposed where their largest common side asks for it."""
    sides = sorted([*first.shape, *second.shape])
    common = [side for side, following in itertools.pairwise(sides) if side == following]
    if common:
        shared = max(common)
        first = first if first.shape[1] == shared else first.T
        second = second if second.shape[0] == shared else second.T
    return first, second


def _aligned_shapes(before: Layer, layer: Layer) -> tuple[int, int] | None:
    """Return the shape of the product of two layers, None if they have no common side."""
    # a view of one number costs no memory
    views = [np.broadcast_to(0.0, sorted(part.shape[:2], reverse=True) if len(part.shape) > 2 else part.shape)
             for part in (before, layer)]  # fmt: skip
    first, second = _aligned(*views)
    return (first.shape[0], second.shape[1]) if first.shape[1] == second.shape[0] else None


def _product(load_before: Load, load: Load, options: Options, seed: int) -> torch.Tensor:
    """Return the product of the first slices of two layers over their norms; ``sparsify`` puts a random mask between them."""
    first, second = _aligned(slices_of(load_before())[0].astype(float), slices_of(weight := load())[0].astype(float))
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    if options.sparsify:
        mask = np.random.default_rng(seed).integers(2, size=(first.shape[1], first.shape[1])).astype(float)
        norm += math.sqrt(float(np.linalg.norm(mask)))
        first = first @ mask
    scale = WEIGHTWATCHER_CONV2D_SCALE**0.5 if weight.ndim == 4 and options.conv2d_norm else 1.0
    return torch.from_numpy(first @ second * (scale / norm))


def _stack(layers: list[Layer]) -> Matrix:
    """Return all layers above each other: less their medians, over the median deviations of columns, padded with zeros."""
    widths = [layer.shape[1] if len(layer.shape) == 2 else layer.M * layer.rf for layer in layers]
    heights = [layer.shape[0] if len(layer.shape) == 2 else layer.N for layer in layers]
    stack = replace(
        layers[0],
        name="Stacked Layer",
        layer_type="stacked",
        shape=(sum(heights), max(widths)),
        load=partial(_stacked, [layer.load for layer in layers], max(widths)),
        tied_to=None,
    )
    return Matrix(stack, 0, layers[0].num_evals, {"name": "Stacked Layer", "rf": 1})


def _stacked(loads: list[Load], width: int) -> torch.Tensor:
    """Return the stack of these weights."""
    parts = []
    for load in loads:
        W = np.hstack(slices_of(load()))
        W = (W - np.median(W)) / np.median(np.abs(W - np.median(W, axis=0)), axis=0)
        parts.append(np.pad(W, ((0, 0), (0, width - W.shape[1]))))
    return torch.from_numpy(np.vstack(parts))


def analysis_of(made: list[Matrix], chosen: Inventory, options: Options, settings: Settings) -> Analysis:
    """Return the analysis of the matrices."""
    inventory = Inventory(chosen.source, [matrix.layer for matrix in made], chosen.skipped, metadata=chosen.metadata)
    if not options.transforms:
        return analyze(
            inventory,
            bulk=settings.bulk,
            randomize=settings.randomize,
            convention="weightwatcher",
            seed=settings.seed,
        )
    results = {}
    for matrix in made:
        layer = matrix.layer
        try:
            weight = layer.load()
            evals = transformed(weight, matrix.num_components, options)
        except FAILURES as err:
            results[layer.name] = failed_layer(layer, err)
        else:
            results[layer.name] = analyze_eigenvalues(layer, weight, evals, settings)
    return Analysis(About.of(inventory, "weightwatcher"), skipped_frame(inventory), results)


def transformed(weight: torch.Tensor, num_components: int | None, options: Options) -> np.ndarray:
    """Return what WeightWatcher fits for eigenvalues: of a product the singular values, inverted if so asked."""
    evals = np.linalg.svd(weight.numpy(), compute_uv=False)[::-1] if options.intra else esd(weight)
    evals = evals if num_components is None else evals[-num_components:]
    if not options.inverse:
        return evals
    if evals[0] <= 0:
        raise ValueError(f"{int((evals <= 0).sum())} of {len(evals)} eigenvalues are zero and have no inverse")
    scale = WEIGHTWATCHER_CONV2D_SCALE if weight.ndim == 4 else 1.0
    return np.sort(1 / (evals * scale)) / scale

"""One layer: its spectrum, its fit and its row."""

import math
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
import torch

from htsr.audit import cells
from htsr.audit.findings import Finding, findings_of_row, is_as_heavy_in_noise, with_findings
from htsr.audit.fixed_bases import fixed_basis
from htsr.audit.noise_like import noise_test
from htsr.audit.phase_probability import sure_phase
from htsr.audit.phases import phase
from htsr.audit.row import Row, finished, tied_row
from htsr.audit.tokens.directions import Directions
from htsr.bulk import MarchenkoPasturFit, excess_kurtosis, fit_marchenko_pastur, shuffle
from htsr.choices import Convention, Null
from htsr.spectra.spectrum import Spectrum, esd
from htsr.tails import PowerLawFit, fit_power_law
from htsr.tails.power_law import MIN_SPREAD
from htsr.tails.xmin_rules import XminRule
from htsr.text import escaped
from htsr.weights import Layer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from htsr.audit.tokens.stream import Side
    from htsr.plots.spectra.density import Scale
    from htsr.plots.style import ManyAxes

LayerPicture = Literal["esd", "bulk", "ccdf", "qq", "xmin", "hill"]

# WeightWatcher 0.7.7: fits leave out eigenvalues below this, whatever the scale of the weights, ...
WEIGHTWATCHER_CUTOFF = 1e-5
# ... and the pooled slices of a Conv2d are multiplied by sqrt(1/2).
WEIGHTWATCHER_CONV2D_SCALE = 0.5

# Rounding the entries of an orthogonal matrix moves its eigenvalues, all 1, by up to 1.2 eps each way (the spectral norm of
# the rounding noise is 0.6 eps for a square matrix); below this many eps of the stored type a spectrum counts as flat.
FLAT_EPS = 4
# An 8-bit type has so few digits that this would call any spectrum flat.
MAX_FLAT = 0.5

# What loading a weight and computing its eigenvalues may raise. torch raises RuntimeError for everything, even for memory.
FAILURES = (ValueError, OSError, RuntimeError, MemoryError)


@dataclass(frozen=True)
class LayerAnalysis:
    """One layer of an analysis.

    Attributes:
        name: Its name.
        row: Its row of ``Analysis.details``, as a dict with every column; a missing number is NaN, a missing text empty.
        spectrum: Its eigenvalues; None where the weight is not finite.
        fit: Its power-law fit, possibly a failed one.
        bulk: Its noise bulk; None where there is none, or none was asked for.
        shuffled: The spectrum of the first shuffled copy; None unless ``analyze`` was asked to randomize.
    """

    name: str
    row: Row
    spectrum: Spectrum | None
    fit: PowerLawFit
    bulk: MarchenkoPasturFit | None
    shuffled: Spectrum | None = None
    _directions: Directions = field(default=Directions(), repr=False, compare=False)

    @property
    def findings(self) -> list[Finding]:
        """What a person should look at, the worst first; none for a layer that is tied to an earlier one."""
        return [] if self.row["tied_to"] else findings_of_row(self.row)

    @property
    def bulk_max(self) -> float | None:
        """Upper edge of the noise bulk; None where there is no bulk."""
        edge: float = self.row["bulk_max"]
        return None if math.isnan(edge) else edge

    def repeated(self, layer: Layer) -> "LayerAnalysis":
        """The same numbers for a layer that shares this one's weight.

        Args:
            layer: The layer, tied to this one.

        Returns:
            Its analysis.
        """
        return replace(self, name=layer.name, row=tied_row(self.row, layer))

    def tokens(self, k: int = 5, *, side: "Side | None" = None, seed: int = 0) -> pd.DataFrame:
        """Name the leading singular directions of the weight by the tokens that they promote and suppress.

        The direction in the residual stream, times the output embedding, is what the layer adds to the logits of each token by
        itself. No forward pass is made. So this leaves out the final norm, which rescales the coordinates of the stream, all
        later layers, which read the direction and answer to it, and a head with layers of its own, such as BERT's. The earlier
        a layer stands, the less its direct effect says.

        Args:
            k: How many directions, the strongest first; the rank limits it. The default was chosen here.
            side: Which singular vectors are meant: ``"out"``, the left ones, of a layer that writes to the residual stream;
                ``"in"``, the right ones, of one that reads from it. By default the role of the layer decides, which its name
                tells; without a known role, the side that has the width of the embedding.
            seed: Of the random directions.

        Returns:
            One row for each direction. ``singular_value``, and its ``share`` of the squared norm; ``side``; ``stream``, whether
            the layer ``writes`` the direction or ``reads`` it; ``promoted`` and ``suppressed``, the tokens at the two ends, the
            strongest first, with a space in front of a token shown as a low bar. The sign of a singular direction is arbitrary,
            and the input of the layer decides which end is promoted: the end that comes closer to a token stands first.
            ``alignment`` is the largest absolute cosine between the direction and one of these tokens, ``contrast`` their
            largest absolute score in standard deviations of the scores of all tokens, ``null_alignment`` and ``null_contrast``
            what 95 % of random directions stay below. ``p_value`` says how rarely random directions reach both, times k
            (Bonferroni), and ``reads_as_noise`` whether it is above 0.05. ``embedding`` says whose rows the tokens are: the
            input embedding, where there is no output embedding.

        Raises:
            InputError: If the source is not a path with an output embedding (or a word embedding) and a ``tokenizer.json``; if
                a file changed; if the layer does not lie in the residual stream; or if the result was loaded and keeps fewer
                directions than k.
            TypeError: If ``k`` is not a whole number.
            ValueError: If ``k`` is below 1, or ``side`` unknown.

        Notes:
            The rows of the embedding are centred. The p-value is the largest over two measures and two nulls: uniform random
            directions, and random mixtures of all tokens, which have the anisotropy of the embedding. On MiniLM, at most 3 % of
            directions of noise are called meaningful, in each of five kinds, heavy-tailed noise and noise with the covariance
            of the embedding among them; and of 400 English words, mixed with noise at a cosine of 0.4, 94 % are found
            (``benchmarks/tokens_null.py``).
        """
        return self._directions.named(self.name, k, side, seed)

    def _repr_html_(self) -> str:
        from htsr.report.notebook import layer_html

        return layer_html(self)

    def __repr__(self) -> str:
        return f"LayerAnalysis({self.name!r}, {self.spectrum}, {self.fit})"

    def plot(self, kind: LayerPicture = "esd", *, scale: "Scale" = "log-log", ax: "ManyAxes | None" = None) -> "Figure":
        """Draw the layer.

        Args:
            kind: ``"esd"``: the ESD with the fitted tail, xmin, the noise bulk, its edge and spikes, and the ESD of the
                shuffled weight if ``analyze`` was asked to randomize. ``"bulk"``: the density of the singular values with the
                Marchenko-Pastur law fitted to it. ``"ccdf"`` and ``"qq"``: how well the power law fits the tail, with the band
                of its bootstrap. ``"xmin"``: D and alpha of every candidate for xmin. ``"hill"``: Hill's alpha for every number
                of values in the tail.
            scale: The axes of ``"esd"``: ``"log-log"``, ``"lin"`` or ``"log-lin"``.
            ax: Where to draw: matplotlib axes, two of them for ``"xmin"``. A figure of its own by default.

        Returns:
            The matplotlib Figure.

        Raises:
            ValueError: If ``kind`` or ``scale`` is none of these, or the layer has no spectrum, or no fit or bulk where one is
                needed.
        """
        from htsr import plots

        if kind not in get_args(LayerPicture):
            raise ValueError(f"expected kind to be one of {', '.join(get_args(LayerPicture))}, got {kind!r}")
        if self.spectrum is None:
            raise ValueError(f"layer {self.name!r} has no spectrum to draw: {self.fit.reason}")
        if kind == "bulk":
            if self.bulk is None:
                raise ValueError(
                    f"layer {self.name!r} has no noise bulk to draw: at least half of its eigenvalues stand out"
                )
            return plots.figure_of(plots.plot_bulk(self.spectrum, self.bulk, title=self.name, ax=ax))
        if kind == "hill":
            return plots.figure_of(plots.plot_hill(self.spectrum, self.fit, title=self.name, ax=ax))
        if kind != "esd":
            return self.fit.plot(kind, title=self.name, ax=ax)
        drawn = plots.plot_esd(
            self.spectrum, self.fit, title=self.name, bulk_max=self.bulk_max, bulk=self.bulk, shuffled=self.shuffled,
            scale=scale, ax=ax,
        )  # fmt: skip
        return plots.figure_of(drawn)


@dataclass(frozen=True)
class Settings:
    """What ``analyze`` was asked to do with each layer."""

    xmin: XminRule = "ks"
    alternatives: bool = False
    bootstrap: int = 0
    randomize: bool = False
    bulk: bool = True
    vectors: bool = False
    convention: Convention = "htsr"
    seed: int = 0
    device: str | None = None
    null: Null = "entries"
    clip_fingers: bool = False
    fixed_aspect: bool = False


def analyze_layer(layer: Layer, settings: Settings, floor: float = 0.0) -> LayerAnalysis:
    """Load a layer and analyse it; a failed analysis says why. Eigenvalues up to ``floor`` are zero, as in ``esd``."""
    try:
        weight = load(layer, settings)
        evals = esd(weight, floor)
    except FAILURES as err:
        return failed_layer(layer, err)
    return analyze_eigenvalues(layer, weight, evals, settings)


def load(layer: Layer, settings: Settings) -> torch.Tensor:
    """Return a layer's weight on the device that is to decompose it, or raise one of ``FAILURES``."""
    weight = layer.load()
    return weight if settings.device is None else weight.to(settings.device)


def failed_layer(layer: Layer, error: Exception) -> LayerAnalysis:
    """Return the analysis of a layer that has no spectrum, with the error as the reason."""
    fit = PowerLawFit.failed(escaped(" ".join(str(error).split())) or type(error).__name__)
    return LayerAnalysis(layer.name, _finished(_known_before(layer) | _status(fit, layer)), None, fit, None)


def analyze_eigenvalues(layer: Layer, weight: torch.Tensor, evals: np.ndarray, settings: Settings) -> LayerAnalysis:
    """Fit a layer's eigenvalues, as ``esd`` returns them, and fill in its row."""
    spectrum = Spectrum(evals, tuple(weight.shape))
    stored = weight.dtype
    weight = weight.float() if stored.itemsize == 1 else weight  # torch can hardly compute with 8-bit types
    if settings.convention == "weightwatcher" and len(layer.shape) == 4:  # it does not tell transposed ones apart
        spectrum = Spectrum(spectrum.eigenvalues * WEIGHTWATCHER_CONV2D_SCALE, spectrum.shape)
        weight = weight * math.sqrt(WEIGHTWATCHER_CONV2D_SCALE)  # its shuffles scale alike
    resolution = max(MIN_SPREAD, min(FLAT_EPS * torch.finfo(stored).eps, MAX_FLAT))
    fit = _fit(spectrum, settings, resolution)
    seed = settings.seed + zlib.crc32(layer.name.encode("utf-8", "surrogatepass"))
    row = _known_before(layer) | _status(fit, layer) | cells.spectrum_cells(spectrum)
    if fit.status == "success":
        row |= cells.tail_cells(spectrum, fit) | ({"num_fingers": fit.num_fingers} if settings.clip_fingers else {})
        if settings.bootstrap:
            row |= cells.resampled_cells(fit, settings.bootstrap, seed)
            row["reason"] = "; ".join(filter(None, (str(row["reason"]), fit.interval_caution)))
        if settings.alternatives:
            row |= cells.alternative_cells(fit)
    noise, shuffled, tested = None, None, None
    if spectrum.eigenvalues[-1] > 0:
        if settings.bulk:
            kurtosis = excess_kurtosis(weight)
            noise = fit_marchenko_pastur(spectrum, spectrum.N, spectrum.M, kurtosis=kurtosis)
            row |= {"kurtosis": kurtosis} | (cells.bulk_cells(spectrum, noise) if noise is not None else {})
            row |= cells.null_cells(spectrum, row, fit.xmin if fit.num_fingers else settings.xmin)
            tested = noise_test(weight, settings.null)
            row["null_p_value"] = row.get("gaussian_p_value") if tested is None else tested.p_value
        if settings.randomize:
            copies = shuffle(weight, seed=seed)
            shuffled = copies.spectra[0]
            row |= cells.shuffled_cells(spectrum, copies)
        if settings.vectors:
            row |= cells.vector_cells(weight)
        if settings.fixed_aspect:
            row |= cells.window_cells(weight)
    if settings.bulk:
        named, explained_by = phase(row, fixed_basis(weight)), ""
        if tested is not None:
            named, explained_by = tested.judged(named)
        refits = fit.refits(settings.bootstrap, seed) if settings.bootstrap else None
        named, probability = sure_phase(named, row, refits, tested)
        row |= {
            "phase": named.name,
            "phase_probability": probability,
            "phase_evidence": named.evidence,
            "explained_by": explained_by,
        }
    return LayerAnalysis(layer.name, _finished(row), spectrum, fit, noise, shuffled)


def restore_layer(
    row: Row, spectrum: Spectrum | None, settings: Settings, shuffled: Spectrum | None = None
) -> LayerAnalysis:
    """Return what ``analyze_layer`` gave from its row and spectra: the same eigenvalues have the same fits."""
    fit, noise = PowerLawFit.failed(row["reason"]), None
    if spectrum is not None and row["status"] == "success":
        fit = _fit(spectrum, settings, MIN_SPREAD)
    if spectrum is not None and not math.isnan(row["bulk_max"]):
        noise = fit_marchenko_pastur(spectrum, spectrum.N, spectrum.M, kurtosis=row["kurtosis"])
    return LayerAnalysis(row["name"], row, spectrum, fit, noise, shuffled)


def _known_before(layer: Layer) -> cells.Cells:
    """Return the cells that are known before the weight is loaded."""
    return {
        "name": layer.name,
        "longname": layer.longname,
        "layer_type": layer.layer_type,
        "dtype": layer.dtype,
        "N": layer.N,
        "M": layer.M,
        "Q": layer.N / layer.M,
        "rf": layer.rf,
        "num_evals": layer.num_evals,
    }


def _status(fit: PowerLawFit, layer: Layer) -> cells.Cells:
    """Return whether the fit succeeded, and why not or what to be careful about."""
    return {"status": fit.status, "reason": "; ".join(filter(None, (fit.reason, layer.note)))}


def _finished(known: cells.Cells) -> Row:
    """Return the row of these cells and of the findings that they amount to."""
    row = finished(known)
    if row["phase"] in ("random-like", "fixed-basis") or is_as_heavy_in_noise(
        row
    ):  # alpha says nothing about a training
        row["warning"] = "noise" if row["phase"] == "random-like" else ""
    return with_findings(row)


def _fit(spectrum: Spectrum, settings: Settings, resolution: float) -> PowerLawFit:
    """Fit the eigenvalues that the convention keeps."""
    fitted = spectrum.nonzero
    if settings.convention == "weightwatcher":
        fitted = spectrum.eigenvalues[spectrum.eigenvalues > WEIGHTWATCHER_CUTOFF]
    return fit_power_law(fitted, xmin=settings.xmin, clip_fingers=settings.clip_fingers, resolution=resolution)

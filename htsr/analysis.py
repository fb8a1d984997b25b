"""From a source to a table: the one place where a layer's row is put together."""

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch

from htsr import metrics
from htsr.bulk import (
    MarchenkoPasturFit,
    density_distance,
    excess_kurtosis,
    fit_marchenko_pastur,
    noise_null,
    rand_distance,
    shuffle,
)
from htsr.bulk.bbp import bbp_threshold
from htsr.columns import COLUMNS
from htsr.findings import findings
from htsr.phases import phase
from htsr.progress import tqdm
from htsr.spectrum import Spectrum
from htsr.tails import ALTERNATIVES, PowerLawFit, fit_power_law
from htsr.tails.power_law import MIN_SPREAD, XminRule, check_resampling, check_xmin
from htsr.tails.resampling import MIN_RESAMPLES
from htsr.vectors import localization
from htsr.weights import Layer, open_source, select
from htsr.weights.inventory import Inventory
from htsr.weights.select import Patterns
from htsr.weights.source import Source

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# WeightWatcher's bounds, from its README: "over-trained" below 2, "under-trained" above 6.
OVER_TRAINED, UNDER_TRAINED = 2.0, 6.0
# WeightWatcher 0.7.7: fits leave out eigenvalues below this, whatever the scale of the weights, ...
WEIGHTWATCHER_CUTOFF = 1e-5
# ... and the pooled slices of a Conv2d are multiplied by sqrt(1/2).
WEIGHTWATCHER_CONV2D_SCALE = 0.5

Convention = Literal["htsr", "weightwatcher"]

# Rounding the entries of an orthogonal matrix moves its eigenvalues, all 1, by up to 1.2 eps each way (the spectral norm of
# the rounding noise is 0.6 eps for a square matrix); below this many eps of the stored type a spectrum counts as flat.
FLAT_EPS = 4


def analyze(
    source: Source | Inventory,
    *,
    layers: Patterns = None,
    skip: Patterns = None,
    xmin: XminRule = "ks",
    alternatives: bool = False,
    bootstrap: int = 0,
    randomize: bool = False,
    bulk: bool = True,
    vectors: bool = False,
    convention: Convention = "htsr",
    seed: int = 0,
    progress: bool | None = None,
) -> "Analysis":
    """Analyse every weight matrix of a network.

    Args:
        source: A ``torch.nn.Module``, a state dict or ``{name: array}``, or a path to a ``.safetensors`` file or to a
            directory of them; or the ``Inventory`` of one, already opened. Models are not changed; one matrix at a time is in
            memory.
        layers: Names, globs or layer types to keep; all by default.
        skip: Names, globs or layer types to leave out.
        xmin: How the tail is chosen, as in ``fit_power_law``.
        alternatives: Compare each tail with a lognormal, an exponential, a stretched exponential and a truncated power law;
            about half a second a layer.
        bootstrap: Number of resamples for the 95 % interval of alpha and for the goodness of fit, with xmin chosen anew in
            each; 0 leaves both out. 500 resamples of 1000 eigenvalues take about 0.2 s.
        randomize: Shuffle the entries and count correlation traps, eigenvalues that survive it; with the elements and the
            mean that cause them, and the distance between the two spectra. Doubles the time.
        bulk: Say what noise would look like: Marchenko-Pastur bulk, spikes above it, what alpha Gaussian noise of this shape
            gives, and the phase. The noise is drawn once for each shape, one to two seconds up to a side of 1024 and a
            quarter of a minute at 4096, and kept in the user's cache folder.
        vectors: Measure how localised the leading singular vectors are; needs eigenvectors, some five times the time.
        convention: ``"weightwatcher"`` restores WeightWatcher's scaling of Conv2d and its absolute cut-off of 1e-5, for
            comparison with published numbers.
        seed: Seed of the resamples and of the shuffles. They depend on it and on the layer's name alone (for a tied weight,
            its first layer's), so a layer has the same row whatever else is analysed.
        progress: True or False shows or hides the progress bar. By default it is shown on a terminal, after a second.

    Returns:
        The analysis: a row for each matrix, a reason for every other tensor.

    Raises:
        FileNotFoundError: If a path does not exist.
        InputError: If the source cannot be read, is empty, or ``layers`` or ``skip`` match nothing.
        TypeError: If the source is of no kind named above.
        ValueError: If ``convention`` or ``xmin`` is unknown, or ``bootstrap`` is between 1 and 19.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> a = analyze(torch.nn.Sequential(torch.nn.Linear(128, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)))
        >>> a.details[["name", "N", "M", "num_evals", "status"]]
          name    N   M  num_evals   status
        0    0  128  64         64  success
        1    2   64   1          1   failed
        >>> a["2"].fit
        PowerLawFit(failed: 1 distinct positive values, a fit needs 8)
        >>> a.skipped
             name shape             reason
        0  0.bias    64  1-D: not a matrix
        1  2.bias     1  1-D: not a matrix
    """
    if convention not in ("htsr", "weightwatcher"):
        raise ValueError(f"expected convention='htsr' or 'weightwatcher', got {convention!r}")
    check_xmin(xmin)
    check_resampling(bootstrap or MIN_RESAMPLES, seed)
    settings = _Settings(xmin, alternatives, bootstrap, randomize, bulk, vectors, convention, seed)
    inventory = select(source if isinstance(source, Inventory) else open_source(source), layers, skip)
    results: dict[str, LayerAnalysis] = {}
    bar = tqdm(
        inventory.layers, desc="analyze", unit="layer", delay=1, disable=None if progress is None else not progress
    )
    for layer in bar:
        bar.set_postfix_str(layer.name, refresh=False)
        if layer.tied_to is not None:
            first = results[layer.tied_to]
            row = first.row | {"name": layer.name, "longname": layer.longname, "layer_type": layer.layer_type}
            results[layer.name] = replace(first, name=layer.name, row=row | {"tied_to": layer.tied_to})
        else:
            results[layer.name] = _analyze_layer(layer, settings)
    skipped = pd.DataFrame(
        [(item.name, " x ".join(map(str, item.shape)), item.reason) for item in inventory.skipped],
        columns=["name", "shape", "reason"],
        dtype="str",
    )
    return Analysis(inventory.source, convention, results, skipped)


@dataclass(frozen=True)
class _Settings:
    """What ``analyze`` was asked to do with each layer."""

    xmin: XminRule
    alternatives: bool
    bootstrap: int
    randomize: bool
    bulk: bool
    vectors: bool
    convention: Convention
    seed: int


def _analyze_layer(layer: Layer, settings: _Settings) -> "LayerAnalysis":
    """One layer's spectrum, fit and row. Whatever cannot be computed is NaN, with the reason in the row."""
    N, M = max(layer.shape[:2]), min(layer.shape[:2])
    rf = math.prod(layer.shape[2:])
    row: dict[str, object] = {"name": layer.name, "longname": layer.longname, "layer_type": layer.layer_type}
    row |= {"N": N, "M": M, "Q": N / M, "rf": rf, "num_evals": M * rf}
    row |= dict.fromkeys(
        ("warning", "tied_to", "alternative", "phase", "phase_evidence", "trap_elements", "findings"), ""
    )
    try:
        weight = layer.load()
        spectrum = Spectrum.from_weight(weight)
    except (ValueError, torch.linalg.LinAlgError) as err:
        fit = PowerLawFit.failed(str(err))
        row |= {"status": fit.status, "reason": fit.reason}
        return LayerAnalysis(layer.name, row | {"findings": " ".join(findings(row))}, None, fit, None)

    fitted = spectrum.nonzero
    if settings.convention == "weightwatcher":
        if layer.layer_type == "conv2d":
            spectrum = Spectrum(spectrum.eigenvalues * WEIGHTWATCHER_CONV2D_SCALE, spectrum.shape)
        fitted = spectrum.eigenvalues[spectrum.eigenvalues > WEIGHTWATCHER_CUTOFF]
    resolution = max(MIN_SPREAD, FLAT_EPS * torch.finfo(weight.dtype).eps)
    fit = fit_power_law(fitted, xmin=settings.xmin, resolution=resolution)
    seed = settings.seed + zlib.crc32(layer.name.encode())
    row |= {"status": fit.status, "reason": fit.reason} | _scalar_metrics(spectrum)
    if fit.status == "success":
        row |= _tail_metrics(spectrum, fit)
        if settings.bootstrap:
            row |= _resampled_metrics(fit, settings.bootstrap, seed)
        if settings.alternatives:
            row |= _best_alternative(fit)
    noise = None
    if spectrum.eigenvalues[-1] > 0:
        if settings.bulk:
            kurtosis = excess_kurtosis(weight)
            noise = fit_marchenko_pastur(spectrum, spectrum.N, spectrum.M, kurtosis=kurtosis)
            row |= {"kurtosis": kurtosis} | (_bulk_metrics(spectrum, noise) if noise is not None else {})
            row |= _null_metrics(spectrum, row, settings.xmin)
            named = phase(row)
            row |= {"phase": named.name, "phase_evidence": named.evidence}
        if settings.randomize:
            row |= _shuffled_metrics(spectrum, weight, seed)
        if settings.vectors:
            row |= _vector_metrics(weight)
    row["findings"] = " ".join(findings(row))
    return LayerAnalysis(layer.name, row, spectrum, fit, noise)


def _scalar_metrics(spectrum: Spectrum) -> dict[str, object]:
    evals = spectrum.eigenvalues
    if evals[-1] == 0:
        return {"spectral_norm": 0.0, "hard_rank": 0, "rank_loss": len(evals)}
    return {
        "log_norm": metrics.log_norm(evals),
        "log_spectral_norm": metrics.log_spectral_norm(evals),
        "spectral_norm": metrics.spectral_norm(evals),
        "stable_rank": metrics.stable_rank(evals),
        "entropy": metrics.entropy(evals),
        "hard_rank": metrics.hard_rank(evals),
        "rank_loss": len(evals) - metrics.hard_rank(evals),
        "weak_rank_loss": metrics.weak_rank_loss(evals),
        "effective_rank": metrics.effective_rank(evals),
        "num_ERG_spikes": metrics.num_ERG_spikes(evals),
    }


def _bulk_metrics(spectrum: Spectrum, fit: MarchenkoPasturFit) -> dict[str, object]:
    unit = math.sqrt(spectrum.N / spectrum.eigenvalues.mean())
    weakest = fit.sigma * bbp_threshold(spectrum.N, spectrum.M)
    return {
        "num_spikes": fit.num_spikes,
        "spike_threshold": fit.spike_threshold,
        "spike_strength": float(fit.spike_strengths[0]) / weakest if fit.num_spikes else None,
        "mp_softrank": fit.softrank,
        "sigma_mp": fit.sigma * unit,
        "sigma_mp_error": fit.sigma_error * unit,
        "bulk_max": fit.edge_high,
        "bulk_min": fit.edge_low,
        "bulk_D": fit.D,
    }


def _null_metrics(spectrum: Spectrum, row: Mapping[str, Any], xmin: XminRule) -> dict[str, object]:
    """What noise of this shape would have given; no alpha of noise for a tail that starts at a given value."""
    comparable = isinstance(xmin, str)
    null = noise_null(spectrum.N, spectrum.M, spectrum.rf, xmin if comparable else "ks")
    if null is None:
        return {}
    cells: dict[str, object] = {f"null_{name}": null.band(name)[0] for name in ("stable_rank", "entropy")}
    if "bulk_D" in row:
        cells["bulk_p_value"] = null.bulk_p_value(row["bulk_D"])
    if comparable:
        cells |= dict(zip(("null_alpha", "null_alpha_low", "null_alpha_high"), null.band("alpha"), strict=True))
        cells["null_D"] = null.band("D")[0]
    if comparable and "alpha" in row:
        cells["null_p_value"] = null.p_value(
            alpha=row["alpha"], D=row["D"], stable_rank=row["stable_rank"], kurtosis=row["kurtosis"]
        )
    return cells


def _shuffled_metrics(spectrum: Spectrum, weight: torch.Tensor, seed: int) -> dict[str, object]:
    shuffled = shuffle(weight, seed=seed)
    evals, first = spectrum.eigenvalues, shuffled.spectra[0].eigenvalues
    named = [f"{place} = {value:.3g}" for place, value in zip(shuffled.elements, shuffled.values, strict=True)]
    cells: dict[str, object] = {
        "num_traps": shuffled.num_traps,
        "trap_elements": "; ".join(named),
        "trap_mean": shuffled.mean,
        "trap_mean_strength": shuffled.mean_strength,
        "max_rand_eval": shuffled.lambda_max,
        "ww_softrank": shuffled.lambda_max / evals[-1],
        "ww_maxdist": evals[-1] - shuffled.lambda_max,
        "rand_distance": rand_distance(evals, first),
        "density_distance": density_distance(evals, np.concatenate(shuffled.spectra)),
    }
    if shuffled.fit is not None:
        cells |= {
            "rand_sigma_mp": shuffled.fit.sigma * math.sqrt(spectrum.N / first.mean()),
            "rand_mp_softrank": shuffled.fit.softrank,
            "rand_bulk_max": shuffled.fit.edge_high,
            "rand_bulk_min": shuffled.fit.edge_low,
        }
    return cells


def _vector_metrics(weight: torch.Tensor) -> dict[str, object]:
    left, right = localization(weight, k=1)
    return {
        "participation_left": float(left.participation_ratio[0]),
        "participation_right": float(right.participation_ratio[0]),
        "vector_entropy_left": float(left.entropy[0]),
        "vector_entropy_right": float(right.entropy[0]),
    }


def _tail_metrics(spectrum: Spectrum, fit: PowerLawFit) -> dict[str, object]:
    warning = "over-trained" if fit.alpha < OVER_TRAINED else "under-trained" if fit.alpha > UNDER_TRAINED else ""
    return {
        "alpha": fit.alpha,
        "D": fit.D,
        "sigma": fit.sigma,
        "xmin": fit.xmin,
        "xmax": fit.xmax,
        "num_pl_spikes": fit.n_tail,
        "alpha_weighted": metrics.alpha_weighted(spectrum.eigenvalues, fit.alpha),
        "log_alpha_norm": metrics.log_alpha_norm(spectrum.eigenvalues, fit.alpha),
        "ERG_gap": metrics.num_ERG_spikes(spectrum.eigenvalues) - fit.n_tail,
        "warning": warning,
    }


def _resampled_metrics(fit: PowerLawFit, n_boot: int, seed: int) -> dict[str, object]:
    low, high = fit.confidence_interval(n_boot=n_boot, seed=seed)
    return {"alpha_low": low, "alpha_high": high, "goodness_of_fit": fit.goodness_of_fit(n_boot=n_boot, seed=seed)}


def _best_alternative(fit: PowerLawFit) -> dict[str, object]:
    """The alternative that beats the power law with the smallest p-value, if one does."""
    rivals = [comparison for name in ALTERNATIVES if (comparison := fit.compare(name)).favours == name]
    if not rivals:
        return {}
    best = min(rivals, key=lambda comparison: comparison.p_value)
    return {"alternative": best.alternative, "alternative_p_value": best.p_value}


@dataclass(frozen=True)
class LayerAnalysis:
    """One layer of an analysis.

    Attributes:
        name: Its name.
        row: Its row of ``Analysis.details``, as a dict.
        spectrum: Its eigenvalues; None where the weight is not finite.
        fit: Its power-law fit, possibly a failed one.
        bulk: Its noise bulk; None where there is none, or none was asked for.
    """

    name: str
    row: dict[str, object]
    spectrum: Spectrum | None
    fit: PowerLawFit
    bulk: MarchenkoPasturFit | None

    @property
    def findings(self) -> list[str]:
        """What a person should look at, a sentence each; none for a layer that is tied to an earlier one."""
        return [] if self.row["tied_to"] else findings(self.row)

    @property
    def bulk_max(self) -> float | None:
        """Upper edge of the noise bulk; None where there is no bulk."""
        return self.row.get("bulk_max")  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"LayerAnalysis({self.name!r}, {self.spectrum}, {self.fit})"

    def plot(self, kind: Literal["esd", "xmin", "bulk"] = "esd") -> "Figure":
        """Draw the layer.

        Args:
            kind: ``"esd"``: the ESD on log-log axes, with the fitted tail, xmin and the edge of the noise bulk. ``"xmin"``: D
                and alpha of every candidate for xmin. ``"bulk"``: the density with the Marchenko-Pastur law fitted to it.

        Returns:
            A matplotlib Figure.

        Raises:
            ValueError: If ``kind`` is none of these, or the layer has no spectrum, or no fit or bulk where one is needed.
        """
        from htsr.plots import plot_bulk, plot_esd, plot_xmin_scan

        if kind not in ("esd", "xmin", "bulk"):
            raise ValueError(f"expected kind='esd', 'xmin' or 'bulk', got {kind!r}")
        if self.spectrum is None:
            raise ValueError(f"layer {self.name!r} has no spectrum to draw: {self.fit.reason}")
        if kind == "xmin":
            return plot_xmin_scan(self.fit, title=self.name)
        if kind == "bulk":
            if self.bulk is None:
                raise ValueError(
                    f"layer {self.name!r} has no noise bulk to draw: at least half of its eigenvalues stand out"
                )
            return plot_bulk(self.spectrum, self.bulk, title=self.name)
        return plot_esd(self.spectrum, self.fit, title=self.name, bulk_max=self.bulk_max)


class Analysis:
    """What ``analyze`` found.

    Attributes:
        source: What was analysed, in words.
        convention: ``"htsr"`` or ``"weightwatcher"``.
        details: One row for each matrix, in the order of the model or of the mapping; files keep no such order, so theirs are
            sorted by name. The columns are listed in ``htsr.columns``.
        skipped: Name, shape and reason of every tensor that has no row in ``details``.
    """

    def __init__(
        self, source: str, convention: Convention, results: dict[str, LayerAnalysis], skipped: pd.DataFrame
    ) -> None:
        self.source = source
        self.convention = convention
        self.skipped = skipped
        self._results = results
        self.details: pd.DataFrame = details_frame([result.row for result in results.values()])

    @property
    def findings(self) -> pd.DataFrame:
        """Name and finding: what a person should look at, one sentence a row."""
        found = [(result.name, sentence) for result in self for sentence in result.findings]
        return pd.DataFrame(found, columns=["name", "finding"], dtype="str")

    @property
    def spectra(self) -> dict[str, Spectrum]:
        """Spectrum of each layer that has one, by name."""
        return {name: result.spectrum for name, result in self._results.items() if result.spectrum is not None}

    def __getitem__(self, name: str) -> LayerAnalysis:
        if name not in self._results:
            raise KeyError(
                f"{name!r}: expected one of the {len(self)} layers, {some(list(self._results)) or 'none here'}"
            )
        return self._results[name]

    def __iter__(self) -> Iterator[LayerAnalysis]:
        return iter(self._results.values())

    def __len__(self) -> int:
        return len(self._results)

    def summary(self) -> dict[str, float]:
        """Numbers for the whole model.

        Returns:
            Counts; the mean over layers of WeightWatcher's summary metrics; median and quartiles of alpha. Failed and
            tied layers are counted and left out of every mean; a mean over no layer is NaN.
        """
        failed = self.details["status"] == "failed"
        tied = self.details["tied_to"] != ""
        used = self.details[~failed & ~tied]
        means = ["alpha", "alpha_weighted", "log_alpha_norm", "log_norm", "log_spectral_norm", "stable_rank", "entropy"]
        means.append("mp_softrank")
        return {
            "num_layers": len(self.details),
            "num_failed": int((failed & ~tied).sum()),
            "num_tied": int(tied.sum()),
            "num_skipped": len(self.skipped),
            "num_over_trained": int((used["warning"] == "over-trained").sum()),
            "num_under_trained": int((used["warning"] == "under-trained").sum()),
            "num_random_like": int((used["phase"] == "random-like").sum()),
            "num_rank_collapse": int(((self.details["phase"] == "rank-collapse") & ~tied).sum()),
            "alpha_median": float(used["alpha"].median()),
            "alpha_q25": float(used["alpha"].quantile(0.25)),
            "alpha_q75": float(used["alpha"].quantile(0.75)),
            **{name: float(used[name].mean()) for name in means},
        }

    def plot(self, kind: str = "alpha") -> "Figure":
        """Draw the model.

        Args:
            kind: ``"esd"`` for the ESD of every layer, or the name of a numeric column of ``details``, drawn against
                depth.

        Returns:
            A matplotlib Figure.

        Raises:
            ValueError: If ``kind`` is neither, or there is nothing to draw.
        """
        from htsr.plots import plot_depth, plot_esds

        if kind == "esd":
            return plot_esds(self)
        return plot_depth(self.details, kind)

    def save(self, path: str | Path) -> Path:
        """Write the analysis.

        Args:
            path: Where to. The suffix picks the format: ``.html`` a self-contained report, ``.json`` summary, details and
                skipped, ``.csv`` and ``.parquet`` the details.

        Returns:
            The path written.

        Raises:
            InputError: If the suffix is none of these.
        """
        from htsr.report.save import save_analysis

        return save_analysis(self, Path(path))

    def __repr__(self) -> str:
        if not len(self):
            return self.headline()
        return f"{self.headline()}\n{brief(self.details).to_string(index=False, max_rows=60)}"

    def _repr_html_(self) -> str:
        table = brief(self.details).to_html(index=False, max_rows=60, border=0, na_rep="")
        return f"<p>{escape(self.headline()).replace(chr(10), '<br>')}</p>{table}"

    def headline(self) -> str:
        """What was analysed, where alpha lies, and which phases were seen, a line each."""
        s = self.summary()
        counts = (
            f"{s['num_layers']} layers ({s['num_failed']} failed, {s['num_tied']} tied), {s['num_skipped']} skipped"
        )
        if math.isnan(s["alpha_median"]):
            return f"{self.source}: {counts}\nno layer has a power-law fit"
        return (
            f"{self.source}: {counts}\nalpha: median {s['alpha_median']:.2f}, quartiles {s['alpha_q25']:.2f} to "
            f"{s['alpha_q75']:.2f}; {s['num_over_trained']} over-trained (< {OVER_TRAINED:g}), {s['num_under_trained']} "
            f"under-trained (> {UNDER_TRAINED:g})"
        ) + "".join(f"\nphases: {phases}" for phases in [self._phases()] if phases)

    def _phases(self) -> str:
        own = self.details[self.details["tied_to"] == ""]
        counts = own.loc[own["phase"] != "", "phase"].value_counts()
        return ", ".join(f"{count} {name}" for name, count in counts.items())


def details_frame(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Rows as a table with every column of ``htsr.columns``, in order; what a row lacks is missing, never invented."""
    table = pd.DataFrame({column.name: [row.get(column.name) for row in rows] for column in COLUMNS})
    return table.astype({column.name: column.dtype for column in COLUMNS})


def some(items: Sequence[object]) -> str:
    """The first few items, and how the list ends, for a message."""
    shown = ", ".join(map(str, items[:5]))
    return f"{shown}, ..., {items[-1]}" if len(items) > 5 else shown


def brief(details: pd.DataFrame) -> pd.DataFrame:
    """The columns that fit on a terminal, rounded for reading; the note is a failed row's reason, or the warning."""
    resampled = details["alpha_low"].notna().any()
    digits = {"alpha": 2, "D": 3, "stable_rank": 1}
    digits |= {"alpha_low": 2, "alpha_high": 2, "goodness_of_fit": 2} if resampled else {"sigma": 2}
    counts = {"num_pl_spikes": "tail", "num_spikes": "spikes"}
    table = details[["name", "layer_type", "N", "M"]].copy()
    for column in (
        "alpha",
        "alpha_low",
        "alpha_high",
        "sigma",
        "D",
        "goodness_of_fit",
        "num_pl_spikes",
        "num_spikes",
        "stable_rank",
    ):
        if column in digits:
            table[column] = [_rounded(value, digits[column]) for value in details[column]]
        elif column in counts:
            table[counts[column]] = ["" if pd.isna(value) else value for value in details[column]]
    if (details["phase"] != "").any():
        table["phase"] = details["phase"]
    return table.assign(note=[note(row) for row in details.to_dict("records")])


def note(row: Mapping[str, object]) -> str:
    """What a person should see beside a row: what it repeats, why it failed, or what to be wary of."""
    if row["tied_to"]:
        return f"tied to {row['tied_to']}"
    if row["status"] == "failed":
        return f"failed: {row['reason']}"
    better = f"{row['alternative']} fits better" if row["alternative"] else ""
    return "; ".join(str(part) for part in (row["warning"], row["reason"], better) if part)


def _rounded(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"

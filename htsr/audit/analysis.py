"""From a source to an analysis of every weight matrix in it."""

from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pandas as pd
import torch

from htsr.audit.about import OF_CHANGE, About, plain_settings
from htsr.audit.arguments import check_null, check_whole_number
from htsr.audit.columns import COLUMNS
from htsr.audit.files_read import FilesRead, stamps
from htsr.audit.jobs import analyze_layers, draw_nulls
from htsr.audit.journal import Journal, JournalFolder, opened_folder
from htsr.audit.layer import Convention, LayerAnalysis, Settings
from htsr.audit.progress import LayerBar
from htsr.audit.results import Results
from htsr.audit.summary import alpha_and_phases, summary_of
from htsr.audit.table import brief, skipped_frame
from htsr.audit.tokens import Sources, reload_of, with_directions
from htsr.audit.verdict import Sentence, verdict_of_audit
from htsr.choices import Null
from htsr.errors import InputError
from htsr.spectra.devices import check_device
from htsr.spectra.spectrum import Spectrum
from htsr.tails.resampling import check_resampling
from htsr.tails.xmin_rules import XminRule, check_xmin
from htsr.text import visible
from htsr.weights import open_source, select
from htsr.weights.convolutions import Conv
from htsr.weights.inventory import Inventory
from htsr.weights.readers.remote import is_url
from htsr.weights.select import Patterns
from htsr.weights.source import Source, is_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from htsr.plots.style import ManyAxes


# The terminal and the report show this many characters of the metadata; JSON holds all that is kept.
MAX_METADATA = 300


def analyze(
    source: Source | Inventory,
    *,
    layers: Patterns = None,
    skip: Patterns = None,
    min_eigenvalues: int = 0,
    conv: Conv = "pool",
    per_head: bool = False,
    base: Source | None = None,
    state: str | None = None,
    xmin: XminRule = "ks",
    clip_fingers: bool = False,
    alternatives: bool = False,
    bootstrap: int = 0,
    randomize: bool = False,
    bulk: bool = True,
    null: Null = "entries",
    vectors: bool = False,
    fixed_aspect: bool = False,
    tokens: int = 0,
    convention: Convention = "htsr",
    n_jobs: int | None = None,
    device: str | torch.device | None = None,
    journal: str | Path | JournalFolder | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> "Analysis":
    """Analyse every weight matrix of a network.

    Args:
        source: A ``torch.nn.Module``; a state dict or ``{name: array}``; one array or tensor, named ``weight``, or a list of
            them, named ``0``, ``1``, ...; a path, URL or hub address (``hf://org/name@revision``) of a checkpoint: safetensors,
            torch's own files and ``torch.distributed.checkpoint``, npz, GGUF, ONNX, Keras, a PEFT directory; or a list of paths,
            whose layers are named ``path:layer``, with as much of each path as tells it from the others. Models are not changed,
            and one matrix at a time is in memory. A tensor that holds several matrices (fused attention, gates, experts, groups)
            gives a row for each, named in brackets: ``attn.in_proj_weight[q]``.
        layers: Names, globs (``"*.q_proj"``), regular expressions (``"re:..."`` or compiled), layer types (``"conv2d"``) or
            shapes (``"384x1536"``, ``"*x384"``) to keep; all by default.
        skip: The same, to leave out.
        min_eigenvalues: Leave out matrices with fewer eigenvalues.
        conv: How convolutions are decomposed. ``"pool"`` pools the eigenvalues of all slices, one ``(out, in)`` matrix for
            each position in the kernel; ``"slices"`` gives each slice a row; ``"unfold"`` takes ``(out, in * positions)``.
        per_head: Cut attention weights into their heads, where the number of heads is known.
        base: The model that an adapter was trained on, where the source is a PEFT directory: the weights of the model are then
            analysed together with what the adapter adds to them.
        state: Analyse what the optimizer keeps for each weight in place of the weight, by the optimizer's own name for it:
            ``"exp_avg"``, ``"momentum_buffer"``. The source is a checkpoint that holds the optimizer's state dict, or a
            directory with an ``optimizer.pt``.
        xmin: How the tail is chosen, as in ``fit_power_law``.
        clip_fingers: Leave out the fewest of the largest eigenvalues (one to nine) that lower alpha by more than 1, if any do:
            a few values that stand apart, fingers, can make alpha large. ``num_fingers`` counts them. Where some are left
            out, alpha is not compared with noise, whose fits keep all values.
        alternatives: Compare each tail with a lognormal, an exponential, a stretched exponential and a truncated power law;
            this takes about half a second a layer.
        bootstrap: Number of resamples for the 95 % interval of alpha and for the goodness of fit. Each resample chooses xmin
            anew; 0 leaves both out. 500 resamples of 1000 eigenvalues take about 0.8 s.
        randomize: Shuffle the entries and count correlation traps, the eigenvalues that survive the shuffle; name the elements
            and the mean that cause them, and measure the distance between the two spectra. Doubles the time.
        bulk: Say what noise would look like: the Marchenko-Pastur bulk, the spikes above it, the alpha that Gaussian noise of
            this shape gives, and the phase. The noise is drawn once for each shape, which takes one to two seconds up to a side
            of 1024, and kept in the user's cache folder. Larger matrices need no draws, except convolutions and rules for
            ``xmin`` other than "ks", which take a quarter of a minute at 4096.
        null: What noise keeps of a layer for ``null_p_value``, ``phase`` and ``explained_by``. ``"entries"``: the scales of rows
            and columns, the law of the entries, and how many are zero. ``"profile"``: the scales alone. ``"gaussian"``: nothing
            but the shape, so scales and heavy entries count as structure. The alpha of noise is Gaussian noise's always.
        vectors: Measure how localised the leading singular vectors are. This needs eigenvectors and takes about five times as
            long.
        fixed_aspect: Also fit the eigenvalues of square windows of each matrix, whose alpha does not depend on the aspect ratio
            (``alpha_fixed_aspect``). Takes about as long as all the rest.
        tokens: Name so many leading directions of each weight in the residual stream by tokens, as ``LayerAnalysis.tokens``
            does, so that a saved result keeps them. The source must be the directory of a model with its tokenizer.
        convention: ``"weightwatcher"`` restores WeightWatcher's scaling of Conv2d and its absolute cut-off of 1e-5, and pools the
            slices of kernels with groups or a single channel, too, for comparison with published numbers.
        n_jobs: Layers analysed at a time, as in joblib and scikit-learn: 1 by default, -1 for every core; a
            ``joblib.parallel_config(backend="dask")`` or ``"ray"`` runs them on a cluster. Workers read files for themselves,
            with one BLAS thread each, biggest layer first. The rows are the same.
        device: Where Gram matrices and eigenvalues are computed, ``"cuda"`` for instance, layers of one shape in one call; by
            default where the weight is, one layer at a time.
        journal: A folder of its own that keeps each layer of a file or directory as it is done. Layers that it already holds
            from the same audit are not analysed again. You delete it. With a journal, every file that the audit reads (weights,
            external data, ``base``, the JSON files beside them) is read twice more, before and after, to compare its content:
            about a second for each gigabyte, on up to four threads. Without one, files are not compared.
        seed: Seed of the resamples and of the shuffles. They depend on it and on the layer's name alone (for a tied weight,
            its first layer's), so a layer has the same row whatever else is analysed.
        progress: True or False shows or hides the progress bar. By default it is shown on a terminal, after a second.

    Returns:
        The analysis: a row for each matrix, and a reason for every other tensor.

    Raises:
        FileNotFoundError: If a path does not exist.
        InputError: If the source cannot be read or is empty; if ``layers`` or ``skip`` match nothing; if there is no such
            device; if ``journal`` holds another audit, somebody else uses it, or it is not a folder that a journal has made;
            if the source is not one path, or a file changes while it is audited with a journal.
        TypeError: If the source is none of the kinds named above, or a number is not a whole one.
        ValueError: If ``convention``, ``null`` or ``xmin`` is unknown, a number is out of range, ``bootstrap`` is between 1 and
            19, or ``state`` is given for an inventory.

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
    asked = plain_settings({name: value for name, value in locals().items() if name in DEFAULTS}, DEFAULTS)
    if convention not in ("htsr", "weightwatcher"):
        raise ValueError(f"expected convention='htsr' or 'weightwatcher', got {convention!r}")
    check_null(null)
    check_xmin(xmin)
    if clip_fingers and bootstrap:
        raise ValueError(
            "expected bootstrap=0 with clip_fingers=True: draws from the fit would contain such values again"
        )
    check_resampling(bootstrap, seed, name="bootstrap")
    if n_jobs is not None and check_whole_number("n_jobs", n_jobs) == 0:
        raise ValueError("expected n_jobs to be a number of layers, -1 for every core, or None, got 0")
    check_whole_number("min_eigenvalues", min_eigenvalues, 0)
    if device is not None:
        check_device(device)
    settings = Settings(
        xmin,
        alternatives,
        bootstrap,
        randomize,
        bulk,
        vectors,
        convention,
        seed,
        None if device is None else str(device),
        null,
        clip_fingers,
        fixed_aspect,
    )

    if state is not None and isinstance(source, Inventory):
        raise ValueError(
            "expected state= where the source is opened, got it for an inventory: open_source(..., state=)"
        )

    def listed() -> tuple[Inventory, Inventory]:
        opened = (
            source
            if isinstance(source, Inventory)
            else open_source(source, conv=conv, per_head=per_head, base=base, state=state, convention=convention)
        )
        return opened, select(opened, layers, skip, min_eigenvalues=min_eigenvalues)

    opened, inventory = listed()
    of_paths = all(map(is_path, source)) if isinstance(source, list | tuple) else is_path(source)
    if journal is not None:
        if not of_paths or not (base is None or is_path(base)):
            raise InputError(
                "journal= needs a source of files: the weights of a model in memory may change between two calls"
            )
        if not is_path(source):
            raise InputError("journal= needs a source of one path")
    sources = Sources(reload_of(opened, source))
    sources.check(tokens)
    about = About.of(inventory, convention, asked, stamps(inventory) if of_paths else {})
    with opened_folder(journal) as folder:
        kept = None
        if folder is not None:
            roots = [Path(path) for path in (source, base) if is_path(path) and not is_url(path)]
            files = FilesRead(inventory, roots, progress)
            # nobody changes the copy of a URL, and listing it again would make another copy
            if not (is_url(source) or is_url(base)):
                _, inventory = listed()  # once more, now that a change of a file is noticed
            kept = Journal(folder, files, inventory, settings)
        done = {} if kept is None else kept.done()
        own = [layer for layer in inventory.layers if layer.tied_to is None]
        to_do = [layer for layer in own if layer.name not in done]
        draw_nulls(to_do, settings, n_jobs=n_jobs, progress=progress)
        with LayerBar(own, done, progress) as bar:
            for result in analyze_layers(to_do, settings, n_jobs=n_jobs, from_files=of_paths):
                done[result.name] = result
                if kept is not None:
                    kept.add(result)
                bar.done(result.name)
        if kept is not None:
            kept.verify()
    results = {
        layer.name: done[layer.name] if layer.tied_to is None else done[layer.tied_to].repeated(layer)
        for layer in inventory.layers
    }
    return Analysis(about, skipped_frame(inventory), with_directions(results, sources, tokens, progress))


# The options that an analysis remembers; ``progress``, ``journal``, ``n_jobs`` and ``device`` change no number.
DEFAULTS = {
    name: parameter.default
    for name, parameter in signature(analyze).parameters.items()
    if name not in ("source", "n_jobs", "device", "journal", "progress")
}


class Analysis(Results[LayerAnalysis]):
    """The result of ``analyze``.

    ``a["name"]`` and ``a[0]`` are one layer, ``a.keys()`` the names, ``dict(a)`` a dictionary by name. Iteration goes over the
    layers, not over their names, and ``in`` takes a name or a layer.

    Attributes:
        about: Where the numbers come from: source, settings, versions, time, and the digests of its files once it is saved.
        details: One row for each matrix, in the order of the model or of the mapping; files keep no such order, so their rows
            are sorted by name.
        columns: Type, meaning and unit of each column of ``details``, by name.
        skipped: Name, shape and reason of every tensor that has no row in ``details``.
    """

    columns: ClassVar = {column.name: column for column in COLUMNS}
    expendable: ClassVar = (
        "phase",
        "sigma",
        "alpha_high",
        "alpha_low",
        "N",
        "M",
        "rf",
        "tail",
        "stable_rank",
        "D",
        "spikes",
        "goodness_of_fit",
        "layer_type",
    )

    def __init__(self, about: About, skipped: pd.DataFrame, results: dict[str, LayerAnalysis]) -> None:
        self.about, self.skipped = about, skipped
        super().__init__(results)

    @property
    def source(self) -> str:
        """What was analysed, in words."""
        return self.about.source

    @property
    def state(self) -> str:
        """The optimizer state that was analysed, ``"exp_avg"`` for instance; empty for weights."""
        return self.about.state

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the file says about itself, text by name.

        That is the metadata of safetensors, the ``general`` fields of GGUF, the producer and properties of ONNX. Long texts are
        cut, and of many only the first are kept.
        """
        return self.about.metadata

    @property
    def convention(self) -> str:
        """``"htsr"`` or ``"weightwatcher"``."""
        return self.about.convention

    @property
    def spectra(self) -> dict[str, Spectrum]:
        """Spectrum of each layer that has one, by name."""
        return {name: result.spectrum for name, result in self._results.items() if result.spectrum is not None}

    def summary(self) -> dict[str, float]:
        """Numbers for the whole model.

        Returns:
            Counts of layers, and of the parameters of the source: ``num_params_analyzed`` stand in the rows, tied ones once,
            ``num_params_skipped`` in ``skipped``, and ``num_params`` is their sum. A quantised weight counts as the weight that
            it stands for, and the change of an adapter as its factors. Then the means over layers of WeightWatcher's summary
            metrics; median and quartiles of alpha. Failed and tied layers are counted, but left out of every mean; a mean over
            no layer is NaN.
        """
        return summary_of(self.details, self.about, len(self.skipped))

    def plot(self, kind: str = "alpha", *, ax: "ManyAxes | None" = None) -> "Figure":
        """Draw the model.

        Args:
            kind: The name of a numeric column of ``details``, drawn against depth with a panel for each role in a block;
                ``"histogram"`` for the distribution of alpha over the layers; ``"phase"`` for the phase of each layer; or
                ``"esd"`` for the ESD of every layer.
            ax: Where to draw: matplotlib axes. With one axes, a column has all roles in one panel. A figure of its own by
                default.

        Returns:
            The matplotlib Figure.

        Raises:
            ValueError: If ``kind`` is none of these, there is nothing to draw, or ``ax`` holds too few axes.
        """
        from htsr import plots

        if kind == "esd":
            return plots.figure_of(plots.plot_esds(self, ax=ax))
        if kind in ("histogram", "phase"):
            draw = plots.plot_histogram if kind == "histogram" else plots.plot_phases
            return plots.figure_of(draw(self.details, ax=ax))
        return plots.figure_of(plots.plot_depth(self.details, kind, ax=ax))

    def to_weightwatcher(self, *, mp_fit: bool = False, ERG: bool = False, randomize: bool = False) -> pd.DataFrame:
        """The details under WeightWatcher's own column names, in its order.

        Args:
            mp_fit: Add the columns that ``mp_fit=True`` adds there.
            ERG: Add those that ``ERG=True`` adds.
            randomize: Add those that ``randomize=True`` adds; empty unless the analysis was made with it.

        Returns:
            One row a layer, tied ones too. An analysis with ``convention="weightwatcher"`` has its numbers, too; see
            ``htsr.compat.WeightWatcher`` for what still differs. Fits that failed are NaN, not -1.
        """
        from htsr.compat import weightwatcher_table

        return weightwatcher_table(self, mp_fit=mp_fit, ERG=ERG, randomize=randomize)

    def save(self, path: str | Path) -> Path:
        """Write the analysis.

        Args:
            path: Where to. The suffix picks the format: ``.htsr`` all of it, for ``htsr.load``; ``.html`` an interactive page;
                ``.md`` the verdict, a table and the findings; ``.json`` summary, details, findings and skipped; ``.csv`` and
                ``.parquet`` the details.

        Returns:
            The path written.

        Raises:
            InputError: If the suffix is none of these, or ``.parquet`` is asked for without pyarrow (``htsr[parquet]``).
        """
        from htsr.report.save import save_analysis

        return save_analysis(self, Path(path))

    def _page(self) -> str:
        from htsr.report.pages import analysis_page

        return analysis_page(self)

    def brief(self) -> pd.DataFrame:
        """The columns of ``details`` that fit on a terminal, rounded for people, with a note beside each row."""
        return brief(self.details)

    def headline(self) -> str:
        """What was analysed, the verdict, where alpha lies and which phases occur."""
        s = self.summary()
        layers = "1 layer" if s["num_layers"] == 1 else f"{s['num_layers']} layers"
        counts = f"{layers} ({s['num_failed']} failed, {s['num_tied']} tied), {s['num_skipped']} skipped"
        of = f"{visible(self.state)} of {visible(self.source)}" if self.state else visible(self.source)
        lines = [f"{of}: {counts}"]
        about = ", ".join(f"{key}={value}" for key, value in self.metadata.items() if key != "format")
        if about:
            lines.append(f"metadata: {visible(about, MAX_METADATA)}")
        return "\n".join(filter(None, [*lines, *self.verdict_sentences(), alpha_and_phases(self.details, s)]))

    def _repr_html_(self) -> str:
        from htsr.report.notebook import analysis_html

        return analysis_html(self)

    def note_command(self, command: str) -> None:
        """Remember the command line that made the analysis."""
        self.about = replace(self.about, command=command)

    def sentences(self) -> list[Sentence]:
        """The sentences of the verdict, at most three; none on a change, of which ``Comparison.verdict`` speaks."""
        if self.about.settings.items() >= OF_CHANGE.items():
            return []
        return verdict_of_audit(self.details, self.ranked_findings())

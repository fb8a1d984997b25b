"""The columns of every table: what is known of one stands here, for the code, the reports and the reader."""

from collections.abc import Mapping
from dataclasses import replace

from htsr.audit.column import Column
from htsr.audit.phases import EXPLANATIONS, PHASES
from htsr.audit.step_columns import MEASURED_STEP, OF_STEPS
from htsr.p_values import BULK_P, GOODNESS_P, NULL_P, VUONG_P

COLUMNS = (
    Column("name", "str", "module path of the layer, without the prefixes that wrappers add"),
    Column("longname", "str", "module path as the source spells it"),
    Column(
        "layer_type", "str", "dense, embedding, conv1d, conv2d, lstm, ...; stack: one of several matrices in one tensor"
    ),
    Column("dtype", "str", "type of the stored weight"),
    Column("N", "int64", "larger side of the matrix (of one slice, for a convolution)"),
    Column("M", "int64", "smaller side of the matrix"),
    Column("Q", "float64", "N / M"),
    Column("rf", "int64", "receptive field: number of slices whose eigenvalues are pooled, 1 for a matrix"),
    Column("num_evals", "int64", "number of eigenvalues, M x rf"),
    Column(
        "alpha", "float64", "exponent of the power law fitted to the tail; a smaller alpha is a heavier tail", ".2f"
    ),
    Column(
        "alpha_low",
        "float64",
        "lower end of the 95 % interval of alpha; it accounts for the choice of xmin",
        ".2f",
        needs="bootstrap",
    ),
    Column("alpha_high", "float64", "upper end of the 95 % interval of alpha", ".2f", needs="bootstrap"),
    Column("D", "float64", "KS distance between the tail and the fit", ".3f"),
    Column(
        "goodness_of_fit",
        "float64",
        "Clauset's p-value: a small one rules a power law out",
        needs="bootstrap",
        p_value=GOODNESS_P,
    ),
    Column("sigma", "float64", "standard error of alpha at this xmin; it ignores that xmin was chosen", ".2f"),
    Column("xmin", "float64", "where the fitted tail starts"),
    Column("xmax", "float64", "largest eigenvalue in the fit"),
    Column("num_pl_spikes", "Int64", "number of eigenvalues in the fitted tail"),
    Column("num_fingers", "Int64", "largest eigenvalues left out of the fit as spurious", needs="clip_fingers"),
    Column("alpha_weighted", "float64", "alpha x log10 lambda_max"),
    Column("log_alpha_norm", "float64", "log10 of the sum of lambda^alpha"),
    Column("log_norm", "float64", "log10 of the squared Frobenius norm", ".2f"),
    Column("log_spectral_norm", "float64", "log10 lambda_max", ".2f", axis="log10 $\\lambda_{max}$"),
    Column("spectral_norm", "float64", "lambda_max, the square of the largest singular value"),
    Column("stable_rank", "float64", "sum of the eigenvalues / lambda_max", ".1f", axis="stable rank"),
    Column("entropy", "float64", "Shannon entropy of the eigenvalues / its maximum; 1 for a flat spectrum", ".3f"),
    Column("hard_rank", "Int64", "number of eigenvalues that the precision of the stored weight tells from zero"),
    Column("rank_loss", "Int64", "num_evals - hard_rank"),
    Column("weak_rank_loss", "Int64", "number of eigenvalues that are zero, or lie below a gap under 1e-6 of the mean"),
    Column("effective_rank", "float64", "exp of the entropy of the singular values", ".1f"),
    Column(
        "kurtosis",
        "float64",
        "excess kurtosis of the entries of W; it moves the noise edge of a small matrix",
        needs="bulk",
    ),
    Column(
        "num_spikes",
        "Int64",
        "number of eigenvalues above the 99 % Tracy-Widom quantile of the noise bulk",
        needs="bulk",
    ),
    Column("spike_threshold", "float64", "the 99 % Tracy-Widom quantile of the noise bulk", needs="bulk"),
    Column(
        "spike_strength",
        "float64",
        "singular value of the strongest planted signal / that of the weakest signal that shows (BBP)",
        needs="bulk",
    ),
    Column("mp_softrank", "float64", "bulk_max / lambda_max: about 1 for noise", ".3f", needs="bulk"),
    Column(
        "sigma_mp",
        "float64",
        "Marchenko-Pastur sigma, where the mean eigenvalue is scaled to 1: 1 for noise",
        needs="bulk",
    ),
    Column("sigma_mp_error", "float64", "standard error of sigma_mp if the bulk is noise", needs="bulk"),
    Column("bulk_max", "float64", "upper edge of the noise bulk", needs="bulk"),
    Column("bulk_min", "float64", "lower edge of the noise bulk", needs="bulk"),
    Column(
        "bulk_D", "float64", "KS distance between the bulk, without spikes, and the Marchenko-Pastur law", needs="bulk"
    ),
    Column(
        "bulk_p_value",
        "float64",
        "p-value of bulk_D: a small one says that the bulk is not noise; never below 1e-6",
        needs="bulk",
        p_value=BULK_P,
    ),
    Column("null_alpha", "float64", "median alpha of Gaussian noise of this shape", ".2f", needs="bulk"),
    Column("null_alpha_low", "float64", "5 % of Gaussian noise of this shape has a smaller alpha", ".2f", needs="bulk"),
    Column("null_alpha_high", "float64", "5 % of Gaussian noise of this shape has a larger alpha", ".2f", needs="bulk"),
    Column(
        "alpha_excess",
        "float64",
        "alpha less null_alpha, in units of the spread of noise: -1.64 at null_alpha_low, 1.64 at null_alpha_high",
        ".1f",
        needs="bulk",
    ),
    Column(
        "alpha_fixed_aspect",
        "float64",
        "alpha of the larger half of the eigenvalues of square windows (FARMS): 2.1 for Gaussian noise of any shape",
        ".2f",
        needs="fixed_aspect",
    ),
    Column("null_D", "float64", "median D of Gaussian noise of this shape", ".3f", needs="bulk"),
    Column("null_stable_rank", "float64", "median stable rank of Gaussian noise of this shape", ".1f", needs="bulk"),
    Column("null_entropy", "float64", "median entropy of Gaussian noise of this shape", ".3f", needs="bulk"),
    Column(
        "null_p_value",
        "float64",
        "how rarely noise that keeps the scales of rows and columns and the law of the entries (option null) looks as "
        "structured as this layer; never below 3e-6",
        needs="bulk",
        p_value=NULL_P,
    ),
    Column(
        "gaussian_p_value",
        "float64",
        "how rarely Gaussian noise has an alpha, a D or a stable rank as small as this one: three times the least of the three "
        "shares (Bonferroni); one-sided, never below 3e-6",
        needs="bulk",
        p_value=NULL_P,
    ),
    Column("num_ERG_spikes", "Int64", "number of eigenvalues in the tail that meets the trace-log condition"),
    Column(
        "ERG_gap", "Int64", "num_ERG_spikes - num_pl_spikes: 0 at SETOL's ideal, negative if the fitted tail is longer"
    ),
    Column(
        "num_traps",
        "Int64",
        "correlation traps: number of eigenvalues of the shuffled matrix above its noise edge",
        needs="randomize",
    ),
    Column("trap_elements", "str", "elements that each cause a trap, with their positions", needs="randomize"),
    Column("trap_mean", "float64", "mean of the entries", needs="randomize"),
    Column(
        "trap_mean_strength",
        "float64",
        "strength of trap_mean as a signal / that of the weakest signal that shows: above 1 it causes a trap",
        needs="randomize",
    ),
    Column("rand_sigma_mp", "float64", "sigma_mp of the shuffled matrix", needs="randomize"),
    Column("rand_mp_softrank", "float64", "mp_softrank of the shuffled matrix", needs="randomize"),
    Column("rand_bulk_max", "float64", "bulk_max of the shuffled matrix", needs="randomize"),
    Column("rand_bulk_min", "float64", "bulk_min of the shuffled matrix", needs="randomize"),
    Column("max_rand_eval", "float64", "largest eigenvalue of the shuffled matrix", needs="randomize"),
    Column("ww_softrank", "float64", "max_rand_eval / lambda_max", needs="randomize"),
    Column("ww_maxdist", "float64", "lambda_max - max_rand_eval", needs="randomize"),
    Column(
        "rand_distance",
        "float64",
        "distance to the spectrum of the shuffled matrix by WeightWatcher's formula, which compares no densities",
        needs="randomize",
    ),
    Column(
        "density_distance",
        "float64",
        "Jensen-Shannon distance between the spectral densities of the matrix and of the shuffled matrix",
        needs="randomize",
    ),
    Column(
        "participation_left",
        "float64",
        "share of the rows that carry the leading left singular vector; 1/3 for noise",
        needs="vectors",
    ),
    Column(
        "participation_right",
        "float64",
        "share of the columns that carry the leading right singular vector; 1/3 for noise",
        needs="vectors",
    ),
    Column(
        "vector_entropy_left",
        "float64",
        "entropy of the squared entries of the leading left singular vector / its maximum",
        needs="vectors",
    ),
    Column(
        "vector_entropy_right",
        "float64",
        "entropy of the squared entries of the leading right singular vector / its maximum",
        needs="vectors",
    ),
    Column("phase", "str", ", ".join(PHASES[:-1]) + f", or {PHASES[-1]}", needs="bulk", values=PHASES),
    Column(
        "phase_probability",
        "float64",
        "how often the phase would be the same if the weight were drawn again, by the resamples of its eigenvalues",
        ".2f",
        needs="bootstrap",
    ),
    Column("phase_evidence", "str", "the numbers that decided the phase", needs="bulk"),
    Column(
        "explained_by",
        "str",
        "what suffices to explain the difference from Gaussian noise, or that nothing does; empty where there is none, or none "
        "was asked for",
        needs="bulk",
        values=EXPLANATIONS,
    ),
    Column(
        "alternative",
        "str",
        "the distribution that fits the tail significantly better than a power law, or empty",
        needs="alternatives",
    ),
    Column(
        "alternative_p_value",
        "float64",
        "p-value of the comparison with that distribution (Vuong)",
        needs="alternatives",
        p_value=VUONG_P,
    ),
    Column("status", "str", "success, or failed: alpha is then NaN and reason says why"),
    Column("reason", "str", "why the fit failed; for a success, what to be careful about"),
    Column(
        "warning",
        "str",
        "over-trained (alpha < 2), under-trained (alpha > 6), noise (random-like), or empty: also where noise is as heavy-tailed",
        values=("", "over-trained", "under-trained", "noise"),
    ),
    Column("findings", "str", "what a person should look at, in sentences with the numbers, the worst first"),
    Column(
        "severity",
        "str",
        "the worst of the findings: problem (the weight is suspect), caution (read alpha with care), note, or empty",
        values=("", "problem", "caution", "note"),
    ),
    Column("tied_to", "str", "the earlier layer that shares this weight; the row repeats its numbers"),
)

_ANALYSED = {column.name: column for column in COLUMNS}

# What a Monitor adds to a row, and what a condition of a Monitor may ask for besides.
STEP = Column("step", "int64", "number of optimizer steps done", unit="optimizer steps")
QUANTITY = Column("quantity", "str", "what was captured of the layer: weights, gradients, momentum or updates")
DISTANCES = (
    Column("distance", "float64", "Frobenius norm of the change that this step made to the weight"),
    Column("relative_distance", "float64", "distance / Frobenius norm of the weight before the step", ".1e"),
)
PREVIOUS_PHASE = replace(_ANALYSED["phase"], name="previous_phase", meaning="the phase at the capture before")
HISTORY_COLUMNS = (STEP, COLUMNS[0], QUANTITY, *COLUMNS[1:], *DISTANCES, *MEASURED_STEP)
STEP_COLUMNS = (COLUMNS[0], STEP, *OF_STEPS)

# What a row of a comparison takes from the row of the layer in A, from those in A and B, and from that of the change B - A.
OF_LAYER = ("name", "layer_type", "N", "M", "rf")
OF_EACH = ("alpha", "stable_rank", "phase")
OF_DELTA = (
    "alpha", "sigma", "D", "num_pl_spikes", "null_alpha", "null_p_value", "num_spikes", "stable_rank", "hard_rank",
    "phase",
)  # fmt: skip
# What can be said of the change of one layer; empty if it is none of these.
CHANGES = (
    "", "equal", "rounding", "pruned", "rescaled", "quantised", "truncated", "direction-removed", "low-rank", "reordered",
    "replaced", "partial", "noise",
)  # fmt: skip
# A change of low rank has lost nothing: a merged LoRA is one.
LOW_RANK = "low-rank"
PHASES_OF_CHANGE = tuple(LOW_RANK if name == "rank-collapse" else name for name in PHASES)
_OF_CHANGE = {
    **_ANALYSED,
    "phase": replace(_ANALYSED["phase"], meaning=", ".join(PHASES_OF_CHANGE), values=PHASES_OF_CHANGE),
}
COMPARISON_COLUMNS = (
    *(_ANALYSED[name] for name in OF_LAYER),
    Column("relative_change", "float64", "Frobenius norm of the change B - A / Frobenius norm of A", ".2g"),
    Column(
        "least_relative_change",
        "float64",
        "the least relative_change between matrices with the spectra of A and of B (Mirsky)",
        ".2g",
    ),
    Column("frobenius", "float64", "Frobenius norm of the change"),
    Column("spectral", "float64", "largest singular value of the change (of one slice, for a convolution)"),
    Column("relative_spectral", "float64", "spectral / the largest singular value of A", ".2g"),
    Column(
        "rounding",
        "float64",
        "share of frobenius that the rounding of the stored weights can account for",
        ".1g",
    ),
    Column("change", "str", "what the values of A and B say about the change of this layer, or empty", values=CHANGES),
    Column("change_evidence", "str", "the numbers that decided change, in a sentence"),
    Column("alpha_change", "float64", "alpha_b - alpha_a", ".2f"),
    Column(
        "alpha_change_score",
        "float64",
        "change of log(alpha - 1), in standard deviations of the change that training again makes: within 2 it may be no more",
        ".1f",
    ),
    *(
        replace(_ANALYSED[name], name=f"{name}_{side}", meaning=f"{name} of {side.upper()}", axis="")
        for side in "ab"
        for name in OF_EACH
    ),
    *(
        replace(
            _OF_CHANGE[name], name=f"{name}_of_delta", meaning=f"of the change: {_OF_CHANGE[name].meaning}", axis=""
        )
        for name in OF_DELTA
    ),
    Column(
        "cka",
        "float64",
        "linear CKA of the rows, with centred columns: 1 if A and B agree up to scale and rotation",
        ".4f",
    ),
    Column("cka_uncentred", "float64", "linear CKA of the rows, without centring", ".4f"),
    Column("subspace_rank", "int64", "dimension k of the leading singular subspaces that are compared"),
    Column(
        "overlap_out",
        "float64",
        "mean squared cosine of the principal angles between the subspaces of the outputs; k / out by chance",
        ".3f",
    ),
    Column(
        "overlap_in",
        "float64",
        "mean squared cosine of the principal angles between the subspaces of the inputs; k / in by chance",
        ".3f",
    ),
    Column("angle_out", "float64", "largest principal angle between the subspaces of the outputs", ".1f", "degrees"),
    Column("angle_in", "float64", "largest principal angle between the subspaces of the inputs", ".1f", "degrees"),
    Column("status", "str", "changed, unchanged (bit by bit), or failed"),
    Column("reason", "str", "why the comparison failed, or what to be careful about"),
    _ANALYSED["tied_to"],
)

# Every column of every table. ``status`` and ``reason`` stand in two tables; here they are those of an analysis.
BY_NAME: Mapping[str, Column] = {
    column.name: column for column in (*COMPARISON_COLUMNS, PREVIOUS_PHASE, *STEP_COLUMNS, *HISTORY_COLUMNS)
}

"""The columns of a row: order, type and meaning. One table for the code, the report and the reader."""

from typing import NamedTuple


class Column(NamedTuple):
    """One column of ``Analysis.details``.

    Attributes:
        name: Name in the table.
        dtype: pandas type. Counts are nullable integers, so that a failed fit has no count rather than a wrong one.
        meaning: One line for people.
    """

    name: str
    dtype: str
    meaning: str


COLUMNS = (
    Column("name", "str", "module path of the layer, wrapper prefixes stripped"),
    Column("longname", "str", "module path as the source spells it"),
    Column(
        "layer_type", "str", "dense, embedding, conv1d, conv2d, lstm and so on; stack: one of several in one tensor"
    ),
    Column("dtype", "str", "type of the stored weight"),
    Column("N", "int64", "larger side of the matrix (of one slice, for a convolution)"),
    Column("M", "int64", "smaller side"),
    Column("Q", "float64", "N / M"),
    Column("rf", "int64", "receptive field: slices pooled, 1 for a matrix"),
    Column("num_evals", "int64", "number of eigenvalues, M x rf"),
    Column("alpha", "float64", "exponent of the power law fitted to the tail; smaller is heavier"),
    Column(
        "alpha_low", "float64", "lower end of the 95 % interval of alpha, the choice of xmin counted; with bootstrap="
    ),
    Column("alpha_high", "float64", "upper end"),
    Column("D", "float64", "KS distance between tail and fit"),
    Column("goodness_of_fit", "float64", "Clauset's p-value: small rules a power law out; with bootstrap="),
    Column("sigma", "float64", "standard error of alpha for this xmin; does not count the choice of xmin"),
    Column("xmin", "float64", "where the fitted tail starts"),
    Column("xmax", "float64", "largest eigenvalue in the fit"),
    Column("num_pl_spikes", "Int64", "eigenvalues in the fitted tail"),
    Column("alpha_weighted", "float64", "alpha x log10 lambda_max"),
    Column("log_alpha_norm", "float64", "log10 of the sum of lambda^alpha"),
    Column("log_norm", "float64", "log10 of the squared Frobenius norm"),
    Column("log_spectral_norm", "float64", "log10 lambda_max"),
    Column("spectral_norm", "float64", "lambda_max, the squared largest singular value"),
    Column("stable_rank", "float64", "sum of the eigenvalues / lambda_max"),
    Column("entropy", "float64", "Shannon entropy of the eigenvalues / its maximum; 1 is flat"),
    Column("hard_rank", "Int64", "eigenvalues that are not zero to the precision of the stored weight"),
    Column("rank_loss", "Int64", "num_evals - hard_rank"),
    Column(
        "weak_rank_loss", "Int64", "zero eigenvalues, and those as good as zero: below a gap under 1e-6 of the mean"
    ),
    Column("effective_rank", "float64", "exp of the entropy of the singular values"),
    Column("kurtosis", "float64", "excess kurtosis of the entries of W, which moves the noise edge of a small matrix"),
    Column("num_spikes", "Int64", "eigenvalues above the 99 % Tracy-Widom quantile of the noise bulk"),
    Column("spike_threshold", "float64", "that quantile"),
    Column(
        "spike_strength", "float64", "singular value of the strongest planted signal / the weakest that shows (BBP)"
    ),
    Column("mp_softrank", "float64", "bulk_max / lambda_max: about 1 for noise"),
    Column("sigma_mp", "float64", "Marchenko-Pastur sigma with the mean eigenvalue scaled to 1: 1 for noise"),
    Column("sigma_mp_error", "float64", "its standard error, were the bulk noise"),
    Column("bulk_max", "float64", "upper edge of the noise bulk"),
    Column("bulk_min", "float64", "lower edge of the noise bulk"),
    Column("bulk_D", "float64", "KS distance between the bulk, spikes set aside, and the Marchenko-Pastur law"),
    Column("bulk_p_value", "float64", "its p-value: small where the bulk is no noise"),
    Column("null_alpha", "float64", "median alpha of Gaussian noise of this shape"),
    Column("null_alpha_low", "float64", "lower end of the band that holds 90 % of it"),
    Column("null_alpha_high", "float64", "upper end"),
    Column("null_D", "float64", "median D of noise of this shape"),
    Column("null_stable_rank", "float64", "median stable rank of noise of this shape"),
    Column("null_entropy", "float64", "median entropy of noise of this shape"),
    Column(
        "null_p_value",
        "float64",
        "how rarely noise has an alpha, a D or a stable rank this small (Bonferroni); one-sided",
    ),
    Column("num_ERG_spikes", "Int64", "size of the tail that meets the trace-log condition"),
    Column(
        "ERG_gap",
        "Int64",
        "num_ERG_spikes - num_pl_spikes: 0 at SETOL's ideal, negative where the fit's tail is longer",
    ),
    Column(
        "num_traps", "Int64", "correlation traps: eigenvalues of the shuffled matrix above its noise edge; randomize="
    ),
    Column("trap_elements", "str", "elements that each cause a trap, with their positions"),
    Column("trap_mean", "float64", "mean of the entries"),
    Column(
        "trap_mean_strength", "float64", "signal that this mean amounts to / the weakest that shows: above 1 a trap"
    ),
    Column("rand_sigma_mp", "float64", "sigma_mp of the shuffled matrix"),
    Column("rand_mp_softrank", "float64", "mp_softrank of the shuffled matrix"),
    Column("rand_bulk_max", "float64", "bulk_max of the shuffled matrix"),
    Column("rand_bulk_min", "float64", "bulk_min of the shuffled matrix"),
    Column("max_rand_eval", "float64", "largest eigenvalue of the shuffled matrix"),
    Column("ww_softrank", "float64", "max_rand_eval / lambda_max"),
    Column("ww_maxdist", "float64", "lambda_max - max_rand_eval"),
    Column(
        "rand_distance", "float64", "distance to the shuffled spectrum as WeightWatcher computes it, not of densities"
    ),
    Column(
        "density_distance", "float64", "Jensen-Shannon distance between the density and that of the shuffled matrix"
    ),
    Column("participation_left", "float64", "share of the rows that carry the leading singular vector; vectors="),
    Column("participation_right", "float64", "share of the columns that carry it; 1/3 at random"),
    Column("vector_entropy_left", "float64", "entropy of its squares over the rows / the maximum"),
    Column("vector_entropy_right", "float64", "entropy of its squares over the columns / the maximum"),
    Column(
        "phase", "str", "random-like, bleeding-out, bulk+spikes, bulk-decay, heavy-tailed, rank-collapse, or undecided"
    ),
    Column("phase_evidence", "str", "the numbers that decided"),
    Column(
        "alternative", "str", "the distribution that fits the tail significantly better, or none; with alternatives="
    ),
    Column("alternative_p_value", "float64", "p-value of that comparison (Vuong)"),
    Column("status", "str", "success, or failed: then alpha is NaN and reason says why"),
    Column("reason", "str", "why the fit failed; for a success, what to be wary of"),
    Column("warning", "str", "over-trained (alpha < 2), under-trained (alpha > 6), or empty"),
    Column("findings", "str", "what a person should look at, in sentences with the numbers"),
    Column("tied_to", "str", "the earlier layer that shares this weight; the row repeats its numbers"),
)

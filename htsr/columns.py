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
    Column("effective_rank", "float64", "exp of the entropy of the singular values"),
    Column("num_spikes", "Int64", "eigenvalues above the 99 % Tracy-Widom edge of the noise bulk"),
    Column("mp_softrank", "float64", "bulk_max / lambda_max: about 1 for noise"),
    Column("sigma_mp", "float64", "Marchenko-Pastur sigma with the mean eigenvalue scaled to 1: 1 for noise"),
    Column("bulk_max", "float64", "upper edge of the noise bulk"),
    Column("bulk_min", "float64", "lower edge of the noise bulk"),
    Column("num_ERG_spikes", "Int64", "size of the tail that meets the trace-log condition"),
    Column("ERG_gap", "Int64", "num_ERG_spikes - num_pl_spikes"),
    Column(
        "alternative", "str", "the distribution that fits the tail significantly better, or none; with alternatives="
    ),
    Column("alternative_p_value", "float64", "p-value of that comparison (Vuong)"),
    Column("status", "str", "success, or failed: then alpha is NaN and reason says why"),
    Column("reason", "str", "why the fit failed; for a success, what to be wary of"),
    Column("warning", "str", "over-trained (alpha < 2), under-trained (alpha > 6), or empty"),
    Column("tied_to", "str", "the earlier layer that shares this weight; the row repeats its numbers"),
)

"""WeightWatcher's names for types of layers, and its dictionary of default parameters, for scripts that use them."""

# The limits outside which WeightWatcher 0.7.7 skips layers.
MIN_EVALS, MAX_EVALS, MAX_N = 8, 15000, 50000
WEAK_RANK_TOLERANCE = 1e-6


class LAYER_TYPE:  # noqa: N801 (WeightWatcher's name)
    """WeightWatcher's types of layers."""

    UNKNOWN = "unknown"
    STACKED = "stacked"
    DENSE = "dense"
    CONV1D = "conv1d"
    CONV2D = "conv2d"
    FLATTENED = "flattened"
    EMBEDDING = "embedding"
    BIDIRECTIONAL = "bidirectional"
    NORM = "norm"


# As in weightwatcher.constants 0.7.7; analyze() has other defaults for some of them.
DEFAULT_PARAMS: dict[str, object] = {
    "glorot_fix": False,
    "normalize": False,
    "conv2d_norm": True,
    "randomize": True,
    "savedir": "ww-img",
    "savefig": True,
    "rescale": True,
    "plot": False,
    "deltaEs": False,
    "intra": False,
    "channels": None,
    "fft": False,
    "conv2d_fft": False,
    "ww2x": False,
    "pool": True,
    "vectors": True,
    "smooth": None,
    "stacked": False,
    "svd_method": "fast",
    "fix_fingers": None,
    "fit": "power_law",
    "MAX_FINGERS": 10,
    "finger_thresh": 1.0,
    "sparsify": True,
    "detX": True,
    "mp_fit": False,
    "min_evals": MIN_EVALS,
    "max_evals": MAX_EVALS,
    "max_N": MAX_N,
    "tolerance": WEAK_RANK_TOLERANCE,
    "layer_ids_start": 0,
    "add_biases": False,
    "xmin_max": None,
    "pl_package": "ww",
    "xmax": None,
    "peft": False,
    "inverse": False,
}

"""The columns of a table of optimizer steps."""

from collections.abc import Mapping

from htsr.audit.column import Column

# What can be said of a step, the worst first. ``htsr/dynamics/verdicts.py`` decides.
VERDICTS: Mapping[str, str] = {
    "not finite": "The update has NaN or infinite values.",
    "tied counted twice": "Optimizers hold the parameter more than once, so that each step moves it more than once.",
    "stale": (
        "No optimizer holds the parameter, but one holds another tensor of its shape that the model does not use: the model was "
        "rebuilt after the optimizer was made."
    ),
    "no optimizer": "The parameter requires a gradient, and no optimizer holds it.",
    "ranks not averaged": "The processes of one training make different updates.",
    "lr 0": "The learning rate of the group is 0.",
    "no gradient": "No gradient reached the parameter, or zeros did, so at most weight decay moved it.",
    "frozen": "The parameter does not require a gradient, or it did not move though it has one.",
    "below epsilon": "The step is less than promised, since the gradients are as small as the optimizer's epsilon.",
    "lost to rounding": "The type of the weights rounds steps of this size away, or up.",
    "wrong rule": "All steps of the optimizer agree with another rule than its own.",
    "clipped": "The step is less than promised, or shrinks as gradients grow: something scales the update down.",
    "larger than promised": "The step is larger than promised.",
    "weight decay too large": "Weight decay would take all of the weights away in 100 steps or fewer.",
    "wrong group": "AdamW moves a hidden matrix, while Muon moves others like it.",
    "no promise": "The optimizer's rule promises nothing for the size of this step.",
    "as promised": "The step is what the optimizer's rule promises.",
}

_STEP_PER_LR = Column(
    "step_per_lr",
    "float64",
    "operator norm of the update between root mean squares, ||dW||_2 sqrt(n_in / n_out), / learning rate; the update is the "
    "change without decoupled weight decay",
)
_STEP_VS_PROMISE = Column(
    "step_vs_promise", "float64", "the step / what the optimizer's rule promises: about 1 is healthy", ".3g"
)
_VERDICT = Column("verdict", "str", "what the step was, in a word or two", values=tuple(VERDICTS))
# What a Monitor adds to its rows where it captures updates.
MEASURED_STEP = (_STEP_PER_LR, _STEP_VS_PROMISE, _VERDICT)

OF_STEPS = (
    Column("n_out", "int64", "outputs of the matrix, as its optimizer reads it"),
    Column("n_in", "int64", "inputs of the matrix, as its optimizer reads it"),
    Column("optimizer", "str", "the optimizer that holds the parameter; empty if none does"),
    Column("lr", "float64", "learning rate of the group"),
    Column("rule", "str", "the optimizer's rule that was recognised"),
    Column("promise", "str", "what the rule promises for step_per_lr, in words"),
    Column("promised_step_per_lr", "float64", "what the rule promises for step_per_lr, as a number"),
    _STEP_PER_LR,
    _STEP_VS_PROMISE,
    _VERDICT,
    Column("verdict_evidence", "str", "the numbers that decided the verdict, in a sentence"),
    Column(
        "rms_operator_norm",
        "float64",
        "operator norm of the weights between root mean squares, ||W||_2 sqrt(n_in / n_out)",
    ),
    Column("update_operator_norm", "float64", "operator norm of the update between root mean squares"),
    Column("relative_step", "float64", "Frobenius norm of the update / that of the weights before the step", ".1e"),
    Column(
        "relative_step_spectral", "float64", "spectral norm of the update / that of the weights before the step", ".1e"
    ),
    Column("update_stable_rank", "float64", "squared Frobenius norm of the update / squared spectral norm", ".1f"),
    Column(
        "weight_decay_share",
        "float64",
        "Frobenius norm of the change by decoupled weight decay / (that norm + that of the update)",
        ".1e",
    ),
    Column(
        "alignment",
        "float64",
        "root mean square over tokens of ||dW x|| / (||dW||_2 ||x||): 1 if each input lies along the update's leading direction",
        ".3f",
    ),
    Column("activation_rms", "float64", "root mean square of the layer's output on the probe batch, before the step"),
    Column(
        "activation_change_rms", "float64", "root mean square of the change of the layer's output on the probe batch"
    ),
    Column(
        "homogeneity",
        "float64",
        "degree to which a first step grows with the scale of the gradients: 0 for Muon and Adam, 1 for SGD, p for raw HTMuon",
        ".2f",
    ),
    Column(
        "rank_difference",
        "float64",
        "largest relative difference between the updates of the ranks; missing in a single process",
        ".1e",
    ),
)

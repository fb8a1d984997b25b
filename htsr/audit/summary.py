"""The numbers of an analysis for the whole model, and what they say of alpha in a line."""

import math
from collections.abc import Mapping

import pandas as pd

from htsr.audit.about import About

MEANS = (
    "alpha", "alpha_weighted", "log_alpha_norm", "log_norm", "log_spectral_norm", "stable_rank", "entropy", "mp_softrank",
)  # fmt: skip


def summary_of(details: pd.DataFrame, about: About, num_skipped: int) -> dict[str, float]:
    """Return counts, and means and quartiles over the layers that are neither failed nor tied; see ``Analysis.summary``."""
    failed, tied = details["status"] == "failed", details["tied_to"] != ""
    used = details[~failed & ~tied]
    return {
        "num_layers": len(details),
        "num_failed": int((failed & ~tied).sum()),
        "num_tied": int(tied.sum()),
        "num_skipped": num_skipped,
        "num_params": about.num_params_analyzed + about.num_params_skipped,
        "num_params_analyzed": about.num_params_analyzed,
        "num_params_skipped": about.num_params_skipped,
        "num_over_trained": int((used["warning"] == "over-trained").sum()),
        "num_under_trained": int((used["warning"] == "under-trained").sum()),
        "num_random_like": int((used["phase"] == "random-like").sum()),
        "num_rank_collapse": int(((details["phase"] == "rank-collapse") & ~tied).sum()),
        "alpha_median": float(used["alpha"].median()),
        "alpha_q25": float(used["alpha"].quantile(0.25)),
        "alpha_q75": float(used["alpha"].quantile(0.75)),
        **{name: float(used[name].mean()) for name in MEANS},
    }


def alpha_and_phases(details: pd.DataFrame, summary: Mapping[str, float]) -> str:
    """Return where alpha lies and which phases occur, in a line; empty if no layer has an alpha."""
    if math.isnan(summary["alpha_median"]):
        return ""
    line = f"alpha: median {summary['alpha_median']:.2f}"
    if summary["alpha_q25"] < summary["alpha_q75"]:
        line += f", quartiles {summary['alpha_q25']:.2f} to {summary['alpha_q75']:.2f}"
    phases = details.loc[(details["tied_to"] == "") & (details["phase"] != ""), "phase"].value_counts()
    occurring = ", ".join(f"{count} {name}" for name, count in phases.items())
    return f"{line}; phases: {occurring}" if occurring else line

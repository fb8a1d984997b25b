"""See and steer the weight spectra of neural networks."""

from typing import TYPE_CHECKING

from htsr._version import __version__
from htsr.errors import InputError

if TYPE_CHECKING:
    from htsr import optim, steering
    from htsr.audit.analysis import Analysis, analyze
    from htsr.audit.layer import LayerAnalysis
    from htsr.bulk.bulk_fit import MarchenkoPasturFit, fit_marchenko_pastur
    from htsr.bulk.nulls import NoiseNull, noise_null
    from htsr.bulk.shuffles import shuffle
    from htsr.comparison.compare import Comparison, compare
    from htsr.comparison.layer import LayerComparison
    from htsr.comparison.survey.survey import Survey, survey
    from htsr.compat.crosscheck import crosscheck
    from htsr.dynamics.attention_logits import attention_logits
    from htsr.dynamics.coordinate_check import CoordinateCheck, coordinate_check
    from htsr.dynamics.equilibrium import Equilibrium, equilibrium
    from htsr.dynamics.geometry import GradientGeometry, gradient_geometry
    from htsr.dynamics.step_audit import StepAudit
    from htsr.dynamics.steps import audit_steps
    from htsr.dynamics.width_audit import WidthAudit, width_audit
    from htsr.report.load import load
    from htsr.spectra.spectrum import Spectrum, esd
    from htsr.spectra.vectors import localization
    from htsr.tails.power_law import PowerLawFit, fit_power_law
    from htsr.training.monitor import Monitor
    from htsr.training.store.history import History
else:  # loading torch, pandas and scipy takes seconds, so each name loads its module when it is first used
    from htsr.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "audit.analysis": ["Analysis", "analyze"],
            "audit.layer": ["LayerAnalysis"],
            "bulk.bulk_fit": ["MarchenkoPasturFit", "fit_marchenko_pastur"],
            "bulk.nulls": ["NoiseNull", "noise_null"],
            "bulk.shuffles": ["shuffle"],
            "comparison.compare": ["Comparison", "compare"],
            "comparison.layer": ["LayerComparison"],
            "comparison.survey.survey": ["Survey", "survey"],
            "compat.crosscheck": ["crosscheck"],
            "dynamics.attention_logits": ["attention_logits"],
            "dynamics.coordinate_check": ["CoordinateCheck", "coordinate_check"],
            "dynamics.equilibrium": ["Equilibrium", "equilibrium"],
            "dynamics.geometry": ["GradientGeometry", "gradient_geometry"],
            "dynamics.step_audit": ["StepAudit"],
            "dynamics.steps": ["audit_steps"],
            "dynamics.width_audit": ["WidthAudit", "width_audit"],
            "report.load": ["load"],
            "spectra.spectrum": ["Spectrum", "esd"],
            "spectra.vectors": ["localization"],
            "tails.power_law": ["PowerLawFit", "fit_power_law"],
            "training.monitor": ["Monitor"],
            "training.store.history": ["History"],
        },
    )

__all__ = [  # noqa: RUF022 - grouped by what they are for
    # audit a model
    "analyze", "Analysis", "LayerAnalysis", "crosscheck",
    # compare two models
    "compare", "Comparison", "LayerComparison",
    # read what was saved
    "load",
    # survey many files
    "survey", "Survey",
    # spectra and fits
    "esd", "Spectrum", "fit_power_law", "PowerLawFit", "fit_marchenko_pastur", "MarchenkoPasturFit",
    # what noise would look like
    "noise_null", "NoiseNull", "shuffle", "localization",
    # watch a training run
    "Monitor", "History",
    # see what an optimizer's steps do
    "audit_steps", "StepAudit",
    # what steps do, at several widths and along a gradient's singular directions
    "coordinate_check", "CoordinateCheck", "width_audit", "WidthAudit", "gradient_geometry", "GradientGeometry",
    "attention_logits", "equilibrium", "Equilibrium",
    # train with HTMuon
    "optim",
    # settings from spectra
    "steering",
    # the rest
    "InputError", "__version__",
]  # fmt: skip

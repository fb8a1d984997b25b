"""HTMuon: Muon with a dial for the spectrum of its update."""

if (
    __name__ == "optim"
):  # the repository root is on sys.path: a second copy of every class would break isinstance and pickle
    raise ImportError("this directory is the package htsr.optim; import htsr.optim")

from htsr.optim.htmuon import HTMuon
from htsr.optim.huggingface import optimizer_cls_and_kwargs
from htsr.optim.learning_rates import convert_lr, lr_table
from htsr.optim.matrices import Reading
from htsr.optim.parameter_groups import parameter_groups, parameter_roles
from htsr.optim.schedules import CosinePower, LinearPower, StepPower
from htsr.optim.spectral_power import spectral_power

__all__ = [
    "CosinePower",
    "HTMuon",
    "LinearPower",
    "Reading",
    "StepPower",
    "convert_lr",
    "lr_table",
    "optimizer_cls_and_kwargs",
    "parameter_groups",
    "parameter_roles",
    "spectral_power",
]

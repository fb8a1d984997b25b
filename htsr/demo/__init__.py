"""The main tasks on real input: audit a trained Transformer, then watch how HTMuon's p reshapes spectra in training."""

from htsr.demo.run import run_demo

__all__ = ["run_demo"]

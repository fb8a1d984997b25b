"""The main job on real input: audit a trained Transformer, then watch HTMuon's p reshape spectra in training."""

from htsr.demo.run import run_demo

__all__ = ["run_demo"]

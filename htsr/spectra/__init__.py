"""The spectrum of one matrix: eigenvalues, scalar metrics, singular vectors, and the linear algebra behind them."""

"""Pictures of training runs: metrics, spectra and scalars over the steps, for one run or several."""

"""Comparisons of two sources: distances, and the spectra of the change."""

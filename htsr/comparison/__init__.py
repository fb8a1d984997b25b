"""Two sources side by side: distances, and the spectra of the change."""

"""Surveys of many files: which weight files are there, and which of them hold the same network."""

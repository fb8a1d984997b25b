"""Keras: its files, their layers, and models in memory."""

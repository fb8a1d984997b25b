"""The command line: one file a command, each with the function that adds its parser and the one that runs it."""

from htsr.cli.main import main

__all__ = ["main"]

"""The command line: one file a command. Nothing heavy is imported before a command runs."""

from htsr.cli.main import main

__all__ = ["main"]

"""The command line: parses, calls and prints."""

from .main import main

__all__ = ["main"]

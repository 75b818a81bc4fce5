"""The command line: `minitransformer`, also `python -m minitransformer`."""

from .commands import app, main

__all__ = ["app", "main"]

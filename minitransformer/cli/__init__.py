"""The command line: `minitransformer`, also `python -m minitransformer`."""

from . import commands, exchange, language  # noqa: F401  (their commands enter the app)
from .app import app, main

__all__ = ["app", "main"]

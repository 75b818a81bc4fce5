"""The command line: `minitransformer`, also `python -m minitransformer`."""

from . import commands  # noqa: F401  (its commands enter the app)
from .app import app, main

__all__ = ["app", "main"]

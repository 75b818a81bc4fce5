"""The command line: `minitransformer`, also `python -m minitransformer`.

Begin with `commands.py`; `app.py` is the program around them.
"""

from . import commands, cost, exchange, exercise, language, sweep  # noqa: F401  (their commands enter the app)
from .app import app, main

__all__ = ["app", "main"]

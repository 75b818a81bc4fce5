"""The command line: `minitransformer`, also `python -m minitransformer`.

Begin with `commands.py`; `app.py` is the program around them.
"""

from . import (  # noqa: F401  (their commands enter the app)
    commands,
    cost,
    exchange,
    exercise,
    grading,
    language,
    sweep,
)
from .app import app, main

__all__ = ["app", "main"]

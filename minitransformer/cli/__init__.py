"""The command line: `minitransformer`, also `python -m minitransformer`.

Begin with `commands.py`; `app.py` is the program around them.
"""

# Their commands enter the app, in this order.
from . import commands, measure, predict, cost, exchange, language, sweep  # noqa: F401, I001
from .app import app, main

__all__ = ["app", "main"]

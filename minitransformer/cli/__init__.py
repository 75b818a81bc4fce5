"""The command line: `minitransformer`, also `python -m minitransformer`.

Begin with `commands.py`; `app.py` is the program around them.
"""

# Their commands enter the app, in this order.
from . import (  # noqa: I001
    commands,  # noqa: F401
    predict,  # noqa: F401
    measure,  # noqa: F401
    language,  # noqa: F401
    exchange,  # noqa: F401
    cost,  # noqa: F401
    sweep,  # noqa: F401
    exercise,  # noqa: F401
    grading,  # noqa: F401
)
from .app import app, main

__all__ = ["app", "main"]

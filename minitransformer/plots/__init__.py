"""A user's figures, in colours for colour-blind readers (Okabe and Ito) and for grey print.

Begin with `history.py`; `figure.py` holds the colours and the sizes.
"""

from .confusion import plot_confusion
from .figure import BLUE, GREY, ORANGE, new_figure, write_png
from .history import plot_history
from .study import plot_parts, plot_study

__all__ = [
    "BLUE",
    "GREY",
    "ORANGE",
    "new_figure",
    "plot_confusion",
    "plot_history",
    "plot_parts",
    "plot_study",
    "write_png",
]

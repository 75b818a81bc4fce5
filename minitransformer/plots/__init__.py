"""A user's figures, in colours for colour-blind readers (Okabe and Ito) and for grey print.

Begin with `history.py`; `figure.py` holds the colours and the sizes.
"""

from .confusion import plot_confusion
from .figure import BLUE, GREY, ORANGE, new_figure, write_png
from .heatmap import plot_heatmap
from .history import plot_history
from .lines import plot_lines
from .study import plot_parts, plot_study

__all__ = [
    "BLUE",
    "GREY",
    "ORANGE",
    "new_figure",
    "plot_confusion",
    "plot_heatmap",
    "plot_history",
    "plot_lines",
    "plot_parts",
    "plot_study",
    "write_png",
]

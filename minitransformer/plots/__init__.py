"""Every figure. Colour-blind-safe (Okabe and Ito's colours), and readable in black and white.

Begin with `history.py`; `figure.py` holds the colours and the sizes.
"""

from .figure import BLUE, GREY, ORANGE, new_figure, write_png
from .history import plot_history
from .placements import plot_placement, plot_placements

__all__ = [
    "BLUE",
    "GREY",
    "ORANGE",
    "new_figure",
    "plot_history",
    "plot_placement",
    "plot_placements",
    "write_png",
]

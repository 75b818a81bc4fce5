"""A user's figures, in colours for colour-blind readers (Okabe and Ito) and for grey print.

Begin with `history.py`; `figure.py` holds the colours and the sizes, `panels.py` what the notebooks
draw most.
"""

from .block import plot_block
from .confusion import plot_confusion
from .figure import BLUE, GREEN, GREY, ORANGE, SKY, YELLOW, new_figure, write_png
from .history import plot_history
from .panels import (
    heat_table,
    legend_below,
    log_ticks,
    panels,
    plot_series,
    smooth,
    stacked_bars,
)
from .passes import plot_passes
from .placements import plot_placement, plot_placements
from .scale import plot_block_to_scale
from .study import plot_parts, plot_study

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "SKY",
    "YELLOW",
    "heat_table",
    "legend_below",
    "log_ticks",
    "new_figure",
    "panels",
    "plot_block",
    "plot_block_to_scale",
    "plot_confusion",
    "plot_history",
    "plot_parts",
    "plot_passes",
    "plot_placement",
    "plot_placements",
    "plot_series",
    "plot_study",
    "smooth",
    "stacked_bars",
    "write_png",
]

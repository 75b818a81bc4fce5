"""A user's figures, in colours for colour-blind readers (Okabe and Ito) and for grey print.

Begin with `history.py`; `figure.py` holds the colours and the sizes, `panels.py` what the notebooks
draw most.
"""

from .block import plot_block
from .confusion import plot_confusion
from .figure import BLUE, GREEN, GREY, ORANGE, SKY, YELLOW, new_figure, write_png
from .heatmap import plot_heatmap
from .history import plot_history
from .lines import plot_lines
from .panels import heat_table, panels, plot_series, smooth, stacked_bars
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
    "new_figure",
    "panels",
    "plot_block",
    "plot_block_to_scale",
    "plot_confusion",
    "plot_heatmap",
    "plot_history",
    "plot_lines",
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

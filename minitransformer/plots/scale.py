"""The weight matrices of one block and of its adapters, to scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .figure import ORANGE, SKY, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_block_to_scale(d: int = 768, d_ff: int = 3072, m: int = 64) -> Figure:
    """One unit of area for each weight; biases and layer norms are left out."""
    figure = new_figure(9, 5.6)
    axes = figure.subplots()
    gap = d / 8
    axes.text(0, gap / 2, "attention (frozen)", weight="bold")
    for i, name in enumerate(("W_q", "W_k", "W_v", "W_o")):
        matrix(axes, i * (d + gap), 0, d, d, f"${name}$\n{d} x {d}")
    low = -d - 2 * gap
    axes.text(0, low + gap / 2, "feed-forward (frozen)", weight="bold")
    matrix(axes, 0, low, d, d_ff, f"$W_1$   {d} x {d_ff}")
    matrix(axes, 0, low - d - gap, d, d_ff, f"$W_2$   {d_ff} x {d} (transposed)")
    right = max(4 * (d + gap), d_ff + gap) + gap
    for top in (0, low):
        axes.text(right, top + gap / 2, "its adapter (trained)", weight="bold")
        matrix(axes, right, top, d, m, trained=True)
        axes.text(right + m + gap / 2, top - 0.65 * d, f"$W_{{down}}$\n{d} x {m}", va="center")
        matrix(axes, right + m + gap, top, m, d, trained=True)
        middle = right + m + gap + d / 2
        axes.text(middle, top - m - gap / 3, f"$W_{{up}}$   {m} x {d}", ha="center", va="top")
    axes.set(xlim=(-gap / 3, right + d + 3 * gap), ylim=(low - 2 * d - 2 * gap, 2 * gap))
    axes.set_aspect("equal")
    axes.set_axis_off()
    return figure


def matrix(
    axes: Axes, x: float, y: float, rows: int, columns: int, label: str = "", trained: bool = False
) -> None:
    """A rectangle of columns x rows weights, its upper left corner at (x, y)."""
    from matplotlib.patches import Rectangle

    color, hatch = (ORANGE, "///") if trained else (SKY, "")
    axes.add_patch(Rectangle((x, y - rows), columns, rows, fc=color, hatch=hatch, ec="black"))
    box = {"fc": "white", "ec": "none", "pad": 2}
    if label:
        middle = (x + columns / 2, y - rows / 2)
        axes.text(*middle, label, ha="center", va="center", bbox=box)

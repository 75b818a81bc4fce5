"""The forward and the backward pass through a whole model, as observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .figure import BLUE, GREY, ORANGE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAINS: dict[str, Any] = {"facecolor": "#fbe3d3", "edgecolor": ORANGE, "hatch": "////"}
FROZEN: dict[str, Any] = {"facecolor": "#f2f2f2", "edgecolor": GREY}


@dataclass(frozen=True)
class Observed:
    """What one module did in a training step.

    Attributes:
        name: as it is written into its box.
        height: its place from below, in boxes.
        saved: bytes that its forward pass saved for the backward pass.
        visited: whether its backward pass was called.
        dx: whether that returned a gradient for what comes before.
        dW: whether any of its parameters has a gradient.
    """

    name: str
    height: float
    saved: int
    visited: bool
    dx: bool
    dW: bool


def plot_passes(
    seen: Mapping[str, Sequence[Observed]], blocks: Mapping[str, float] | None = None
) -> Figure:
    """A column of boxes for each model: forward a thin black line, backward a thick blue one.

    A dot is something saved, an arrow head a gradient for what comes before, a bar the end of the
    backward pass. `blocks`: a name and the height of its lowest box, for names at the left side
    and a dotted line below.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    figure = new_figure(2.5 * len(seen), 8.6)
    columns = figure.subplots(1, len(seen), squeeze=False)[0]
    for axis, (title, found) in zip(columns, seen.items(), strict=True):
        draw(axis, title, found)
        for low in (blocks or {}).values():
            axis.axhline(low - 0.5, color=GREY, lw=1, ls=":", zorder=0)
    for name, low in (blocks or {}).items():
        columns[0].text(-1.1, low + 2.5, name, rotation=90, va="center")
    figure.legend(
        handles=[
            Line2D([], [], color="black", marker="o", ms=8, label="saves something"),
            Line2D([], [], color=BLUE, lw=4, marker="v", ms=9, label="computes $dx$"),
            Patch(**TRAINS, label="trains: computes $dW$"),
            Patch(**FROZEN, label="frozen"),
        ],
        loc="outside lower center", ncols=4, fontsize=12, frameon=False,
    )  # fmt: skip
    return figure


def draw(axis: Axes, title: str, found: Sequence[Observed]) -> None:
    """One model, from the embeddings up to the head."""
    top = found[-1].height + 0.9
    axis.plot([-0.75, -0.75], [-0.5, top], color="black", lw=1.5)
    axis.plot(-0.75, top, "^", color="black", ms=8)
    for row in found:
        style = TRAINS if row.dW else FROZEN
        axis.barh(row.height, 1.3, 0.74, left=-0.55, linewidth=1.5, **style)
        axis.text(
            0.1, row.height, row.name, ha="center", va="center", fontsize=11,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2},
        )  # fmt: skip
        if row.saved:
            axis.plot(-0.75, row.height, "o", color="black", ms=8)
        if row.visited and row.dx:
            axis.plot(0.98, row.height - 0.45, "v", color=BLUE, ms=9)
    end = min(row.height for row in found if row.visited)
    axis.plot([0.98, 0.98], [top, end], color=BLUE, lw=4)
    axis.plot([0.86, 1.1], [end, end], color=BLUE, lw=4)
    axis.set_title(title, fontsize=12, weight="bold")
    axis.set(xlim=(-0.95, 1.2), ylim=(-0.8, top + 0.2))
    axis.set_axis_off()

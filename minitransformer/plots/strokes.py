"""Boxes, sums, wires and words: what the diagrams of a block are drawn with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .figure import GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLUS = 0.22  # radius of a sum
FROZEN: dict[str, Any] = {"facecolor": "#f2f2f2", "edgecolor": GREY, "linewidth": 1.4}
TRAINED: dict[str, Any] = {
    "facecolor": "#fbe3d3", "edgecolor": ORANGE, "linewidth": 2.6, "hatch": "////",
}  # fmt: skip


class Strokes:
    """Draws on axes; coordinates are those of the axes."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes

    def wire(self, *points: tuple[float, float], arrow: bool = True, color: str = "black") -> None:
        """A line through the points, with an arrow head at its end."""
        x, y = zip(*points, strict=True)
        self.axes.plot(x, y, color=color, lw=1.6, snap=False, zorder=1)
        if arrow:
            style = {"arrowstyle": "-|>", "color": color, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
            self.axes.annotate("", points[-1], points[-2], arrowprops=style, zorder=1)

    def text(self, x: float, y: float, words: str, size: float = 12, **options: Any) -> None:
        self.axes.text(x, y, words, ha="center", va="center", fontsize=size, **options)

    def box(self, x: float, y: float, width: float, height: float, words: str) -> None:
        from matplotlib.patches import Rectangle

        corner = (x - width / 2, y - height / 2)
        self.axes.add_patch(Rectangle(corner, width, height, **FROZEN, zorder=2))
        self.text(x, y, words)

    def sum(self, x: float, y: float, color: str = "black") -> None:
        from matplotlib.patches import Circle

        self.axes.add_patch(Circle((x, y), PLUS, fc="white", ec=color, lw=1.4, zorder=3))
        self.text(x, y, "+", 14, zorder=4, color=color)

"""Draw what a task adds: a copy of the model, or an adapter. The front page of the book shows it.

python scripts/draw_why_adapters.py    # writes docs/why-adapters.png

Areas are to scale: BERT-base, adapters with m = 64 in every block, counted by `costs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from minitransformer.adapters.config import AdapterConfig
from minitransformer.costs.parameters import FLOAT32, SHAPES, count_adapters, count_parameters
from minitransformer.plots.figure import GREY, ORANGE, new_figure, write_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TASKS = ("reviews", "news", "tweets")
SIDE = 1.0  # of the square that is the base; the square of an adapter has its share of the area
FROZEN: dict[str, Any] = {"facecolor": "#f2f2f2", "edgecolor": GREY, "linewidth": 1.5}
TRAINED: dict[str, Any] = {
    "facecolor": "#fbe3d3", "edgecolor": ORANGE, "linewidth": 2, "hatch": "////",
}  # fmt: skip


def why_adapters() -> Figure:
    shape = SHAPES["bert-base"]
    base = count_parameters(shape).total
    adapters = count_adapters(shape, AdapterConfig(bottleneck=64)).total
    figure = new_figure(6.4, 5.2)
    above, below = figure.subplots(2, 1)

    above.set_title(
        "Fine-tuning: each task trains and keeps a copy of the whole model", fontsize=12
    )
    for i, task in enumerate(TASKS):
        square(above, 1.5 * i, SIDE, f"{task}\n{size(base)}", **TRAINED)

    below.set_title("Adapters: one frozen model, and a small file for each task", fontsize=12)
    square(below, 0, SIDE, f"the base, for all tasks\n{size(base)}", **FROZEN)
    side = SIDE * (adapters / base) ** 0.5
    for i, task in enumerate(TASKS):
        square(below, 1.62 + 0.95 * i, side, f"{task}\n{size(adapters)}", **TRAINED)
        below.text(1.5 + 0.95 * i, side / 2, "+", ha="center", va="center", fontsize=14)
    for axes in (above, below):
        axes.set(xlim=(-0.35, 4.35), ylim=(-0.42, 1.05), aspect="equal")
        axes.axis("off")
    return figure


def square(axes: Axes, x: float, side: float, words: str, **look: Any) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, 0), side, side, **look))
    axes.text(x + side / 2, -0.08, words, ha="center", va="top", fontsize=12)


def size(parameters: int) -> str:
    return f"{FLOAT32 * parameters / 1e6:.1f} MB"


if __name__ == "__main__":
    write_png(why_adapters(), Path(__file__).parents[1] / "docs" / "why-adapters.png")

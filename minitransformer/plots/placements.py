"""Where an adapter is placed in a sub-layer: `SubLayer`'s table of placements, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..adapters.config import PLACEMENTS
from ..errors import ConfigError
from ..nn.config import NORMS
from .figure import ORANGE, new_figure, write_png
from .strokes import FROZEN, PLUS, TRAINED, Strokes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# "pfeiffer" in a pre-norm block is "after_norm": there is no norm in between.
FORMULAS = {
    ("after_norm", "post"): r"$h = \mathrm{LN}(x + s),\ \ y = h + f(h)$",
    ("houlsby", "post"): r"$y = \mathrm{LN}(x + s + f(s))$",
    ("pfeiffer", "post"): r"$y = \mathrm{LN}(x + s + f(\mathrm{LN}(x + s)))$",
    ("parallel", "post"): r"$y = \mathrm{LN}(x + s + f(x))$",
    ("after_norm", "pre"): r"$h = x + s,\ \ y = h + f(h)$",
    ("houlsby", "pre"): r"$y = x + s + f(s)$",
    ("parallel", "pre"): r"$y = x + s + f(x)$",
}
READS = {"after_norm": "h", "houlsby": "s", "pfeiffer": r"\mathrm{LN}(x + s)", "parallel": "x"}

# Heights above x: of the norm and of the module (their middle), where the adapter's input
# leaves the trunk ("read") and its output joins it ("add"), and where the residual does.
HEIGHTS = {
    ("after_norm", "post"): {"module": 1.9, "residual": 3.6, "norm": 4.7, "read": 5.9, "add": 9.3},
    ("houlsby", "post"): {"module": 1.9, "read": 3.3, "add": 6.7, "residual": 7.8, "norm": 9.0},
    ("pfeiffer", "post"): {"module": 1.8, "read": 3.0, "add": 7.8, "residual": 8.7, "norm": 9.6},
    ("parallel", "post"): {"module": 2.5, "read": 0.6, "add": 5.0, "residual": 6.3, "norm": 8.0},
    ("after_norm", "pre"): {"norm": 1.5, "module": 3.0, "residual": 4.7, "read": 5.9, "add": 9.3},
    ("houlsby", "pre"): {"norm": 1.5, "module": 3.0, "read": 4.5, "add": 7.9, "residual": 9.1},
    ("parallel", "pre"): {"norm": 1.6, "module": 3.3, "read": 0.6, "add": 5.6, "residual": 7.4},
}
TOP, FORK = 10.5, 0.6  # heights of y, and of where x forks
LEFT, RIGHT = -1.75, 2.75  # where the residual and the adapter's branch run; the trunk is at 0
MODULE, NORM, SHAPE = 1.0, 0.6, 0.62  # heights of the boxes


def plot_placement(placement: str, norm: str = "post", path: str | Path | None = None) -> Figure:
    """A sub-layer with an adapter at `placement`, in a "post"- or a "pre"-norm block.

    x comes in below and y leaves above, s is what attention or feed-forward makes, f the adapter's
    branch; what trains is hatched. With `path`, the figure is also written there as PNG.
    Raises: ConfigError for an unknown placement or norm.
    """
    return draw((placement,), norm, path, 4.8)


def plot_placements(norm: str = "post", path: str | Path | None = None) -> Figure:
    """All placements side by side, each as `plot_placement` draws it."""
    return draw(tuple(PLACEMENTS), norm, path, 3.6 * len(PLACEMENTS))


def draw(placements: tuple[str, ...], norm: str, path: str | Path | None, width: float) -> Figure:
    """One panel for each placement, with what they share below; `width` in inches."""
    from matplotlib.patches import Patch

    if norm not in NORMS:
        raise ConfigError(f"norm={norm!r}: expected one of {', '.join(NORMS)}")
    for placement in placements:
        if placement not in PLACEMENTS:
            known = ", ".join(PLACEMENTS)
            raise ConfigError(f"placement={placement!r}: expected one of {known}")
    figure = new_figure(width, 7.2)
    panels = figure.subplots(1, len(placements), squeeze=False)[0]
    for axes, placement in zip(panels, placements, strict=True):
        Drawing(axes, placement, norm).draw()
    figure.legend(
        handles=[
            Patch(**TRAINED, label="trained: the adapter $f$"),
            Patch(**FROZEN, label="frozen: the base"),
        ],
        loc="outside lower center", ncols=2, fontsize=12, frameon=False,
    )  # fmt: skip
    if path is not None:
        write_png(figure, path)
    return figure


class Drawing(Strokes):
    """One panel: boxes, sums and wires at the heights of their placement."""

    def __init__(self, axes: Axes, placement: str, norm: str) -> None:
        super().__init__(axes)
        self.title = f"{placement}, {norm}-norm"
        self.as_another = placement == "pfeiffer" and norm == "pre"
        self.placement = "after_norm" if self.as_another else placement
        self.formula, self.at = FORMULAS[self.placement, norm], HEIGHTS[self.placement, norm]
        axes.set(xlim=(-2.5, 4.7), ylim=(-0.7, TOP + 2.2), aspect="equal")
        axes.set_axis_off()

    def draw(self) -> None:
        self.text(1.0, TOP + 1.85, self.title, 14, weight="bold")
        self.text(1.0, TOP + 1.15, self.formula, 14)
        if self.as_another:
            self.text(RIGHT, 2.2, "no norm\nin between:\nas after_norm")
        self.trunk()
        self.residual()
        read, add = self.at["read"], self.at["add"]
        if self.placement != "parallel":
            self.text(-0.3, (read + add) / 2, "skip", rotation=90)
        self.adapter(self.first_norm(read) if self.placement == "pfeiffer" else self.branch(read))

    def trunk(self) -> None:
        """The straight line from x to y, through boxes and sums."""
        half = {"module": MODULE / 2, "norm": NORM / 2, "residual": PLUS, "add": PLUS}
        below = 0.0
        for name in sorted(half, key=lambda name: self.at[name]):
            self.wire((0, below), (0, self.at[name] - half[name]))
            below = self.at[name] + half[name]
        self.wire((0, below), (0, TOP))
        self.box(0, self.at["module"], 2.5, MODULE, "attention or\nfeed-forward")
        self.box(0, self.at["norm"], 2.5, NORM, "layer norm")
        self.sum(0, self.at["residual"])
        self.sum(0, self.at["add"])
        self.text(0, -0.4, "$x$", size=16)
        self.text(0, TOP + 0.35, "$y$", size=16)
        self.text(0.35, self.at["module"] + MODULE / 2 + 0.32, "$s$", size=16)
        if self.placement == "after_norm":
            self.text(-0.4, self.at["read"] - 0.3, "$h$", size=16)

    def residual(self) -> None:
        """x on the left, around the module."""
        height = self.at["residual"]
        self.wire((0, FORK), (LEFT, FORK), (LEFT, height), (-PLUS, height))
        self.text(LEFT - 0.3, (FORK + height) / 2, "residual", rotation=90)

    def branch(self, read: float) -> float:
        """The adapter's input leaves the trunk to the right; returns the height of the branch."""
        self.wire((0, read), (RIGHT, read), arrow=False)
        return read

    def first_norm(self, read: float) -> float:
        """The adapter reads LN(x + s); returns the height above this norm."""
        middle = read + 1.05
        self.wire((0, FORK), (RIGHT, FORK), (RIGHT, read - PLUS))
        self.wire((0, read), (RIGHT - PLUS, read))
        self.sum(RIGHT, read)
        self.wire((RIGHT, read + PLUS), (RIGHT, middle - NORM / 2))
        self.box(RIGHT, middle, 3.1, NORM, "same layer norm")
        return middle + NORM / 2

    def adapter(self, start: float) -> None:
        """On the right, above `start`: down, act, up, and the line to the sum on the trunk."""
        end = self.at["add"]
        middle = (start + end) / 2 + 0.1
        low, high = middle - 1.25, middle + 1.25
        self.wire((RIGHT, start), (RIGHT, low))
        self.frame(low, high)
        self.shape(middle - 0.78, 1.7, 1.0, "down")
        self.shape(middle, 1.0, 1.0, "act")
        self.shape(middle + 0.78, 1.0, 1.7, "up")
        self.wire((RIGHT, high), (RIGHT, end), (PLUS, end), color=ORANGE)
        self.text(1.45, end + 0.34, f"$f({READS[self.placement]})$", 15, color=ORANGE)
        self.text(RIGHT + 1.5, middle, "adapter $f$", 14, color=ORANGE, rotation=90)

    def frame(self, low: float, high: float) -> None:
        """What trains: a hatched box with a heavy border."""
        from matplotlib.patches import FancyBboxPatch

        corner, style = (RIGHT - 1.05, low), "round,pad=0,rounding_size=0.2"
        box = FancyBboxPatch(corner, 2.1, high - low, boxstyle=style, **TRAINED, zorder=2)
        self.axes.add_patch(box)

    def shape(self, y: float, below: float, above: float, words: str) -> None:
        """A trapezoid: as wide as what comes in below, and as what goes out above."""
        from matplotlib.patches import Polygon

        low, high = y - SHAPE / 2, y + SHAPE / 2
        corners = [
            (RIGHT - below / 2, low), (RIGHT + below / 2, low),
            (RIGHT + above / 2, high), (RIGHT - above / 2, high),
        ]  # fmt: skip
        self.axes.add_patch(Polygon(corners, fc="white", ec=ORANGE, lw=2, zorder=3))
        self.text(RIGHT, y, words, zorder=4)

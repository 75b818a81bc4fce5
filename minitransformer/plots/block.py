"""A post-norm block from left to right: what flows forward, and what flows back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .figure import BLUE, ORANGE, new_figure
from .strokes import FROZEN, PLUS, TRAINED, Strokes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORWARD, BACKWARD, ARC, HALF = 0.55, -0.55, 1.75, 1.05  # heights; half the height of a box


def plot_block(adapter: bool = False) -> Figure:
    """The block of BERT with its forward pass (black) and its backward pass (blue).

    Where the forward pass copies, the backward pass adds, and the other way round. With `adapter`,
    one stands after each layer norm, hatched.
    """
    from matplotlib.lines import Line2D

    figure = new_figure(14.2 if adapter else 10.4, 3.6)
    axes = figure.subplots()
    drawing = Drawing(axes)
    drawing.label("$x$", "$dx$")
    drawing.around("attention", 2.0, "$s$", "$ds$")
    drawing.between("layer\nnorm", 1.3)
    if adapter:
        drawing.label("$h$", "$dh$")
        drawing.around("adapter\n$f$", 1.6, "$f(h)$", "$dy$", trained=True)
        drawing.gap()
        drawing.label("$y$", "$dy$")
    else:
        drawing.label("$h$", "$dh$")
    drawing.around("feed-\nforward", 1.6, "$s'$", "$ds'$")
    drawing.between("layer\nnorm", 1.3)
    if adapter:
        drawing.label("$h'$", "$dh'$")
        drawing.around("adapter\n$f'$", 1.6, "$f'(h')$", "$dy'$", trained=True)
        drawing.gap()
    drawing.label("$y'$" if adapter else "$y$", "$dy'$" if adapter else "$dy$")
    axes.set(xlim=(-0.1, drawing.x + 0.1), ylim=(-2.1, 2.1), aspect="equal")
    axes.set_axis_off()
    figure.legend(
        handles=[
            Line2D([], [], color="black", lw=1.6, marker=">", label="forward pass"),
            Line2D([], [], color=BLUE, lw=1.6, marker="<", label="backward pass"),
        ],
        loc="outside lower center", ncols=2, fontsize=12, frameon=False,
    )  # fmt: skip
    return figure


class Drawing(Strokes):
    """Adds one part after another on the right; `x` is where the last one ended."""

    x = 0.55

    def label(self, forward: str, backward: str) -> None:
        """What flows between two parts, above and below its wire."""
        self.text(self.x, FORWARD, forward, 15)
        self.text(self.x, BACKWARD, backward, 15, color=BLUE)
        self.x += 0.45

    def both(self, start: float, end: float) -> None:
        """A piece of wire forward, and one back."""
        self.wire((start, FORWARD), (end, FORWARD))
        self.wire((end, BACKWARD), (start, BACKWARD), color=BLUE)

    def part(self, start: float, width: float, words: str, trained: bool = False) -> None:
        from matplotlib.patches import Rectangle

        style = TRAINED if trained else FROZEN
        self.axes.add_patch(Rectangle((start, -HALF), width, 2 * HALF, **style, zorder=2))
        box = {"fc": "white", "ec": "none", "pad": 2} if trained else None
        color = ORANGE if trained else "black"
        self.text(start + width / 2, 0, words, color=color, zorder=3, bbox=box)

    def gap(self) -> None:
        """A piece of wire to what flows on."""
        self.both(self.x, self.x + 0.4)
        self.x += 0.75

    def between(self, words: str, width: float) -> None:
        """A part without a connection around it: a layer norm."""
        self.both(self.x, self.x + 0.55)
        self.part(self.x + 0.55, width, words)
        self.x += 0.55 + width
        self.both(self.x, self.x + 0.6)
        self.x += 1.0

    def around(
        self, words: str, width: float, forward: str, backward: str, trained: bool = False
    ) -> None:
        """A part, and the connection around it: a copy and a sum forward, a sum and a copy back."""
        fork, start = self.x + 0.45, self.x + 1.25
        end = start + width
        add = end + (1.3 if trained else 1.1)
        self.both(self.x, fork - PLUS)
        self.both(fork + PLUS, start)
        self.both(end, add - PLUS)
        self.part(start, width, words, trained)
        self.text((end + add) / 2, FORWARD + 0.32, forward, 14)
        self.text((end + add) / 2, BACKWARD - 0.32, backward, 14, color=BLUE)
        self.wire((fork, FORWARD), (fork, ARC), (add, ARC), (add, FORWARD + PLUS))
        self.wire((add, BACKWARD), (add, -ARC), (fork, -ARC), (fork, BACKWARD - PLUS), color=BLUE)
        self.wire((fork - PLUS, FORWARD), (fork + PLUS, FORWARD), arrow=False)
        self.wire((add + PLUS, BACKWARD), (add - PLUS, BACKWARD), arrow=False, color=BLUE)
        self.sum(add, FORWARD)
        self.sum(fork, BACKWARD, BLUE)
        self.axes.plot(fork, FORWARD, "o", color="black", ms=5)
        self.axes.plot(add, BACKWARD, "o", color=BLUE, ms=5)
        self.x = add + PLUS

"""What all figures share: colours, an empty figure, and a PNG that is whole or not there."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from ..formats.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"
GREEN, YELLOW, SKY = "#009E73", "#E69F00", "#56B4E9"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure (inches) which a notebook shows as a picture.

    It is made without pyplot, whose global state and choice of a screen are not needed here.
    """
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        def _repr_png_(self) -> bytes:
            png = io.BytesIO()
            self.savefig(png, dpi=100, format="png")
            return png.getvalue()

    return ShownFigure(figsize=(width, height), layout="constrained")


def write_png(figure: Figure, path: str | Path) -> None:
    """Write the figure under that name at once and complete, 150 dots an inch."""
    png = io.BytesIO()
    figure.savefig(png, dpi=150, format="png")
    write_bytes(Path(path), png.getvalue())

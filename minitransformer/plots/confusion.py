"""The confusion matrix as a figure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import printable
from ..nn.module import Array
from .figure import new_figure, write_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NUMBERS = 12  # classes: with more of them, only the shades are drawn
LONGEST = 24  # letters of a label; a longer one is cut


def plot_confusion(
    confusion: Array, label_names: Sequence[str], title: str, path: Path | None = None
) -> Figure:
    """Counts (K, K) by label (row) and prediction (column), shaded by their share of the row.

    With `path`, the figure is also written there as PNG.
    """
    label_names = [printable(name, keep="") for name in label_names]
    n = len(label_names)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in label_names]
    fontsize = 10 if n <= MOST_NUMBERS else 6
    # In inches: the layout fits everything but a title into a figure, if there is room for it.
    cells = max(1.6, min(0.6, 7 / n) * n)
    words = 0.0085 * fontsize * max(map(len, names))
    width = 1.8 + words + cells
    title = textwrap.fill(title, int(10 * width), break_on_hyphens=False)
    figure = new_figure(width, 1.1 + 0.2 * title.count("\n") + 0.75 * words + cells)
    axis = figure.subplots()
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if n <= MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(confusion):
            colour = "white" if share[row, column] > 0.6 else "black"
            axis.text(column, row, f"{count}", ha="center", va="center", color=colour)
    # A file or a label may be called $$, which is no mathematics.
    plain: dict[str, Any] = {"fontsize": fontsize, "parse_math": False}
    axis.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor", **plain)
    axis.set_yticks(range(n), names, **plain)
    axis.set(xlabel="prediction", ylabel="label")
    figure.suptitle(title, parse_math=False)
    figure.colorbar(image, ax=axis, label="share of the label's examples")
    if path is not None:
        write_png(figure, path)
    return figure

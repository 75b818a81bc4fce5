"""The confusion matrix as a figure."""

from __future__ import annotations

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


def plot_confusion(
    confusion: Array, label_names: Sequence[str], title: str, path: Path | None = None
) -> Figure:
    """Counts (K, K) by label (row) and prediction (column), shaded by their share of the row.

    With `path`, the figure is also written there as PNG.
    """
    label_names = [printable(name, keep="") for name in label_names]
    n = len(label_names)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    size = 2.2 + min(0.55, 7 / n) * n
    figure = new_figure(size + 0.6, size)
    axis = figure.subplots()
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if n <= MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(confusion):
            colour = "white" if share[row, column] > 0.6 else "black"
            axis.text(column, row, f"{count}", ha="center", va="center", color=colour)
    fontsize = 10 if n <= MOST_NUMBERS else 6
    # A file or a label may be called $$, which is no mathematics.
    plain: dict[str, Any] = {
        "fontsize": fontsize,
        "parse_math": False,
    }
    axis.set_xticks(range(n), label_names, rotation=45, ha="right", **plain)
    axis.set_yticks(range(n), label_names, **plain)
    axis.set(xlabel="prediction", ylabel="label")
    axis.set_title(title, parse_math=False)
    figure.colorbar(image, ax=axis, label="share of the label's examples")
    if path is not None:
        write_png(figure, path)
    return figure

"""A table of numbers as shades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..nn.module import Array
from .figure import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_heatmap(
    panels: Mapping[str, Array],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    xlabel: str = "",
    ylabel: str = "",
    label: str = "",
    form: str = "{:.0f}",
    limits: tuple[float, float] | None = None,
    height: float = 4.0,
) -> Figure:
    """A panel for each title: values (rows, columns) as shades, with the number in each cell.

    Cells that are NaN stay empty. All panels share one scale, `limits` (default: from the smallest
    to the largest value); `form` writes the numbers, and "" leaves them out.
    """
    values = np.stack(list(panels.values()))
    low, high = limits if limits is not None else (np.nanmin(values), np.nanmax(values))
    figure = new_figure(1.2 + (0.4 + height) * len(panels), height)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        image = axis.imshow(panel, cmap="Blues", vmin=low, vmax=high, aspect="auto")
        for (i, j), value in np.ndenumerate(panel):
            if form and not np.isnan(value):
                dark = value - low > 0.6 * (high - low)
                text = form.format(value)
                axis.text(j, i, text, ha="center", va="center", color="w" if dark else "k")
        turned = {"rotation": 90} if max(map(len, columns)) > 4 else {}
        axis.set_xticks(range(len(columns)), columns, parse_math=False, **turned)
        axis.set_yticks(range(len(rows)), rows, parse_math=False)
        axis.set_xlabel(xlabel)
        axis.set_title(title, parse_math=False)
    axes[0].set_ylabel(ylabel)
    figure.colorbar(image, ax=list(axes), label=label)
    return figure

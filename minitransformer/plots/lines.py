"""Lines, with error bars where there are any, in one panel or several."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from .figure import BLUE, GREY, ORANGE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colour, marker and line style differ together, so that grey print tells the lines apart.
LOOKS = (
    (BLUE, "o", "-"),
    (ORANGE, "s", "--"),
    (GREY, "^", "-."),
    ("#009E73", "D", ":"),
    ("#CC79A7", "v", "-"),
    ("black", "P", "--"),
)

FEW = 8  # values that fit below an axis


def plot_lines(
    panels: Mapping[str, Mapping[str, tuple[Any, ...]]],
    xlabel: str,
    ylabel: str,
    *,
    level: float | None = None,
    unmarked: Collection[str] = (),
    height: float = 3.8,
    **axis_options: Any,
) -> Figure:
    """A panel for each title, in it a line for each label: (x, y), or (x, y, error).

    A label looks the same in every panel. Those in `unmarked` are drawn thin and without markers.
    `level`: a thin horizontal line; `axis_options` as of matplotlib's `Axes.set`, such as
    `xscale="log"` (a few values of x are then its ticks) or `ylim=(0, 1)`.
    """
    labels = dict.fromkeys(label for lines in panels.values() for label in lines)
    looks = dict(zip(labels, cycle(LOOKS), strict=False))
    figure = new_figure(max(6.0, 0.6 + 3.9 * len(panels)), height)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for label, (x, y, *error) in lines.items():
            colour, marker, style = looks[label]
            thin = {"marker": "", "lw": 1.2} if label in unmarked else {"marker": marker, "lw": 1.8}
            axis.errorbar(
                np.asarray(x), np.asarray(y), yerr=error[0] if error else None,
                color=colour, ls=style, ms=5, capsize=3, label=label, **thin,
            )  # fmt: skip
        axis.set_title(title, parse_math=False)
    for axis, lines in zip(axes, panels.values(), strict=True):  # all is drawn: limits are shared
        if level is not None:
            axis.axhline(level, color="black", lw=0.8, zorder=0)
        axis.set(xlabel=xlabel, **axis_options)
        values = sorted({value for x, *_ in lines.values() for value in x})
        if axis.get_xscale() == "log" and 0 < len(values) <= FEW:
            axis.set_xticks(values, [f"{value:g}" for value in values])
            axis.set_xticks([], minor=True)
        axis.grid(color="#dddddd", lw=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(ylabel)
    named = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    columns = min(len(named), 4)
    if named:
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=columns)
    return figure

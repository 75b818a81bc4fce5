"""Panels that the notebooks are made of: lines with error bars, tables of shades, stacked bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..nn.module import Array
from .figure import BLUE, GREEN, GREY, ORANGE, SKY, YELLOW, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour, line and marker: told apart by colour-blind readers and in grey print.
SERIES = (
    (BLUE, "-", "o"), (ORANGE, "--", "^"), (GREEN, "-.", "s"), (GREY, ":", "D"),
    ("black", "--", "v"), (YELLOW, "-", "P"), (SKY, "-.", "X"),
)  # fmt: skip
PARTS = (("#d9d9d9", ""), (BLUE, ""), ("#fbe3d3", "////"), (GREEN, ".."), (YELLOW, "xx"))


def panels(
    columns: int = 1, width: float = 9, height: float = 3.8, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure (inches) and its panels in a row, each with a grid and without a box around it.

    `options` are those of matplotlib's `Figure.subplots`, such as sharey=True.
    """
    figure = new_figure(width, height)
    axes = list(figure.subplots(1, columns, squeeze=False, **options)[0])
    for axis in axes:
        axis.grid(color="#dddddd", lw=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def plot_series(
    axis: Axes,
    x: npt.ArrayLike,
    series: Mapping[str, npt.ArrayLike],
    errors: Mapping[str, npt.ArrayLike] | None = None,
    **options: Any,
) -> None:
    """A line for each entry: its y (n,), or (runs, n) drawn as mean, lowest and highest run.

    `x`: (n,), or a row for each line. `errors`: for some labels the length of the bars, (n,), or
    (2, n) below and above. Where y is NaN there is no point, and the line goes on to the next one.
    `options` go to matplotlib's `errorbar`, such as marker="" for lines alone.

    Raises: ConfigError if there are more lines than looks that can be told apart.
    """
    if len(series) > len(SERIES):
        raise ConfigError(
            f"{len(series)} lines in one panel: expected at most {len(SERIES)}, which can be told "
            "apart; draw them in several panels"
        )
    looks = zip(series.items(), SERIES, strict=False)
    for i, ((label, values), (color, line, marker)) in enumerate(looks):
        runs = np.atleast_2d(np.asarray(values, dtype=float))  # (runs, n)
        mean = runs.mean(axis=0)
        bars = None
        if errors is not None and label in errors:
            bars = np.broadcast_to(errors[label], (2, len(mean)))
        elif len(runs) > 1:
            bars = np.array([mean - runs.min(axis=0), runs.max(axis=0) - mean])  # (2, n)
        there = ~np.isnan(mean)
        style = {"color": color, "ls": line, "marker": marker, "lw": 2, "ms": 7, "capsize": 4}
        own: dict[str, Any] = {**style, **options}
        yerr = None if bars is None else bars[:, there]
        across = np.broadcast_to(x, (len(series), len(mean)))[i]
        axis.errorbar(across[there], mean[there], yerr, label=label, **own)


def log_ticks(axis: Axes, values: Sequence[float]) -> None:
    """A logarithmic horizontal axis whose ticks are these values."""
    axis.set_xscale("log")
    axis.set_xticks(values, [f"{value:g}" for value in values])
    axis.minorticks_off()


def legend_below(figure: Figure, columns: int = 4) -> None:
    """One legend for all panels, below them: each label once."""
    named = {
        label: handle
        for axis in figure.axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    ncols = min(columns, len(named))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=ncols)


def smooth(values: npt.ArrayLike, window: int, geometric: bool = False) -> tuple[Array, Array]:
    """Steps, and the mean of the last `window` values at each: (n - window + 1,) both.

    `geometric`: the mean of the logarithms, for a logarithmic axis. There a single large value
    would lift the plain mean for the length of the window, and be drawn as a plateau.
    """
    y = np.log(values) if geometric else np.asarray(values, dtype=float)
    mean = np.convolve(y, np.ones(window) / window, mode="valid")
    return np.arange(window, len(y) + 1), np.exp(mean) if geometric else mean


def heat_table(
    axis: Axes,
    values: Array,
    rows: Sequence[str],
    columns: Sequence[str],
    form: str = ".2f",
    **options: Any,
) -> Any:
    """A table (rows, columns) of numbers on shades; returns the image, for a colour bar.

    `form`: how a number is written; "" for shades alone. A cell that is NaN stays empty. `options`
    go to matplotlib's `imshow`.
    """  # fmt: skip
    image = axis.imshow(values, **{"cmap": "cividis", "aspect": "auto", **options})
    box = {"fc": "white", "ec": "none", "pad": 1.5}
    for (row, column), value in np.ndenumerate(values):
        if form and not np.isnan(value):
            axis.text(column, row, f"{value:{form}}", ha="center", va="center", bbox=box)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), rows)
    axis.tick_params(length=0)
    axis.grid(False)
    return image


def stacked_bars(
    axis: Axes,
    bars: Mapping[str, Mapping[str, float]],
    form: str = ".2f",
    styles: Sequence[tuple[str, str]] = PARTS,
) -> None:
    """A horizontal bar for each entry, from its parts, the first on top; its sum at its end.

    `form`: how the sum is written; "" for no sum. `styles`: colour and hatching of each part.
    Parts are named once, for `axis.legend()`.
    """  # fmt: skip
    names = list(bars)
    left = np.zeros(len(names))
    labels = list(dict.fromkeys(label for parts in bars.values() for label in parts))
    for label, (color, hatch) in zip(labels, styles, strict=False):
        widths = np.array([bars[name].get(label, 0.0) for name in names])
        axis.barh(
            names, widths, 0.62, left=left, color=color, hatch=hatch, ec="black", lw=0.8,
            label=label,
        )  # fmt: skip
        left += widths
    for i, total in enumerate(left):
        if form:
            axis.text(total, i, f" {total:{form}}", va="center")
    axis.set_xlim(0, 1.12 * left.max())
    axis.grid(axis="y", visible=False)
    axis.yaxis.set_inverted(True)

"""Figures of a study of many runs: accuracy against trained parameters, and settings compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .figure import BLUE, GREY, ORANGE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Each method has a colour (Okabe and Ito) and a marker of its own, for grey print.
STYLES = {
    "adapter": (BLUE, "o"),
    "lora": (ORANGE, "s"),
    "prefix": ("#009E73", "^"),
    "ia3": ("#CC79A7", "D"),
    "bitfit": ("#E69F00", "v"),
    "layer-norm": ("#56B4E9", "P"),
    "head": (GREY, "X"),
    "full": ("black", "*"),
}
OTHER = ("#444444", "h")

Point = tuple[int, Sequence[float]]  # trained parameters; the accuracy of each seed
Panel = tuple[Sequence[tuple[str, Sequence[Point]]], tuple[float, float] | None]


def plot_study(panels: Mapping[str, Panel]) -> Figure:
    """Test accuracy against trained parameters (log axis), a panel for each task.

    A panel is (method, points) for each series of sizes, and accuracy and standard error of full
    fine-tuning, drawn as a level with a band. The first series of a method with several points is
    its line; its other points stand alone, hollow. Bars reach from the worst seed to the best.
    """
    figure = new_figure(4.2 * len(panels) + 0.4, 4.2)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, (lines, full)) in zip(axes, panels.items(), strict=True):
        if full is not None:
            level, error = full
            low_edge, high_edge = 100 * (level - error), 100 * (level + error)
            label = "full ± 1 standard error"
            axis.axhspan(low_edge, high_edge, color="#e6e6e6", zorder=0, label=label)
            axis.axhline(100 * level, color="black", lw=0.8, ls="--", zorder=1)
        drawn: set[str] = set()
        for method, points in lines:
            colour, marker = STYLES.get(method, OTHER)
            first = method not in drawn
            drawn.add(method)
            mean, low, high = spread([accuracies for _, accuracies in points])
            axis.errorbar(
                [trained for trained, _ in points],
                mean,
                yerr=[mean - low, high - mean],
                color=colour,
                marker=marker,
                mfc=colour if first else "white",
                ms=6 if first else 5,
                lw=1.6 if first else 0,
                elinewidth=1,
                capsize=2,
                label=method if first else None,
            )
        axis.set_xscale("log")
        axis.set_title(title, parse_math=False)  # a file may be called $$
        axis.set_xlabel("trained parameters (log scale)")
        axis.grid(color="#dddddd", lw=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("test accuracy, %")
    named = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=len(named))
    return figure


def plot_parts(
    parts: Mapping[str, Sequence[tuple[str, Sequence[float]]]], columns: int = 3
) -> Figure:
    """Settings compared, a panel for each part: a dot for each seed, a bar at the mean."""
    columns = min(columns, len(parts))
    height = max(len(cells) for cells in parts.values())
    n_rows = -(-len(parts) // columns)
    figure = new_figure(5.2 * columns, n_rows * (0.9 + 0.26 * height))
    axes = figure.subplots(n_rows, columns, squeeze=False).ravel()
    for axis in axes[len(parts) :]:
        axis.set_visible(False)
    for axis, (title, cells) in zip(axes, parts.items(), strict=False):
        for i, (_, accuracies) in enumerate(cells):
            values = 100 * np.array(accuracies)
            axis.plot(values, np.full(len(values), i), "o", color=BLUE, ms=4, alpha=0.6)
            axis.plot([values.mean()], [i], "|", color="black", ms=12, mew=2)
        labels = [label for label, _ in cells]
        axis.set_yticks(range(len(cells)), labels, fontsize=8, parse_math=False)
        axis.set_ylim(len(cells) - 0.5, -0.5)  # the first one on top
        axis.set_title(title, fontsize=10, parse_math=False)
        axis.set_xlabel("test accuracy, %")
        axis.grid(axis="x", color="#dddddd", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def spread(groups: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, smallest and largest of each group, in per cent."""
    return (
        100 * np.array([np.mean(group) for group in groups]),
        100 * np.array([min(group) for group in groups]),
        100 * np.array([max(group) for group in groups]),
    )

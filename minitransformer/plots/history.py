"""The course of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..training.history import History
from .figure import BLUE, ORANGE, new_figure, write_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_history(
    history: History, title: str, path: Path | None = None, best_by: str = "accuracy"
) -> Figure:
    """Loss and accuracy over the training steps, with the epoch that was the best.

    Where numbers are predicted, the loss alone.

    `best_by` as in `History.best`. With `path`, the figure is also written there as PNG.
    """
    from matplotlib.ticker import MaxNLocator

    steps = [row for row in history if row.step and row.loss is not None]
    evaluations = history.evaluations()
    x = np.array([row.step for row in steps])
    window = max(1, len(x) // 20)  # a twentieth of the run: single batches hide the trend
    panels = [("loss", "cross-entropy (nats)"), ("accuracy", "accuracy (share of right answers)")]
    if steps and steps[-1].accuracy is None:  # numbers are predicted, not classes
        panels = [("loss", "squared error (1: the mean as the answer)")]
    best, label_of_best = history.best(best_by), ""
    if best is not None:
        label_of_best = f"best epoch: {best.epoch}"
        highest = max(row.validation_accuracy or 0.0 for row in evaluations if row.step)
        if best_by == "accuracy" and (best.validation_accuracy or 0.0) < highest:
            label_of_best += ", within one standard error of the highest"  # see `History.best`
    figure = new_figure(0.5 + 4.25 * len(panels), 3.6)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (column, label) in zip(axes, panels, strict=True):
        y = np.array([getattr(row, column) for row in steps])
        name = f"training (mean of {window} steps)" if window > 1 else "training"
        axis.plot(*running_mean(x, y, window), color=BLUE, lw=1.6, label=name)
        measured = [getattr(row, f"validation_{column}") for row in evaluations]
        places = [row.step for row in evaluations]
        axis.plot(places, measured, "o--", color=ORANGE, ms=5, label="validation")
        if best is not None:
            axis.plot(
                best.step, getattr(best, f"validation_{column}"), "o",
                ms=12, mew=1.6, mfc="none", mec="black", ls="none",
                label=label_of_best,
            )  # fmt: skip
        axis.set(xlabel="training step", ylabel=label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axis.grid(color="#dddddd", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(title, parse_math=False)  # a file may be called $$
    if path is not None:
        write_png(figure, path)
    return figure


def running_mean(x: np.ndarray, y: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the last `window` values, from where there are so many."""
    if len(y) < window or not len(y):
        return x, y
    return x[window - 1 :], np.convolve(y, np.ones(window) / window, mode="valid")

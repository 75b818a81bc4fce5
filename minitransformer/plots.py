"""Every figure. Colour-blind-safe (Okabe and Ito's colours), and readable in black and white."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .training import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"


def plot_history(history: History, title: str, path: Path | None = None) -> Figure:
    """Loss, accuracy and learning rate over the training steps.

    With `path`, the figure is also written there as PNG.
    """
    from matplotlib.figure import Figure

    steps = [row for row in history if row.step and row.loss is not None]
    evaluations = history.evaluations()
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, column, label in (
        (axes[0], "loss", "cross-entropy (nats)"),
        (axes[1], "accuracy", "accuracy (share of examples)"),
    ):
        x = np.array([row.step for row in steps])
        y = np.array([getattr(row, column) for row in steps])
        axis.plot(*running_mean(x, y), color=BLUE, lw=1.6, label="training (running mean)")
        axis.plot(
            [row.step for row in evaluations],
            [getattr(row, f"validation_{column}") for row in evaluations],
            "o--", color=ORANGE, ms=6, label="validation",
        )  # fmt: skip
        axis.set(xlabel="training step", ylabel=label)
        axis.grid(color="#dddddd", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.suptitle(title)
    if path is not None:
        temporary = path.with_name(f".{path.name}.tmp")
        figure.savefig(temporary, dpi=150, format="png")
        temporary.replace(path)
    return figure


def running_mean(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over a window of a twentieth of the run, so that single batches do not hide the trend."""
    window = max(1, len(y) // 20)
    if len(y) < window or not len(y):
        return x, y
    return x[window - 1 :], np.convolve(y, np.ones(window) / window, mode="valid")

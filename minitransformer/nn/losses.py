"""Losses: a number of the outputs and the labels, and its derivative."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import ConfigError, ShapeError
from .functional import IGNORE, cross_entropy, cross_entropy_backward
from .module import Array, Module


class CrossEntropy(Module):
    """Mean cross-entropy, with label smoothing; labels equal to -100 are ignored.

    `class_weights` (K,): how much a label of each class counts in the mean, above 0.
    Shapes: logits (..., K), labels (...) integers -> a number.
    Raises: ConfigError for an option out of range; ShapeError, DataError as `cross_entropy`.
    """

    def __init__(
        self, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label_smoothing={label_smoothing}: expected 0 <= value < 1")
        self.label_smoothing = label_smoothing
        if isinstance(class_weights, str):
            raise ConfigError(
                f"class_weights={class_weights!r}: expected a number for each class; 'balanced' is "
                "for TrainingOptions, which know how many examples each has"
            )
        self.class_weights = None if class_weights is None else np.array(class_weights, np.float64)
        if self.class_weights is not None and not (self.class_weights > 0).all():
            raise ConfigError(f"class_weights={class_weights}: expected numbers above 0")

    def forward(self, logits: Array, labels: Array) -> float:
        weights = self.class_weights
        if weights is not None and len(weights) != logits.shape[-1]:
            raise ConfigError(
                f"{len(weights)} class_weights, expected one for each of {logits.shape[-1]} classes"
            )
        loss, p = cross_entropy(logits, labels, self.label_smoothing, weights)
        self.save_for_backward((), p, labels)
        return loss

    def backward(self, dy: Array | float = 1.0) -> Array:
        p, labels = self.pop_saved(np.asarray(dy))
        d = cross_entropy_backward(p, labels, self.label_smoothing, self.class_weights)
        return d if np.ndim(dy) == 0 and dy == 1 else d * np.asarray(dy, d.dtype)

    def total_weight(self, labels: Array) -> float:
        """What the sum over all labels is divided by: their number, or the sum of their weights."""
        counted = labels[labels != IGNORE]
        return float(
            counted.size if self.class_weights is None else self.class_weights[counted].sum()
        )


class SquaredError(Module):
    """Mean of ((y - label) / unit)^2.

    With the labels' standard deviation as unit, 1 is what their mean as the answer would get.
    Shapes: y (B, 1), labels (B,) -> a number.
    Raises: ShapeError if they do not fit.
    """

    def __init__(self, unit: float = 1.0) -> None:
        self.unit = unit

    def forward(self, y: Array, labels: Array) -> float:
        if y.shape != (*labels.shape, 1):
            raise ShapeError(f"y of shape {y.shape}, expected {(*labels.shape, 1)} as labels have")
        error = (y - labels[:, None]) / self.unit  # (B, 1) in float64, as the labels
        self.save_for_backward((), error.astype(y.dtype))
        return float((error**2).mean())

    def backward(self, dy: Array | float = 1.0) -> Array:
        (error,) = self.pop_saved(np.asarray(dy))
        return error * error.dtype.type(2 * float(dy) / (len(error) * self.unit))

    def total_weight(self, labels: Array) -> float:
        """What the sum over all labels is divided by: their number."""
        return float(labels.size)

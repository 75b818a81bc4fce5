"""A classifier's answers on a split, and how good they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .datasets import Batch, Encoded, batches
from .functional import softmax
from .heads import Classifier
from .module import Array
from .parallel import Walkers, cores


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and accuracy over a split; probabilities (n, n_classes) in the split's order."""

    loss: float
    accuracy: float
    probabilities: Array

    @property
    def predictions(self) -> Array:
        """(n,) the most probable class of each example."""
        return self.probabilities.argmax(axis=1)


def predict_probabilities(
    model: Classifier, encoded: Encoded, batch_size: int = 64, threads: int = 0
) -> Array:
    """(n, n_classes) in the order of `encoded`; in eval mode, so that nothing is saved.

    `threads`: how many walk over batches side by side; 0 for one for each core.
    """
    was_training = model.training
    n_batches = math.ceil(len(encoded) / batch_size)
    with Walkers(model, min(threads or cores(), n_batches)) as walkers:
        try:
            return walk_over(walkers, encoded, batch_size)
        finally:
            model.train(was_training)


def evaluate(
    model: Classifier, encoded: Encoded, batch_size: int = 64, threads: int = 0
) -> Evaluation:
    """Loss and accuracy of a classifier on labelled examples, without dropout."""
    return evaluation_of(predict_probabilities(model, encoded, batch_size, threads), encoded)


def walk_over(
    walkers: Walkers, encoded: Encoded, batch_size: int, on_batch: Callable[[], None] | None = None
) -> Array:
    """Probabilities (n, n_classes) in the order of `encoded`. Leaves the walkers in eval mode."""

    def forward(model: Classifier, batch: Batch) -> tuple[Array, Array]:
        if on_batch is not None:
            on_batch()
        return batch.index, softmax(model(batch.ids, batch.attention_mask))

    walkers.train(False)
    found = list(walkers.map(forward, batches(encoded, batch_size)))
    probabilities = np.empty((len(encoded), found[0][1].shape[1]), found[0][1].dtype)
    for index, p in found:
        probabilities[index] = p
    return probabilities


def evaluation_of(p: Array, encoded: Encoded) -> Evaluation:
    """Loss and accuracy from probabilities (n, n_classes)."""
    at_label = p[np.arange(len(p)), encoded.labels].astype(np.float64)
    loss = -np.log(np.maximum(at_label, np.finfo(np.float32).tiny)).mean()
    accuracy = (p.argmax(axis=1) == encoded.labels).mean()
    return Evaluation(float(loss), float(accuracy), p)

"""A model's predictions on a split, and how good they are.

A model is evaluated on replicas in eval mode, without dropout and with nothing saved. The model
itself is left as it is, in its mode and with its active adapters, so that several threads of a
program may predict with one model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..data.batches import Batch, Batches, Encoded, batches
from ..data.corpus import windows
from ..errors import DataError, TrainingError
from ..models.heads import Classifier, LanguageModel
from ..nn.functional import IGNORE
from ..nn.kernels import softmax
from ..nn.module import Array
from .data_parallel import DataParallel, Model
from .process import cores

AT_ONCE = 64  # labels (at least one example) that are evaluated together


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and accuracy over a split; probabilities (n, n_classes) in the split's order."""

    loss: float
    accuracy: float
    probabilities: Array

    @property
    def predictions(self) -> Array:
        """(n,) the most probable class of each example."""
        return np.asarray(self.probabilities.argmax(axis=1))


def predict_probabilities(
    model: Classifier, encoded: Encoded, batch_size: int = AT_ONCE, threads: int = 0
) -> Array:
    """(n, n_classes) in the order of `encoded`, from replicas in eval mode.

    `threads`: how many compute batches side by side; 0 for one for each core.
    """
    plan = batches(encoded, batch_size)
    with eval_replicas(model, len(plan), threads) as replicas:
        return map_batches(replicas, plan, lambda p, batch: p)


def evaluate(
    model: Classifier, encoded: Encoded, batch_size: int = AT_ONCE, threads: int = 0
) -> Evaluation:
    """Loss and accuracy of a classifier on labelled examples, without dropout.

    Raises: DataError for a label that the model has no class for, or without any label.
    """
    p = predict_probabilities(model, encoded, batch_size, threads)
    return Evaluation(*means(*at_labels(p, encoded.labels), encoded.labels), p)


def perplexity(
    model: LanguageModel,
    tokens: Array,
    block_size: int | None = None,
    stride: int | None = None,
    threads: int = 0,
) -> float:
    """exp(mean of -log p(token | tokens before it)) over a text (N,), each token but the first.

    The text is read in windows of `block_size` tokens (default: as many as the model has
    positions). Each begins `stride` tokens after the one before (default: half a window) and
    scores what that one did not see, so that a token has at least block_size - stride tokens as
    context, near the beginning of the text all that there are.
    Raises: DataError for a text of less than two tokens; ConfigError for a stride out of range.
    """
    if block_size is None:
        block_size = model.transformer.config.max_positions
    if stride is None:
        stride = max(1, block_size // 2)
    encoded = windows(np.asarray(tokens), block_size, stride)
    with eval_replicas(model, len(encoded), threads) as replicas:
        loss, _ = loss_and_accuracy(replicas, encoded)
    return math.exp(loss)


def eval_replicas(model: Model, n_batches: int, threads: int = 0) -> DataParallel:
    """Replicas in eval mode, no more than there are batches; the model itself is not among them."""
    return DataParallel(model.replica().eval(), min(threads or cores(), n_batches))


def loss_and_accuracy(
    replicas: DataParallel, encoded: Encoded, on_batch: Callable[[], None] | None = None
) -> tuple[float, float]:
    """Mean loss and accuracy over the labels that count, of replicas in eval mode.

    Only the probabilities of the labels are stored: a language model has a vocabulary of them for
    every token. `on_batch` is called with each batch.
    """

    def label_probabilities(p: Array, batch: Batch) -> Array:
        if on_batch is not None:
            on_batch()
        return np.stack(at_labels(p, batch.labels), axis=-1)  # (B, 2) or (B, T, 2)

    labels_each = encoded.labels.size // len(encoded)
    plan = batches(encoded, max(1, AT_ONCE // labels_each))
    found = map_batches(replicas, plan, label_probabilities)
    return means(found[..., 0], found[..., 1], encoded.labels)


def map_batches(
    replicas: DataParallel, plan: Batches, function: Callable[[Array, Batch], Array]
) -> Array:
    """`function(p, batch)` of each batch's probabilities, one row for each example in order."""

    def forward(model: Model, batch: Batch) -> tuple[Array, Array]:
        p = softmax(model(batch.ids, batch.attention_mask))
        check_finite(p)
        return batch.index, function(p, batch)

    results = list(replicas.map(forward, plan))
    rows = np.empty((len(plan.encoded), *results[0][1].shape[1:]), results[0][1].dtype)
    for index, result in results:
        rows[index] = result
    return rows


def check_finite(p: Array) -> None:
    """Raises: TrainingError for probabilities that are no numbers."""
    if not np.isfinite(p).all():
        raise TrainingError(
            "the model's probabilities are not finite (NaN): its weights are too large for its "
            "arithmetic, or damaged. Train it again, with a smaller learning rate"
        )


def at_labels(p: Array, labels: Array) -> tuple[Array, Array]:
    """For probabilities (..., K): that of each label (...), and whether none is higher.

    Raises: DataError for a label outside 0 to K - 1 that is not IGNORE.
    """
    index = np.where(labels == IGNORE, 0, labels)
    outside = index[(index < 0) | (index >= p.shape[-1])]
    if outside.size:
        raise DataError(
            f"label {outside[0]}, but the model has the classes 0 to {p.shape[-1] - 1}: "
            "is this the task that it was trained for?"
        )
    of_label = np.take_along_axis(p, index[..., None], axis=-1)[..., 0]
    return of_label, p.argmax(axis=-1) == labels


def means(p: Array, right: Array, labels: Array) -> tuple[float, float]:
    """Mean of -log p and share of right answers over the labels that count.

    Raises: DataError if none does.
    """
    counted = labels != IGNORE
    if not counted.any():
        raise DataError(f"no label to compare with: all {labels.size} labels are ignored")
    p = np.maximum(p[counted].astype(np.float64), np.finfo(np.float32).tiny)
    return float(-np.log(p).mean()), float(right[counted].mean(dtype=np.float64))

"""A model's answers on a split, and how good they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..data.batches import Batch, Encoded, batches
from ..data.corpus import windows
from ..models.heads import Classifier, LanguageModel
from ..nn.functional import IGNORE
from ..nn.kernels import softmax
from ..nn.module import Array
from .data_parallel import DataParallel, Model, cores

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
        return self.probabilities.argmax(axis=1)


def predict_probabilities(
    model: Classifier, encoded: Encoded, batch_size: int = AT_ONCE, threads: int = 0
) -> Array:
    """(n, n_classes) in the order of `encoded`; in eval mode, so that nothing is saved.

    `threads`: how many walk over batches side by side; 0 for one for each core.
    """
    was_training = model.training
    n_batches = math.ceil(len(encoded) / batch_size)
    with DataParallel(model, min(threads or cores(), n_batches)) as replicas:
        try:
            return map_batches(replicas, encoded, batch_size, lambda p, batch: p)
        finally:
            model.train(was_training)


def evaluate(
    model: Classifier, encoded: Encoded, batch_size: int = AT_ONCE, threads: int = 0
) -> Evaluation:
    """Loss and accuracy of a classifier on labelled examples, without dropout."""
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
    Raises: DataError for a text of less than two tokens.
    """
    block_size = block_size or model.transformer.config.max_positions
    encoded = windows(tokens, block_size, stride or max(1, block_size // 2))
    was_training = model.training
    with DataParallel(model, min(threads or cores(), len(encoded))) as replicas:
        try:
            loss, _ = loss_and_accuracy(replicas, encoded)
        finally:
            model.train(was_training)
    return math.exp(loss)


def loss_and_accuracy(
    replicas: DataParallel, encoded: Encoded, on_batch: Callable[[], None] | None = None
) -> tuple[float, float]:
    """Mean loss and accuracy over the labels that count. Leaves the replicas in eval mode.

    Of the probabilities only those of the labels are kept: a language model has a vocabulary of
    them for every token. `on_batch` is called with each batch.
    """

    def keep(p: Array, batch: Batch) -> Array:
        if on_batch is not None:
            on_batch()
        return np.stack(at_labels(p, batch.labels), axis=-1)  # (B, 2) or (B, T, 2)

    labels_each = encoded.labels.size // len(encoded)
    found = map_batches(replicas, encoded, max(1, AT_ONCE // labels_each), keep)
    return means(found[..., 0], found[..., 1], encoded.labels)


def map_batches(
    replicas: DataParallel,
    encoded: Encoded,
    batch_size: int,
    keep: Callable[[Array, Batch], Array],
) -> Array:
    """What `keep` takes of the probabilities of each batch, one row for each example in order.

    Leaves the replicas in eval mode.
    """

    def forward(model: Model, batch: Batch) -> tuple[Array, Array]:
        return batch.index, keep(softmax(model(batch.ids, batch.attention_mask)), batch)

    replicas.train(False)
    found = list(replicas.map(forward, batches(encoded, batch_size)))
    rows = np.empty((len(encoded), *found[0][1].shape[1:]), found[0][1].dtype)
    for index, kept in found:
        rows[index] = kept
    return rows


def at_labels(p: Array, labels: Array) -> tuple[Array, Array]:
    """For probabilities (..., K): that of each label (...), and whether none is higher."""
    index = np.where(labels == IGNORE, 0, labels)[..., None]
    return np.take_along_axis(p, index, axis=-1)[..., 0], p.argmax(axis=-1) == labels


def means(p: Array, right: Array, labels: Array) -> tuple[float, float]:
    """Mean of -log p and share of right answers over the labels that count."""
    counted = labels != IGNORE
    p = np.maximum(p[counted].astype(np.float64), np.finfo(np.float32).tiny)
    return float(-np.log(p).mean()), float(right[counted].mean(dtype=np.float64))

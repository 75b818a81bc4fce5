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
from ..errors import ConfigError, DataError, TrainingError
from ..models.heads import Classifier, LanguageModel, Regressor, check_causal, check_model
from ..nn.functional import IGNORE
from ..nn.kernels import softmax
from ..nn.losses import SquaredError
from ..nn.module import Array
from .data_parallel import DataParallel, Model
from .metrics import confusion_matrix, macro_f1, pearson, spearman
from .process import cores

AT_ONCE = 64  # labels (at least one example) that are evaluated together


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and accuracy over a split.

    probabilities (n, n_classes) and labels (n,) are in the split's order.
    """

    loss: float
    accuracy: float
    probabilities: Array
    labels: Array

    @property
    def predictions(self) -> Array:
        """(n,) the most probable class of each example."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def confusion(self) -> Array:
        """(K, K): examples by label (row) and prediction (column)."""
        counted = self.labels != IGNORE
        n_classes = self.probabilities.shape[1]
        return confusion_matrix(self.labels[counted], self.predictions[counted], n_classes)

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that occur, as label or as prediction."""
        return macro_f1(self.confusion)

    def confident_errors(self, n: int) -> Array:
        """The positions of n wrong predictions, the most confident first."""
        wrong = np.flatnonzero((self.predictions != self.labels) & (self.labels != IGNORE))
        confidence = self.probabilities[wrong].max(axis=1)
        return wrong[np.argsort(-confidence, kind="stable")[:n]]


@dataclass(frozen=True)
class NumberEvaluation:
    """Predicted numbers (n,) and labels (n,) in the split's order; loss is the squared error."""

    predictions: Array
    labels: Array

    @property
    def loss(self) -> float:
        """The mean squared error."""
        return float(((self.predictions - self.labels) ** 2).mean())

    @property
    def pearson(self) -> float:
        """Pearson's correlation of predictions and labels."""
        return pearson(self.predictions, self.labels)

    @property
    def spearman(self) -> float:
        """Spearman's rank correlation of predictions and labels."""
        return spearman(self.predictions, self.labels)


def predict_probabilities(
    model: Classifier, encoded: Encoded, batch_size: int = AT_ONCE, threads: int = 0
) -> Array:
    """(n, n_classes) in the order of `encoded`, from replicas in eval mode; numbers are (n, 1).

    `threads`: how many compute batches side by side; 0 for one for each core.
    """
    check_model(model, Classifier)
    plan = batches(encoded, batch_size)
    with eval_replicas(model, len(plan), threads) as replicas:
        return map_batches(replicas, plan, lambda p, batch: p)


def evaluate(
    model: Classifier, encoded: Encoded, batch_size: int = AT_ONCE, threads: int = 0
) -> Evaluation:
    """Loss and accuracy of a classifier on labelled examples, without dropout.

    Raises: DataError for a label that the model has no class for, or without any label;
    ConfigError for a regressor, which `evaluate_numbers` measures.
    """
    if isinstance(model, Regressor):
        raise ConfigError("this model predicts numbers: evaluate_numbers measures it")
    p = predict_probabilities(model, encoded, batch_size, threads)
    loss, accuracy = means(*at_labels(p, encoded.labels), encoded.labels)
    return Evaluation(loss, accuracy, p, encoded.labels)


def evaluate_numbers(
    model: Regressor, encoded: Encoded, batch_size: int = AT_ONCE, threads: int = 0
) -> NumberEvaluation:
    """Squared error and correlations of a regressor on examples with numbers, without dropout.

    Raises: ConfigError for a classifier, which `evaluate` measures.
    """
    if not isinstance(model, Regressor):
        raise ConfigError("this model predicts classes: evaluate measures it")
    y = predict_probabilities(model, encoded, batch_size, threads)  # (n, 1)
    return NumberEvaluation(y[:, 0].astype(np.float64), encoded.labels)


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
    Raises: DataError for a text of less than two tokens, or not tokenized; ConfigError for a stride
    out of range, and for an encoder, which would read the token that it is asked for.
    """
    check_causal(model, "perplexity")
    if block_size is None:
        block_size = model.transformer.config.max_positions
    if stride is None:
        stride = max(1, block_size // 2)
    encoded = windows(np.asarray(tokens), block_size, stride)
    with eval_replicas(model, len(encoded), threads) as replicas:
        loss = validate(replicas, encoded).loss
    return math.exp(loss)


def eval_replicas(model: Model, n_batches: int, threads: int = 0) -> DataParallel:
    """Replicas in eval mode, no more than there are batches; the model itself is not among them."""
    return DataParallel(model.replica().eval(), min(threads or cores(), n_batches))


@dataclass(frozen=True)
class Validation:
    """What is measured after each epoch; what a kind of model does not have is None."""

    loss: float
    accuracy: float | None = None
    macro_f1: float | None = None


def validate(
    replicas: DataParallel, encoded: Encoded, on_batch: Callable[[], None] | None = None
) -> Validation:
    """Mean loss over the labels that count, of replicas in eval mode, and how good they are.

    Of each label only its probability and what was predicted instead are stored: a language model
    has a vocabulary of probabilities for every token. `on_batch` is called with each batch.
    """
    regressor = replicas.replicas[0]
    numbers = isinstance(regressor, Regressor)

    def at_each_label(p: Array, batch: Batch) -> Array:
        if on_batch is not None:
            on_batch()
        if numbers:
            return p
        of_label, right = at_labels(p, batch.labels)
        return np.stack([of_label, right, p.argmax(axis=-1)], axis=-1)  # (B, 3) or (B, T, 3)

    labels = encoded.labels
    plan = batches(encoded, max(1, AT_ONCE // (labels.size // len(encoded))))
    found = map_batches(replicas, plan, at_each_label)
    if isinstance(regressor, Regressor):
        return Validation(SquaredError(regressor.unit)(found, labels))
    loss, accuracy = means(found[..., 0], found[..., 1], labels)
    if labels.ndim > 1:
        return Validation(loss, accuracy)
    answers, seen = found[..., 2].astype(np.int64), labels != IGNORE
    n_classes = int(max(answers.max(), labels.max())) + 1
    confusion = confusion_matrix(labels[seen], answers[seen], n_classes)
    return Validation(loss, accuracy, macro_f1(confusion))


def map_batches(
    replicas: DataParallel, plan: Batches, function: Callable[[Array, Batch], Array]
) -> Array:
    """`function(p, batch)` of each batch's probabilities, one row for each example in order.

    Of a regressor, p is what it predicts, (B, 1).
    """

    def forward(model: Model, batch: Batch) -> tuple[Array, Array]:
        logits = model(batch.ids, batch.attention_mask, batch.token_types)
        p = logits if numbers else softmax(logits)
        check_finite(p)
        return batch.index, function(p, batch)

    numbers = isinstance(replicas.replicas[0], Regressor)

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

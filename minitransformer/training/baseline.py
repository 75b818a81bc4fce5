"""The baseline that a fine-tuned transformer has to beat: a linear model on a bag of words.

It learns in about a second. Where it is as good, the transformer has learnt nothing that needs the
order of words, or a pretrained encoder.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..data.splits import Split
from ..errors import ShapeError
from ..nn.losses import CrossEntropy, SquaredError
from ..nn.module import Array, Module, Parameter
from .metrics import balanced_weights
from .optim import AdamW, warmup_linear_decay

STEPS, RATE = 100, 0.2  # of AdamW on all examples at once
C = 1.0  # how little the weights are held down, as in scikit-learn
MOST_WORDS = 50_000


@dataclass(frozen=True)
class Sparse:
    """A matrix (n, V) with few entries: values (E,), and the row and column of each (E,)."""

    rows: Array
    columns: Array
    values: Array
    shape: tuple[int, int]


class BagOfWords(Module):
    """Softmax or linear regression on weighted word counts: y = x W + b.

    Shapes: x a `Sparse` (n, V) -> y (n, K). Nothing trains before it: backward returns None.
    Raises: ShapeError if x has not V columns.
    """

    def __init__(self, n_words: int, n_outputs: int) -> None:
        self.weight = Parameter(np.zeros((n_words, n_outputs)))  # (V, K)
        self.bias = Parameter(np.zeros(n_outputs))

    def forward(self, x: Sparse) -> Array:
        n, n_words = x.shape
        if n_words != len(self.weight.value):
            raise ShapeError(f"x has {n_words} words, expected {len(self.weight.value)}")
        y = np.empty((n, len(self.bias.value)))
        for k, w in enumerate(self.weight.value.T):  # y_ik = sum_j x_ij W_jk
            y[:, k] = np.bincount(x.rows, x.values * w[x.columns], n)
        self.save_for_backward(y.shape, x)
        return y + self.bias.value

    def backward(self, dy: Array) -> None:
        (x,) = self.pop_saved(dy)
        dw = np.empty_like(self.weight.value)
        for k, d in enumerate(dy.T):  # dW_jk = sum_i x_ij dy_ik
            dw[:, k] = np.bincount(x.columns, x.values * d[x.rows], len(dw))
        self.weight.accumulate(dw)
        self.bias.accumulate(dy.sum(axis=0))


class Vocabulary:
    """Words -> columns, and TF-IDF: count times log((1 + n) / (1 + texts with the word)) + 1.

    Each row has length 1. (Salton and Buckley 1988, doi 10.1016/0306-4573(88)90021-0; smoothed as
    in scikit-learn.) Words are taken that occur in two texts or more, the 50,000 most frequent.
    """

    def __init__(self, split: Split) -> None:
        found = Counter(word for words in words_of(split) for word in set(words))
        known = [(word, n) for word, n in found.most_common(MOST_WORDS) if n > 1]
        self.columns = {word: column for column, (word, _) in enumerate(known)}
        counts = np.array([n for _, n in known], np.float64)
        self.idf = np.log((1 + len(split)) / (1 + counts)) + 1

    def encode(self, split: Split) -> Sparse:
        rows: list[int] = []
        columns: list[int] = []
        counts: list[int] = []
        for row, words in enumerate(words_of(split)):
            found = Counter(self.columns[word] for word in words if word in self.columns)
            rows += [row] * len(found)
            columns += found.keys()
            counts += found.values()
        index, at = np.array(rows, np.int64), np.array(columns, np.int64)
        values = np.array(counts, np.float64) * self.idf[at]
        length = np.sqrt(np.bincount(index, values**2, len(split)))
        return Sparse(index, at, values / length[index], (len(split), len(self.idf)))


def words_of(split: Split) -> Iterator[list[str]]:
    """The words of each text in lower case; of a pair also the second's, and those of both."""
    for i, text in enumerate(split.texts):
        words = re.findall(r"\w+", text.lower())
        if split.pairs is not None:
            second = re.findall(r"\w+", split.pairs[i].lower())
            both = sorted(set(words) & set(second))
            words = [*words, *(f"2 {word}" for word in second), *(f"1&2 {word}" for word in both)]
        yield words


class Baseline:
    """The bag of words, fitted to a split: logistic regression for classes, ridge for a number.

    Minimizes the mean loss + |W|^2 / (2 C n). Classes count alike, however rare they are.
    """

    def __init__(self, train: Split, n_classes: int) -> None:
        """`n_classes`: 1 for a number."""
        self.vocabulary = Vocabulary(train)
        x, y, n = self.vocabulary.encode(train), train.labels, len(train)
        self.model = BagOfWords(x.shape[1], n_classes).train()
        self.location, self.scale = 0.0, 1.0
        loss: CrossEntropy | SquaredError
        if n_classes == 1:
            self.location, self.scale = float(y.mean()), float(y.std()) or 1.0
            y, loss = (y - self.location) / self.scale, SquaredError()
        else:
            loss = CrossEntropy(class_weights=balanced_weights(y, n_classes))
        optimizer = AdamW(self.model.trainable_parameters(), RATE, weight_decay=0.0)
        schedule = warmup_linear_decay(RATE, 0, STEPS)
        for step in range(STEPS):
            self.model.zero_grad()
            loss(self.model(x), y)
            self.model.backward(loss.backward())
            self.model.weight.accumulate(self.model.weight.value / (C * n))
            optimizer.lr = schedule(step)
            optimizer.step()
        self.model.eval()

    def predict(self, split: Split) -> Array:
        """(n,) the class, or the number, of each example."""
        y = self.model(self.vocabulary.encode(split))
        if y.shape[1] == 1:
            return np.asarray(self.location + self.scale * y[:, 0])
        return np.asarray(y.argmax(axis=1))

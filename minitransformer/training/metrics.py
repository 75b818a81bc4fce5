"""How good answers are: class by class, with an interval, and beside other answers.

A class of 2 % is invisible to accuracy: whoever never names it is right in 98 % of all cases. The
mean of the classes' F1 (macro-F1) sees it, so that is what answers are compared by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..data.splits import on_one_line
from ..nn.module import Array

Z = 1.959964  # a normal variable is within that many standard deviations in 95 % of all cases
RESAMPLES = 2000  # of a bootstrap
REPORT_COLUMNS = ("precision", "recall", "f1-score", "support")


def confusion_matrix(labels: Array, predictions: Array, n_classes: int) -> Array:
    """(K, K): how many examples with the label of the row got the prediction of the column."""
    cells = np.bincount(labels * n_classes + predictions, minlength=n_classes**2)
    return cells.reshape(n_classes, n_classes)


def per_class(confusion: Array) -> dict[str, Array]:
    """Precision, recall, F1 and support of each class (K,); 0 where there is nothing to divide by.

    A class that is never predicted has precision 0, as in scikit-learn with zero_division=0.
    """
    right, predicted, support = confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)
    return {
        "precision": right / np.maximum(predicted, 1),
        "recall": right / np.maximum(support, 1),
        "f1": 2 * right / np.maximum(predicted + support, 1),
        "support": support,
    }


def macro_f1(confusion: Array) -> float:
    """The mean F1 of the classes that occur, as label or as prediction."""
    return float(per_class(confusion)["f1"][occurring(confusion)].mean())


def occurring(confusion: Array) -> Array:
    """(K,) whether a class occurs, as label or as prediction."""
    return confusion.sum(axis=0) + confusion.sum(axis=1) > 0


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share, right / n (Wilson 1927, doi 10.1080/01621459.1927.10502953).

    Unlike share ± 1.96 standard errors it stays within 0 and 1, and has a width at 0 and 1.
    """
    share, z2 = right / n, Z**2 / n
    middle = (share + z2 / 2) / (1 + z2)
    half = Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n)) / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def resampled_macro_f1(
    labels: Array, answers: Sequence[Array], n_classes: int, seed: int = 0
) -> Array:
    """(R, len(answers)): macro-F1 of each answer on R samples of the examples, drawn with return.

    The bootstrap (Efron 1979, doi 10.1214/aos/1176344552). Several answers are measured on the same
    samples, so that their differences are paired. Equal examples are drawn together: a sample is
    how often each kind of (label, answer, ...) occurs in it.
    """
    kinds, counts = np.unique(np.stack([labels, *answers]), axis=1, return_counts=True)
    n = len(labels)
    samples = np.random.default_rng(seed).multinomial(n, counts / n, RESAMPLES)  # (R, kinds)
    label = np.eye(n_classes)[kinds[0]]  # (kinds, K)
    found = []
    for kind in kinds[1:]:
        answer = np.eye(n_classes)[kind]
        right, both = samples @ (label * answer), samples @ (label + answer)  # (R, K)
        f1 = 2 * right / np.maximum(both, 1)
        found.append(f1.sum(axis=1) / np.maximum((both > 0).sum(axis=1), 1))
    return np.stack(found, axis=1)


def macro_f1_interval(
    labels: Array, predictions: Array, n_classes: int, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of macro-F1: between the 2.5th and 97.5th percentile of a bootstrap."""
    found = resampled_macro_f1(labels, [predictions], n_classes, seed)
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def better_share(labels: Array, a: Array, b: Array, n_classes: int, seed: int = 0) -> float:
    """In which share of a paired bootstrap's samples the macro-F1 of `a` is above that of `b`."""
    found = resampled_macro_f1(labels, [a, b], n_classes, seed)
    return float((found[:, 0] > found[:, 1]).mean())


def nearer_share(labels: Array, a: Array, b: Array, seed: int = 0) -> float:
    """In which share of a paired bootstrap's samples `a` has a smaller squared error than `b`."""
    gain = (b - labels) ** 2 - (a - labels) ** 2
    rng, n = np.random.default_rng(seed), len(labels)
    return float(np.mean([gain[rng.integers(0, n, n)].sum() > 0 for _ in range(RESAMPLES)]))


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p-value of so many wins and losses if both were equally likely; ties do not count.

    On examples that one of two models alone has right, it is McNemar's exact test (McNemar 1947,
    doi 10.1007/BF02295996).
    """
    n, fewer = wins + losses, min(wins, losses)
    if n == 0:
        return 1.0
    tail, binomial = 0, 1  # binomial = n over i; Python's whole numbers are exact
    for i in range(fewer + 1):
        tail += binomial
        binomial = binomial * (n - i) // (i + 1)
    return min(1.0, 2 * tail / 2**n)


def pearson(x: Array, y: Array) -> float:
    """Pearson's correlation of two arrays (n,); NaN if either is constant."""
    x, y = x - x.mean(), y - y.mean()
    norm = math.sqrt(float((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else math.nan


def pearson_interval(r: float, n: int) -> tuple[float, float]:
    """The 95 % interval of Pearson's correlation on n examples: artanh r is nearly normal.

    (Fisher 1915, doi 10.2307/2331838.) Of three examples or fewer, or NaN, nothing is known.
    """
    if n <= 3 or math.isnan(r):
        return -1.0, 1.0
    z, half = math.atanh(max(-1 + 1e-12, min(r, 1 - 1e-12))), Z / math.sqrt(n - 3)
    return math.tanh(z - half), math.tanh(z + half)


def spearman(x: Array, y: Array) -> float:
    """Spearman's correlation: Pearson's of the ranks; equal values share the mean of theirs."""
    return pearson(ranks(x), ranks(y))


def ranks(x: Array) -> Array:
    """(n,) the rank of each value, from 0; equal values have the mean of their ranks."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts + 1) / 2)[inverse]


def classification_report(confusion: Array, label_names: Sequence[str]) -> str:
    """Precision, recall, F1 and support as a table, in the layout of scikit-learn.

    As there, the classes are those that occur, as label or as prediction.
    """
    occurs = np.flatnonzero(occurring(confusion)).tolist()
    label_names = [on_one_line(label_names[k]) for k in occurs]
    confusion = confusion[np.ix_(occurs, occurs)]
    found = per_class(confusion)
    support, n = found["support"], int(confusion.sum())
    columns = np.stack([found["precision"], found["recall"], found["f1"]], axis=1)  # (K, 3)
    width = max(*map(len, label_names), len("weighted avg"))
    row = f"{{:>{width}}} " + " {:>9.2f}" * 3 + " {:>9}"
    lines = [f"{'':>{width}} " + "".join(f" {c:>9}" for c in REPORT_COLUMNS), ""]
    lines += [
        row.format(name, *values, n_k)
        for name, values, n_k in zip(label_names, columns.tolist(), support, strict=True)
    ]
    accuracy = confusion.trace() / n
    lines += ["", f"{'accuracy':>{width}} " + " " * 20 + f" {accuracy:>9.2f} {n:>9}"]
    weighted = support @ columns / n
    lines += [row.format("macro avg", *columns.mean(axis=0), n)]
    lines += [row.format("weighted avg", *weighted, n)]
    return "\n".join(lines)


def confusion_table(confusion: Array, label_names: Sequence[str]) -> str:
    """The confusion matrix as text: a row for each label, a column for each prediction."""
    label_names = [on_one_line(name) for name in label_names]
    cells = [["label \\ predicted", *label_names]]
    cells += [[name, *map(str, row)] for name, row in zip(label_names, confusion, strict=True)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        for row in cells
    )


def balanced_weights(labels: Array, n_classes: int) -> tuple[float, ...]:
    """(K,) n / (n_classes * examples of the class), as in scikit-learn; an absent class has one."""
    examples = np.bincount(labels[labels >= 0], minlength=n_classes)
    return tuple((examples.sum() / (n_classes * np.maximum(examples, 1))).tolist())

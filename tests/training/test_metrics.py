"""Metrics: known values, their behaviour at the edges, and scikit-learn's numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minitransformer.training import metrics

RNG = np.random.default_rng(0)
RARE = np.array([0] * 98 + [1] * 2)  # 2 % positives


def answers(n_classes: int, n: int, right: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    labels, other = RNG.integers(0, n_classes, (2, n))
    return labels, np.where(RNG.random(n) < right, labels, other)


def test_the_majority_has_a_high_accuracy_and_a_low_macro_f1() -> None:
    confusion = metrics.confusion_matrix(RARE, np.zeros(100, int), 2)
    assert confusion.tolist() == [[98, 0], [2, 0]]
    assert confusion.trace() / 100 == 0.98
    assert metrics.macro_f1(confusion) == pytest.approx((2 * 98 / 198) / 2)
    assert metrics.per_class(confusion)["recall"].tolist() == [1, 0]
    assert metrics.per_class(confusion)["precision"].tolist() == [0.98, 0]


def test_a_class_that_does_not_occur_does_not_count() -> None:
    labels = np.array([0, 0, 2, 2])
    assert metrics.macro_f1(metrics.confusion_matrix(labels, labels, 5)) == 1
    assert metrics.macro_f1_interval(labels, labels, 5) == (1, 1)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (0, 10, 0.0, 0.2775),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_interval(right: int, n: int, low: float, high: float) -> None:
    assert metrics.wilson_interval(right, n) == pytest.approx((low, high), abs=1e-4)


def test_wilson_interval_solves_its_equation() -> None:
    """Against the roots of (p - q)^2 = z^2 q (1 - q) / n, which is what it solves."""
    for right, n in ((0, 10), (7, 10), (10, 10), (850, 1000)):
        p, z2 = right / n, metrics.Z**2 / n
        roots = np.sort(np.roots([1 + z2, -(2 * p + z2), p * p]))
        np.testing.assert_allclose(metrics.wilson_interval(right, n), roots.real, atol=1e-12)


def test_interval_of_pearson() -> None:
    """By hand: artanh 0.5 = 0.5493, plus and minus 1.96 / sqrt(25) = 0.3920."""
    expected = (math.tanh(0.1573), math.tanh(0.9413))
    assert metrics.pearson_interval(0.5, 28) == pytest.approx(expected, abs=1e-4)
    assert metrics.pearson_interval(1.0, 2) == (-1, 1)  # two points are always on a line
    assert metrics.pearson_interval(math.nan, 100) == (-1, 1)


def test_intervals_of_macro_f1_cover_it_and_shrink_with_more_examples() -> None:
    widths = []
    for n in (100, 10_000):
        labels, found = answers(3, n)
        low, high = metrics.macro_f1_interval(labels, found, 3)
        assert low < metrics.macro_f1(metrics.confusion_matrix(labels, found, 3)) < high
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(10, rel=0.3)


def test_better_is_said_of_what_is_better_alone() -> None:
    labels, found = answers(2, 500, right=0.7)
    better = np.where(RNG.random(500) < 0.5, labels, found)
    assert metrics.better_share(labels, better, found, 2) > 0.99
    assert metrics.better_share(labels, found, better, 2) < 0.01
    assert metrics.better_share(labels, found, found, 2) == 0  # never higher than itself
    numbers = RNG.standard_normal(500)
    near, far = (numbers + RNG.standard_normal(500) * size for size in (0.5, 1.0))
    assert metrics.nearer_share(numbers, near, far) > 0.99
    assert metrics.nearer_share(numbers, near, near) == 0


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [(0, 0, 1), (7, 7, 1), (0, 5, 0.0625), (3, 9, 0.14599609375), (500, 400, 0.000956444126919)],
)
def test_sign_test(wins: int, losses: int, p: float) -> None:
    assert metrics.sign_test(wins, losses) == pytest.approx(p, rel=1e-3)
    assert metrics.sign_test(losses, wins) == metrics.sign_test(wins, losses)


def test_correlations() -> None:
    x = np.array([1.0, 2, 2, 5])
    assert metrics.ranks(x).tolist() == [0, 1.5, 1.5, 3]
    assert metrics.spearman(x, x**3) == pytest.approx(1)
    assert metrics.pearson(x, -3 * x) == pytest.approx(-1)
    assert np.isnan(metrics.pearson(x, np.ones(4)))


def test_balanced_weights_give_each_class_the_same_sum() -> None:
    weights = metrics.balanced_weights(RARE, 2)
    assert weights[0] * 98 == pytest.approx(weights[1] * 2) == pytest.approx(50)


@pytest.mark.reference
@pytest.mark.parametrize(("n_classes", "n"), [(2, 200), (5, 77), (28, 900), (4, 9)])
def test_as_scikit_learn(n_classes: int, n: int) -> None:
    sklearn, stats = pytest.importorskip("sklearn.metrics"), pytest.importorskip("scipy.stats")
    labels, found = answers(n_classes, n)
    confusion = metrics.confusion_matrix(labels, found, n_classes)
    assert (confusion == sklearn.confusion_matrix(labels, found, labels=range(n_classes))).all()
    f1 = sklearn.f1_score(labels, found, average="macro")
    assert metrics.macro_f1(confusion) == pytest.approx(f1, rel=1e-12)
    names = [f"class {k}" * (1 + k % 3) for k in range(n_classes)]
    occurring = [names[k] for k in np.union1d(labels, found)]
    expected = sklearn.classification_report(labels, found, target_names=occurring, zero_division=0)
    assert metrics.classification_report(confusion, names) == expected.rstrip("\n")
    assert metrics.spearman(labels, found) == pytest.approx(stats.spearmanr(labels, found)[0])
    assert metrics.sign_test(n, 2 * n) == pytest.approx(stats.binomtest(n, 3 * n).pvalue)
    interval = stats.binomtest(n // 3, n).proportion_ci(method="wilson")
    assert metrics.wilson_interval(n // 3, n) == pytest.approx((interval.low, interval.high))
    weights = pytest.importorskip("sklearn.utils").compute_class_weight(
        "balanced", classes=np.unique(labels), y=labels
    )
    if len(weights) == n_classes:
        assert metrics.balanced_weights(labels, n_classes) == pytest.approx(weights)

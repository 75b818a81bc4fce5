"""Cross-entropy: values, ignored labels, bad labels."""

import math

import numpy as np
import pytest

from minitransformer.errors import DataError, ShapeError
from minitransformer.nn.functional import IGNORE, cross_entropy, cross_entropy_backward


def test_cross_entropy_of_a_sure_and_of_an_even_guess() -> None:
    labels = np.array([2, 0])
    sure = np.array([[0.0, 0, 50], [50, 0, 0]])
    assert cross_entropy(sure, labels)[0] == pytest.approx(0, abs=1e-12)
    assert cross_entropy(np.zeros((2, 3)), labels)[0] == pytest.approx(math.log(3))


def test_ignored_labels_change_neither_loss_nor_gradient() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 4, 5))
    labels = rng.integers(0, 5, (2, 4))
    labels[0, 2:] = IGNORE
    loss, p = cross_entropy(logits, labels, 0.1)
    counted = labels != IGNORE
    loss_of_the_rest, p_rest = cross_entropy(logits[counted], labels[counted], 0.1)
    assert loss == pytest.approx(loss_of_the_rest)
    d = cross_entropy_backward(p, labels, 0.1)
    np.testing.assert_array_equal(d[~counted], 0)
    np.testing.assert_allclose(d[counted], cross_entropy_backward(p_rest, labels[counted], 0.1))


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.array([0, 3]), DataError, "label 3 is out of range: expected 0 to 2"),
        (np.array([-1, 0]), DataError, "label -1 is out of range"),
        (np.array([IGNORE, IGNORE]), DataError, "no label to learn from"),
        (np.array([0.0, 1.0]), ShapeError, "labels of dtype float64: expected integers"),
        (np.array([0]), ShapeError, r"labels of shape \(1,\) do not fit"),
    ],
)
def test_bad_labels_are_named(labels: np.ndarray, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        cross_entropy(np.zeros((2, 3)), labels)

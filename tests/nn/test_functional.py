"""The maths: exact where it claims to be, at any size, for extreme and for strided input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitransformer.errors import ConfigError, DataError, ShapeError
from minitransformer.nn.functional import (
    ACTIVATIONS,
    IGNORE,
    TILE,
    activation_named,
    attention_weights,
    cross_entropy,
    cross_entropy_backward,
    gelu,
    layer_norm,
    softmax,
)


def exact_gelu(x: np.ndarray) -> np.ndarray:
    flat = [v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.astype(np.float64).ravel()]
    return np.array(flat).reshape(x.shape)


def test_float32_gelu_is_exact_to_its_rounding() -> None:
    x = np.concatenate([np.linspace(-12, 12, 40_001), [0.0, -0.0, 1e-8, -1e-30, 300.0, -300.0]])
    x = x.astype(np.float32)
    error = np.abs(gelu(x)[0] - exact_gelu(x))
    assert (error <= 2e-7 * np.maximum(1, np.abs(x))).all()


def test_float32_gelu_slope_agrees_with_float64() -> None:
    x = np.linspace(-9, 9, 30_001)
    slope32 = gelu(x.astype(np.float32))[1]
    np.testing.assert_allclose(slope32, gelu(x)[1], atol=5e-7)


@pytest.mark.filterwarnings("error")
def test_float32_gelu_of_huge_numbers_is_the_number_or_zero() -> None:
    x = np.geomspace(6, 1e30, 1_000).astype(np.float32)
    y, slope = gelu(np.concatenate([x, -x]))
    np.testing.assert_array_equal(y, np.concatenate([x, 0 * x]))
    np.testing.assert_allclose(slope, np.repeat([1, 0], len(x)), atol=1e-7)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 7, TILE - 1, TILE, TILE + 1])
def test_activation_does_not_depend_on_where_the_tiles_end(
    name: str, dtype: type, size: int
) -> None:
    x = np.random.default_rng(0).normal(0, 2, size).astype(dtype)
    y, slope = ACTIVATIONS[name](x)
    y_last, slope_last = ACTIVATIONS[name](x[-1:].copy())
    assert y.dtype == dtype
    np.testing.assert_allclose(y[-1:], y_last, rtol=1e-6)
    np.testing.assert_allclose(slope[-1:], slope_last, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_leaves_its_input_alone_and_takes_strided_arrays(name: str) -> None:
    x = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    before = x.copy()
    y, slope = ACTIVATIONS[name](x.T[::2])
    np.testing.assert_array_equal(x, before)
    expected, expected_slope = ACTIVATIONS[name](np.ascontiguousarray(x.T[::2]))
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(slope, expected_slope)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_is_only_computed_when_wanted(name: str) -> None:
    x = np.linspace(-3, 3, 11)
    y, slope = ACTIVATIONS[name](x, with_derivative=False)
    assert slope is None
    np.testing.assert_array_equal(y, ACTIVATIONS[name](x)[0])


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.filterwarnings("error")
def test_activation_stays_finite_at_the_extremes(name: str) -> None:
    x = np.array([-1e4, -88.0, -6.0, 0.0, 6.0, 88.0, 1e4], np.float32)
    y, slope = ACTIVATIONS[name](x)
    assert np.isfinite(y).all()
    assert np.isfinite(slope).all()


def test_unknown_activation_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'swish'.*relu, gelu"):
        activation_named("swish")


@given(st.integers(1, 5), st.integers(1, 40), st.floats(-1e4, 1e4))
def test_softmax_sums_to_one_and_ignores_a_shift(rows: int, columns: int, shift: float) -> None:
    scores = np.random.default_rng(columns).normal(0, 5, (rows, columns))
    p = softmax(scores)
    np.testing.assert_allclose(p.sum(axis=-1), 1, atol=1e-12)
    np.testing.assert_allclose(softmax(scores + shift), p, atol=1e-9)


@given(st.sampled_from([0.1, 1, 30, 1e3, 1e100]), st.integers(1, 9), st.booleans())
def test_attention_weights_of_small_and_of_huge_scores(size: float, n: int, masked: bool) -> None:
    rng = np.random.default_rng(n)
    q, k = rng.normal(0, size, (2, 2, 3, n, 4))
    bias = np.zeros((2, 1, 1, n))
    bias[1, ..., 1:] = -1e300 if masked else 0  # the second sequence sees its first position only
    p = attention_weights(q, k, bias)
    shifted = softmax(q @ k.swapaxes(-1, -2) / 2 + bias)
    np.testing.assert_allclose(p, shifted, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-12)


@given(st.integers(2, 64), st.floats(0.1, 100), st.floats(-100, 100))
def test_layer_norm_gives_mean_zero_and_deviation_one(d: int, scale: float, shift: float) -> None:
    x = np.random.default_rng(d).normal(size=(3, d)) * scale + shift
    y, _, _ = layer_norm(x, np.ones(d), np.zeros(d), 1e-12)
    np.testing.assert_allclose(y.mean(axis=-1), 0, atol=1e-9)
    np.testing.assert_allclose(y.std(axis=-1), 1, atol=1e-6)


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
        (np.array([0]), ShapeError, r"labels of shape \(1,\) do not fit"),
    ],
)
def test_bad_labels_are_named(labels: np.ndarray, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        cross_entropy(np.zeros((2, 3)), labels)

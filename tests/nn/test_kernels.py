"""Kernels: accuracy, tiles, extreme values, and input that is not contiguous."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitransformer.errors import ConfigError
from minitransformer.nn import functional, kernels
from minitransformer.nn.kernels import (
    ACTIVATIONS,
    TILE,
    activation_named,
    attention_weights,
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


def test_float32_gelu_derivative_agrees_with_float64() -> None:
    x = np.linspace(-9, 9, 30_001)
    derivative32 = gelu(x.astype(np.float32))[1]
    np.testing.assert_allclose(derivative32, gelu(x)[1], atol=5e-7)


@pytest.mark.filterwarnings("error")
def test_float32_gelu_of_huge_numbers_is_the_number_or_zero() -> None:
    x = np.geomspace(6, 1e30, 1_000).astype(np.float32)
    y, derivative = gelu(np.concatenate([x, -x]))
    np.testing.assert_array_equal(y, np.concatenate([x, 0 * x]))
    np.testing.assert_allclose(derivative, np.repeat([1, 0], len(x)), atol=1e-7)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 7, TILE - 1, TILE, TILE + 1])
def test_activation_does_not_depend_on_where_the_tiles_end(
    name: str, dtype: type, size: int
) -> None:
    x = np.random.default_rng(0).normal(0, 2, size).astype(dtype)
    y, derivative = ACTIVATIONS[name](x)
    y_last, derivative_last = ACTIVATIONS[name](x[-1:].copy())
    assert y.dtype == dtype
    np.testing.assert_allclose(y[-1:], y_last, rtol=1e-6)
    np.testing.assert_allclose(derivative[-1:], derivative_last, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", [(TILE + 1,), (3, TILE // 2), (2, TILE + 1), (0, 4), (1,)])
def test_adamw_does_not_depend_on_where_the_tiles_end(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    value, grad, m = (rng.normal(size=shape) for _ in range(3))
    how = (3, 1e-3, (0.9, 0.999), 1e-8, 0.01)
    expected = functional.adamw(value, grad, m, m * m, *how)
    for ours, theirs in zip(kernels.adamw(value, grad, m, m * m, *how), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_leaves_its_input_alone_and_takes_strided_arrays(name: str) -> None:
    x = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    before = x.copy()
    y, derivative = ACTIVATIONS[name](x.T[::2])
    np.testing.assert_array_equal(x, before)
    expected, expected_derivative = ACTIVATIONS[name](np.ascontiguousarray(x.T[::2]))
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(derivative, expected_derivative)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_derivative_is_computed_only_if_wanted(name: str) -> None:
    x = np.linspace(-3, 3, 11)
    y, derivative = ACTIVATIONS[name](x, with_derivative=False)
    assert derivative is None
    np.testing.assert_array_equal(y, ACTIVATIONS[name](x)[0])


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.filterwarnings("error")
def test_activation_stays_finite_at_the_extremes(name: str) -> None:
    x = np.array([-1e4, -88.0, -6.0, 0.0, 6.0, 88.0, 1e4], np.float32)
    y, derivative = ACTIVATIONS[name](x)
    assert np.isfinite(y).all()
    assert np.isfinite(derivative).all()


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
    mask = np.zeros((2, 1, 1, n))
    mask[1, ..., 1:] = -1e300 if masked else 0  # the second sequence sees its first position only
    p = attention_weights(q, k, mask)
    shifted = softmax(q @ k.swapaxes(-1, -2) / 2 + mask)
    np.testing.assert_allclose(p, shifted, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-12)


@given(st.integers(2, 64), st.floats(0.1, 100), st.floats(-100, 100))
def test_layer_norm_gives_mean_zero_and_deviation_one(d: int, scale: float, shift: float) -> None:
    x = np.random.default_rng(d).normal(size=(3, d)) * scale + shift
    y, _, _ = layer_norm(x, np.ones(d), np.zeros(d), 1e-12)
    np.testing.assert_allclose(y.mean(axis=-1), 0, atol=1e-9)
    np.testing.assert_allclose(y.std(axis=-1), 1, atol=1e-6)

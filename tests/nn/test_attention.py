"""Attention of few queries without keys and values, against attention with them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitransformer.nn.attention import MultiHeadAttention
from minitransformer.nn.kernels import over_inputs_is_cheaper

Array = np.ndarray


def two_ways(causal: bool, dropout: float, dtype: type) -> tuple[MultiHeadAttention, ...]:
    """The same attention twice: trainable, so with keys and values; and frozen."""
    rng = np.random.default_rng(0)
    trainable, frozen = (MultiHeadAttention(12, 3, causal, dropout) for _ in range(2))
    for parameter, other in zip(trainable.parameters(), frozen.parameters(), strict=True):
        parameter.value = rng.normal(0, 0.5, parameter.shape).astype(dtype)
        other.value = parameter.value
    return trainable, frozen.freeze()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@given(
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from([0, 0.4]),
)
def test_few_queries_give_the_same_without_keys_and_values(
    dtype: type, batch: int, length: int, queries: int, causal: bool, dropout: float
) -> None:
    queries = min(queries, length)
    rng = np.random.default_rng(length)
    x = rng.normal(size=(batch, 12, length)).astype(dtype).swapaxes(1, 2)  # not contiguous
    mask = np.arange(length) < rng.integers(1, length + 1, (batch, 1))
    dy = rng.normal(size=(batch, queries, 12)).astype(dtype)
    results = []
    for attention in two_ways(causal, dropout, dtype):
        attention.dropout.rng = np.random.default_rng(1)
        y = attention(x, mask, queries)
        results.append((y, attention.backward(dy)))
    (y, dx), (y_frozen, dx_frozen) = results
    close = {"rtol": 1e-9, "atol": 1e-10} if dtype is np.float64 else {"rtol": 1e-3, "atol": 1e-4}
    np.testing.assert_allclose(y_frozen, y, **close)
    np.testing.assert_allclose(dx_frozen, dx, **close)
    assert y_frozen.dtype == dx_frozen.dtype == dtype


def test_frozen_attention_of_one_query_saves_no_keys_and_values() -> None:
    from minitransformer.costs.memory import saved_bytes

    x = np.random.default_rng(0).normal(size=(2, 9, 12))
    trainable, frozen = two_ways(False, 0.0, np.float64)
    trainable(x, None, 1)
    frozen(x, None, 1)
    assert saved_bytes(frozen) < saved_bytes(trainable) / 2


def test_many_queries_use_keys_and_values() -> None:
    assert over_inputs_is_cheaper(1, 32, 12, 384)
    assert not over_inputs_is_cheaper(32, 32, 12, 384)
    assert not over_inputs_is_cheaper(1, 1, 12, 384)

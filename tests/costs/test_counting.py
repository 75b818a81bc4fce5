"""Counting mode on products whose size is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minitransformer.costs.counting import count_multiply_adds
from minitransformer.errors import ConfigError
from minitransformer.nn.layers import Linear
from minitransformer.nn.module import Array, Module, Parameter


class Product(Module):
    """Whatever `compute` does with a weight (3, 4)."""

    def __init__(self, compute: Any) -> None:
        self.weight = Parameter(np.ones((3, 4), np.float32))
        self.compute = compute

    def forward(self, x: Array) -> Array:
        y: Array = self.compute(x, self.weight.value)
        return y


def counted(compute: Any, *shape: int) -> int:
    module = Product(compute)
    with count_multiply_adds(module) as counter:
        module(np.ones(shape, np.float32))
    return counter.multiply_adds


@pytest.mark.parametrize(
    ("compute", "shape", "expected"),
    [
        (lambda x, w: x @ w, (2, 3), 2 * 3 * 4),
        (lambda x, w: x @ w, (5, 2, 3), 5 * 2 * 3 * 4),
        (lambda x, w: w.T @ x, (3, 2), 2 * 3 * 4),
        (lambda x, w: x @ w[:, 0], (2, 3), 2 * 3),
        (lambda x, w: np.matmul(x, w, out=np.empty((2, 4), np.float32)), (2, 3), 2 * 3 * 4),
        (lambda x, w: np.maximum(x @ w, 0) @ w.T, (2, 3), 2 * (2 * 3 * 4)),  # results count too
        (lambda x, w: np.stack([w, w]) @ x, (4, 5), 2 * 3 * 4 * 5),
        (lambda x, w: np.einsum("nk,km->nm", x, w), (2, 3), 2 * 3 * 4),
        (lambda x, w: np.einsum("bnk,km->bnm", x, w), (5, 2, 3), 5 * 2 * 3 * 4),
        (lambda x, w: np.einsum("...k,km->...m", x, w), (5, 2, 3), 5 * 2 * 3 * 4),
        (lambda x, w: np.einsum("ni,ni->n", x, w), (3, 4), 0),  # scalar products of rows
        (lambda x, w: np.einsum("ni->n", w), (1,), 0),
        (lambda x, w: x * w + w, (3, 4), 0),
    ],
)
def test_products_are_counted_however_they_are_written(
    compute: Any, shape: tuple[int, ...], expected: int
) -> None:
    assert counted(compute, *shape) == expected


def test_what_would_not_be_counted_is_an_error() -> None:
    with pytest.raises(ConfigError, match="a @ b"):
        counted(lambda x, w: np.dot(x, w), 2, 3)


def test_counting_changes_nothing_and_ends() -> None:
    layer = Linear(3, 4, np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)
    expected = layer(x)
    layer.backward(np.ones((2, 4), np.float32))
    gradient = layer.weight.grad
    assert gradient is not None
    gradient, value = gradient.copy(), layer.weight.value
    layer.zero_grad()
    with count_multiply_adds(layer) as counter:
        y = layer(x)
        assert counter.multiply_adds == 2 * 3 * 4
        layer.backward(np.ones((2, 4), np.float32))
        layer(x)
        layer.backward(np.ones((2, 4), np.float32))
    assert np.array_equal(y, expected)
    assert np.array_equal(layer.weight.grad, 2 * gradient)
    assert {type(layer.weight.value), type(layer.weight.grad)} == {np.ndarray}
    assert np.shares_memory(layer.weight.value, value)
    before = counter.multiply_adds
    layer(x)
    assert counter.multiply_adds == before == 2 * (3 * 2 * 3 * 4)  # forward, dx, dW; twice

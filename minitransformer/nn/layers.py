"""The layers that everything else is made of: Linear, Embedding, LayerNorm, Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ConfigError, ShapeError
from .functional import layer_norm, layer_norm_backward
from .module import Array, Module, Parameter


def truncated_normal(
    rng: np.random.Generator | None, shape: tuple[int, ...], sigma: float
) -> Array:
    """float32 N(0, sigma^2), redrawn where it falls outside two sigma; zeros without an rng."""
    if rng is None:
        return np.zeros(shape, np.float32)
    draw = rng.standard_normal(shape, dtype=np.float32)
    while (outside := np.abs(draw) > 2).any():
        draw[outside] = rng.standard_normal(int(outside.sum()), dtype=np.float32)
    return draw * np.float32(sigma)


def flat(x: Array) -> Array:
    """(..., d) -> (N, d): all leading axes in one."""
    return x.reshape(-1, x.shape[-1])


class Linear(Module):
    """Affine map over the last axis: y = x W + b.

    Shapes: x (..., d_in) -> y (..., d_out); weight (d_in, d_out); bias (d_out,).
    Raises: ShapeError if x's last axis is not d_in.
    """

    def __init__(
        self, d_in: int, d_out: int, rng: np.random.Generator | None = None, sigma: float = 0.02
    ) -> None:
        self.weight = Parameter(truncated_normal(rng, (d_in, d_out), sigma))
        self.bias = Parameter(np.zeros(d_out, np.float32))

    def forward(self, x: Array) -> Array:
        d_in, d_out = self.weight.shape
        if x.shape[-1] != d_in:
            raise ShapeError(
                f"Linear({d_in}, {d_out}) got x of shape {x.shape}; expected (..., {d_in})"
            )
        y = flat(x) @ self.weight.value  # (N, d_in) @ (d_in, d_out)
        y += self.bias.value
        y = y.reshape(*x.shape[:-1], d_out)
        self.save_for_backward(
            y.shape, x if self.weight.trainable else None
        )  # a frozen weight needs no input
        return y

    def backward(self, dy: Array) -> Array | None:
        (x,) = self.pop_saved(dy)
        if self.weight.trainable:
            self.weight.accumulate(flat(x).T @ flat(dy))  # (d_in, N) @ (N, d_out)
        if self.bias.trainable:
            self.bias.accumulate(flat(dy).sum(axis=0))
        if not self.needs_input_grad:
            return None
        dx = flat(dy) @ self.weight.value.T  # (N, d_out) @ (d_out, d_in)
        return dx.reshape(*dy.shape[:-1], -1)


class Embedding(Module):
    """A row of the weight for each integer: y = W[ids].

    Shapes: ids (...) integers -> y (..., d); weight (n, d). Integers have no gradient, so
    `backward` returns None.
    Raises: ShapeError if ids are not integers or out of range.
    """

    def __init__(
        self, n: int, d: int, rng: np.random.Generator | None = None, sigma: float = 0.02
    ) -> None:
        self.weight = Parameter(truncated_normal(rng, (n, d), sigma))

    def forward(self, ids: Array) -> Array:
        if not np.issubdtype(ids.dtype, np.integer):
            raise ShapeError(f"Embedding looks rows up by integers; got ids of dtype {ids.dtype}")
        n, d = self.weight.shape
        if ids.size and (ids.min() < 0 or ids.max() >= n):
            bad = ids[(ids < 0) | (ids >= n)][0]
            raise ShapeError(
                f"id {bad} is out of range: this embedding has rows 0 to {n - 1}; "
                "was the text tokenized for another model?"
            )
        self.save_for_backward((*ids.shape, d), ids)
        return self.weight.value[ids]

    def backward(self, dy: Array) -> None:
        (ids,) = self.pop_saved(dy)
        if self.weight.trainable:
            # Rows that share an id are summed: sort by id, then add up each run.
            order = np.argsort(ids, axis=None, kind="stable")
            rows, starts = np.unique(ids.ravel()[order], return_index=True)
            grad = np.zeros_like(self.weight.value)
            grad[rows] = np.add.reduceat(flat(dy)[order], starts, axis=0)
            self.weight.accumulate(grad)

    def propagate_requires_grad(self, needs_input_grad: bool = False) -> bool:
        return super().propagate_requires_grad(False)  # nothing trains before integers


class LayerNorm(Module):
    """y = gain (x - mean) / sqrt(variance + eps) + bias over the last axis.

    (Ba et al. 2016, arXiv 1607.06450, equation 4.)
    Shapes: x (..., d) -> y (..., d); weight (the gain) and bias (d,).
    """

    def __init__(self, d: int, eps: float = 1e-12) -> None:
        self.weight = Parameter(np.ones(d, np.float32))
        self.bias = Parameter(np.zeros(d, np.float32))
        self.eps = eps

    def shared_copy(self) -> LayerNorm:
        """A second walk through the same gain and bias (shared, not copied)."""
        twin = LayerNorm(self.weight.size, self.eps)
        twin.weight, twin.bias, twin.training = self.weight, self.bias, self.training
        return twin

    def forward(self, x: Array) -> Array:
        if x.shape[-1] != self.weight.size:
            raise ShapeError(f"LayerNorm({self.weight.size}) got x of shape {x.shape}")
        y, x_hat, rstd = layer_norm(x, self.weight.value, self.bias.value, self.eps)
        self.save_for_backward(y.shape, x_hat, rstd)
        return y

    def backward(self, dy: Array) -> Array | None:
        x_hat, rstd = self.pop_saved(dy)
        if self.weight.trainable:
            self.weight.accumulate(np.einsum("ni,ni->i", flat(dy), flat(x_hat)))
        if self.bias.trainable:
            self.bias.accumulate(flat(dy).sum(axis=0))
        if not self.needs_input_grad:
            return None
        return layer_norm_backward(dy, x_hat, rstd, self.weight.value)


class Dropout(Module):
    """In training, zero each entry with probability p and scale the rest by 1 / (1 - p).

    (Srivastava et al. 2014, in the inverted form: nothing to do in eval mode.)
    Shapes: x (...) -> y (...). `rng` may be replaced to make a run repeatable.
    Raises: ConfigError unless 0 <= p < 1.
    """

    def __init__(self, p: float, rng: np.random.Generator | None = None) -> None:
        if not 0 <= p < 1:
            raise ConfigError(f"dropout {p} is not a probability: expected 0 <= dropout < 1")
        self.p = p
        self.rng = rng if rng is not None else np.random.default_rng(0)

    def draw(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
        """What to multiply by: 0 or 1 / (1 - p); None where nothing is dropped."""
        if self.p == 0 or not self.training:
            return None
        return (self.rng.random(shape, dtype=np.float32) >= self.p) * dtype.type(1 / (1 - self.p))

    def forward(self, x: Array) -> Array:
        dropout_mask = self.draw(x.shape, x.dtype)
        self.save_for_backward(x.shape, dropout_mask)
        return x if dropout_mask is None else x * dropout_mask

    def backward(self, dy: Array) -> Array | None:
        (dropout_mask,) = self.pop_saved(dy)
        if not self.needs_input_grad:
            return None
        return dy if dropout_mask is None else dy * dropout_mask


def seed_dropouts(module: Module, *seed: int) -> None:
    """Give every Dropout inside a generator of its own, so that no two draw the same masks."""
    dropouts = [m for _, m in module.named_modules() if isinstance(m, Dropout)]
    for i, dropout in enumerate(dropouts):
        dropout.rng = np.random.default_rng([*seed, i])

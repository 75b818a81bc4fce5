"""The layers that everything else is made of: Linear, Embedding, LayerNorm, Activation, Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, ShapeError
from . import kernels
from .module import Array, Module, Parameter


class Zeros:
    """In place of a random generator: zeros, at no cost, for weights that are loaded afterwards."""

    def standard_normal(self, size: Any, dtype: Any = np.float32) -> Array:
        return np.zeros(size, dtype)


Rng = np.random.Generator | Zeros


def default_rng(rng: Rng | None) -> Rng:
    """The generator that was given, or one with seed 0."""
    return np.random.default_rng(0) if rng is None else rng


def truncated_normal(rng: Rng | None, shape: tuple[int, ...], sigma: float) -> Array:
    """float32 N(0, sigma^2), drawn again where it is outside two sigma; without an rng, seed 0."""
    rng = default_rng(rng)
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
    Attributes:
        affine: whether forward is this map and nothing else; not so where an adapter is added.
    Raises: ShapeError if x's last axis is not d_in.
    """

    affine = True

    def __init__(self, d_in: int, d_out: int, rng: Rng | None = None, sigma: float = 0.02) -> None:
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
        # A frozen weight has no gradient, and its input is not needed.
        self.save_for_backward(y.shape, x if self.weight.trainable else None)
        return y

    def backward(self, dy: Array) -> Array | None:
        (x,) = self.pop_saved(dy)
        if self.weight.trainable:
            self.weight.accumulate(flat(x).T @ flat(dy), own=True)  # (d_in, N) @ (N, d_out)
        if self.bias.trainable:
            self.bias.accumulate(kernels.sum_rows(flat(dy)))
        if not self.needs_input_grad:
            return None
        dx = kernels.matmul_transposed(flat(dy), self.weight.value)  # (N, d_out) @ (d_out, d_in)
        return dx.reshape(*dy.shape[:-1], -1)


class Embedding(Module):
    """A row of the weight for each integer: y = W[ids].

    Shapes: ids (...) integers, an array or a list -> y (..., d); weight (n, d). Integers have no
    gradient, so `backward` returns None.
    Raises: ShapeError if ids are not integers or out of range.
    """

    def __init__(self, n: int, d: int, rng: Rng | None = None, sigma: float = 0.02) -> None:
        self.weight = Parameter(truncated_normal(rng, (n, d), sigma))

    def forward(self, ids: npt.ArrayLike) -> Array:
        ids = np.asarray(ids)
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
            self.weight.accumulate(kernels.embedding_backward(dy, ids, self.weight.shape[0]))


class LayerNorm(Module):
    """y = gain (x - mean) / sqrt(variance + eps) + bias over the last axis.

    (Ba et al. 2016, arXiv 1607.06450, equation 4.)
    Shapes: x (..., d) -> y (..., d); weight (the gain) and bias (d,).
    """

    def __init__(self, d: int, eps: float = 1e-12) -> None:
        self.weight = Parameter(np.ones(d, np.float32))
        self.bias = Parameter(np.zeros(d, np.float32))
        self.eps = eps

    def forward(self, x: Array) -> Array:
        if x.shape[-1] != self.weight.size:
            raise ShapeError(f"LayerNorm({self.weight.size}) got x of shape {x.shape}")
        y, x_hat, rstd = kernels.layer_norm(x, self.weight.value, self.bias.value, self.eps)
        self.save_for_backward(y.shape, x_hat, rstd)
        return y

    def backward(self, dy: Array) -> Array | None:
        x_hat, rstd = self.pop_saved(dy)
        if self.weight.trainable:
            self.weight.accumulate(kernels.sum_rows(flat(dy), flat(x_hat)))
        if self.bias.trainable:
            self.bias.accumulate(kernels.sum_rows(flat(dy)))
        if not self.needs_input_grad:
            return None
        return kernels.layer_norm_backward(dy, x_hat, rstd, self.weight.value)


class Activation(Module):
    """y = f(x), element by element; `name` as "gelu"; see `functional.ACTIVATIONS`.

    Shapes: x (...) -> y (...). Raises: ConfigError for an unknown name.
    """

    def __init__(self, name: str) -> None:
        self.f = kernels.activation_named(name)

    def forward(self, x: Array) -> Array:
        y, derivative = self.f(x, with_derivative=self.training and self.input_requires_grad())
        self.save_for_backward(y.shape, derivative)
        return y

    def backward(self, dy: Array) -> Array | None:
        (derivative,) = self.pop_saved(dy)
        return dy * derivative if self.needs_input_grad else None


class Dropout(Module):
    """In training, zero each entry with probability p and scale the rest by 1 / (1 - p).

    (Srivastava et al. 2014, in the inverted form: nothing to do in eval mode.)
    Shapes: x (...) -> y (...). The masks come from `rng.random`; it may be replaced.
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

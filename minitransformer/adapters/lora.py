"""LoRA: a low-rank update beside a frozen weight, which can be merged into it."""

from __future__ import annotations

import math

import numpy as np

from ..nn.layers import Dropout, Linear, flat
from ..nn.module import Array, Module, Parameter
from .config import LoRAConfig
from .linear import Columns


class LoRA(Module):
    """y + (alpha / r) dropout(x) A B: y = x W + b of a frozen Linear, and a low-rank update of W.

    (Hu et al. 2021, arXiv 2106.09685, section 4.1; their A and B are transposed and change names.)
    B starts at 0, so that nothing changes; A is drawn uniformly from +-1 / sqrt(d_in), as in PEFT
    (the paper says Gaussian).

    Shapes: x (..., d_in), y (..., d_out) -> (..., d_out), in place of y. Where queries, keys and
    values are one Linear, each of the n that are meant has an A and B of its own: a (n, d_in, r),
    b (n, r, d), n r (d_in + d) parameters. One dropout mask of x serves all n.
    """

    placement = "beside"

    def __init__(
        self,
        linear: Linear,
        config: LoRAConfig,
        parts: tuple[int, ...] = (0,),
        n_parts: int = 1,
        rng: np.random.Generator | None = None,
    ) -> None:
        """`parts`: which of the `n_parts` of the Linear's columns get an update."""
        (d_in, d_out), n, r = linear.weight.shape, len(parts), config.rank
        self.config, self.columns = config, Columns(parts, n_parts)
        self.scaling = config.alpha / r
        rng = np.random.default_rng(0) if rng is None else rng
        self.dropout = Dropout(config.dropout)
        self.a = Parameter(uniform(rng, (n, d_in, r), 1 / math.sqrt(d_in)))
        self.b = Parameter(np.zeros((n, r, d_out // n_parts), np.float32))

    def forward(self, x: Array, y: Array) -> Array:
        x = flat(self.dropout.forward(x))  # (N, d_in)
        z = x @ self.a.value  # (n, N, r)
        z *= self.scaling
        part = self.columns.of(y)  # (n, N, d), a view of y
        part += z @ self.b.value
        self.save_for_backward(
            y.shape, x if self.a.trainable else None, z if self.b.trainable else None
        )
        return y

    def backward(self, dy: Array) -> Array | None:
        """The gradient of x; that of y is dy itself."""
        x, z = self.pop_saved(dy)
        du = self.columns.of(dy)  # (n, N, d)
        if self.b.trainable:
            self.b.accumulate(z.swapaxes(-1, -2) @ du)
        if not (self.a.trainable or self.needs_input_grad):
            return None
        dz = du @ self.b.value.swapaxes(-1, -2)  # (n, N, r)
        dz *= self.scaling
        if self.a.trainable:
            self.a.accumulate(x.T @ dz)
        if not self.needs_input_grad:
            return None
        dx = (dz @ self.a.value.swapaxes(-1, -2)).sum(axis=0)  # (N, d_in)
        return self.dropout.backward(dx.reshape(*dy.shape[:-1], -1))

    def merged(self, weight: Array, bias: Array) -> tuple[Array, Array]:
        """W + (alpha / r) A B, and b: the update written into the Linear's weight."""
        weight = weight.copy()
        part = self.columns.of(weight)  # (n, d_in, d), a view
        part += self.scaling * (self.a.value @ self.b.value)
        return weight, bias


def uniform(rng: np.random.Generator, shape: tuple[int, ...], bound: float) -> Array:
    """float32, uniform between -bound and bound."""
    return ((2 * rng.random(shape, dtype=np.float32) - 1) * bound).astype(np.float32)

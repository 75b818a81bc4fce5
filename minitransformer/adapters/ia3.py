"""(IA)^3: learned factors on keys, values and the feed-forward's inner activations."""

from __future__ import annotations

import numpy as np

from ..nn.module import Array, Module, Parameter
from .config import IA3Config
from .linear import Columns


class IA3(Module):
    """l * x: each feature times a learned factor, which starts at 1, so that nothing changes.

    (Liu et al. 2022, arXiv 2205.05638, section 3.3.) "after" the projection it multiplies keys and
    values, biases included; "before" the feed-forward's down-projection its inner activations.
    Shapes: x (..., d) -> (..., d); factors (n, d / n_parts), for the n parts that are meant.
    """

    def __init__(
        self,
        d: int,
        config: IA3Config,
        placement: str,
        parts: tuple[int, ...] = (0,),
        n_parts: int = 1,
    ) -> None:
        """`parts`: which of the `n_parts` of the last axis get factors; the rest stays as it is."""
        self.config, self.placement, self.columns = config, placement, Columns(parts, n_parts)
        self.factors = Parameter(np.ones((len(parts), d // n_parts), np.float32))

    def forward(self, x: Array) -> Array:
        self.save_for_backward(x.shape, x if self.factors.trainable else None)
        return self.times_factors(x)

    def backward(self, dy: Array) -> Array | None:
        (x,) = self.pop_saved(dy)
        if self.factors.trainable:
            products = np.einsum("nij,nij->nj", self.columns.of(dy), self.columns.of(x))
            self.factors.accumulate(products)
        return self.times_factors(dy) if self.needs_input_grad else None

    def times_factors(self, x: Array) -> Array:
        y = x.copy()
        part = self.columns.of(y)  # (n, N, d), a view
        part *= self.factors.value[:, None]
        return y

    def merged(self, weight: Array, bias: Array) -> tuple[Array, Array]:
        """The factors written into weight and bias: l (x W + b), or (l x) W + b."""
        if self.placement == "after":
            return self.times_factors(weight), self.times_factors(bias)
        return self.times_factors(weight.T).T, bias

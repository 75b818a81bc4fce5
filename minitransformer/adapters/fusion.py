"""AdapterFusion: attention over what several trained, frozen adapters say about a hidden state."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError
from ..nn.functional import softmax, softmax_backward
from ..nn.layers import Linear, flat, truncated_normal
from ..nn.module import Array, Module, Parameter

if TYPE_CHECKING:
    from typing_extensions import Self


SIGMA = 0.02  # of query and key at the start
OFF_DIAGONAL = 1e-6  # of the value matrix at the start, beside ones on the diagonal


class Fusion(Module):
    """h + f(h), f(h) = sum_n p_n V o_n: a mixture of the adapters' branches o_n = f_n(h).

    p = softmax_n(Q(h) . K o_n), for each position anew: which adapter to listen to, asked by the
    hidden state itself (Pfeiffer et al. 2020, arXiv 2005.00247, section 3.2 and equation 2; not
    scaled by 1 / sqrt(d)). Q has a bias; one of K would add the same to all N scores, and the
    softmax would take it out again. V starts at the identity, so that f begins as a mean of the
    branches, weighted by chance.

    Shapes: h (..., d) -> (..., d); query Linear(d, d), key and value (d, d): 3 d^2 + d parameters.
    Attributes:
        keep_weights: whether forward leaves p (..., N) in `weights`; see `fusion_weights`.
    Raises: ConfigError if the sources do not stand at the same place in a sub-layer.
    """

    keep_weights = False
    sources_require_grad = (
        True  # set by `propagate_requires_grad`: whether anything in or before the sources trains
    )
    weights: Array | None = None

    def __init__(
        self, d_model: int, sources: Mapping[str, Any], rng: np.random.Generator | None = None
    ) -> None:
        """`sources`: the adapters by name; their weights are shared, not copied, and freeze."""
        placements = {name: source.placement for name, source in sources.items()}
        if len(set(placements.values())) != 1:
            listed = ", ".join(f"{name!r}: {place}" for name, place in placements.items())
            raise ConfigError(f"fusion needs adapters of one placement; got {listed or 'none'}")
        self.placement = next(iter(placements.values()))
        # The same adapter may be at work on its own too, so each is walked by a twin.
        self.sources: dict[str, Any] = {
            name: shared_copy(a).freeze() for name, a in sources.items()
        }
        self.query = Linear(d_model, d_model, rng, SIGMA)
        self.key = Parameter(truncated_normal(rng, (d_model, d_model), SIGMA))
        self.value = Parameter(np.full((d_model, d_model), OFF_DIAGONAL, np.float32))
        np.fill_diagonal(self.value.value, 1)

    def unfreeze(self) -> Self:
        """Query, key and value train; the sources stay as they are. Returns self."""
        self.query.unfreeze()
        self.key.trainable = self.value.trainable = True
        return self

    def propagate_requires_grad(self, needs_input_grad: bool = True) -> bool:
        # Query and sources side by side: each reads h.
        self.needs_input_grad = needs_input_grad
        query = self.query.propagate_requires_grad(needs_input_grad)
        self.sources_require_grad = any(
            [s.propagate_requires_grad(needs_input_grad) for s in self.sources.values()]
        )
        own = self.key.trainable or self.value.trainable
        self.output_requires_grad = query or self.sources_require_grad or own
        return self.output_requires_grad

    def forward(self, h: Array) -> Array:
        return h + self.f(h)

    def backward(self, dy: Array) -> Array | None:
        dh = self.f_backward(dy)
        return dy + dh if dh is not None else None

    def f(self, h: Array) -> Array:
        """The mixture alone, without the skip connection: (..., d) -> (..., d)."""
        o = np.stack([source.f(h) for source in self.sources.values()], axis=-2)  # (..., N, d)
        q = self.query.forward(h)  # (..., d)
        # Q(h) . K o_n = K^T Q(h) . o_n and sum_n p_n V o_n = V sum_n p_n o_n: one product, not N.
        u = q @ self.key.value.T  # (..., d)
        p = softmax(np.einsum("...d,...nd->...n", u, o))  # (..., N)
        mixed = np.einsum("...n,...nd->...d", p, o)
        f = mixed @ self.value.value
        self.weights = p if self.keep_weights else None
        self.save_for_backward(
            f.shape,
            o,
            p,
            q if self.key.trainable else None,
            u if self.sources_require_grad else None,
            mixed if self.value.trainable else None,
        )
        return f

    def f_backward(self, df: Array) -> Array | None:
        """The gradient of f's input, from the gradient of its output."""
        o, p, q, u, mixed = self.pop_saved(df)
        if self.value.trainable:
            self.value.accumulate(flat(mixed).T @ flat(df))
        if not (self.key.trainable or self.query.output_requires_grad or self.sources_require_grad):
            return None
        dmixed = df @ self.value.value.T  # (..., d)
        ds = softmax_backward(np.einsum("...d,...nd->...n", dmixed, o), p)  # (..., N)
        du = np.einsum("...n,...nd->...d", ds, o)
        if self.key.trainable:
            self.key.accumulate(flat(du).T @ flat(q))
        dh = self.query.backward(du @ self.key.value) if self.query.output_requires_grad else None
        if self.sources_require_grad:
            do = p[..., None] * dmixed[..., None, :] + ds[..., None] * u[..., None, :]
            for n, source in enumerate(self.sources.values()):
                d = source.f_backward(do[..., n, :]) if source.output_requires_grad else None
                dh = dh + d if dh is not None and d is not None else dh
        return dh


def shared_copy(adapter: Any) -> Any:
    """A second replica over the same parameters (shared: one value, one gradient)."""
    return copy.deepcopy(adapter, {id(p): p for p in adapter.parameters()})

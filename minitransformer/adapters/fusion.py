"""AdapterFusion: attention over the outputs of several trained, frozen adapters."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError
from ..nn import kernels
from ..nn.layers import Linear, Rng, default_rng, truncated_normal
from ..nn.module import Array, Module, Parameter, backward_through
from ..nn.sublayer import f_backward, plus

if TYPE_CHECKING:
    from typing_extensions import Self


SIGMA = 0.02  # of query and key at the start
MOST_SOURCES = 512  # of a fusion, with all that are inside of sources: fusions of fusions multiply
OFF_DIAGONAL = 1e-6  # of the value matrix at the start, beside ones on the diagonal


class Fusion(Module):
    """h + f(h), f(h) = sum_n p_n V o_n: a mixture of the adapters' branches o_n = f_n(h).

    p = softmax_n(Q(h) . K o_n), for each position of its own: the hidden state is the query
    (Pfeiffer et al. 2020, arXiv 2005.00247, section 3.2 and equation 2; not scaled by
    1 / sqrt(d)). Q has a bias; one of K would add the same to all N scores, and the softmax would
    not change. V starts near the identity, so that f begins as a weighted mean of the branches.

    Shapes: h (..., d) -> (..., d); query Linear(d, d), key and value (d, d): 3 d^2 + d parameters.
    Attributes:
        keep_weights: whether forward leaves p (..., N) in `weights`; see `fusion_weights`.
    Raises: ConfigError if the sources do not stand at the same place in a sub-layer, or are more
        than MOST_SOURCES.
    """

    keep_weights = False
    weights: Array | None = None

    def __init__(self, d_model: int, sources: Mapping[str, Any], rng: Rng | None = None) -> None:
        """`sources`: the adapters by name; their weights are shared, not copied, and freeze."""
        placements = {name: source.placement for name, source in sources.items()}
        if len(set(placements.values())) != 1:
            listed = ", ".join(f"{name!r}: {place}" for name, place in placements.items())
            raise ConfigError(f"fusion needs adapters of one placement; got {listed or 'none'}")
        if (n := sum(map(modules_in, sources.values()))) > MOST_SOURCES:
            raise ConfigError(
                f"a fusion of {n:,} adapters, those inside of fusions included; expected at most "
                f"{MOST_SOURCES}"
            )
        self.placement = next(iter(placements.values()))
        # The same adapter may be active on its own too, so each source saves arrays of its own.
        self.sources: dict[str, Any] = {
            name: shared_copy(a).freeze() for name, a in sources.items()
        }
        rng = default_rng(rng)
        self.query = Linear(d_model, d_model, rng, SIGMA)
        self.key = Parameter(truncated_normal(rng, (d_model, d_model), SIGMA))
        self.value = Parameter(np.full((d_model, d_model), OFF_DIAGONAL, np.float32))
        np.fill_diagonal(self.value.value, 1)

    def unfreeze(self) -> Self:
        """Query, key and value train; the sources stay as they are. Returns self."""
        self.query.unfreeze()
        self.key.trainable = self.value.trainable = True
        return self

    def forward(self, h: Array) -> Array:
        return h + self.f(h)

    def backward(self, dy: Array) -> Array | None:
        dh = self.f_backward(dy)
        return dy + dh if dh is not None else None

    def f(self, h: Array) -> Array:
        """The mixture alone, without the skip connection: (..., d) -> (..., d)."""
        o = np.stack([source.f(h) for source in self.sources.values()], axis=-2)  # (..., N, d)
        q = self.query.forward(h)  # (..., d)
        f, p = kernels.fusion(q, o, self.key.value, self.value.value)  # (..., d), (..., N)
        self.weights = p if self.keep_weights else None
        self.save_for_backward(f.shape, q, o, p)
        return f

    def f_backward(self, df: Array) -> Array | None:
        """The gradient of f's input, from the gradient of its output."""
        q, o, p = self.pop_saved(df)
        sources_train = any(s.output_requires_grad for s in self.sources.values())
        dq, do, dkey, dvalue = kernels.fusion_backward(
            df, q, o, p, self.key.value, self.value.value, with_sources=sources_train
        )
        if self.key.trainable:
            self.key.accumulate(dkey)
        if self.value.trainable:
            self.value.accumulate(dvalue)
        dh = backward_through(dq, self.query)
        for n, source in enumerate(self.sources.values()):
            d = f_backward(source, do[..., n, :]) if do is not None else None
            dh = plus(dh, d) if dh is not None else d
        return dh

    def merged(self, weight: Array, bias: Array) -> tuple[Array, Array]:
        """Raises: ConfigError, always."""
        raise ConfigError(
            "a fusion cannot be merged: it weighs its sources at every position anew, which no "
            "matrix does; average_adapters makes one adapter of them"
        )


def shared_copy(adapter: Any) -> Any:
    """Another module over the same parameters: one value, one gradient, saved arrays of its own."""
    return copy.deepcopy(adapter, {id(p): p for p in adapter.parameters()})


def modules_in(adapter: Any) -> int:
    """How many adapters and fusions one is made of: 1 for a plain adapter."""
    if not isinstance(adapter, Fusion):
        return 1
    return 1 + sum(map(modules_in, adapter.sources.values()))

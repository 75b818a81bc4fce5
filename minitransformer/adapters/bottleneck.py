"""The bottleneck adapter: down-projection, non-linearity, up-projection, skip connection."""

from __future__ import annotations

import numpy as np

from ..nn.functional import activation_named
from ..nn.layers import Dropout, LayerNorm, Linear
from ..nn.module import Array, Module, Parameter
from .config import NEAR_IDENTITY_SIGMA, NORM_EPS, AdapterConfig


class Adapter(Module):
    """h + f(h), f(h) = s up(act(down(h))): a bottleneck with a skip connection.

    (Houlsby et al. 2019, arXiv 1902.00751, section 2.1 and figure 2.)
    Shapes: h (..., d) -> (..., d); down (d, m), up (m, d); 2 d m + d + m parameters, and 1 for a
    learned scaling s, 2 d for a norm of its own.
    """

    def __init__(
        self, d_model: int, config: AdapterConfig, rng: np.random.Generator | None = None
    ) -> None:
        self.config, self.placement = config, config.placement
        m = config.width(d_model)
        start = 0.0 if config.init == "zero_up" else NEAR_IDENTITY_SIGMA
        self.activation = activation_named(config.activation)
        self.norm_before = LayerNorm(d_model, NORM_EPS) if config.norm == "before" else None
        self.dropout = Dropout(config.dropout)
        self.down = Linear(d_model, m, rng, NEAR_IDENTITY_SIGMA)
        self.up = Linear(m, d_model, rng if start else None, NEAR_IDENTITY_SIGMA)
        self.scale = Parameter(np.ones(1, np.float32)) if config.scaling == "learned" else None
        self.norm_after = LayerNorm(d_model, NORM_EPS) if config.norm == "after" else None
        if self.norm_after is not None:
            self.norm_after.weight.value[...] = start  # at 1 it would be far from the identity

    def forward_order(self) -> list[Module]:
        rooms = (self.norm_before, self.dropout, self.down, self.up, self.norm_after)
        return [room for room in rooms if room is not None]

    def propagate_requires_grad(self, needs_input_grad: bool = True) -> bool:
        # A learned scale stands behind the up-projection: what comes before it need not walk back.
        trains = needs_input_grad
        for room in self.forward_order():
            if room is self.norm_after:
                trains = trains or self.scale_trains
            trains = room.propagate_requires_grad(trains)
        self.needs_input_grad, self.output_requires_grad = (
            needs_input_grad,
            trains or self.scale_trains,
        )
        return self.output_requires_grad

    def forward(self, h: Array) -> Array:
        y = self.f(h)
        y += h  # the skip connection
        return y

    def backward(self, dy: Array) -> Array | None:
        dh = self.f_backward(dy)
        return dy + dh if dh is not None else None  # the skip connection hands dy on unchanged

    def f(self, h: Array) -> Array:
        """The branch alone, without the skip connection: (..., d) -> (..., d)."""
        if self.norm_before is not None:
            h = self.norm_before.forward(h)
        z = self.down.forward(self.dropout.forward(h))  # (..., m)
        a, derivative = self.activation(
            z, with_derivative=self.training and self.down.output_requires_grad
        )
        u = self.up.forward(a)  # (..., d)
        self.save_for_backward(u.shape, derivative, u if self.scale_trains else None)
        f = self.scaled(u)
        return f if self.norm_after is None else self.norm_after.forward(f)

    def f_backward(self, df: Array) -> Array | None:
        """The gradient of f's input, from the gradient of its output."""
        derivative, u = self.pop_saved(df)
        d: Array | None = df
        if self.norm_after is not None:
            d = self.norm_after.backward(df)
        if d is None:
            return None
        if self.scale is not None and self.scale.trainable:
            self.scale.accumulate(np.vdot(d, u).reshape(1))
        da = self.up.backward(self.scaled(d)) if self.up.output_requires_grad else None  # (..., m)
        dz = self.down.backward(da * derivative) if da is not None else None
        dh = self.dropout.backward(dz) if dz is not None else None
        if self.norm_before is not None and dh is not None:
            dh = self.norm_before.backward(dh)
        return dh

    @property
    def scale_trains(self) -> bool:
        return self.scale is not None and self.scale.trainable

    def scaled(self, u: Array) -> Array:
        """s u, with the fixed or the learned s."""
        if self.scale is not None:
            return u * self.scale.value
        return u if self.config.scaling == 1 else u * self.config.scaling

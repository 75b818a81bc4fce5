"""The bottleneck adapter: down-projection, non-linearity, up-projection, skip connection."""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError
from ..nn.layers import Activation, Dropout, LayerNorm, Linear, Rng, Zeros, default_rng
from ..nn.module import Array, Module, Parameter, backward_through
from .config import NEAR_IDENTITY_SIGMA, NORM_EPS, AdapterConfig

UNMERGEABLE = (  # at other placements than "houlsby"
    "there it reads, or is added to, more than what one Linear returns (the residual, a layer "
    "norm, or the input of the whole sub-layer); at 'houlsby' a linear adapter can be merged"
)


class Adapter(Module):
    """h + f(h), f(h) = s up(act(down(h))): a bottleneck with a skip connection.

    (Houlsby et al. 2019, arXiv 1902.00751, section 2.1 and figure 2.)
    Shapes: h (..., d) -> (..., d); down (d, m), up (m, d); 2 d m + d + m parameters, and 1 for a
    learned scaling s, 2 d for a norm of its own. `rng` draws the start values; default: seed 0.
    Dropout masks have seed 0: two adapters made by hand drop the same entries, until
    `layers.seed_dropouts(module, seed)`. `add_adapter` gives each generators of its own.
    """

    def __init__(self, d_model: int, config: AdapterConfig, rng: Rng | None = None) -> None:
        self.config, self.placement = config, config.placement
        m, rng = config.width(d_model), default_rng(rng)
        start = 0.0 if config.init == "zero_up" else NEAR_IDENTITY_SIGMA
        self.norm_before = LayerNorm(d_model, NORM_EPS) if config.norm == "before" else None
        self.dropout = Dropout(config.dropout)
        self.down = Linear(d_model, m, rng, NEAR_IDENTITY_SIGMA)
        self.activation = Activation(config.activation)
        self.up = Linear(m, d_model, rng if start else Zeros(), NEAR_IDENTITY_SIGMA)
        self.scale = Parameter(np.ones(1, np.float32)) if config.scaling == "learned" else None
        self.norm_after = LayerNorm(d_model, NORM_EPS) if config.norm == "after" else None
        if self.norm_after is not None:
            self.norm_after.weight.value[...] = start  # at 1 it would be far from the identity

    def forward(self, h: Array) -> Array:
        return h + self.f(h)  # the skip connection

    def backward(self, dy: Array) -> Array | None:
        dh = self.f_backward(dy)
        return dy + dh if dh is not None else None  # it passes dy on unchanged

    def f(self, h: Array) -> Array:
        """The branch alone, without the skip connection: (..., d) -> (..., d)."""
        if self.norm_before is not None:
            h = self.norm_before.forward(h)
        z = self.down.forward(self.dropout.forward(h))  # (..., m)
        u = self.up.forward(self.activation.forward(z))  # (..., d)
        self.save_for_backward(u.shape, u if self.scale_trains() else None)
        f = self.scaled(u)
        if self.norm_after is not None:
            f = self.norm_after.forward(f)
            self.output_requires_grad = self.norm_after.output_requires_grad
        return f

    def f_backward(self, df: Array) -> Array | None:
        """The gradient of f's input, from the gradient of its output."""
        d = df if self.norm_after is None else self.norm_after.backward(df)
        if d is None:
            return None
        (u,) = self.pop_saved(d)
        if self.scale is not None and self.scale.trainable:
            self.scale.accumulate(np.vdot(d, u).reshape(1))
        before = [] if self.norm_before is None else [self.norm_before]
        modules = (self.up, self.activation, self.down, self.dropout, *before)
        return backward_through(self.scaled(d), *modules)

    def scaled(self, u: Array) -> Array:
        """s u, with the fixed or the learned s."""
        if self.scale is not None:
            return u * self.scale.value
        return u if self.config.scaling == 1 else u * self.config.scaling

    def scale_trains(self) -> bool:
        return self.scale is not None and self.scale.trainable

    def merged(self, weight: Array, bias: Array) -> tuple[Array, Array]:
        """Weight and bias of the Linear below with this adapter written into them.

        s = h W + b and s + f(s) = s M + t, with M = I + scaling D U and t = scaling (d U + u): that
        is h (W M) + (b M + t). Dropout is left out, as in eval mode.
        Raises: ConfigError if no such M exists.
        """
        config = self.config
        if config.activation != "linear":
            raise ConfigError(
                f"a bottleneck adapter cannot be merged: its activation {config.activation!r} "
                "stands between its two projections, and no matrix does what all three do; LoRA "
                "can be merged, and an adapter with activation 'linear' at placement 'houlsby'"
            )
        if config.norm is not None:
            raise ConfigError(
                f"an adapter with norm={config.norm!r} cannot be merged: a layer norm divides by "
                "the deviation of each vector, which no matrix does"
            )
        if self.placement != "houlsby":
            raise ConfigError(
                f"an adapter at placement {self.placement!r} cannot be merged: {UNMERGEABLE}"
            )
        down, up = self.down, self.up
        m = np.eye(len(up.bias.value)) + self.scaled(down.weight.value @ up.weight.value)
        t = self.scaled(down.bias.value @ up.weight.value + up.bias.value)
        return weight @ m, bias @ m + t

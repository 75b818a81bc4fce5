"""The bottleneck adapter: down-projection, non-linearity, up-projection, skip connection."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..functional import activation_named, slope_backward
from ..layers import Dropout, LayerNorm, Linear
from ..module import Array, Module, Parameter

SITES = ("attention", "ffn")
PLACEMENTS = {  # and the sites that the papers give it
    "after_norm": SITES,
    "houlsby": SITES,
    "pfeiffer": ("ffn",),
    "parallel": ("ffn",),
}
NORMS = (None, "before", "after")
INITS = ("near_identity", "zero_up")
NEAR_IDENTITY_SIGMA = 1e-2
NORM_EPS = 1e-5  # of an adapter's own layer norm


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter is and where it stands. Checks itself; raises ConfigError.

    Attributes:
        bottleneck: m, the width in the middle; or give `reduction_factor` r instead, m = d / r.
        activation: "relu", "gelu", "gelu_tanh", "tanh" or "silu".
        placement: where f reads, and where it adds, in a sub-layer: "after_norm" (at its end),
            "houlsby" (on its output, before residual and norm; Houlsby et al. 2019, arXiv
            1902.00751), "pfeiffer" (reads the normalized sum, adds before the norm; Pfeiffer et
            al. 2020, arXiv 2005.00247) or "parallel" (reads the sub-layer's input; He et al. 2022,
            arXiv 2110.04366). The formulas stand in `SubLayer`.
        sites: which sub-layers get one: "attention", "ffn" or both. None: both; for "pfeiffer" and
            "parallel" the feed-forward one alone, as in their papers.
        layers: numbers of the blocks that get one, from 0; None for all.
        init: "near_identity" (both projections truncated normal, sigma 1e-2, biases 0; Houlsby et
            al. 2019, arXiv 1902.00751, section 3.6) or "zero_up" (up-projection 0: exact identity).
        scaling: a factor on f: a number, or "learned" (it starts at 1 and trains).
        dropout: probability of dropping an entry of f's input, in training.
        norm: a layer norm of f's own: "before" the down-projection, "after" the scaled
            up-projection (its gain then starts near zero), or None.
    """

    bottleneck: int | None = None
    reduction_factor: float | None = None
    activation: str = "relu"
    placement: str = "after_norm"
    sites: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    init: str = "near_identity"
    scaling: float | str = 1.0
    dropout: float = 0.0
    norm: str | None = None

    def __post_init__(self) -> None:
        if self.bottleneck is None and self.reduction_factor is None:
            object.__setattr__(self, "bottleneck", 64)
        if self.bottleneck is not None and self.reduction_factor is not None:
            raise ConfigError(
                f"bottleneck={self.bottleneck} and reduction_factor={self.reduction_factor}: "
                "give one of the two"
            )
        if self.bottleneck is not None and (
            not isinstance(self.bottleneck, int | np.integer) or self.bottleneck < 1
        ):
            raise ConfigError(f"bottleneck={self.bottleneck!r}: expected a whole number above 0")
        if self.reduction_factor is not None and not self.reduction_factor > 0:
            raise ConfigError(
                f"reduction_factor={self.reduction_factor}: expected a number above 0"
            )
        activation_named(self.activation)
        choices = {"placement": tuple(PLACEMENTS), "init": INITS, "norm": NORMS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r}: expected one of {', '.join(map(str, known))}"
                )
        sites = self.sites if self.sites is not None else PLACEMENTS[self.placement]
        sites = (sites,) if isinstance(sites, str) else tuple(sites)
        object.__setattr__(self, "sites", sites)
        if not sites or len(set(sites)) < len(sites) or not set(sites) <= set(SITES):
            raise ConfigError(f"sites={self.sites!r}: expected one or both of {', '.join(SITES)}")
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(int(i) for i in self.layers))
            if not self.layers or len(set(self.layers)) < len(self.layers):
                raise ConfigError(f"layers={self.layers!r}: expected block numbers, each once")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout}: expected 0 <= dropout < 1")
        number = isinstance(self.scaling, int | float) and np.isfinite(self.scaling)
        if not number and self.scaling != "learned":
            raise ConfigError(f"scaling={self.scaling!r}: expected a finite number, or 'learned'")

    def width(self, d_model: int) -> int:
        """m, the bottleneck for a model of width d_model."""
        if self.bottleneck is not None:
            return self.bottleneck
        assert self.reduction_factor is not None  # one of the two is always set
        return max(1, round(d_model / self.reduction_factor))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as an adapter file keeps them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AdapterConfig:
        """The inverse of `to_dict`. Raises: ConfigError for a word it does not know."""
        unknown = values.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ConfigError(f"unknown adapter option {', '.join(sorted(unknown))}")
        return cls(**values)


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

    def walk(self) -> list[Module]:
        rooms = (self.norm_before, self.dropout, self.down, self.up, self.norm_after)
        return [room for room in rooms if room is not None]

    def plan(self, needs_input_grad: bool = True) -> bool:
        # A learned scale stands behind the up-projection: what comes before it need not walk back.
        trains = needs_input_grad
        for room in self.walk():
            if room is self.norm_after:
                trains = trains or self.scale_trains
            trains = room.plan(trains)
        self.needs_input_grad, self.walks_back = needs_input_grad, trains or self.scale_trains
        return self.walks_back

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
        a, slope = self.activation(z, want_slope=self.training and self.down.walks_back)
        u = self.up.forward(a)  # (..., d)
        self.save(u.shape, slope, u if self.scale_trains else None)
        f = self.scaled(u)
        return f if self.norm_after is None else self.norm_after.forward(f)

    def f_backward(self, df: Array) -> Array | None:
        """The gradient of f's input, from the gradient of its output."""
        slope, u = self.take_saved(df)
        d: Array | None = df
        if self.norm_after is not None:
            d = self.norm_after.backward(df)
        if d is None:
            return None
        if self.scale is not None and self.scale.trainable:
            self.scale.accumulate(np.vdot(d, u).reshape(1))
        da = self.up.backward(self.scaled(d)) if self.up.walks_back else None  # (..., m)
        dz = self.down.backward(slope_backward(da, slope)) if da is not None else None
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

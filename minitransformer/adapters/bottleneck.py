"""The bottleneck adapter: down-projection, non-linearity, up-projection, skip connection."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..functional import activation_named, slope_backward
from ..layers import Dropout, Linear
from ..module import Array, Module

PLACEMENTS = ("after_norm",)
SITES = ("attention", "ffn")
INITS = ("near_identity", "zero_up")
NEAR_IDENTITY_SIGMA = 1e-2


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter is and where it stands. Checks itself; raises ConfigError.

    Attributes:
        bottleneck: m, the width in the middle; or give `reduction_factor` r instead, m = d / r.
        activation: "relu", "gelu", "gelu_tanh", "tanh" or "silu".
        placement: "after_norm": h = LN(x + sublayer(x)), then h + f(h); in a pre-norm block,
            where the norm is inside the residual, h = x + sublayer(LN(x)), then h + f(h).
        sites: which sub-layers get one: "attention", "ffn" or both.
        layers: numbers of the blocks that get one, from 0; None for all.
        init: "near_identity" (both projections truncated normal, sigma 1e-2, biases 0; Houlsby et
            al. 2019, arXiv 1902.00751, section 3.6) or "zero_up" (up-projection 0: exact identity).
        scaling: a factor on f.
        dropout: probability of dropping an entry of f's input, in training.
    """

    bottleneck: int | None = None
    reduction_factor: float | None = None
    activation: str = "relu"
    placement: str = "after_norm"
    sites: tuple[str, ...] = SITES
    layers: tuple[int, ...] | None = None
    init: str = "near_identity"
    scaling: float = 1.0
    dropout: float = 0.0

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
        for name, choices in (("placement", PLACEMENTS), ("init", INITS)):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r}: expected one of {', '.join(choices)}"
                )
        sites = (self.sites,) if isinstance(self.sites, str) else tuple(self.sites)
        object.__setattr__(self, "sites", sites)
        if not sites or len(set(sites)) < len(sites) or not set(sites) <= set(SITES):
            raise ConfigError(f"sites={self.sites!r}: expected one or both of {', '.join(SITES)}")
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(int(i) for i in self.layers))
            if not self.layers or len(set(self.layers)) < len(self.layers):
                raise ConfigError(f"layers={self.layers!r}: expected block numbers, each once")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout}: expected 0 <= dropout < 1")
        if not np.isfinite(self.scaling):
            raise ConfigError(f"scaling={self.scaling}: expected a finite number")

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
    """h + s up(act(down(h))): a bottleneck with a skip connection.

    (Houlsby et al. 2019, arXiv 1902.00751, section 2.1 and figure 2.)
    Shapes: h (..., d) -> (..., d); down (d, m), up (m, d); 2 d m + d + m parameters.
    """

    def __init__(
        self, d_model: int, config: AdapterConfig, rng: np.random.Generator | None = None
    ) -> None:
        self.config = config
        m = config.width(d_model)
        self.activation = activation_named(config.activation)
        self.dropout = Dropout(config.dropout)
        self.down = Linear(d_model, m, rng, NEAR_IDENTITY_SIGMA)
        self.up = Linear(m, d_model, rng if config.init != "zero_up" else None, NEAR_IDENTITY_SIGMA)

    def forward(self, h: Array) -> Array:
        z = self.down.forward(self.dropout.forward(h))  # (..., m)
        a, slope = self.activation(z, want_slope=self.training and self.down.walks_back)
        f = self.up.forward(a)  # (..., d)
        if self.config.scaling != 1:
            f *= self.config.scaling
        self.save(h.shape, slope)
        f += h  # the skip connection
        return f

    def backward(self, dy: Array) -> Array | None:
        (slope,) = self.take_saved(dy)
        df = dy * self.config.scaling if self.config.scaling != 1 else dy
        da = self.up.backward(df)  # (..., m)
        if da is None:
            return None
        dh = self.down.backward(slope_backward(da, slope))
        if dh is None:
            return None
        return dy + self.dropout.backward(dh)  # the skip connection hands dy on unchanged

"""The configurations: what an adapter is, and where it is inserted."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import numpy as np

from ..errors import ConfigError
from ..nn.kernels import activation_named
from ..nn.sublayer import SubLayer

if TYPE_CHECKING:
    from typing_extensions import Self

SITES = ("attention", "ffn")
# Each placement with the sites that its paper gives it.
PLACEMENTS: dict[str, tuple[str, ...]] = dict.fromkeys(SubLayer.PLACEMENTS, SITES)
PLACEMENTS |= {"pfeiffer": ("ffn",), "parallel": ("ffn",)}
NORMS = (None, "before", "after")
TARGETS = ("query", "key", "value", "output", "up", "down")  # the weights of a block
INITS = ("near_identity", "zero_up")

DEFAULT_BOTTLENECK = 64
NEAR_IDENTITY_SIGMA = 1e-2
NORM_EPS = 1e-5  # of an adapter's own layer norm


class MethodConfig:
    """What all configurations have in common: a method's word, and a form for files."""

    method: ClassVar[str]
    layers: tuple[int, ...] | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as an adapter file keeps them beside the method's word."""
        return asdict(cast(Any, self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises: ConfigError for a word it does not know."""
        unknown = values.keys() - {field.name for field in fields(cast(Any, cls))}
        if unknown:
            raise ConfigError(f"unknown option {', '.join(sorted(unknown))}")
        return cls(**values)


@dataclass(frozen=True)
class AdapterConfig(MethodConfig):
    """What an adapter is and where it stands. Checks itself; raises ConfigError.

    Attributes:
        bottleneck: m, the width in the middle; or give `reduction_factor` r instead, m = d / r.
            Neither: m = 64.
        activation: "relu", "gelu", "gelu_tanh", "tanh", "silu", or "linear" for none.
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

    method = "adapter"

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
        if self.bottleneck is not None and self.reduction_factor is not None:
            raise ConfigError(
                f"bottleneck={self.bottleneck} and reduction_factor={self.reduction_factor}: "
                "give one of the two"
            )
        if self.bottleneck is not None and not (is_whole(self.bottleneck) and self.bottleneck > 0):
            raise ConfigError(f"bottleneck={self.bottleneck!r}: expected a whole number above 0")
        r = self.reduction_factor
        if r is not None and not (is_number(r) and r > 0):
            raise ConfigError(f"reduction_factor={r!r}: expected a number above 0")
        activation_named(self.activation)
        choices = {"placement": tuple(PLACEMENTS), "init": INITS, "norm": NORMS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r}: expected one of {', '.join(map(str, known))}"
                )
        if isinstance(self.sites, str):
            object.__setattr__(self, "sites", (self.sites,))
        if self.sites is not None:
            object.__setattr__(self, "sites", tuple(self.sites))
            if not is_each_once(self.sites) or not set(self.sites) <= set(SITES):
                raise ConfigError(
                    f"sites={self.sites!r}: expected one or both of {', '.join(SITES)}"
                )
        object.__setattr__(self, "layers", checked_layers(self.layers))
        check_dropout(self.dropout)
        if not is_number(self.scaling) and self.scaling != "learned":
            raise ConfigError(f"scaling={self.scaling!r}: expected a finite number, or 'learned'")

    def width(self, d_model: int) -> int:
        """m, the bottleneck for a model of width d_model."""
        if self.reduction_factor is not None:
            return max(1, round(d_model / self.reduction_factor))
        return self.bottleneck if self.bottleneck is not None else DEFAULT_BOTTLENECK

    @property
    def resolved_sites(self) -> tuple[str, ...]:
        """The sub-layers that get an adapter: `sites`, or those of the placement's paper."""
        return self.sites if self.sites is not None else PLACEMENTS[self.placement]

    def resolved(self) -> AdapterConfig:
        """The same with the defaults filled in, as a file keeps it."""
        neither = self.bottleneck is None and self.reduction_factor is None
        bottleneck = DEFAULT_BOTTLENECK if neither else self.bottleneck
        return replace(self, bottleneck=bottleneck, sites=self.resolved_sites)

    def has_site(self, block: int, site: str) -> bool:
        """Whether an adapter stands in that block at that site."""
        return site in self.resolved_sites and (self.layers is None or block in self.layers)


@dataclass(frozen=True)
class LoRAConfig(MethodConfig):
    """Low-rank updates of weights (Hu et al. 2021, arXiv 2106.09685). Raises ConfigError.

    Attributes:
        rank: r, how many directions an update has.
        alpha: the update is scaled by alpha / r.
        dropout: probability of dropping an entry of the update's input, in training.
        targets: which weights: "query", "key", "value" and "output" of the attention, "up" and
            "down" of the feed-forward; kept in this order.
        layers: numbers of the blocks that get updates, from 0; None for all.
    """

    method = "lora"

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("query", "value")
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not (is_whole(self.rank) and self.rank > 0):
            raise ConfigError(f"rank={self.rank!r}: expected a whole number above 0")
        if not is_number(self.alpha):
            raise ConfigError(f"alpha={self.alpha!r}: expected a finite number")
        check_dropout(self.dropout)
        targets = (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)
        if not is_each_once(targets) or not set(targets) <= set(TARGETS):
            raise ConfigError(
                f"targets={self.targets!r}: expected some of {', '.join(TARGETS)}, each once"
            )
        object.__setattr__(self, "targets", tuple(t for t in TARGETS if t in targets))
        object.__setattr__(self, "layers", checked_layers(self.layers))


@dataclass(frozen=True)
class IA3Config(MethodConfig):
    """Learned factors on keys, values and the feed-forward's inner activations.

    (Liu et al. 2022, arXiv 2205.05638, section 3.3.) Raises ConfigError.
    Attributes:
        layers: numbers of the blocks that get them, from 0; None for all.
    """

    method = "ia3"

    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", checked_layers(self.layers))


@dataclass(frozen=True)
class PrefixConfig(MethodConfig):
    """Trained keys and values in front of every sequence (Li and Liang 2021, arXiv 2101.00190).

    Raises ConfigError.
    Attributes:
        length: how many positions.
        layers: numbers of the blocks that get them, from 0; None for all.
    """

    method = "prefix"

    length: int = 16
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not (is_whole(self.length) and self.length > 0):
            raise ConfigError(f"length={self.length!r}: expected a whole number above 0")
        object.__setattr__(self, "layers", checked_layers(self.layers))


AnyConfig = AdapterConfig | LoRAConfig | IA3Config | PrefixConfig

T = TypeVar("T", bound=AnyConfig)

CONFIGS: dict[str, type[AnyConfig]] = {
    config.method: config for config in (AdapterConfig, LoRAConfig, IA3Config, PrefixConfig)
}
METHODS = (*CONFIGS, "bitfit", "layer-norm", "head", "full")  # the last four insert nothing


def config_or_default(config: T | None, kind: type[T]) -> T:
    """`config`; None: the default one. Raises: ConfigError for a configuration of another kind."""
    if config is not None and not isinstance(config, kind):
        raise ConfigError(f"config={config!r}: expected {kind.__name__}(...), or none")
    return kind() if config is None else config


def check_config(config: Any, factory: Any) -> None:
    """Raises: ConfigError for what is no configuration, or a factory where none has a place."""
    if not isinstance(config, MethodConfig):
        raise ConfigError(
            f"config={config!r}: expected a configuration, as AdapterConfig(bottleneck=16)"
        )
    if factory is not None and not (callable(factory) and isinstance(config, AdapterConfig)):
        raise ConfigError(
            f"factory={factory!r} with {config!r}: expected a function or class that makes an "
            "adapter, and an AdapterConfig that says where it stands"
        )


def check_size(config: AnyConfig, d_model: int) -> None:
    """Raises: ConfigError for a size beyond all reason, before it takes all memory."""
    most = max(1024, 16 * d_model)
    name, size = size_of(config, d_model)
    if size > most:
        raise ConfigError(
            f"{name}={size} in a base of width {d_model}: expected at most {most}; an adapter "
            "is small beside its base"
        )


def size_of(config: AnyConfig, d_model: int) -> tuple[str, float]:
    """What decides how large a method's arrays are: its name, and its value."""
    if isinstance(config, AdapterConfig):
        r = config.reduction_factor
        return "bottleneck", config.width(d_model) if r is None else d_model / r
    if isinstance(config, LoRAConfig):
        return "rank", config.rank
    return ("length", config.length) if isinstance(config, PrefixConfig) else ("size", 1)


def checked_layers(layers: Any) -> tuple[int, ...] | None:
    """Block numbers as a tuple; None for all. Raises: ConfigError if they are anything else."""
    if layers is None:
        return None
    if not isinstance(layers, Iterable) or not all(map(is_whole, numbers := tuple(layers))):
        raise ConfigError(f"layers={layers!r}: expected block numbers, as (3, 4, 5)")
    if not is_each_once(numbers) or min(numbers) < 0:
        raise ConfigError(f"layers={layers!r}: expected block numbers from 0, each once")
    return tuple(int(i) for i in numbers)


def check_dropout(dropout: Any) -> None:
    """Raises: ConfigError if it is not a probability."""
    if not (is_number(dropout) and 0 <= dropout < 1):
        raise ConfigError(f"dropout={dropout!r}: expected 0 <= dropout < 1")


def is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a number that float64 can hold; NaN and infinity are not."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -sys.float_info.max <= value <= sys.float_info.max


def is_each_once(values: tuple[Any, ...]) -> bool:
    return bool(values) and len(set(values)) == len(values)

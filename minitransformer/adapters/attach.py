"""Insert, name, activate and remove adapters; say what is trainable."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..errors import ConfigError
from ..layers import LayerNorm
from ..module import Module
from .bottleneck import Adapter, AdapterConfig


class Site(Protocol):
    """A sub-layer, as far as adapters know it: named modules that may stand there."""

    adapters: dict[str, Module]
    active: tuple[str, ...]

    def insert(self, name: str, adapter: Module) -> None: ...

    def remove(self, name: str) -> None: ...


class Adaptable(Module):
    """What a transformer can do with adapters. It has `blocks`, each with the sites by name."""

    config: Any
    blocks: list[Any]

    def add_adapter(
        self, name: str, config: AdapterConfig | None = None, rng: np.random.Generator | None = None
    ) -> None:
        """Insert adapters called `name`, trainable, and activate them. Nothing else changes.

        Weights start as `config.init` says, drawn from `rng` (default: seed 0).
        Raises: ConfigError if the name is taken or empty, or a layer does not exist.
        """
        config = config or AdapterConfig()
        rng = rng if rng is not None else np.random.default_rng(0)
        if not name or "." in name:
            raise ConfigError(f"adapter name {name!r}: expected a word without dots")
        if name in self.adapter_names:
            raise ConfigError(f"an adapter {name!r} is there already; remove it or choose a name")
        layers = config.layers if config.layers is not None else range(len(self.blocks))
        absent = [i for i in layers if not 0 <= i < len(self.blocks)]
        if absent:
            raise ConfigError(
                f"layers={list(layers)}: there is no block {absent[0]}; "
                f"this model has blocks 0 to {len(self.blocks) - 1}"
            )
        for i in layers:
            for site in config.sites or ():
                adapter = Adapter(self.config.d_model, config, rng)
                adapter.astype(self.dtype).train(self.training)
                getattr(self.blocks[i], site).insert(name, adapter)
        self.set_active(name)

    def set_active(self, *names: str | None) -> None:
        """Let the adapters called `name` work; None: the plain base again. Several: a stack.

        Raises: ConfigError for an unknown name.
        """
        working = tuple(name for name in names if name is not None)
        for name in working:
            self.check_adapter(name)
        for site in self.sites():
            site.active = tuple(name for name in working if name in site.adapters)

    def remove_adapter(self, name: str) -> None:
        """Take the adapters called `name` out. Raises: ConfigError for an unknown name."""
        self.check_adapter(name)
        for site in self.sites():
            site.remove(name)

    def check_adapter(self, name: str) -> None:
        """Raises: ConfigError if there is no adapter of that name."""
        if name not in self.adapter_names:
            known = ", ".join(self.adapter_names) or "none"
            raise ConfigError(f"there is no adapter {name!r}; this model has: {known}")

    def sites(self) -> list[Site]:
        """Every sub-layer, in the order of the walk."""
        return [site for block in self.blocks for site in (block.attention, block.ffn)]

    @property
    def adapter_names(self) -> list[str]:
        """The names of the adapters in this model, in the order of insertion."""
        return list(dict.fromkeys(name for site in self.sites() for name in site.adapters))

    @property
    def active_adapters(self) -> tuple[str, ...]:
        """The names of the adapters at work, in the order of the walk through a stack."""
        return tuple(dict.fromkeys(name for site in self.sites() for name in site.active))

    def adapter_config(self, name: str) -> AdapterConfig:
        """The configuration that the adapters called `name` were made with."""
        for site in self.sites():
            adapter = site.adapters.get(name)
            if isinstance(adapter, Adapter):
                return adapter.config
        raise ConfigError(f"there is no adapter {name!r} in this model")

    def train_layer_norms(self, trainable: bool = True) -> None:
        """Train the blocks' layer norms beside the adapters, as Houlsby et al. do; default: not."""
        for block in self.blocks:
            for _, module in block.named_modules():
                if isinstance(module, LayerNorm):
                    for parameter in module.parameters():
                        parameter.trainable = trainable

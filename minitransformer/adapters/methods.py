"""What each method puts into a block, and where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..nn.module import Module
from ..nn.sublayer import SubLayer
from .bottleneck import Adapter
from .config import SITES, AdapterConfig, AnyConfig, IA3Config, LoRAConfig, PrefixConfig
from .ia3 import IA3
from .linear import AdaptedLinear
from .lora import LoRA
from .own import AdapterFactory, own_adapter
from .prefix import Prefix

QKV = ("query", "key", "value")  # side by side in one Linear
LINEARS = {  # sub-layer and Linear -> the targets that are its columns
    ("attention", "qkv"): QKV,
    ("attention", "out"): ("output",),
    ("ffn", "up"): ("up",),
    ("ffn", "down"): ("down",),
}


def modules_in_block(
    block: Any,
    config: AnyConfig,
    d_model: int,
    rng: np.random.Generator,
    factory: AdapterFactory | None = None,
) -> Iterator[tuple[Any, Module]]:
    """The modules that a method inserts, each with its place: a sub-layer or an `AdaptedLinear`."""
    if isinstance(config, AdapterConfig):
        for site in config.resolved_sites:
            if factory is None:
                yield getattr(block, site), Adapter(d_model, config, rng)
            else:
                yield getattr(block, site), own_adapter(factory, d_model, config, rng)
    elif isinstance(config, LoRAConfig):
        for (site, name), targets in LINEARS.items():
            parts = tuple(i for i, target in enumerate(targets) if target in config.targets)
            if parts:
                linear = adapted_linear(block, site, name)
                yield linear, LoRA(linear, config, parts, len(targets), rng)
    elif isinstance(config, IA3Config):
        qkv, down = adapted_linear(block, "attention", "qkv"), adapted_linear(block, "ffn", "down")
        yield qkv, IA3(qkv.weight.shape[1], config, "after", (1, 2), len(QKV))
        yield down, IA3(down.weight.shape[0], config, "before")
    elif isinstance(config, PrefixConfig):
        yield adapted_linear(block, "attention", "qkv"), Prefix(d_model, config, rng)
    else:
        raise ConfigError(f"{config!r}: expected an AdapterConfig, LoRAConfig, IA3Config, ...")


def adapted_linear(block: Any, site: str, name: str) -> AdaptedLinear:
    """The Linear of that name, which from now on can hold adapters."""
    module = getattr(block, site).module
    linear = getattr(module, name)
    if not isinstance(linear, AdaptedLinear):
        linear = AdaptedLinear(linear).train(linear.training)
        setattr(module, name, linear)
    return linear


def restore_plain_linears(block: Any) -> None:
    """Where no adapter is left, a Linear is what it was."""
    for site, name in LINEARS:
        module = getattr(block, site).module
        linear = getattr(module, name)
        if isinstance(linear, AdaptedLinear) and not linear.adapters:
            setattr(module, name, linear.linear)


def places_in(block: Any) -> Iterator[tuple[str, SubLayer | AdaptedLinear]]:
    """What holds adapters by name in a block, with its path: "ffn", "ffn.module.up"."""
    for site in SITES:
        sublayer = getattr(block, site)
        yield site, sublayer
        for name, module in sublayer.module.children():
            if isinstance(module, AdaptedLinear):
                yield f"{site}.module.{name}", module

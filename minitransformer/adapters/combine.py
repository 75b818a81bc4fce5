"""Several adapters made one: by averaging their weights, or by giving each row of a batch its own.

(A stack is `set_active("a", "b")`; attention over several is `fusion`.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError
from ..nn.module import Array
from .config import AdapterConfig
from .fusion import Fusion
from .own import check_not_own

if TYPE_CHECKING:
    from .attach import Adaptable

TRAINING_ONLY = ("init", "dropout")  # options that say nothing about a trained adapter


def average_adapters(model: Adaptable, name: str, weights: Mapping[str, float]) -> None:
    """Add an adapter `name` whose every parameter is sum_i weights[i] * that of adapter i.

    Equal weights that sum to 1 are the average of Chronopoulou et al. 2023 (AdapterSoup, arXiv
    2302.07027, section 3). They need be neither positive nor sum to 1: {"a": 1, "b": 1, "c": -1}
    is task arithmetic (Ilharco et al. 2023, arXiv 2212.04089, section 2). It is trainable and
    active, as every new adapter; those that it was made of stay as they are.
    Raises: ConfigError for unknown or differently configured adapters, or weights that are not
    finite; then nothing has changed.
    """
    if not weights:
        raise ConfigError("no adapters to average: give each with its weight, as {'a': 0.5, ...}")
    configs = {source: model.adapter_config(source) for source in weights}
    first, *others = configs
    for source, weight in weights.items():
        if not np.isfinite(weight):
            raise ConfigError(f"weight {weight} of adapter {source!r}: expected a finite number")
    for source, config in configs.items():
        if not isinstance(config, AdapterConfig):
            raise ConfigError(
                f"{source!r} is of the method {config.method!r}, and averages are of bottleneck "
                "adapters; two LoRAs are summed by set_active('a', 'b')"
            )
        check_not_own(model, source, "averages are")
    for other in others:
        ours, theirs = (resolved(configs[n], model.config.d_model) for n in (first, other))
        differ = [
            f"{key} ({ours[key]} and {theirs[key]})"
            for key in ours
            if ours[key] != theirs[key] and key not in TRAINING_ONLY
        ]
        if differ:
            raise ConfigError(
                f"adapters {first!r} and {other!r} cannot be averaged, they differ in "
                f"{', '.join(differ)}; use fusion, or train them alike"
            )
    model.add_adapter(name, configs[first])
    for site in model.sites():
        if name in site.adapters:
            parts = {source: dict(site.adapters[source].named_parameters()) for source in weights}
            for key, parameter in site.adapters[name].named_parameters():
                total = sum(weights[source] * parts[source][key].value for source in weights)
                parameter.value[...] = total


def resolved(config: AdapterConfig, d_model: int) -> dict[str, Any]:
    """A configuration with what its None stand for."""
    own = {"bottleneck": config.width(d_model), "sites": config.resolved_sites}
    return {**config.to_dict(), **own, "reduction_factor": None}


def fusion_weights(
    model: Adaptable, name: str, ids: Array, attention_mask: Array | None = None
) -> dict[str, Array]:
    """The weight of each adapter at each token: for every site of a fusion, p (B, T, N).

    Keys are "blocks.0.ffn" and so on; N counts the sources in the order they were given, as far as
    they stand at that site. One forward pass is made in eval mode with the fusion active.
    Raises: ConfigError if `name` is not a fusion of this model.
    """
    model.check_adapter(name)
    fusions = {
        path.removesuffix(f".adapters.{name}"): module
        for path, module in model.named_modules()
        if path.endswith(f".adapters.{name}") and isinstance(module, Fusion)
    }
    if not fusions:
        raise ConfigError(f"{name!r} is a single adapter; weights belong to a fusion of several")
    training = model.training
    model.eval()
    try:
        with model.use(name):
            for fusion in fusions.values():
                fusion.keep_weights = True
            model(ids, attention_mask)
            return {
                path: fusion.weights
                for path, fusion in fusions.items()
                if fusion.weights is not None
            }
    finally:
        for fusion in fusions.values():
            fusion.keep_weights, fusion.weights = False, None
        model.train(training)

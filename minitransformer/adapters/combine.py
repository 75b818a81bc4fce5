"""Several adapters made one: a weighted sum of their outputs or of their parameters.

(A stack is `set_active("a", "b")`; attention over several is `fusion`.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import ConfigError
from ..nn.module import Array
from .config import AdapterConfig
from .fusion import Fusion
from .own import check_not_own

if TYPE_CHECKING:
    from .attach import Adaptable
    from .bottleneck import Adapter

TRAINING_ONLY = ("init", "dropout")  # options that say nothing about a trained adapter


def average_adapters(
    model: Adaptable, name: str, weights: Mapping[str, float], of: str = "outputs"
) -> None:
    """Add an adapter `name` that is the weighted sum of others: a mean, or task arithmetic.

    `of` says what is summed:

    - "outputs": f(h) = sum_i weights[i] f_i(h), exactly, whatever the adapters are. Their hidden
      units stand side by side, so the new bottleneck is as wide as all of them together. Right for
      adapters that were trained apart, and for differences: {"a": 1, "b": -1} is f_a - f_b.
    - "parameters": every array is the sum of weights[i] times that of adapter i (AdapterSoup:
      Chronopoulou et al. 2023, arXiv 2302.07027, section 3); the size stays m. It is no sum of the
      adapters: of (sum_i w_i D_i)(sum_j w_j U_j) an adapter's own term is w_i^2 D_i U_i, 1/n^2 in a
      mean of n, and the rest are products of two adapters' factors. So it is right only for
      adapters whose hidden units mean the same: trained from the same start (the same seed), or
      one from the other, with weights that sum to 1. A negative weight changes the sign of the
      last factor alone and scales the others by its size, because (-D)(-U) = D U (Zhang et al.
      2023, arXiv 2306.14870).

    Weights need be neither positive nor sum to 1. The new adapter is trainable and active, as every
    new one; those that it was made of stay as they are.
    Raises: ConfigError for unknown or differently configured adapters, outputs of adapters with a
    norm of their own, or weights that are not finite; then nothing has changed.
    """
    if of not in ("outputs", "parameters"):
        raise ConfigError(f"of={of!r}: expected 'outputs' or 'parameters'")
    if not weights or not isinstance(weights, Mapping):
        raise ConfigError("no adapters to average: give each with its weight, as {'a': 0.5, ...}")
    configs = {source: model.adapter_config(source) for source in weights}
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
    d_model = model.config.d_model
    check_alike(configs, d_model, may_differ=("bottleneck",) if of == "outputs" else ())
    config = next(iter(configs.values()))
    if of == "outputs":
        if config.norm is not None:
            raise ConfigError(
                f"adapters with norm={config.norm!r} have no sum of outputs that is one adapter; "
                "use of='parameters', or fusion"
            )
        width = sum(each.width(d_model) for each in configs.values())
        config = replace(config, bottleneck=width, reduction_factor=None)
    model.add_adapter(name, config)
    combine = side_by_side if of == "outputs" else summed
    for site in model.sites():
        if name in site.adapters:
            new = cast("Adapter", site.adapters[name])
            combine(new, [(w, cast("Adapter", site.adapters[n])) for n, w in weights.items()])


def check_alike(
    configs: Mapping[str, AdapterConfig], d_model: int, may_differ: tuple[str, ...]
) -> None:
    """Raises: ConfigError unless all compute f by the same formula at the same sites."""
    first, *others = configs
    for other in others:
        ours, theirs = (resolved(configs[n], d_model) for n in (first, other))
        differ = [
            f"{key} ({ours[key]} and {theirs[key]})"
            for key in ours
            if ours[key] != theirs[key] and key not in (*TRAINING_ONLY, *may_differ)
        ]
        if differ:
            raise ConfigError(
                f"adapters {first!r} and {other!r} cannot be averaged, they differ in "
                f"{', '.join(differ)}; use fusion, or train them alike"
            )


def side_by_side(new: Adapter, parts: Sequence[tuple[float, Adapter]]) -> None:
    """Make `new` the sum of w f over the parts (w, f): act(h [D_1 D_2]) [w_1 U_1; w_2 U_2]."""
    factors = [w * (1.0 if part.scale is None else float(part.scale.value[0])) for w, part in parts]
    ups = [(factor, part.up) for factor, (_, part) in zip(factors, parts, strict=True)]
    new.down.weight.value[...] = np.concatenate([p.down.weight.value for _, p in parts], axis=1)
    new.down.bias.value[...] = np.concatenate([p.down.bias.value for _, p in parts])
    new.up.weight.value[...] = np.concatenate([w * up.weight.value for w, up in ups])  # (n m, d)
    new.up.bias.value[...] = sum(w * up.bias.value for w, up in ups)
    if new.scale is not None:
        new.scale.value[...] = 1  # each learned scaling is in its rows of the up-projection


def summed(new: Adapter, parts: Sequence[tuple[float, Adapter]]) -> None:
    """Make each array of `new` the weighted sum of those of the parts (w, adapter)."""
    last = "up" if new.norm_after is None else "norm_after"
    arrays = [(w, dict(part.named_parameters())) for w, part in parts]
    for key, parameter in new.named_parameters():
        signed = key.partition(".")[0] == last  # the sign of a weight on one factor only
        parameter.value[...] = sum((w if signed else abs(w)) * of[key].value for w, of in arrays)


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

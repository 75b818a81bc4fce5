"""Merging: what an adapter does is written into the weights of the base, and costs nothing more.

LoRA and (IA)^3 make another projection of a projection, and one matrix can stand for both (Hu et
al. 2021, arXiv 2106.09685, section 4.1). A bottleneck adapter has an activation between its two
projections, and no matrix does what it does. With a "linear" one there is such a matrix, where the
adapter reads what a Linear returns and nothing else: at the placement "houlsby".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..errors import ConfigError
from ..nn.layers import Linear
from ..nn.module import Array
from .linear import AdaptedLinear
from .methods import LINEARS

LAST = {("attention", "out"), ("ffn", "down")}  # Linears whose output is that of the sub-layer


@dataclass(frozen=True)
class Weights:
    """Weight and bias of a Linear. Nobody writes into the arrays: replicas share them."""

    weight: Array
    bias: Array

    def __deepcopy__(self, memo: Any) -> Weights:
        return self


Place = tuple[int, str, str]  # block, sub-layer, Linear


class Mergeable(Protocol):
    """A transformer, as far as merging uses it. `originals`: the weights before any merge."""

    blocks: list[Any]
    originals: Mapping[Place, Weights]


def merge_into_weights(model: Mergeable, names: Sequence[str]) -> None:
    """Give every Linear the weights that the original ones and the adapters `names` come to.

    The originals are kept, and all is computed from them, in float64: merging and unmerging many
    times adds up no rounding. Without names, the originals themselves are put back.
    Raises: ConfigError if one of them cannot be merged; then nothing has changed.
    """
    originals, merged = dict(model.originals), {}
    for place, linear, adapters in adapters_of_linears(model, names):
        original = originals.setdefault(place, Weights(linear.weight.value, linear.bias.value))
        weights = original.weight.astype(np.float64), original.bias.astype(np.float64)
        for adapter in adapters:
            if "merged" not in vars(type(adapter)):  # inherited, it is that of another f
                raise ConfigError(
                    f"{type(adapter).__name__} cannot be merged: it has no method merged(weight, "
                    "bias) of its own that returns both with the adapter written into them"
                )
            weights = adapter.merged(*weights)
        merged[place] = Weights(*(array.astype(linear.dtype) for array in weights))
    for place, original in originals.items():
        linear, weights_now = linear_at(model, place), merged.get(place, original)
        for parameter, value in zip(
            (linear.weight, linear.bias), (weights_now.weight, weights_now.bias), strict=True
        ):
            parameter.value = value.astype(parameter.value.dtype, copy=False)  # as it is by now
    model.originals = {place: originals[place] for place in merged}


def linear_at(model: Mergeable, place: Place) -> Linear:
    block, site, name = place
    linear: Linear = getattr(getattr(model.blocks[block], site).module, name)
    return linear


def adapters_of_linears(
    model: Mergeable, names: Sequence[str]
) -> Iterator[tuple[Place, Linear, list[Any]]]:
    """Each Linear that adapters called `names` change, and those, in the order of their effect."""
    for i, block in enumerate(model.blocks):
        for site, name in LINEARS:
            linear, adapters = linear_at(model, (i, site, name)), []
            if isinstance(linear, AdaptedLinear):
                adapters = [linear.adapters[n] for n in names if n in linear.adapters]
                adapters.sort(key=lambda a: a.placement != "beside")  # factors act on the sum
            if (site, name) in LAST:
                at_site = getattr(block, site).adapters
                adapters += [at_site[n] for n in names if n in at_site]
            if adapters:
                yield (i, site, name), linear, adapters

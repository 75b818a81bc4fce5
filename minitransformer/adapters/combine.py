"""Several adapters made one: by averaging their weights, or by giving each row of a batch its own.

(A stack is `set_active("a", "b")`; attention over several is `fusion`.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, ShapeError
from ..module import Array, Module

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
    for other in others:
        ours, theirs = configs[first].to_dict(), configs[other].to_dict()
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


class Rows(Module):
    """Each row of the batch through its own adapter, or through none: f(h)[i] = f_row[i](h[i]).

    Stands at a site like a single adapter; `set_rows` puts it there.
    Shapes: h (B, ..., d) -> (B, ..., d), with one name (or None) in `rows` for each of the B.
    Raises: ShapeError for a batch of another size.
    """

    def __init__(
        self, adapters: Mapping[str, Any], rows: Sequence[str | None], placement: str
    ) -> None:
        """Rows whose name is not in `adapters` pass unchanged. All adapters have `placement`."""
        self.placement, self.size = placement, len(rows)
        self.adapters: dict[str, Any] = {name: a for name, a in adapters.items() if name in rows}
        self.places = {
            name: np.array([i for i, row in enumerate(rows) if row == name])
            for name in self.adapters
        }

    def plan(self, needs_input_grad: bool = True) -> bool:
        # Side by side, not one after another: nothing one of them trains comes before the next.
        trains = any([adapter.plan(needs_input_grad) for adapter in self.adapters.values()])
        self.needs_input_grad, self.walks_back = needs_input_grad, trains or needs_input_grad
        return self.walks_back

    def forward(self, h: Array) -> Array:
        return h + self.f(h)

    def backward(self, dy: Array) -> Array | None:
        dh = self.f_backward(dy)
        return dy + dh if dh is not None else None

    def f(self, h: Array) -> Array:
        """The branches alone, zero where there is none: (B, ..., d) -> (B, ..., d)."""
        if len(h) != self.size:
            raise ShapeError(
                f"a batch of {len(h)} rows, but adapters were chosen for {self.size}: "
                "set_rows needs a name or None for each row"
            )
        f = np.zeros_like(h)
        for name, adapter in self.adapters.items():
            place = self.places[name]
            f[place] = adapter.f(h[place])
        self.save(f.shape)
        return f

    def f_backward(self, df: Array) -> Array | None:
        """The gradient of f's input, from the gradient of its output."""
        self.take_saved(df)
        dh = np.zeros_like(df) if self.needs_input_grad else None
        for name, adapter in self.adapters.items():
            d = adapter.f_backward(df[self.places[name]]) if adapter.walks_back else None
            if dh is not None and d is not None:
                dh[self.places[name]] = d
        return dh

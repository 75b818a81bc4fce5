"""An adapter of its own for each row of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..nn.module import Array, Module, backward_through
from ..nn.sublayer import f_backward


class PerRowAdapters(Module):
    """Each row of the batch through its own adapter, or through none: f(h)[i] = f_row[i](h[i]).

    Stands at a site like a single adapter; `set_adapter_per_row` puts it there.
    Shapes: h (B, ..., d) -> (B, ..., d), with one name (or None) in `rows` for each of the B.
    Raises: ShapeError for a batch of another size.
    """

    def __init__(
        self, adapters: Mapping[str, Any], rows: Sequence[str | None], placement: str
    ) -> None:
        """Rows whose name is not in `adapters` pass unchanged. All adapters have `placement`."""
        self.placement, self.size = placement, len(rows)
        self.adapters: dict[str, Any] = {name: a for name, a in adapters.items() if name in rows}
        self.rows = {
            name: np.array([i for i, row in enumerate(rows) if row == name])
            for name in self.adapters
        }

    def forward(self, h: Array) -> Array:
        return h + self.f(h)

    def backward(self, dy: Array) -> Array | None:
        dh = self.f_backward(dy)
        return dy + dh if dh is not None else None

    def f(self, h: Array) -> Array:
        """The branches alone, zero where there is none: (B, ..., d) -> (B, ..., d)."""
        self.check_size(h)
        f = np.zeros_like(h)
        for name, adapter in self.adapters.items():
            f[self.rows[name]] = adapter.f(h[self.rows[name]])
        self.save_for_backward(f.shape)
        return f

    def check_size(self, h: Array) -> None:
        if len(h) != self.size:
            raise ShapeError(
                f"a batch of {len(h)} rows, but adapters were chosen for {self.size}: "
                "set_adapter_per_row needs a name or None for each row"
            )

    def f_backward(self, df: Array) -> Array | None:
        """The gradient of f's input, from the gradient of its output."""
        self.pop_saved(df)
        dh, input_trains = np.zeros_like(df), False
        for name, adapter in self.adapters.items():
            d = f_backward(adapter, df[self.rows[name]])
            if d is not None:
                dh[self.rows[name]], input_trains = d, True
        return dh if input_trains else None


class PerRowProjections(PerRowAdapters):
    """The same inside an `AdaptedLinear`: each row of the batch with its own LoRA, or factors.

    Shapes: as those of the adapters, which read x, or x and y, and return the latter of them
    changed. Rows without an adapter stay as they are.
    """

    def forward(self, *arrays: Array) -> Array:
        self.check_size(arrays[-1])
        y = arrays[-1].copy()
        for name, adapter in self.adapters.items():
            rows = self.rows[name]
            y[rows] = adapter.forward(*(array[rows] for array in arrays))
        self.save_for_backward(y.shape)
        return y

    def backward(self, dy: Array) -> Array | None:
        """The gradient of x."""
        self.pop_saved(dy)
        found = {
            name: backward_through(dy[self.rows[name]], a) for name, a in self.adapters.items()
        }
        widths = [d.shape[-1] for d in found.values() if d is not None]
        if not widths:
            return None
        # Beside a projection, the gradient is that of the updates alone; elsewhere dy passes on.
        dx = np.zeros((*dy.shape[:-1], widths[0]), dy.dtype) if self.placement == "beside" else dy
        dx = dx.copy()
        for name, d in found.items():
            if d is not None:
                dx[self.rows[name]] = d
        return dx

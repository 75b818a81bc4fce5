"""The gradient of an embedding: some rows of a large table, and zero in all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RowGradient:
    """A gradient (n, d) that is zero but for some rows. `np.asarray` gives the whole array."""

    shape: tuple[int, ...]  # (n, d)
    rows: Array  # (k,) integers, ascending, each once
    values: Array  # (k, d)

    @classmethod
    def summed(cls, shape: tuple[int, ...], ids: Array, values: Array) -> RowGradient:
        """Of ids (N,) and values (N, d): sort by id, then add up each run of equal ids."""
        order = np.argsort(ids, kind="stable")
        rows, starts = np.unique(ids[order], return_index=True)
        return cls(shape, rows, np.add.reduceat(values[order], starts, axis=0))

    def __add__(self, other: RowGradient) -> RowGradient:
        rows = np.append(self.rows, other.rows)
        return self.summed(self.shape, rows, np.append(self.values, other.values, axis=0))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        whole = np.zeros(self.shape, dtype or self.values.dtype)
        whole[self.rows] = self.values
        return whole

"""A large array in a few numbers, so that two of them can be compared without keeping either."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from reference.names import Array, Arrays


def products(x: Array) -> Array:
    """The last axis against two fixed vectors: (..., n) -> (..., 2). Every entry takes part."""
    vectors = np.random.default_rng(20).random((x.shape[-1], 2)) - 0.5
    return x.astype(np.float64) @ vectors


def entries(x: Array, count: int, rng: np.random.Generator) -> Array:
    """Flat positions of a few entries that are not zero."""
    return rng.choice(np.flatnonzero(x), min(count, np.count_nonzero(x)), replace=False)


def summarize(x: Array, where: Array) -> Array:
    """Norm, two products with fixed vectors, and the entries at `where`, in float64."""
    flat = x.ravel().astype(np.float64)
    return np.concatenate([[np.linalg.norm(flat)], products(flat), flat[where]])


def condense(gradients: Mapping[str, Array]) -> Arrays:
    """Of each gradient the norm and two products: names (P,), summaries (P, 3)."""
    nowhere = np.array([], dtype=np.int64)
    ordered = sorted(gradients)
    rows = [summarize(gradients[name], nowhere) for name in ordered]
    return {"names": np.array(ordered), "summaries": np.array(rows)}

"""Bytes that a forward pass saves for the backward pass, measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..nn.module import Module


def saved_bytes(model: Module) -> int:
    """Bytes of the arrays that `forward` saved for `backward`, each buffer once.

    The parameters themselves are not counted, even where a module refers to them.
    """
    weights = {id(buffer(parameter.value)) for parameter in model.parameters()}
    found: dict[int, int] = {}
    for _, module in model.named_modules():
        if module._saved is not None:
            for array in arrays_in(module._saved.arrays):
                owner = buffer(array)
                if id(owner) not in weights:
                    found[id(owner)] = owner.nbytes
    return sum(found.values())


def buffer(array: np.ndarray) -> np.ndarray:
    """The array that owns the memory which `array` is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def arrays_in(saved: Any) -> Iterator[np.ndarray]:
    if isinstance(saved, np.ndarray):
        yield saved
    elif isinstance(saved, tuple | list):
        for item in saved:
            yield from arrays_in(item)

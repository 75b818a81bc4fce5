"""Counting mode: the multiply-adds of whatever a model does, counted while it runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..nn.module import Array, Module

NOT_COUNTED = (np.dot, np.inner, np.tensordot)  # nothing here uses them: write a @ b


class Counter:
    """How many multiply-adds so far."""

    multiply_adds = 0


class CountedArray(np.ndarray):
    """An array that adds the matrix products it takes part in to a counter.

    NumPy calls `__array_ufunc__` for `a @ b`, `np.matmul(a, b, out=c)` and all element-wise work,
    and `__array_function__` for the rest, einsum among it. Results are `CountedArray`s again, so
    that everything computed from counted weights and inputs is counted as well.
    """

    counter: Counter | None = None

    def __array_finalize__(self, source: Any) -> None:
        self.counter = getattr(source, "counter", None)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if options.get("out") is not None:
            options["out"] = tuple(plain(x) for x in options["out"])
        arrays = [plain(x) for x in inputs]
        result = getattr(ufunc, method)(*arrays, **options)
        counters = [x.counter for x in inputs if isinstance(x, CountedArray) and x.counter]
        if ufunc is np.matmul and counters:  # (..., n, k) @ (..., k, m)
            counters[0].multiply_adds += result.size * arrays[0].shape[-1]
        return counted(result, counters[0]) if counters else result

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        if function in NOT_COUNTED:
            raise ConfigError(f"{function.__name__} is not counted; write the product as a @ b")
        if function is np.einsum and self.counter:
            self.counter.multiply_adds += einsum_products(*args)
        return counted(super().__array_function__(function, types, args, options), self.counter)


def plain(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, CountedArray) else x


def counted(x: Any, counter: Counter | None) -> Any:
    """A view of an array that counts; anything else unchanged."""
    if not isinstance(x, np.ndarray):
        return x
    view = x.view(CountedArray)
    view.counter = counter
    return view


def einsum_products(subscripts: str, *arrays: Array) -> int:
    """The multiply-adds of an einsum of two arrays, if it is a matrix product; else 0.

    It is one if it sums over an index of both, and either has an index of its own that stays, as
    in "ik,kj->ij". Row by row scalar products and weighted sums are not.
    """
    sources, _, target = subscripts.replace("...", ".").partition("->")
    names = sources.split(",")
    if len(names) != 2:
        return 0
    a, b = map(set, names)
    stays = set(target)
    if not ((a & b) - stays and (a - b) & stays and (b - a) & stays):
        return 0
    sizes: dict[str, int] = {}
    for letters, array in zip(names, arrays, strict=True):
        dots = array.ndim - len(letters) + 1  # how many axes "..." stands for
        shape = [math.prod(array.shape[:dots]), *array.shape[dots:]]
        sizes |= zip(letters, shape if "." in letters else array.shape, strict=True)
    return math.prod(sizes.values())


@contextmanager
def count_multiply_adds(model: Module) -> Iterator[Counter]:
    """`with count_multiply_adds(model) as counter:` count every matrix product of the model.

    `counter.multiply_adds` grows while the model runs, forward and backward; read it in between
    to tell them apart. Replicas made outside are not counted.
    """
    counter, parameters, forward = Counter(), model.parameters(), model.forward

    def forward_of_counted(*args: Any, **options: Any) -> Any:
        options = {name: counted(x, counter) for name, x in options.items()}
        return forward(*(counted(x, counter) for x in args), **options)

    for parameter in parameters:
        parameter.value = counted(parameter.value, counter)
    vars(model)["forward"] = forward_of_counted  # a product of input and gradient has no weight
    try:
        yield counter
    finally:
        del vars(model)["forward"]
        for parameter in parameters:
            parameter.value = plain(parameter.value)
            parameter.grad = plain(parameter.grad)

"""An adapter of your own: what it must be, and the check when it is inserted.

`model.add_adapter("mine", factory)` calls `factory(d_model, config, rng)` for each site. It makes a
`Module` with two methods, the branch f of h + f(h) and its backward pass:

    f(h)           (..., d) -> (..., d), without the skip connection, which the sub-layer adds
    f_backward(df) adds to the gradients of what trains, and returns the gradient of h, or None if
                   nothing before the adapter trains (`self.needs_input_grad`, where f called
                   `save_for_backward`; `backward_through` over inner modules does this by itself)

A class whose `__init__` takes these arguments is a factory, as `Adapter` itself. Where it stands,
the `AdapterConfig` says; what else is in it, the factory may read or leave.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, ConfigError, MiniTransformerError
from ..nn.layers import Rng
from ..nn.module import Array, Module
from ..nn.sublayer import f_backward
from .bottleneck import Adapter
from .config import AdapterConfig

AdapterFactory = Callable[[int, AdapterConfig, Rng], Any]


def own_adapter(
    factory: AdapterFactory, d_model: int, config: AdapterConfig, rng: np.random.Generator
) -> Module:
    """An adapter that `factory` makes, once it has passed the check.

    Raises: ConfigError that names the class, and what is missing or wrong.
    """
    try:
        inspect.signature(factory).bind(d_model, config, rng)
    except TypeError as error:
        made_by = getattr(factory, "__name__", repr(factory))
        raise ConfigError(
            f"{made_by} cannot be called as factory(d_model, config, rng): {error}; give it (or "
            "its __init__) these three arguments, even those that it leaves unused"
        ) from error
    module = factory(d_model, config, rng)
    name = type(module).__name__
    if not isinstance(module, Module):
        raise ConfigError(f"the factory made {module!r}: expected a Module with f and f_backward")
    missing = [m for m in ("f", "f_backward") if not callable(getattr(module, m, None))]
    if missing:
        raise ConfigError(
            f"{name} has no {' and no '.join(missing)}: an adapter is h + f(h), with methods f(h) "
            "and f_backward(df)"
        )
    for method in ("forward", "backward"):
        if getattr(type(module), method) not in (getattr(m, method) for m in (Module, Adapter)):
            raise ConfigError(
                f"{name} has a {method} of its own, which would not be used: a sub-layer calls f "
                "and f_backward and adds the skip connection itself. Put it there"
            )
    own: Any = module
    own.config, own.placement = config, config.placement
    try_out(module, d_model)
    return module


def try_out(module: Module, d_model: int) -> None:
    """Run f and f_backward once in each situation that a model can bring, on a copy.

    Raises: ConfigError if what they return is not what the protocol says.
    """
    name, rng = type(module).__name__, np.random.default_rng(0)
    h, df = (rng.standard_normal((2, 3, d_model)).astype(module.dtype) for _ in range(2))
    for trains in (True, False):
        for needed in (True, False):
            branch = Branch(copy.deepcopy(module).train().requires_grad_(trains))
            try:
                f = branch.call(needed, h)
                dh = branch.backward(df)
            except MiniTransformerError as error:
                state = "trainable" if trains else "frozen"
                raise ConfigError(f"{name}, {state}: {error}") from error
            if not isinstance(f, np.ndarray) or (f.shape, f.dtype) != (h.shape, h.dtype):
                raise ConfigError(
                    f"{name}.f returned {described(f)} for h of {described(h)}: expected the same"
                )
            if needed and (dh is None or np.shape(dh) != h.shape):
                raise ConfigError(
                    f"{name}.f_backward returned {described(dh)}, but h has {described(h)} and "
                    "something before the adapter trains: expected the gradient of h"
                )
            if not needed and dh is not None:
                raise ConfigError(
                    f"{name}.f_backward returned the gradient of h although nothing before the "
                    "adapter trains: return None then, `dh if self.needs_input_grad else None`, "
                    "or use backward_through"
                )


class Branch(Module):
    """f alone, as a module."""

    def __init__(self, adapter: Any) -> None:
        self.adapter = adapter

    def forward(self, h: Array) -> Array:
        f: Array = self.adapter.f(h)
        return f

    def backward(self, dy: Array) -> Array | None:
        return f_backward(self.adapter, dy)


def described(array: Any) -> str:
    """Shape and dtype of an array, for an error; of anything else what it is."""
    return f"{array.shape} {array.dtype}" if isinstance(array, np.ndarray) else repr(array)


def own_class(model: Any, name: str) -> str | None:
    """The class of the adapters called `name`; None if they are not of a factory's making."""
    for site in model.sites():
        adapter = site.adapters.get(name)
        if isinstance(getattr(adapter, "config", None), AdapterConfig):
            return None if type(adapter) is Adapter else type(adapter).__name__
    return None


def check_not_own(model: Any, name: str, what: str) -> None:
    """Raises: ConfigError if the adapters called `name` are of a factory's making."""
    own = own_class(model, name)
    if own is not None:
        raise ConfigError(f"{name!r} is {own}, a class of your own: {what} of bottleneck adapters")


def check_factory(path: Path, classes: Mapping[str, str], factory: AdapterFactory | None) -> None:
    """Raises: CheckpointError without the factory that a file needs, ConfigError with one more.

    `classes`: of the adapters in the file that a factory made, by their names.
    """
    needed = sorted(set(classes.values()))
    if needed and factory is None:
        raise CheckpointError(
            f"{path} holds adapters of a class of its author's, {needed[0]}; files keep no code: "
            f"load_adapter(path, factory={needed[0]})"
        )
    if factory is not None and len(needed) != 1:
        seen = ", ".join(needed) or "only those of this library"
        raise ConfigError(
            f"factory={factory!r}, but {path} holds adapters of {seen}; expected one class"
        )

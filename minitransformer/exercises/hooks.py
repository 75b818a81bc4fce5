"""`use`: while inside, the library runs with a student's class or function in place of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

from ..adapters import bottleneck, lora
from ..errors import ConfigError
from ..nn import kernels, layers, module
from ..nn.module import Array
from ..training import optim

HOMES: dict[str, ModuleType] = {
    "Linear": layers,
    "LayerNorm": layers,
    "attention": kernels,
    "attention_backward": kernels,
    "Adapter": bottleneck,
    "LoRA": lora,
    "backward_through": module,
    "AdamW": optim,
    "clip_by_global_norm": optim,
}
KEEP = ("minitransformer.gradcheck", "minitransformer.exercises")  # these judge what is plugged in


@contextmanager
def use(**replacements: Any) -> Iterator[None]:
    """`with use(Adapter=MyAdapter): ...`: what the library makes inside is made from MyAdapter.

    Names: Linear, LayerNorm, Adapter, LoRA, AdamW (classes with the library's arguments and
    methods), attention, attention_backward (without dropout), backward_through and
    clip_by_global_norm (functions). Models that were made before keep what they have; those made
    inside keep the student's part. It holds for all threads; use it in one at a time.
    Raises: ConfigError for another name, or something that cannot be called.
    """
    for name, mine in replacements.items():
        if name not in HOMES:
            raise ConfigError(f"use({name}=...): expected some of {', '.join(HOMES)}")
        kind = "class" if isinstance(getattr(HOMES[name], name), type) else "function"
        if not callable(mine) or isinstance(mine, type) != (kind == "class"):
            raise ConfigError(f"use({name}={mine!r}): expected a {kind}")
    with ExitStack() as stack:
        for name, mine in replacements.items():
            if HOMES[name] is kernels:
                mine = as_kernel(name, mine)
                put(stack, kernels, "over_inputs_is_cheaper", never)
            if name == "Adapter":
                mine = with_branch(mine)
            for place in places(name):
                put(stack, place, name, mine)
        yield


def put(stack: ExitStack, place: ModuleType, name: str, value: Any) -> None:
    """Set a name in a module; the stack puts back what was there."""
    stack.callback(setattr, place, name, getattr(place, name))
    setattr(place, name, value)


def places(name: str) -> list[ModuleType]:
    """The modules of the library in which `name` means the same object as in its home."""
    original = getattr(HOMES[name], name)
    return [
        loaded
        for path, loaded in list(sys.modules.items())
        if path.partition(".")[0] == "minitransformer"
        and not path.startswith(KEEP)
        and vars(loaded).get(name) is original
    ]


def with_branch(mine: Any) -> Any:
    """A student's adapter, h + f(h), with the branch f by which a sub-layer calls adapters."""
    if hasattr(mine, "f"):
        return mine

    class Adapter(mine):  # type: ignore[misc]
        def f(self, h: Array) -> Array:
            y: Array = self.forward(h)
            return y - h

        def f_backward(self, df: Array) -> Array | None:
            dh: Array | None = self.backward(df)
            return None if dh is None else dh - df

    Adapter.__name__ = Adapter.__qualname__ = mine.__name__
    return Adapter


def as_kernel(name: str, mine: Callable[..., Any]) -> Callable[..., Any]:
    """A student's attention with the arguments by which the layers call theirs."""

    def attention(q: Array, k: Array, v: Array, mask: Any = None, dropout_mask: Any = None) -> Any:
        check_no_dropout(dropout_mask)
        return mine(q, k, v, mask)

    def attention_backward(
        dcontext: Array, q: Array, k: Array, v: Array,
        mask: Any = None, dropout_mask: Any = None, out: Any = None,
    ) -> Any:  # fmt: skip
        check_no_dropout(dropout_mask)
        gradients = mine(dcontext, q, k, v, mask)
        for array, gradient in zip(out or (), gradients, strict=bool(out)):
            array[...] = gradient
        return gradients

    return attention if name == "attention" else attention_backward


def check_no_dropout(dropout_mask: Any) -> None:
    if dropout_mask is not None:
        raise ConfigError("an attention that is plugged in has no dropout: attention_dropout=0")


def never(*_: Any) -> bool:
    return False

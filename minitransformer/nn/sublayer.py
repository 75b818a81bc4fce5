"""SubLayer: attention or feed-forward with its residual, its norm, and the adapters' places."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Protocol

from ..errors import ConfigError
from .layers import Dropout, LayerNorm
from .module import Array, Module, Parameter, backward_through


class AdapterLike(Protocol):
    """What may stand at an adapter site: a module with a branch f. See `adapters/own.py`."""

    placement: str
    output_requires_grad: bool

    def f(self, h: Array) -> Array: ...

    def f_backward(self, df: Array) -> Array | None: ...

    def unfreeze(self) -> Any: ...

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]: ...


class SubLayer(Module):
    """Attention or feed-forward (`module`) with its residual and norm, and what adapters add.

    With x the input, s = module(x), and f the branch of an adapter, which itself is h + f(h):

        placement     post-norm (BERT)                pre-norm (GPT-2): s = module(LN(x))
        no adapter    y = LN(x + s)                   y = x + s
        after_norm    h = LN(x + s), y = h + f(h)     h = x + s, y = h + f(h)
        houlsby       y = LN(x + s + f(s))            y = x + s + f(s)
        pfeiffer      y = LN(x + s + f(LN(x + s)))    as after_norm: there is no norm
        parallel      y = LN(x + s + f(x))            y = x + s + f(x)

    Several active adapters are a stack: each reads the sum that includes the one before it.

    Shapes: x (B, T, d_model) -> (B, T, d_model), or the first positions of it if `module` returns
    only those. Further arguments go to `module`.
    """

    # A new placement: its word here, its lines in forward and backward.
    PLACEMENTS = ("after_norm", "houlsby", "pfeiffer", "parallel")

    def __init__(self, module: Module, norm: LayerNorm, pre_norm: bool, dropout: float) -> None:
        self.module, self.norm, self.pre_norm = module, norm, pre_norm
        self.dropout = Dropout(dropout)
        self.adapters: dict[str, AdapterLike] = {}  # by name
        self.active: tuple[str, ...] = ()
        # "pfeiffer" uses the norm once more: a module of its own over the same gain and bias.
        self.first_norms: dict[str, LayerNorm] = {}

    def forward(self, x: Array, *module_args: Any) -> Array:
        h = self.norm.forward(x) if self.pre_norm else x
        s = self.dropout.forward(self.module.forward(h, *module_args))  # (B, Q, d)
        x = x[:, : s.shape[1]]  # the positions that `module` returned
        for adapter in self.active_at("parallel"):
            s = s + adapter.f(x)
        for adapter in self.active_at("houlsby"):
            s = s + adapter.f(s)
        for adapter, norm in self.active_with_first_norm():
            s = s + adapter.f(norm.forward(x + s))
        y = x + s if self.pre_norm else self.norm.forward(x + s)
        for adapter in self.active_at("after_norm"):
            y = y + adapter.f(y)
        return y

    def backward(self, dy: Array) -> Array | None:
        first, last = ([self.norm], []) if self.pre_norm else ([], [self.norm])
        for adapter in reversed(self.active_at("after_norm")):
            df = f_backward(adapter, dy)
            if df is None:  # nothing before it trains
                return None
            dy = dy + df
        d = backward_through(dy, *last)
        if d is None:
            return None
        dx, ds = d, d  # the gradient of a sum is that of each term
        for adapter, norm in reversed(self.active_with_first_norm()):
            df = f_backward(adapter, ds)
            dsum = backward_through(df, norm) if df is not None else None
            dx, ds = plus(dx, dsum), plus(ds, dsum)
        for adapter in reversed(self.active_at("houlsby")):
            ds = plus(ds, f_backward(adapter, ds))
        for adapter in reversed(self.active_at("parallel")):
            dx = plus(dx, f_backward(adapter, ds))
        dh = backward_through(ds, self.dropout, self.module, *first)
        if dh is not None:
            dh[:, : dx.shape[1]] += dx  # the residual
        return dh

    # -- adapters --------------------------------------------------------------------------

    def insert(self, name: str, adapter: AdapterLike) -> None:
        """Add an adapter; it takes part while `active` names it.

        Raises: ConfigError for a placement without lines in forward and backward.
        """
        if adapter.placement not in self.PLACEMENTS:
            raise ConfigError(
                f"placement {adapter.placement!r} has no code in SubLayer.forward and backward; "
                f"these have: {', '.join(self.PLACEMENTS)}"
            )
        self.adapters[name] = adapter
        if adapter.placement == "pfeiffer" and not self.pre_norm:
            self.first_norms[name] = copy.copy(self.norm)

    def remove(self, name: str) -> None:
        """Take the adapter of that name out, if there is one."""
        self.adapters.pop(name, None)
        self.first_norms.pop(name, None)
        self.active = tuple(other for other in self.active if other != name)

    def active_at(self, placement: str) -> list[AdapterLike]:
        """The active adapters at this placement, in the order of the forward pass."""
        return [self.adapters[name] for name in self.active if self.placement_of(name) == placement]

    def active_with_first_norm(self) -> list[tuple[AdapterLike, LayerNorm]]:
        """The active adapters at "pfeiffer" in a post-norm block, each with its first norm."""
        names = [name for name in self.active if self.placement_of(name) == "pfeiffer"]
        return [(self.adapters[name], self.first_norms[name]) for name in names]

    def placement_of(self, name: str) -> str:
        """The adapter's placement; without a norm there, "pfeiffer" is "after_norm"."""
        placement = self.adapters[name].placement
        return "after_norm" if placement == "pfeiffer" and self.pre_norm else placement


def f_backward(adapter: AdapterLike, df: Array) -> Array | None:
    """The gradient of the branch's input; None if nothing in or before the adapter trains."""
    return adapter.f_backward(df) if adapter.output_requires_grad else None


def plus(d: Array, dbranch: Array | None) -> Array:
    """The gradient of a value that is used twice is a sum."""
    return d if dbranch is None else d + dbranch

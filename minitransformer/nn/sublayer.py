"""SubLayer: attention or feed-forward with its residual, its norm, and the adapters' places."""

from __future__ import annotations

from typing import Any

from .layers import Dropout, LayerNorm
from .module import Array, Module


class SubLayer(Module):
    """Attention or feed-forward (`module`) with its residual and norm, and what adapters add.

    x is what comes in, s = module(x), and f the branch of an adapter, which itself is h + f(h):

        placement     post-norm (BERT)                pre-norm (GPT-2): s = module(LN(x))
        no adapter    y = LN(x + s)                   y = x + s
        after_norm    h = LN(x + s), y = h + f(h)     h = x + s, y = h + f(h)
        houlsby       y = LN(x + s + f(s))            y = x + s + f(s)
        pfeiffer      y = LN(x + s + f(LN(x + s)))    as after_norm: no norm stands there
        parallel      y = LN(x + s + f(x))            y = x + s + f(x)

    Several active adapters are a stack: each reads what the one before it left, and adds to it.

    Shapes: x (B, T, d_model) -> (B, T, d_model), or the first positions of it if `module` answers
    for those alone. Further arguments go to `module`.
    """

    def __init__(self, module: Module, norm: LayerNorm, pre_norm: bool, dropout: float) -> None:
        self.module, self.norm, self.pre_norm = module, norm, pre_norm
        self.dropout = Dropout(dropout)
        self.adapters: dict[str, Any] = {}  # each with f and f_backward, as `Adapter` has
        self.active: tuple[str, ...] = ()
        # "pfeiffer" walks through the norm once more than the others: the same gain and bias.
        self.first_norms: dict[str, LayerNorm] = {}

    # -- what may stand here ---------------------------------------------------------------

    def insert(self, name: str, adapter: Any) -> None:
        """Keep an adapter here; it works while `active` names it."""
        self.adapters[name] = adapter
        if adapter.placement == "pfeiffer" and not self.pre_norm:
            self.first_norms[name] = self.norm.shared_copy()

    def remove(self, name: str) -> None:
        """Take the adapter of that name out, if there is one."""
        self.adapters.pop(name, None)
        self.first_norms.pop(name, None)
        self.active = tuple(other for other in self.active if other != name)

    def active_at(self, placement: str) -> list[Any]:
        """The adapters at work at this placement, in the order of the walk."""
        return [self.adapters[name] for name in self.active if self.placement_of(name) == placement]

    def active_after_first_norm(self) -> list[tuple[LayerNorm, Any]]:
        """The adapters at work at "pfeiffer" in a post-norm block, each with its first norm."""
        names = [name for name in self.active if self.placement_of(name) == "pfeiffer"]
        return [(self.first_norms[name], self.adapters[name]) for name in names]

    def placement_of(self, name: str) -> str:
        """The adapter's placement; without a norm there, "pfeiffer" is "after_norm"."""
        placement: str = self.adapters[name].placement
        return "after_norm" if placement == "pfeiffer" and self.pre_norm else placement

    # -- the two walks ---------------------------------------------------------------------

    def forward_order(self) -> list[Module]:
        branch = [self.norm, self.module] if self.pre_norm else [self.module]
        inner = [*self.active_at("parallel"), *self.active_at("houlsby")]
        inner += [room for pair in self.active_after_first_norm() for room in pair]
        last = [] if self.pre_norm else [self.norm]
        return [*branch, self.dropout, *inner, *last, *self.active_at("after_norm")]

    def propagate_requires_grad(self, needs_input_grad: bool = True) -> bool:
        # x, s and y each need a gradient or not; a parallel adapter reads x, the others s or y.
        x = needs_input_grad
        s = self.module.propagate_requires_grad(
            self.norm.propagate_requires_grad(x) if self.pre_norm else x
        )
        s = self.dropout.propagate_requires_grad(s)
        for adapter in self.active_at("parallel"):
            s = adapter.propagate_requires_grad(x) or s
        for adapter in self.active_at("houlsby"):
            s = adapter.propagate_requires_grad(s)
        for norm, adapter in self.active_after_first_norm():
            s = adapter.propagate_requires_grad(norm.propagate_requires_grad(s)) or s
        y = s if self.pre_norm else self.norm.propagate_requires_grad(s)
        for adapter in self.active_at("after_norm"):
            y = adapter.propagate_requires_grad(y)
        self.needs_input_grad, self.output_requires_grad = x, y
        return y

    def forward(self, x: Array, *module_args: Any) -> Array:
        h = self.norm.forward(x) if self.pre_norm else x
        s = self.dropout.forward(self.module.forward(h, *module_args))  # (B, Q, d)
        x = x[:, : s.shape[1]]  # the positions that `module` answers for
        for adapter in self.active_at("parallel"):
            s = s + adapter.f(x)
        for adapter in self.active_at("houlsby"):
            s = adapter.forward(s)
        for norm, adapter in self.active_after_first_norm():
            s = s + adapter.f(norm.forward(x + s))
        y = x + s if self.pre_norm else self.norm.forward(x + s)
        for adapter in self.active_at("after_norm"):
            y = adapter.forward(y)
        self.save_for_backward(y.shape)
        return y

    def backward(self, dy: Array) -> Array | None:
        self.pop_saved(dy)
        d: Array | None = dy
        for adapter in reversed(self.active_at("after_norm")):
            d = adapter.backward(d) if d is not None else None
        if not self.pre_norm and d is not None:
            d = self.norm.backward(d)
        if d is None:
            return None  # nothing earlier trains: the walk back ends here
        dx, ds = d, d  # a sum hands its gradient on to both, unchanged
        for norm, adapter in reversed(self.active_after_first_norm()):
            df = adapter.f_backward(ds) if adapter.output_requires_grad else None
            if df is not None:
                dsum = norm.backward(df)
                dx, ds = (dx + dsum, ds + dsum) if dsum is not None else (dx, ds)
        for adapter in reversed(self.active_at("houlsby")):
            if not adapter.output_requires_grad:
                return None  # a frozen one, and nothing earlier trains
            ds = adapter.backward(ds)
        for adapter in reversed(self.active_at("parallel")):
            df = adapter.f_backward(ds) if adapter.output_requires_grad else None
            dx = dx + df if df is not None else dx
        if ds is None or not self.dropout.output_requires_grad:
            return None
        dmodule = self.dropout.backward(ds)
        dh = self.module.backward(dmodule) if dmodule is not None else None
        if self.pre_norm and dh is not None:
            dh = self.norm.backward(dh)
        if dh is None or not self.needs_input_grad:
            return None
        dh[:, : dx.shape[1]] += dx  # the residual
        return dh

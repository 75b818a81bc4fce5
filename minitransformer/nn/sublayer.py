"""SubLayer: attention or feed-forward with its residual, its norm, and the adapters' places."""

from __future__ import annotations

from typing import Any

from .layers import Dropout, LayerNorm
from .module import Array, Module


class SubLayer(Module):
    """Attention or feed-forward (`core`) with its residual and norm, and what adapters add.

    x is what comes in, s = core(x), and f the branch of an adapter, which itself is h + f(h):

        placement     post-norm (BERT)                pre-norm (GPT-2): s = core(LN(x))
        no adapter    y = LN(x + s)                   y = x + s
        after_norm    h = LN(x + s), y = h + f(h)     h = x + s, y = h + f(h)
        houlsby       y = LN(x + s + f(s))            y = x + s + f(s)
        pfeiffer      y = LN(x + s + f(LN(x + s)))    as after_norm: no norm stands there
        parallel      y = LN(x + s + f(x))            y = x + s + f(x)

    Several active adapters are a stack: each reads what the one before it left, and adds to it.

    Shapes: x (B, T, d_model) -> (B, T, d_model), or the first positions of it if `core` answers
    for those alone. Further arguments go to `core`.
    """

    def __init__(self, core: Module, norm: LayerNorm, pre_norm: bool, dropout: float) -> None:
        self.core, self.norm, self.pre_norm = core, norm, pre_norm
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
            self.first_norms[name] = self.norm.twin()

    def remove(self, name: str) -> None:
        """Take the adapter of that name out, if there is one."""
        self.adapters.pop(name, None)
        self.first_norms.pop(name, None)
        self.active = tuple(other for other in self.active if other != name)

    def standing(self, placement: str) -> list[Any]:
        """The adapters at work at this placement, in the order of the walk."""
        return [self.adapters[name] for name in self.active if self.place(name) == placement]

    def standing_after_a_norm(self) -> list[tuple[LayerNorm, Any]]:
        """The adapters at work at "pfeiffer" in a post-norm block, each with its first norm."""
        names = [name for name in self.active if self.place(name) == "pfeiffer"]
        return [(self.first_norms[name], self.adapters[name]) for name in names]

    def place(self, name: str) -> str:
        """The adapter's placement; without a norm there, "pfeiffer" is "after_norm"."""
        placement: str = self.adapters[name].placement
        return "after_norm" if placement == "pfeiffer" and self.pre_norm else placement

    # -- the two walks ---------------------------------------------------------------------

    def walk(self) -> list[Module]:
        branch = [self.norm, self.core] if self.pre_norm else [self.core]
        inner = [*self.standing("parallel"), *self.standing("houlsby")]
        inner += [room for pair in self.standing_after_a_norm() for room in pair]
        last = [] if self.pre_norm else [self.norm]
        return [*branch, self.dropout, *inner, *last, *self.standing("after_norm")]

    def plan(self, needs_input_grad: bool = True) -> bool:
        # x, s and y each need a gradient or not; a parallel adapter reads x, the others s or y.
        x = needs_input_grad
        s = self.core.plan(self.norm.plan(x) if self.pre_norm else x)
        s = self.dropout.plan(s)
        for adapter in self.standing("parallel"):
            s = adapter.plan(x) or s
        for adapter in self.standing("houlsby"):
            s = adapter.plan(s)
        for norm, adapter in self.standing_after_a_norm():
            s = adapter.plan(norm.plan(s)) or s
        y = s if self.pre_norm else self.norm.plan(s)
        for adapter in self.standing("after_norm"):
            y = adapter.plan(y)
        self.needs_input_grad, self.walks_back = x, y
        return y

    def forward(self, x: Array, *core_args: Any) -> Array:
        h = self.norm.forward(x) if self.pre_norm else x
        s = self.dropout.forward(self.core.forward(h, *core_args))  # (B, Q, d)
        x = x[:, : s.shape[1]]  # the positions that `core` answers for
        for adapter in self.standing("parallel"):
            s = s + adapter.f(x)
        for adapter in self.standing("houlsby"):
            s = adapter.forward(s)
        for norm, adapter in self.standing_after_a_norm():
            s = s + adapter.f(norm.forward(x + s))
        y = x + s if self.pre_norm else self.norm.forward(x + s)
        for adapter in self.standing("after_norm"):
            y = adapter.forward(y)
        self.save(y.shape)
        return y

    def backward(self, dy: Array) -> Array | None:
        self.take_saved(dy)
        d: Array | None = dy
        for adapter in reversed(self.standing("after_norm")):
            d = adapter.backward(d) if d is not None else None
        if not self.pre_norm and d is not None:
            d = self.norm.backward(d)
        if d is None:
            return None  # nothing earlier trains: the walk back ends here
        dx, ds = d, d  # a sum hands its gradient on to both, unchanged
        for norm, adapter in reversed(self.standing_after_a_norm()):
            df = adapter.f_backward(ds) if adapter.walks_back else None
            if df is not None:
                dsum = norm.backward(df)
                dx, ds = (dx + dsum, ds + dsum) if dsum is not None else (dx, ds)
        for adapter in reversed(self.standing("houlsby")):
            if not adapter.walks_back:
                return None  # a frozen one, and nothing earlier trains
            ds = adapter.backward(ds)
        for adapter in reversed(self.standing("parallel")):
            df = adapter.f_backward(ds) if adapter.walks_back else None
            dx = dx + df if df is not None else dx
        if ds is None or not self.dropout.walks_back:
            return None
        dcore = self.dropout.backward(ds)
        dh = self.core.backward(dcore) if dcore is not None else None
        if self.pre_norm and dh is not None:
            dh = self.norm.backward(dh)
        if dh is None or not self.needs_input_grad:
            return None
        dh[:, : dx.shape[1]] += dx  # the residual
        return dh

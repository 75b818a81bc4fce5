"""AdaptedLinear: a Linear with adapters by name before, beside and after it."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from ..nn.layers import Linear
from ..nn.module import Array, backward_through
from ..nn.sublayer import plus


class AdaptedLinear(Linear):
    """A Linear, and what its active adapters add. Weight and bias keep their names.

        placement   adapter          effect
        before      (IA)^3           x = l * x
        beside      LoRA             y = x W + b + (alpha / r) x A B
        after       (IA)^3           y = l * y
        in_front    prefix tuning    y = further positions in front of y

    They take effect in the order of this table, whatever the order in which they were activated;
    several LoRAs are a sum.

    Shapes: x (..., d_in) -> (..., d_out); with a prefix of P positions (B, T, d_in) ->
    (B, P + T, d_out).
    """

    PLACEMENTS = ("before", "beside", "after", "in_front")

    def __init__(self, linear: Linear) -> None:
        self.weight, self.bias = linear.weight, linear.bias  # first: these are the names they keep
        self.linear = linear
        self.adapters: dict[str, Any] = {}  # by name
        self.active: tuple[str, ...] = ()

    @property
    def affine(self) -> bool:  # type: ignore[override]
        return not self.active

    def forward(self, x: Array) -> Array:
        for factors in self.active_at("before"):
            x = factors.forward(x)
        y = self.linear.forward(x)
        for update in self.active_at("beside"):
            y = update.forward(x, y)
        for adapter in (*self.active_at("after"), *self.active_at("in_front")):
            y = adapter.forward(y)
        self.save_for_backward(y.shape)
        return y

    def backward(self, dy: Array) -> Array | None:
        self.pop_saved(dy)
        after = (*self.active_at("after"), *self.active_at("in_front"))
        d = backward_through(dy, *reversed(after))
        if d is None:
            return None
        updates = [backward_through(d, update) for update in self.active_at("beside")]
        dx = backward_through(d, self.linear)
        if dx is None:  # nothing before this module trains
            return None
        for dupdate in updates:
            dx = plus(dx, dupdate)
        return backward_through(dx, *reversed(self.active_at("before")))

    def active_at(self, placement: str) -> list[Any]:
        """The active adapters at this placement."""
        active = [self.adapters[name] for name in self.active]
        return [adapter for adapter in active if adapter.placement == placement]

    def insert(self, name: str, adapter: Any) -> None:
        """Add an adapter; it takes part while `active` names it.

        Raises: ConfigError for a placement without lines in forward and backward.
        """
        if adapter.placement not in self.PLACEMENTS:
            raise ConfigError(
                f"placement {adapter.placement!r} has no code in AdaptedLinear.forward and "
                f"backward; these have: {', '.join(self.PLACEMENTS)}"
            )
        self.adapters[name] = adapter

    def remove(self, name: str) -> None:
        """Take the adapter of that name out, if there is one."""
        self.adapters.pop(name, None)
        self.active = tuple(other for other in self.active if other != name)


class Columns:
    """Some of the equal parts side by side in an array's last axis: queries, keys and values.

    `parts`: the numbers of those that are meant, of `n_parts`.
    """

    def __init__(self, parts: tuple[int, ...] = (0,), n_parts: int = 1) -> None:
        step = parts[1] - parts[0] if len(parts) > 1 else 1
        self.parts, self.n_parts = slice(parts[0], parts[-1] + 1, step), n_parts  # of three, any

    def of(self, y: Array) -> Array:
        """(..., n_parts d) -> (n, N, d), a view if y is contiguous."""
        return y.reshape(-1, self.n_parts, y.shape[-1] // self.n_parts).swapaxes(0, 1)[self.parts]

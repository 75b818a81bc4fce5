"""What trained adapters do on some texts: what each reads, what is active in it, what it adds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ConfigError
from ..nn.module import Array
from .bottleneck import Adapter

if TYPE_CHECKING:
    from .attach import Adaptable


class Activity(NamedTuple):
    """Of one adapter h + f(h) in one forward pass.

    Shapes: h, f (B, T, d); inner (B, T, m), after the activation.
    """

    h: Array
    inner: Array
    f: Array


def adapter_activity(
    model: Adaptable, name: str, ids: Array, attention_mask: Array | None = None
) -> dict[str, Activity]:
    """What the bottleneck adapters called `name` read and add: an `Activity` for each site.

    Keys are "blocks.0.attention" and so on; where `drop_adapters` leaves them out there is none.
    One forward pass is made in eval mode with them active.
    Raises: ConfigError for an unknown name, or if it is no bottleneck adapter of this library.
    """
    model.check_adapter(name)
    adapters: dict[str, Any] = {
        path: place.adapters[name] for path, place in model.named_places() if name in place.adapters
    }
    if not all(type(adapter) is Adapter for adapter in adapters.values()):
        raise ConfigError(f"{name!r} is no bottleneck adapter, which alone has an f and an inside")
    seen: dict[str, Activity] = {}
    training = model.training
    model.eval()
    try:
        for path, adapter in adapters.items():
            vars(adapter)["f"] = watched(adapter, path, seen)
        with model.use(name):
            model(ids, attention_mask)
    finally:
        for adapter in adapters.values():
            vars(adapter).pop("f", None)
        model.train(training)
    return seen


def watched(adapter: Adapter, path: str, seen: dict[str, Activity]) -> Callable[[Array], Array]:
    """The adapter's f, which also notes in `seen` what it has read and made of it."""

    def f(h: Array) -> Array:
        added = type(adapter).f(adapter, h)
        x = h if adapter.norm_before is None else adapter.norm_before.forward(h)
        inner = adapter.activation.forward(adapter.down.forward(x))  # (B, T, m)
        seen[path] = Activity(h, inner, added)
        return added

    return f

"""The parameters that an adapter file holds: of adapters by name, and of the head."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from ..adapters.attach import Adaptable
from ..adapters.fusion import Fusion
from ..adapters.select import base_parameters
from ..nn.module import Parameter


def parts(model: Any) -> tuple[Adaptable, dict[str, Parameter]]:
    """The transformer of a model, and the parameters of the head on it."""
    if isinstance(model, Adaptable):
        return model, {}
    base = {id(parameter) for parameter in model.transformer.parameters()}
    own = {key: p for key, p in model.named_parameters() if id(p) not in base}
    return model.transformer, own


def pooling_of(model: Any) -> str | None:
    """ "cls", "mean" or "pooler" of a classifier; None of another model."""
    return model.pooling.kind if hasattr(model, "pooling") else None


def adapter_modules(transformer: Adaptable, names: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    """Path, name and module of the adapters called `names`; sources stand before their fusion."""

    def with_sources(path: str, name: str, module: Any) -> Iterator[tuple[str, str, Any]]:
        if isinstance(module, Fusion):
            for source, adapter in module.sources.items():
                yield from with_sources(path, source, adapter)
        yield f"{path}.{name}", name, module

    for path, place in transformer.named_places():
        for name in names:
            if name in place.adapters:
                yield from with_sources(f"{path}.adapters", name, place.adapters[name])


def adapter_parameters(transformer: Adaptable, names: Sequence[str]) -> dict[str, Parameter]:
    """The parameters of the adapters called `names`, and of the sources of fusions."""
    return {
        f"{path}.{key}": parameter
        for path, _, module in adapter_modules(transformer, names)
        for key, parameter in module.named_parameters()
        if not key.startswith("sources.")  # of a fusion: they have a path of their own
    }


def warn_of_trainable_base(transformer: Adaptable) -> None:
    """Warn that what trained in the base, if anything did, will not be in the file."""
    trainable = [key for key, p in base_parameters(transformer, "all").items() if p.trainable]
    if trainable:
        warnings.warn(
            f"{len(trainable)} arrays of the base are trainable ({trainable[0]}, ...): they are "
            "not in an adapter file, which fits only the base as it is now. Freeze the base before "
            "training (transformer.train_adapter(name)), or keep it with save_pretrained",
            stacklevel=4,
        )

"""What a training step costs, from the configuration alone: multiply-adds, and bytes in memory.

`count_step` runs the forward pass with shapes in place of arrays. Of the arithmetic only matrix
products are counted: they are nearly all of it, and one product of (n, k) and (k, m) takes n k m
multiply-adds. `counting.py` and `memory.py` count those of a real step; tests hold both equal.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..adapters.config import CONFIGS, METHODS, AnyConfig
from ..errors import ConfigError
from ..models.heads import resolved_pooling
from ..nn.config import TransformerConfig
from .forward_pass import ForwardPass, MultiplyAdds
from .parameters import FLOAT32


@dataclass(frozen=True)
class StepCosts:
    """What `count_step` found.

    Attributes:
        parts: the multiply-adds of each module that multiplies matrices, in the order of the
            forward pass: (name, multiply-adds).
        trained: parameters that train, the head's among them.
        saved_bytes: what forward saves for backward.
        itemsize: bytes of a number while training; on disk it is 4.
    """

    parts: tuple[tuple[str, MultiplyAdds], ...]
    trained: int
    saved_bytes: int
    itemsize: int = FLOAT32

    @property
    def multiply_adds(self) -> MultiplyAdds:
        return sum((work for _, work in self.parts), MultiplyAdds())

    @property
    def gradient_bytes(self) -> int:
        return self.itemsize * self.trained

    @property
    def optimizer_bytes(self) -> int:
        """AdamW's two running means, m and v."""
        return 2 * self.itemsize * self.trained

    @property
    def task_bytes(self) -> int:
        """The numbers that a task needs on disk beside the base, in float32."""
        return FLOAT32 * self.trained


def count_step(
    config: TransformerConfig,
    batch: int,
    length: int,
    method: str = "adapter",
    adapter: AnyConfig | None = None,
    n_classes: int = 2,
    layer_norm: bool = False,
    pooling: str | None = None,
    *,
    start: int = 0,
    padded: bool = False,
    head_dropout: float = 0.0,
    itemsize: int = FLOAT32,
    language_model: bool = False,
) -> StepCosts:
    """One training step on `batch` sequences of `length` tokens.

    `method`: one of METHODS; `adapter`: how, for those that insert something (None: as the config's
    defaults say); `layer_norm`: whether the blocks' layer norms train too. A forward pass
    alone is `.multiply_adds.forward`; that of the base without anything inserted is the method
    "head", and so is that of a merged LoRA. `start`: the blocks below come from a prefix cache.
    `padded`: whether some sequences are shorter, so that there is a mask. `language_model`: with
    logits over the vocabulary for every position, instead of a classifier's. (Of several tasks in
    one forward pass, `runs/multitask.py`, nothing is counted.)
    Raises: ConfigError for an unknown method or pooling, an `adapter` of another method, or a
    language model that begins at a later block.
    """
    pooling = resolved_pooling(pooling, config.causal)
    if method not in METHODS:
        raise ConfigError(f"method={method!r}: expected one of {', '.join(METHODS)}")
    kind = CONFIGS.get(method)
    if kind is not None and adapter is None:
        adapter = kind()
    if adapter is not None and not (kind and isinstance(adapter, kind)):
        raise ConfigError(f"method={method!r} does not go with adapter={adapter!r}")
    frozen = frozen_blocks(config, method, adapter, layer_norm)
    if start > frozen:
        raise ConfigError(
            f"start={start}: a prefix cache can hold the blocks below the first that trains; "
            f"with method={method!r} those are {frozen} blocks"
        )
    forward = ForwardPass(config, batch, length, method, adapter, layer_norm, padded, itemsize)
    if language_model and start:
        raise ConfigError(f"start={start}: a language model has no prefix cache")
    if language_model:
        forward.language_model()
    else:
        forward.classifier(start, pooling, n_classes, head_dropout)
    saved = sum(array.nbytes for array in forward.saved)
    return StepCosts(tuple(forward.parts), forward.trained, saved, itemsize)


def frozen_blocks(
    config: TransformerConfig, method: str, adapter: AnyConfig | None, layer_norm: bool = False
) -> int:
    """How many blocks, from the lowest one on, nothing trains in: what a prefix cache can hold."""
    if method == "head" and not layer_norm:
        return config.n_layers
    layers = adapter.layers if adapter is not None and not layer_norm else None
    return min(layers) if layers is not None else 0

"""Which parameters of the base a method trains.

Adapters, LoRA, (IA)^3 and prefixes leave the base as it is, and can be taken out again. Trained
biases (BitFit: Ben Zaken et al. 2021, arXiv 2106.10199), trained layer norms and full fine-tuning
change the base itself: what they learn replaces its values when it is loaded.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import ConfigError
from ..nn.module import Module, Parameter
from .config import CONFIGS, METHODS

PART_OF_METHOD = {"layer-norm": "layer_norms", "bitfit": "biases", "full": "all"}  # others: "none"
BASE_PARTS = ("none", "layer_norms", "biases", "all")


def base_parameters(transformer: Module, part: str) -> dict[str, Parameter]:
    """Parameters of the base by name: a part of them, and never those of adapters.

    `part`: "none", the "layer_norms" of the blocks (gain and bias), the "biases" of the blocks
    (those of layer norms too), or "all".
    """
    pattern = {
        "none": r"(?!)",  # matches nothing
        "layer_norms": r"blocks\..*\.norm\.(weight|bias)",
        "biases": r"blocks\..*\.bias",
        "all": r".*",
    }[part]
    own = {key: p for key, p in transformer.named_parameters() if ".adapters." not in key}
    return {key: p for key, p in own.items() if re.fullmatch(pattern, key)}


def select_trainable(model: Any, method: str, name: str = "task") -> None:
    """Freeze the transformer of a model but for what the method trains; a head stays as it is.

    `model` is a transformer, or has one as `transformer`. `method`: "adapter", "lora", "ia3" or
    "prefix" (what was inserted as `name`, which becomes active), "bitfit", "layer-norm", "head"
    (nothing of the transformer) or "full". A pooler that the model does not use stays frozen.
    Raises: ConfigError for an unknown method or name.
    """
    if method not in METHODS:
        raise ConfigError(f"method={method!r}: expected one of {', '.join(METHODS)}")
    transformer = getattr(model, "transformer", model)
    transformer.freeze()
    if method in CONFIGS:
        transformer.train_adapter(name)
    for parameter in base_parameters(transformer, PART_OF_METHOD.get(method, "none")).values():
        parameter.trainable = True
    pooling = getattr(model, "pooling", None)
    if transformer.pooler is not None and pooling is not None and pooling.kind != "pooler":
        transformer.pooler.freeze()  # the head does not read it

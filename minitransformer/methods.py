"""Adapters, head alone, or everything: what a run trains, and with which options."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from .adapters import AdapterConfig
from .adapters.store import METHODS
from .errors import ConfigError
from .heads import POOLINGS, Classifier
from .training import TrainingOptions
from .transformer import Transformer

ADAPTER_NAME = "task"  # what the adapter is called inside a run's own model
LEARNING_RATES = {"adapter": 1e-3, "head": 5e-3, "full": 5e-5}


@dataclass(frozen=True)
class RunOptions:
    """Everything that decides a run's outcome, beside the task. Checks itself; ConfigError.

    Attributes:
        base: "tiny", "minilm", a folder, or a model-hub id.
        method: "adapter" (adapters and head train), "head" (head alone) or "full" (everything).
        adapter: used by the method "adapter".
        layer_norm: whether the blocks' layer norms train too (Houlsby et al. 2019 do so).
        pooling: "cls", "mean" or "pooler": the vector that the head sees.
        dropout: inside the base, in training. None: what its config.json says; for the method
            "head", for which nothing inside learns, 0.
        head_dropout: on the vector that the head sees, in training.
        max_length: texts are cut to so many tokens.
        limit: train on at most so many examples.
        threads: walk slices of each batch side by side; 0 for one for each core.
        keep_prefix: keep what the blocks below the first adapter make of each example, so that
            later epochs start above them (see `prefix`); no dropout then in those blocks.
        training: epochs, batch size, learning rate (None: see LEARNING_RATES), seed, ...
    """

    base: str = "minilm"
    method: str = "adapter"
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    layer_norm: bool = False
    pooling: str = "cls"
    dropout: float | None = None
    head_dropout: float = 0.1
    max_length: int = 128
    limit: int | None = None
    threads: int = 0
    keep_prefix: bool = False
    training: TrainingOptions = field(default_factory=TrainingOptions)

    def __post_init__(self) -> None:
        for name, choices in (("method", METHODS), ("pooling", POOLINGS)):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r}: expected one of {', '.join(choices)}"
                )
        if self.dropout is None and self.method == "head":
            object.__setattr__(self, "dropout", 0.0)
        if self.training.lr is None:
            training = replace(self.training, lr=LEARNING_RATES[self.method])
            object.__setattr__(self, "training", training)
        if self.layer_norm and self.method != "adapter":
            raise ConfigError(f"layer_norm goes with method='adapter', not {self.method!r}")
        for name in ("dropout", "head_dropout"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected 0 <= {name} < 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `options.json` keeps them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunOptions:
        """The inverse of `to_dict`."""
        adapter = AdapterConfig.from_dict(values["adapter"])
        training = TrainingOptions(**values["training"])
        return cls(**{**values, "adapter": adapter, "training": training})


def build_classifier(transformer: Transformer, n_classes: int, options: RunOptions) -> Classifier:
    """Freeze the base, insert what the method trains, put a head on top.

    The starting weights follow from the seed alone.
    """
    seed = options.training.seed
    head_rng, adapter_rng = (np.random.default_rng([seed, i]) for i in (1, 2))
    transformer.freeze()
    if options.method == "full":
        transformer.unfreeze()
        if transformer.pooler is not None and options.pooling != "pooler":
            transformer.pooler.freeze()  # no walk comes through it
    if options.method == "adapter":
        transformer.add_adapter(ADAPTER_NAME, options.adapter, adapter_rng)
        transformer.train_layer_norms(options.layer_norm)
    return Classifier(transformer, n_classes, options.pooling, options.head_dropout, head_rng)

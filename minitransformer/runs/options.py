"""What may train, and the options of a run: a task or a style on a base, or a base from scratch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ..adapters.config import AdapterConfig
from ..errors import ConfigError
from ..formats.adapter_file import METHODS
from ..models.heads import POOLINGS, Classifier
from ..models.transformer import Transformer
from ..nn.config import TransformerConfig
from ..training.trainer import TrainingOptions

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
        prefix_cache: keep what the blocks below the first adapter make of each example, so that
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
    prefix_cache: bool = False
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


@dataclass(frozen=True)
class PretrainOptions:
    """The shape of a small decoder, GPT-2's, and how to train it. Checks itself; ConfigError.

    Attributes:
        d_model, n_layers, n_heads: width, depth, attention heads; d_ff is 4 d_model.
        vocab_size: tokens of the byte-pair encoding, which is learnt from the same text.
        block_size: how many tokens the model sees at once.
        dropout: everywhere inside, in training.
        threads: walk slices of each batch side by side; 0 for one for each core.
        training: epochs, batch size (windows of block_size tokens), learning rate, seed, ...
    """

    d_model: int = 192
    n_layers: int = 4
    n_heads: int = 6
    vocab_size: int = 2048
    block_size: int = 128
    dropout: float = 0.0
    threads: int = 0
    training: TrainingOptions = field(
        default_factory=lambda: TrainingOptions(epochs=8, batch_size=8, lr=2e-3)
    )

    method = "base"  # what such a run leaves behind, in the name of its folder

    def __post_init__(self) -> None:
        if self.training.lr is None:
            object.__setattr__(self, "training", replace(self.training, lr=2e-3))
        if self.vocab_size < 257:
            raise ConfigError(f"vocab_size={self.vocab_size}: expected 257 (all bytes) or more")
        self.config(self.vocab_size)

    def config(self, vocab_size: int) -> TransformerConfig:
        """The decoder's shape, with as many tokens as the text yielded."""
        return TransformerConfig(
            vocab_size=vocab_size,
            d_model=self.d_model,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            d_ff=4 * self.d_model,
            max_positions=self.block_size,
            norm="pre",
            causal=True,
            activation="gelu_tanh",
            layer_norm_eps=1e-5,
            dropout=self.dropout,
            attention_dropout=self.dropout,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `options.json` keeps them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PretrainOptions:
        """The inverse of `to_dict`."""
        return cls(**{**values, "training": TrainingOptions(**values["training"])})


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

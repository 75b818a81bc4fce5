"""This library's side of a comparison: a classifier and its Trainer, one step at a time."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from turns import Side, thread_pools

import minitransformer as mt
from minitransformer.costs.parameters import shape_of
from minitransformer.data.batches import Batch, Encoded
from minitransformer.runs.model import build_classifier
from minitransformer.runs.options import RunOptions
from minitransformer.training.data_parallel import Model
from minitransformer.training.process import keep_freed_memory
from minitransformer.training.trainer import Trainer, TrainingOptions

Array = np.ndarray
Arrays = tuple[Array, Array, Array]  # ids (B, T), attention mask (B, T), labels (B,)

STANDSTILL = 1e-12  # a learning rate at which every step is the same step, and costs the same


class Ours(Side):
    """MiniLM (or random weights in `blocks` such blocks) with a two-class head."""

    def __init__(
        self,
        threads: int,
        method: str = "adapter",
        bottleneck: int = 64,
        blocks: int | None = None,
        pooling: str = "cls",
    ) -> None:
        options = RunOptions(method=method, pooling=pooling, head_dropout=0.0)
        if method == "adapter":
            options = replace(options, adapter=mt.AdapterConfig(bottleneck=bottleneck))
        model = build_classifier(base(blocks), 2, options)
        examples = Encoded([[0]] * 32, np.zeros(32, np.int64))
        training = TrainingOptions(epochs=10_000, lr=STANDSTILL, warmup=0.0)
        self.trainer = Trainer(model, examples, examples, training, progress=False, threads=threads)
        self.data_parallel = self.trainer.data_parallel
        keep_freed_memory()
        self.data_parallel.__enter__()  # for the life of this process

    def weights(self) -> dict[str, Array]:
        """Adapters and head: what the other side starts from."""
        return own_names(self.trainer.model, "value")

    def use(self, batches: list[Arrays]) -> None:
        """The batches that steps and forward passes go through in turn."""
        every = [np.arange(len(labels)) for _, _, labels in batches]
        self.batches = [Batch(*arrays, index) for arrays, index in zip(batches, every, strict=True)]

    def step(self, turn: int) -> float:
        """Seconds of one training step."""
        self.data_parallel.train()
        started = time.perf_counter()
        self.loss = self.trainer.train_step(self.batches[turn % len(self.batches)], 1).loss
        return time.perf_counter() - started

    def forward(self, turn: int) -> float:
        """Seconds of one inference forward pass."""
        self.data_parallel.train(False)
        started = time.perf_counter()
        self.logits(self.batches[turn % len(self.batches)])
        return time.perf_counter() - started

    def logits(self, batch: Batch) -> Array:
        """(B, n_classes), each thread with its shard of the batch."""

        def forward(model: Model, part: Batch) -> tuple[Array, Array]:
            return part.index, model(part.ids, part.attention_mask)

        found = np.empty((len(batch.labels), 2), np.float32)
        for index, logits in self.data_parallel.map(forward, self.data_parallel.cut(batch)):
            found[index] = logits
        return found

    def result(self) -> dict[str, Any]:
        """Of one step on the first batch: loss, clipped gradients, and the inference logits."""
        self.step(0)
        gradients = own_names(self.trainer.model, "grad")
        self.data_parallel.train(False)
        return {"loss": self.loss, "gradients": gradients, "logits": self.logits(self.batches[0])}

    def thread_pools(self) -> list[str]:
        """What threadpoolctl says of this process, and how many replicas there are."""
        return [f"data_parallel: {len(self.data_parallel.replicas)}", *thread_pools()]


def base(blocks: int | None) -> mt.Transformer:
    """MiniLM, or as many blocks of its shape with random weights."""
    if blocks is None:
        return mt.Transformer.from_pretrained("minilm")
    from dataclasses import replace

    config = replace(shape_of("minilm"), n_layers=blocks, pooler=False)
    return mt.Transformer(config, np.random.default_rng(0))


def own_names(model: Model, what: str) -> dict[str, Array]:
    """`value` or `grad` of what trains, under the transformer's own names and `head.`."""
    found = {name: getattr(p, what) for name, p in model.trainable_parameters().items()}
    short = {name.removeprefix("transformer."): array for name, array in found.items()}
    return {name.replace("head.linear.", "head."): array for name, array in short.items()}

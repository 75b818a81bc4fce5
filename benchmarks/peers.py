"""The other side: the same classifier in PyTorch, with the `adapters` library.

Everything as these libraries offer it by default or faster: scaled-dot-product attention, gradients
set to None, the fused AdamW, no pooler, no dropout. Imported in workers only.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertModel
from turns import Side, thread_pools

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from reference import models, names

Array = np.ndarray
ADAPTER = "task"


class Classifier(nn.Module):  # type: ignore[misc]  # torch is not type-checked here
    """Dropout and a linear head on [CLS], or on the mean of the real tokens."""

    def __init__(self, bert: BertModel, n_classes: int, pooling: str, dropout: float) -> None:
        super().__init__()
        self.bert, self.pooling = bert, pooling
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(bert.config.hidden_size, n_classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        h = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        if self.pooling == "cls":
            return self.head(self.dropout(h[:, 0]))
        weights = mask.to(h.dtype)[..., None]
        return self.head(self.dropout((h * weights).sum(1) / weights.sum(1)))

    def our_names(self) -> dict[str, nn.Parameter]:
        """This library's name of an adapter's or the head's parameter -> the parameter."""
        found = {f"head.{name}": p for name, p in self.head.named_parameters()}
        for name, parameter in self.bert.named_parameters():
            for ours in names.adapters({name: np.empty(0)}):
                found[ours] = parameter
        return found

    def load(self, values: dict[str, Array]) -> None:
        """Take over adapters and head; a full model has no adapters, and takes the head."""
        with torch.no_grad():
            for name, parameter in self.our_names().items():
                parameter.copy_(torch.from_numpy(names.linear(values[name])))


def classifier(
    folder: str,
    method: str = "adapter",
    bottleneck: int = 64,
    blocks: int | None = None,
    pooling: str = "cls",
    dropout: float = 0.0,
) -> Classifier:
    """MiniLM from its folder (or random weights in `blocks` such blocks) with a two-class head."""
    config = BertConfig.from_pretrained(folder)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    if blocks is None:
        bert = BertModel.from_pretrained(folder, config=config, add_pooling_layer=False)
    else:
        config.num_hidden_layers = blocks
        bert = BertModel(config, add_pooling_layer=False)
    if method == "adapter":
        models.add_adapter(bert, ADAPTER, bottleneck, "relu", 1.0, np.random.default_rng(0))
        bert.train_adapter(ADAPTER)  # freezes everything else
    model = Classifier(bert, 2, pooling, dropout)
    model.train()
    return model


def adamw(model: nn.Module, lr: float) -> torch.optim.AdamW:
    """Decay on matrices only, as on the other side."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": 0.01},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def gradients(module: nn.Module) -> dict[str, Array]:
    """Of the parameters that have one."""
    return {n: p.grad.numpy() for n, p in module.named_parameters() if p.grad is not None}


def named_gradients(model: Classifier) -> dict[str, Array]:
    """Under this library's names."""
    bert, head = gradients(model.bert), gradients(model.head)
    found = names.bert(bert) | names.adapters(bert)
    return found | {f"head.{name}": names.linear(g) for name, g in head.items()}


class Peer(Side):
    """One step or forward pass at a time."""

    def __init__(
        self,
        threads: int,
        lr: float,
        compiled: bool = False,
        autocast: bool = False,
        keep_memory: bool = False,
        **settings: Any,
    ) -> None:
        """`autocast`: the forward pass under bfloat16 autocast. `keep_memory`: the C library reuses
        freed arrays, as it does for our own replicas."""
        if keep_memory:
            from minitransformer.training.process import keep_freed_memory

            keep_freed_memory()
        torch.set_num_threads(threads)
        self.model = classifier(**settings)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = adamw(self.model, lr)
        self.compiled = compiled
        self.precision = torch.autocast("cpu", torch.bfloat16, enabled=autocast)
        self.run: nn.Module = self.model

    def load(self, values: dict[str, Array]) -> None:
        self.model.load(values)

    def use(self, batches: list[tuple[Array, Array, Array]]) -> None:
        """The batches to go through in turn; a compiled model is compiled for their shapes."""
        self.batches = [tuple(map(torch.from_numpy, arrays)) for arrays in batches]
        if self.compiled:
            shapes = {ids.shape for ids, _, _ in self.batches}
            torch._dynamo.reset()
            self.run = torch.compile(self.model, dynamic=len(shapes) > 1)

    def step(self, turn: int) -> float:
        """Seconds of one training step."""
        self.model.train()
        ids, mask, labels = self.batches[turn % len(self.batches)]
        started = time.perf_counter()
        self.optimizer.zero_grad()
        with self.precision:
            loss = cross_entropy(self.run(ids, mask), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.loss = loss.item()
        return time.perf_counter() - started

    def forward(self, turn: int) -> float:
        """Seconds of one inference forward pass."""
        self.model.eval()
        ids, mask, _ = self.batches[turn % len(self.batches)]
        started = time.perf_counter()
        with torch.inference_mode(), self.precision:
            self.run(ids, mask)
        return time.perf_counter() - started

    def result(self) -> dict[str, Any]:
        """Of one step on the first batch, under this library's names."""
        self.step(0)
        found = named_gradients(self.model)
        self.model.eval()
        with torch.inference_mode(), self.precision:
            logits = self.run(*self.batches[0][:2]).float().numpy()
        return {"loss": self.loss, "gradients": found, "logits": logits}

    def thread_pools(self) -> list[str]:
        """PyTorch's own count of its threads, and what threadpoolctl sees."""
        return [f"torch: {torch.get_num_threads()}", *thread_pools()]

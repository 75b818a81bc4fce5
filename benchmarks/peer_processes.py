"""PyTorch's own data parallelism as a peer: processes of one thread each, gradients by gloo.

The worker is rank 0 and starts the others, which run this file. Imported in workers only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from turns import Side

Array = np.ndarray
STEP, FORWARD = 1, 2


class Rank:
    """One of the processes: its replica, and its part of each batch."""

    def __init__(self, rank: int, ranks: int, store: str, lr: float, **settings: Any) -> None:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=ranks)
        self.rank, self.ranks = rank, ranks
        self.model = peers.classifier(**settings)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.parallel = DistributedDataParallel(self.model)
        self.optimizer = peers.adamw(self.model, lr)

    def share_weights(self) -> None:
        for parameter in self.parameters:
            dist.broadcast(parameter.data, 0)

    def own_part(self, batch: Tensor | None, rows: int, width: int) -> Tensor:
        """Every process gets as many rows of (ids, mask, label); rank 0 has them all."""
        part = torch.empty((rows // self.ranks, 2 * width + 1), dtype=torch.int64)
        dist.scatter(part, list(batch.chunk(self.ranks)) if batch is not None else None)
        return part

    def step(self, part: Tensor, width: int) -> Tensor:
        """One training step; the loss of this part."""
        self.parallel.train()
        self.optimizer.zero_grad()
        logits = self.parallel(part[:, :width], part[:, width : 2 * width])
        loss = cross_entropy(logits, part[:, -1])
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return loss.detach()

    def forward(self, part: Tensor, width: int) -> Tensor:
        """The logits of this part, collected by rank 0."""
        self.model.eval()
        with torch.inference_mode():
            logits = self.model(part[:, :width], part[:, width : 2 * width])
        every = [torch.empty_like(logits) for _ in range(self.ranks)] if self.rank == 0 else None
        dist.gather(logits, every)
        return torch.cat(every) if every is not None else logits

    def serve(self) -> None:
        """What the other ranks do: follow rank 0, until it has ended."""
        self.share_weights()
        while True:
            order = torch.empty(3, dtype=torch.int64)
            try:
                dist.broadcast(order, 0)
            except RuntimeError:  # the connection is closed
                return
            kind, rows, width = order.tolist()
            part = self.own_part(None, rows, width)
            if kind == STEP:
                dist.reduce(self.step(part, width), 0)
            else:
                self.forward(part, width)


class Processes(Side):
    """As `peers.Peer`, by `threads` processes."""

    def __init__(self, threads: int, keep_memory: bool = False, **settings: Any) -> None:
        self.ranks = threads
        store = str(Path(tempfile.mkdtemp()) / "store")
        for rank in range(1, threads):
            how = json.dumps([rank, threads, store, settings])
            subprocess.Popen([sys.executable, __file__, how])
        self.own = Rank(0, threads, store, **settings)

    def load(self, values: dict[str, Array]) -> None:
        self.own.model.load(values)
        self.own.share_weights()

    def use(self, batches: list[tuple[Array, Array, Array]]) -> None:
        """The batches to go through in turn."""
        self.batches = [
            (torch.from_numpy(np.concatenate([ids, mask, y[:, None]], 1)), ids.shape[1])
            for ids, mask, y in batches
        ]
        if any(len(batch) % self.ranks for batch, _ in self.batches):
            raise ValueError(f"{self.ranks} processes need batches that they can share equally")

    def begin(self, kind: int, turn: int) -> tuple[Tensor, int]:
        batch, width = self.batches[turn % len(self.batches)]
        dist.broadcast(torch.tensor([kind, len(batch), width]), 0)
        return self.own.own_part(batch, len(batch), width), width

    def step(self, turn: int) -> float:
        """Seconds of one training step."""
        started = time.perf_counter()
        loss = self.own.step(*self.begin(STEP, turn))
        dist.reduce(loss, 0)
        self.loss = loss.item() / self.ranks
        return time.perf_counter() - started

    def forward(self, turn: int) -> float:
        """Seconds of one inference forward pass."""
        started = time.perf_counter()
        self.logits = self.own.forward(*self.begin(FORWARD, turn))
        return time.perf_counter() - started

    def result(self) -> dict[str, Any]:
        """Of one step on the first batch, under this library's names."""
        self.step(0)
        found = peers.named_gradients(self.own.model)
        self.forward(0)
        return {"loss": self.loss, "gradients": found, "logits": self.logits.numpy()}


if __name__ == "__main__":
    rank, ranks, store, settings = json.loads(sys.argv[1])
    Rank(rank, ranks, store, **settings).serve()

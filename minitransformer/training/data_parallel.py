"""Data parallelism in miniature: slices of a batch walked side by side over one set of weights.

Each thread walks a replica forward and back with single-threaded matrix products; what they
exchange is the gradients of what trains, for adapters 2-3 % of the model. This keeps every core
busy in the element-wise work too, where a matrix library's own threads would wait.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import numpy as np

from ..data.batches import Batch
from ..errors import ConfigError
from ..models.heads import Classifier, LanguageModel
from ..nn.functional import cross_entropy, cross_entropy_backward
from ..nn.layers import seed_dropouts
from .prefix_cache import PrefixCache

T = TypeVar("T")
Model = Classifier | LanguageModel


class DataParallel:
    """A model and its replicas, each walked by a thread of its own.

    Results do not depend on timing: slices are cut and gradients are added in a fixed order.
    Used as a context manager, for matrix products of one thread each.
    """

    def __init__(self, model: Model, threads: int = 0) -> None:
        """`threads`: how many; 0 for one for each core. Raises: ConfigError for fewer."""
        if threads < 0:
            raise ConfigError(f"threads={threads}: expected 1 or more, or 0 for one each core")
        replicas = (model.replica() for _ in range((threads or cores()) - 1))
        self.replicas: list[Model] = [model, *replicas]

    def __enter__(self) -> DataParallel:
        keep_freed_memory()
        self.trained = [list(model.trainable_parameters().values()) for model in self.replicas]
        self.open = ExitStack()
        self.pool = self.open.enter_context(ThreadPoolExecutor(len(self.replicas)))
        if len(self.replicas) > 1:
            self.open.enter_context(single_threaded_products())
        return self

    def __exit__(self, *problem: object) -> None:
        self.open.close()

    def seed_dropouts(self, seed: int) -> None:
        """Give every Dropout of every replica a generator of its own."""
        for i, model in enumerate(self.replicas):
            seed_dropouts(model, seed, i)

    def train(self, mode: bool = True) -> None:
        """Training or eval mode, for all replicas."""
        for model in self.replicas:
            model.train(mode)

    def forward_backward(
        self, batch: Batch, label_smoothing: float = 0.0, prefix: PrefixCache | None = None
    ) -> tuple[float, int]:
        """Loss and number of right answers of a batch; its gradients end up in the model.

        The loss is the mean over all labels that count, however they fall into slices.
        """
        slices = list(shards(batch, len(self.replicas)))

        def walk(i: int) -> tuple[float, int]:
            replica, part = self.replicas[i], slices[i]
            for parameter in self.trained[i]:
                parameter.grad = None
            if part.counted == 0 < batch.counted:
                return 0.0, 0
            kept: dict[str, Any] = {}
            if prefix is not None:
                kept = {"start": prefix.depth, "hidden": prefix.hidden(replica.transformer, part)}
            logits = replica(part.ids, part.attention_mask, **kept)
            loss, p = cross_entropy(logits, part.labels, label_smoothing)
            share = part.counted / batch.counted
            if np.isfinite(loss):
                replica.backward(cross_entropy_backward(p, part.labels, label_smoothing) * share)
            right = int(np.count_nonzero(logits.argmax(axis=-1) == part.labels))
            return loss * share, right

        walked = list(self.pool.map(walk, range(len(slices))))
        for others in self.trained[1 : len(slices)]:  # what the replicas exchange
            for own, other in zip(self.trained[0], others, strict=True):
                if other.grad is not None:
                    own.accumulate(other.grad)
        return sum(loss for loss, _ in walked), sum(right for _, right in walked)

    def map(self, function: Callable[[Model, Batch], T], batches: Iterable[Batch]) -> Iterator[T]:
        """`function(model, batch)` for each batch, in order; each thread takes every n-th."""
        lanes = list(batches)
        n = len(self.replicas)

        def lane(i: int) -> list[T]:
            return [function(self.replicas[i], batch) for batch in lanes[i::n]]

        found = list(self.pool.map(lane, range(n)))
        return (found[k % n][k // n] for k in range(len(lanes)))


def shards(batch: Batch, n: int) -> Iterator[Batch]:
    """At most n slices of a batch: every n-th row, no wider than its longest sequence."""
    n = min(n, len(batch.labels))
    for i in range(n):
        mask = batch.attention_mask[i::n]
        width = int(mask.sum(axis=1).max())
        yield Batch(batch.ids[i::n, :width], mask[:, :width], batch.labels[i::n], batch.index[i::n])


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def single_threaded_products() -> Iterator[None]:
    """Matrix products use one thread each, so that threads of ours do not fight with theirs."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield


def keep_freed_memory() -> None:
    """Ask the C library (glibc) to keep freed arrays for the next step.

    By default it hands large ones back to the system at once, and the next step pays a page fault
    for every 4 kB of every array: as much time as the element-wise arithmetic itself.
    """
    mmap_threshold, trim_threshold, arena_max = -3, -1, -8  # mallopt's names for its parameters
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return  # another C library: only slower
    mallopt(mmap_threshold, 1 << 25)
    mallopt(trim_threshold, (1 << 31) - 1)
    mallopt(arena_max, 1)

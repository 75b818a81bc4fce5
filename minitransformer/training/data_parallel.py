"""Data parallelism: shards of a batch computed side by side over one set of weights.

Each thread runs the forward and backward pass of a replica with single-threaded matrix products.
What the replicas exchange is the gradients of what trains, for adapters 2-3 % of the model. This
keeps every core busy in the element-wise work too, where a matrix library's own threads would wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ..data.batches import Batch
from ..errors import ConfigError, ShapeError
from ..models.heads import Classifier, LanguageModel
from ..nn.kernels import row_tiles
from ..nn.layers import Dropout
from ..nn.losses import CrossEntropy, SquaredError
from ..nn.module import Array, Parameter
from ..nn.row_gradient import RowGradient
from .optim import PIECE
from .prefix_cache import PrefixCache
from .process import cores, single_threaded_products

S = TypeVar("S")
T = TypeVar("T")
Model = Classifier | LanguageModel
LossFunction = CrossEntropy | SquaredError

FEW_TOKENS = 512  # in a batch of fewer, one shard with several BLAS threads is faster than several

DROPOUT = 1  # last word of a seed: seeds of batches and start values are shorter, as if it were 0


class PerExampleGenerator:
    """Random numbers for a batch, each row from a generator of its example's own.

    Stands in for `numpy.random.Generator` as `Dropout.rng`, one for all Dropouts of a replica, for
    one step. What a row gets follows from seed, step and example alone: not from the other rows of
    its shard, and so not from the number of threads.
    """

    def __init__(self, seed: int, step: int, examples: Iterable[int]) -> None:
        self.rows = [np.random.default_rng([seed, step, example, DROPOUT]) for example in examples]

    def random(self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float64) -> Array:
        """Uniform numbers in [0, 1), (B, ...). Raises: ShapeError if B is not one per example."""
        if shape[:1] != (len(self.rows),):
            raise ShapeError(
                f"dropout on an array of shape {shape} in a shard of {len(self.rows)} examples: "
                "expected one row for each example"
            )
        numbers = np.empty(shape, dtype)
        for row, rng in zip(numbers, self.rows, strict=True):
            rng.random(dtype=numbers.dtype, out=row)
        return numbers


class DataParallel:
    """A model and its replicas, each run by a thread of its own. A context manager.

    Results do not depend on timing. With the same number of threads they are bit-identical: shards
    are cut and gradients are added in a fixed order. With another number of threads they are equal
    to round-off: the same dropout masks (`PerExampleGenerator`), the same sums in another order.

    Attributes:
        replicas: the model itself, then its replicas.
        step: calls of `forward_backward` so far; each step has other dropout masks.
    """

    def __init__(self, model: Model, threads: int = 0, seed: int = 0) -> None:
        """`threads`: how many; 0 for one for each core. `seed`: of the dropout masks.

        Raises: ConfigError if `threads` is not a whole number, 0 or more.
        """
        if not isinstance(threads, int) or isinstance(threads, bool) or threads < 0:
            raise ConfigError(
                f"threads={threads!r}: expected a whole number, 1 or more, or 0 for one each core"
            )
        replicas = (model.replica() for _ in range((threads or cores()) - 1))
        self.replicas: list[Model] = [model, *replicas]
        self.seed, self.step = seed, 0

    def __enter__(self) -> DataParallel:
        # Listed once: what trains does not change while batches are computed.
        self.trained = [list(replica.trainable_parameters().values()) for replica in self.replicas]
        self.dropouts = [dropouts(replica) for replica in self.replicas]
        self.generators = [dropout.rng for dropout in self.dropouts[0]]  # the model's own
        self.open = ExitStack()
        self.pool = self.open.enter_context(ThreadPoolExecutor(len(self.replicas)))
        if len(self.replicas) > 1:
            self.open.enter_context(single_threaded_products)
        return self

    def __exit__(self, *problem: object) -> None:
        self.open.close()
        for dropout, generator in zip(self.dropouts[0], self.generators, strict=True):
            dropout.rng = generator

    def train(self, mode: bool = True) -> None:
        """Training or eval mode, for all replicas."""
        for replica in self.replicas:
            replica.train(mode)

    @contextmanager
    def adapters_dropped(self, blocks: int | tuple[int, ...]) -> Iterator[None]:
        """As `Transformer.drop_adapters`, for all replicas; afterwards as before."""
        before = self.replicas[0].transformer.dropped
        if blocks == before:
            yield
            return
        try:
            for replica in self.replicas:
                replica.transformer.drop_adapters(blocks)
            yield
        finally:
            for replica in self.replicas:
                replica.transformer.drop_adapters(before)

    def forward_backward(
        self,
        batch: Batch,
        loss_function: LossFunction | None = None,
        prefix: PrefixCache | None = None,
    ) -> tuple[float, int]:
        """Loss and number of right answers of a batch; its gradients end up in the model.

        The loss (default: cross-entropy) is the mean over all labels that count, however they fall
        into shards. Of numbers no answer counts as right.
        """
        loss_function = loss_function or CrossEntropy()
        parts = self.cut(batch)
        total = loss_function.total_weight(batch.labels)

        def run(i: int) -> tuple[float, int]:
            replica, shard = self.replicas[i], parts[i]
            for parameter in self.trained[i]:
                parameter.grad = None
            if shard.counted == 0 < batch.counted:
                return 0.0, 0
            if self.dropouts[i]:
                generator = PerExampleGenerator(self.seed, self.step, shard.index)
                for dropout in self.dropouts[i]:
                    dropout.rng = cast(np.random.Generator, generator)
            cached: dict[str, Any] = {}
            if prefix is not None:
                hidden = prefix.hidden(replica.transformer, shard)
                cached = {"start": prefix.depth, "hidden": hidden}
            of_shard = loss_function.replica()
            share = loss_function.total_weight(shard.labels) / total
            # Values that overflow end as a loss or a gradient that is not finite: see the caller.
            with np.errstate(over="ignore", invalid="ignore"):
                logits = replica(shard.ids, shard.attention_mask, shard.token_types, **cached)
                loss = of_shard(logits, shard.labels)
                if np.isfinite(loss):
                    replica.backward(of_shard.backward(share))
            if isinstance(loss_function, SquaredError):
                return loss * share, 0
            right = int(np.count_nonzero(logits.argmax(axis=-1) == shard.labels))
            return loss * share, right

        with single_threaded_products.lifted(len(self.replicas) // len(parts)):
            results = list(self.pool.map(run, range(len(parts))))
        self.step += 1
        for parameters in self.trained[1 : len(parts)]:
            self.add_gradients(parameters)
        return sum(loss for loss, _ in results), sum(right for _, right in results)

    def cut(self, batch: Batch) -> list[Batch]:
        """One shard for each replica; of few tokens a single one, for the matrix library's threads.

        Products of few rows gain more from its threads than from ours, which share an interpreter.
        """
        return shards(batch, len(self.replicas) if batch.ids.size >= FEW_TOKENS else 1)

    def add_gradients(self, parameters: list[Parameter]) -> None:
        """What the replicas exchange: the gradients of one are added to the model's, and freed."""
        sums: list[tuple[Array, Array]] = []
        for own, other in zip(self.trained[0], parameters, strict=True):
            if other.stored_grad is None:
                continue
            if own.stored_grad is None or isinstance(other.stored_grad, RowGradient):
                own.accumulate(other.stored_grad, own=True)
            elif (whole := own.grad) is not None:
                sums += [(whole[rows], other.stored_grad[rows]) for rows in row_tiles(whole, PIECE)]
            other.grad = None
        self.spread(lambda pair: np.add(*pair, out=pair[0]), sums)

    def spread(self, function: Callable[[S], T], items: Iterable[S]) -> list[T]:
        """`function(item)` for each, results in order; each thread takes every n-th."""
        every, n = list(items), len(self.replicas)
        results = list(self.pool.map(lambda i: [function(item) for item in every[i::n]], range(n)))
        return [results[k % n][k // n] for k in range(len(every))]

    def map(self, function: Callable[[Model, Batch], T], batches: Iterable[Batch]) -> Iterator[T]:
        """`function(model, batch)` for each batch, in order; each thread takes every n-th."""
        every, n = list(batches), len(self.replicas)

        def run(i: int) -> list[T]:
            # Values that overflow end as answers that are not finite: `function` looks for those.
            with np.errstate(over="ignore", invalid="ignore"):
                return [function(self.replicas[i], batch) for batch in every[i::n]]

        with single_threaded_products.lifted(n // max(1, min(n, len(every)))):
            results = list(self.pool.map(run, range(n)))
        return (results[k % n][k // n] for k in range(len(every)))


def shards(batch: Batch, n: int) -> list[Batch]:
    """At most n parts of a batch, each with every n-th row, as wide as the batch.

    A narrower shard would draw other dropout masks; batches are of similar length anyway.
    """
    n, types = min(n, len(batch.labels)), batch.token_types
    return [
        Batch(
            batch.ids[i::n],
            batch.attention_mask[i::n],
            batch.labels[i::n],
            batch.index[i::n],
            types[i::n] if types is not None else None,
        )
        for i in range(n)
    ]


def dropouts(model: Model) -> list[Dropout]:
    """Every Dropout in a model that drops anything, in the order of their names."""
    return [m for _, m in model.named_modules() if isinstance(m, Dropout) and m.p > 0]

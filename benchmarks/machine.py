"""What the machine can do at best: matrix products and copying, measured with NumPy.

And the multiply-adds that a step of adapter training needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import minitransformer as mt
from minitransformer.costs.parameters import shape_of
from minitransformer.costs.step import count_step

SHAPE = (1024, 384, 1536)  # MiniLM's feed-forward at 32 x 32 tokens
MULTIPLY_ADDS = SHAPE[0] * SHAPE[1] * SHAPE[2]


class Machine:
    """Rates of this machine. Lives in a worker of its own."""

    def __init__(self, threads: int) -> None:
        n, k, m = SHAPE
        rng = np.random.default_rng(0)
        self.threads = threads
        self.a = rng.standard_normal((n, k), dtype=np.float32)
        self.b = rng.standard_normal((k, m), dtype=np.float32)
        self.out = [np.empty((n, m), np.float32) for _ in range(threads)]
        self.pool = ThreadPoolExecutor(threads)

    def product_rates(self, repeats: int = 10) -> dict[str, float]:
        """float32 multiply-adds a second: by the matrix library's own threads; on one core; and
        by products of one thread each on all cores side by side."""

        def multiply(i: int) -> None:
            for _ in range(repeats):
                np.matmul(self.a, self.b, out=self.out[i])

        work = repeats * MULTIPLY_ADDS
        with threadpool_limits(self.threads, user_api="blas"):
            multi_threaded = work / seconds(lambda: multiply(0))
        with threadpool_limits(1, user_api="blas"):
            one_core = work / seconds(lambda: multiply(0))
            every = range(self.threads)
            side_by_side = work / seconds(lambda: list(self.pool.map(multiply, every)))
        return {
            "multi_threaded": multi_threaded,
            "one_core": one_core,
            "side_by_side": self.threads * side_by_side,
            "best": max(multi_threaded, self.threads * side_by_side),
        }

    def best_product_rate(self, turn: int) -> float:
        """The best of `product_rates`."""
        return self.product_rates()["best"]

    def copy_seconds(self, size: int) -> float:
        """One core's time to copy `size` float32 numbers that were copied just before."""
        source, target = np.ones(size, np.float32), np.empty(size, np.float32)
        repeats = max(3, 4_000_000 // size)

        def copy() -> None:
            for _ in range(repeats):
                np.copyto(target, source)

        return seconds(copy) / repeats


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long it takes, once it is warm."""
    work()
    started = clock()
    work()
    return clock() - started


def step_work(
    batch: int, length: int, pooling: str = "cls", m: int = 64, blocks: int = 6
) -> dict[str, int]:
    """Multiply-adds of MiniLM's shape with adapters at both sites of every block and a classifier.

    "needed": what the library computes; of the last block, under a head that reads [CLS], other
    positions give keys and values only. "whole": every position of every block.
    """
    config, adapter = replace(shape_of("minilm"), n_layers=blocks), mt.AdapterConfig(bottleneck=m)
    needed, whole = (
        count_step(config, batch, length, "adapter", adapter, pooling=kind).multiply_adds
        for kind in (pooling, "mean")
    )
    return {
        "forward whole": whole.forward,
        "forward needed": needed.forward,
        "step whole": whole.needed,
        "step needed": needed.needed,
    }

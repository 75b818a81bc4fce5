"""How long a forward pass takes, measured; several models take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Latency:
    """Seconds of every round, in order."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def percentile_95(self) -> float:
        return float(np.percentile(self.seconds, 95))

    def over(self, other: Latency) -> float:
        """The median of the ratios to another's rounds.

        Rounds that were measured one after the other share the noise of the machine.
        """
        return float(np.median(np.divide(self.seconds, other.seconds)))


def measure_latencies(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Latency]:
    """Run every work once in each of the rounds, A B C A B C ..., after a round of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {name: Latency(tuple(values)) for name, values in seconds.items()}

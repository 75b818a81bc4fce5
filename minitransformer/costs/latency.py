"""How long a forward pass takes, measured; several models take turns."""

from __future__ import annotations

import math
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

    def interval_over(self, other: Latency) -> tuple[float, float]:
        """About 95 % confidence for `over`, whatever the distribution; below 6 rounds, less.

        The ratios of ranks n/2 -+ 0.98 sqrt(n) (Conover 1999, Practical Nonparametric Statistics,
        section 3.2), or the lowest and the highest one.
        """
        ratios = np.sort(np.divide(self.seconds, other.seconds))
        n = len(ratios)
        low = max(0, int(n / 2 - 0.98 * np.sqrt(n)))
        return float(ratios[low]), float(ratios[n - 1 - low])


def measure_latencies(
    works: Mapping[str, Callable[[], object]],
    rounds: int,
    seconds: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Latency]:
    """Run every work once in each of the rounds, after a round of warm-up.

    The order within a round is random, because what ran before leaves its arrays in the caches.
    `seconds`: when they are over no further round begins, except for the first three. `clock`:
    `time.process_time` for the processor's time, which other processes hardly change; of works
    that keep to one thread it is the latency too.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    names, rng = list(works), np.random.default_rng(0)
    begun = time.perf_counter()
    for number in range(rounds + 1):
        if number > 3 and time.perf_counter() - begun > seconds:
            break
        for i in rng.permutation(len(names)):
            started = clock()
            works[names[i]]()
            if number:
                found[names[i]].append(clock() - started)
    return {name: Latency(tuple(values)) for name, values in found.items()}

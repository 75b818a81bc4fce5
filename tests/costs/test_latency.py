"""Works take turns, and what they took is summed up."""

from __future__ import annotations

import time

import numpy as np
import pytest

from minitransformer.costs.latency import Latency, measure_latencies


def test_works_take_turns_in_random_order_after_a_round_of_warm_up() -> None:
    order: list[str] = []
    works = {name: (lambda name=name: order.append(name)) for name in "ab"}
    found = measure_latencies(works, rounds=20)
    rounds = {"".join(order[i : i + 2]) for i in range(0, len(order), 2)}
    assert rounds == {"ab", "ba"}
    assert len(order) == 42
    assert [len(latency.seconds) for latency in found.values()] == [20, 20]


def test_no_round_begins_when_time_is_up_after_the_first_three() -> None:
    found = measure_latencies({"a": lambda: time.sleep(0.01)}, rounds=50, seconds=0.001)
    assert len(found["a"].seconds) == 3


def test_seconds_are_those_of_the_work() -> None:
    found = measure_latencies({"a": lambda: time.sleep(0.02), "b": lambda: None}, rounds=3)
    assert found["a"].median >= 0.02
    assert found["b"].median < 0.01


def test_a_ratio_is_that_of_paired_rounds() -> None:
    a, b = Latency((2.0, 20.0, 2.0)), Latency((1.0, 10.0, 4.0))
    assert a.over(b) == 2.0
    assert (a.median, b.median) == (2.0, 4.0)
    assert a.percentile_95 == pytest.approx(18.2)


def test_the_interval_of_a_ratio_is_of_its_ranks() -> None:
    ratios = np.random.default_rng(0).permutation(np.arange(1.0, 101))
    low, high = Latency(tuple(ratios)).interval_over(Latency((1.0,) * 100))
    assert (low, high) == (41.0, 60.0)
    few = Latency((3.0, 1.0, 2.0)).interval_over(Latency((1.0, 1.0, 1.0)))
    assert few == (1.0, 3.0)


def test_the_interval_holds_the_true_median_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(0)
    ones = Latency((1.0,) * 60)
    hits = [
        low <= np.log(2) <= high
        for low, high in (
            Latency(tuple(rng.exponential(size=60))).interval_over(ones) for _ in range(500)
        )
    ]
    assert 0.92 < np.mean(hits) < 0.98

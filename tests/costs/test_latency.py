"""Works take turns, and what they took is summed up."""

from __future__ import annotations

import time

import pytest

from minitransformer.costs.latency import Latency, measure_latencies


def test_works_take_turns_after_a_round_of_warm_up() -> None:
    order: list[str] = []
    works = {name: (lambda name=name: order.append(name)) for name in "ab"}
    found = measure_latencies(works, rounds=2)
    assert "".join(order) == "ababab"
    assert [len(latency.seconds) for latency in found.values()] == [2, 2]


def test_seconds_are_those_of_the_work() -> None:
    found = measure_latencies({"a": lambda: time.sleep(0.02), "b": lambda: None}, rounds=3)
    assert found["a"].median >= 0.02
    assert found["b"].median < 0.01


def test_a_ratio_is_that_of_paired_rounds() -> None:
    a, b = Latency((2.0, 20.0, 2.0)), Latency((1.0, 10.0, 4.0))
    assert a.over(b) == 2.0
    assert (a.median, b.median) == (2.0, 4.0)
    assert a.percentile_95 == pytest.approx(18.2)

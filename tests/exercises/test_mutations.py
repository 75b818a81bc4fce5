"""A hold-out of random mistakes: all are caught, and no wrong cause is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exercises.more_mutations import OTHER_KINDS, more
from exercises.mutations import EXERCISES, Mutation, examine, mutations, same_anyway, sample
from exercises.wrong_solutions import solution
from minitransformer.nn.module import Parameter


def check_mutation(mutation: Mutation, folder: Path) -> None:
    caught, said = examine(mutation, folder)
    assert caught or same_anyway(mutation)
    if mutation.kind not in OTHER_KINDS:
        assert [sentence for verdict, sentence in said if verdict in ("WRONG", "unknown")] == []


@pytest.mark.parametrize("i", range(8))
def test_a_few_mutations(i: int, tmp_path: Path) -> None:
    check_mutation(sample(8, seed=3)[i], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("i", range(160))
def test_mutations(i: int, tmp_path: Path) -> None:
    check_mutation(sample(160, seed=1)[i], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("i", range(200))
def test_mutations_of_other_kinds_and_two_at_once(i: int, tmp_path: Path) -> None:
    check_mutation(more(200, seed=20)[i], tmp_path)


@pytest.mark.slow
def test_the_sample_has_all_kinds_and_is_the_same_each_time() -> None:
    drawn = sample(160, seed=1)
    assert {m.kind for m in drawn} >= {
        "sign", "axis", "transpose", "factor", "dropped term", "off by one",
    }  # fmt: skip
    sample.cache_clear()
    assert drawn == sample(160, seed=1)


@pytest.mark.slow
def test_equivalent_mutations_give_identical_results() -> None:
    made = [make() for exercise in EXERCISES for make in mutations(exercise)]
    found = [m for m in made if m is not None and same_anyway(m)]
    assert len({(m.exercise, m.line) for m in found}) >= 5
    for mutation in found:
        for seed in range(20):
            ours, theirs = (
                results(mutation.exercise, source, seed)
                for source in (solution(mutation.exercise), mutation.source)
            )
            assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def results(exercise: int, source: str, seed: int) -> list[Any]:
    """What the solution computes for random numbers."""
    names: dict[str, Any] = {}
    exec(source, names)
    rng = np.random.default_rng(seed)
    if exercise == 4:
        return list(names["start_weights"](40, 9, rng, 0.01))
    if exercise == 6:
        parameters = {name: Parameter(np.zeros(n)) for name, n in (("a", 3), ("b", 4))}
        for p in parameters.values():
            p.grad = rng.standard_normal(p.shape)
        norm = float(np.sqrt(sum((p.grad**2).sum() for p in parameters.values())))
        returned = names["clip_by_global_norm"](parameters, norm * (1, 0.5, 2)[seed % 3])
        return [returned, *(p.grad for p in parameters.values())]
    import minitransformer as mt

    made = {
        1: lambda: [names["MyLinear"](4, 3), names["MyLayerNorm"](4)],
        3: lambda: [names["MyAdapter"](4, mt.AdapterConfig(2))],
        5: lambda: [names["MyLinear"](4, 3)],
    }[exercise]()
    x, found = rng.standard_normal((2, 5, 4)), []
    for module in made:
        y = module.astype(np.float64).forward(x)
        found += [y, module.backward(rng.standard_normal(y.shape))]
        found += [p.grad for p in module.parameters()]
    return found

"""Optimizers move what has a gradient, as their papers say."""

import math
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minitransformer.errors import CheckpointError, ConfigError
from minitransformer.nn.layers import Embedding
from minitransformer.nn.module import Array, Parameter
from minitransformer.training.optim import (
    SGD,
    AdamW,
    Map,
    clip_by_global_norm,
    spread_over,
    warmup_linear_decay,
)

OPTIMIZERS = [lambda p: SGD(p, 0.1, 0.9), lambda p: AdamW(p, 0.1)]


def parameters() -> dict[str, Parameter]:
    rng = np.random.default_rng(0)
    return {"w": Parameter(rng.normal(size=(3, 4))), "b": Parameter(rng.normal(size=4))}


def test_adamw_follows_its_equations_for_three_steps() -> None:
    ps, rng = parameters(), np.random.default_rng(1)
    expected = {k: p.value.copy() for k, p in ps.items()}
    m = {k: np.zeros(p.shape) for k, p in ps.items()}
    v = {k: np.zeros(p.shape) for k, p in ps.items()}
    optimizer = AdamW(ps, lr=0.1, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3)
    for t in (1, 2, 3):
        for k, p in ps.items():
            g = p.grad = rng.normal(size=p.shape)
            m[k] = 0.8 * m[k] + 0.2 * g
            v[k] = 0.9 * v[k] + 0.1 * g**2
            decay = 0.3 if k == "w" else 0.0  # only matrices decay
            step = m[k] / (1 - 0.8**t) / (np.sqrt(v[k] / (1 - 0.9**t)) + 1e-6)
            expected[k] = expected[k] - 0.1 * (step + decay * expected[k])
        optimizer.step()
    for k, p in ps.items():
        np.testing.assert_allclose(p.value, expected[k], rtol=1e-12)


def test_pieces_on_several_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(map: Map, piece: int) -> list[float]:
        monkeypatch.setattr("minitransformer.training.optim.PIECE", piece)
        rng, ps = np.random.default_rng(1), parameters()
        optimizer = AdamW(ps, lr=0.1)
        norms = []
        for _ in range(3):
            for p in ps.values():
                p.grad = rng.normal(size=p.shape)
            with spread_over(map):
                norms.append(clip_by_global_norm(ps, 1.0))
                optimizer.step()
        return [*norms, *(x for p in ps.values() for x in p.value.flat)]

    with ThreadPoolExecutor(3) as pool:
        assert trained(pool.map, 4) == trained(map, 4)
    np.testing.assert_allclose(trained(map, 4), trained(map, 1000), rtol=1e-14)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_rows_of_an_embedding_give_what_the_whole_table_gives(weight_decay: float) -> None:
    """To the last bit: rows without a gradient so far, rows with one earlier, a state loaded
    between, a gradient that somebody read, and one that is whole."""

    def trained(whole: bool) -> dict[str, Array]:
        rng = np.random.default_rng(3)
        embedding = Embedding(40, 6, rng, sigma=1)
        ps = {"table": embedding.weight}
        optimizer = AdamW(ps, lr=0.1, weight_decay=weight_decay)
        for step, words in enumerate([3, 3, 5, 3, 2, 40, 3]):
            ids = rng.integers(0, words, (2, 4))
            for _ in range(2):  # a second batch adds to the first
                embedding(ids)
                embedding.backward(rng.normal(size=(2, 4, 6)).astype(np.float32))
            if whole or step == 4:
                assert embedding.weight.grad is not None  # read: stored whole from here on
            clip_by_global_norm(ps, 1e9)
            optimizer.step()
            embedding.zero_grad()
            if step == 2:
                state = {name: array.copy() for name, array in optimizer.state_dict().items()}
                optimizer = AdamW(ps, lr=0.1, weight_decay=weight_decay)
                optimizer.load_state_dict(state)
        return {"table": embedding.weight.value, **optimizer.state_dict()}

    expected, found = trained(whole=True), trained(whole=False)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_a_change_in_a_gradient_that_was_read_is_heeded() -> None:
    embedding = Embedding(40, 6, np.random.default_rng(0), sigma=1)
    before = embedding.weight.value.copy()
    embedding(np.array([1, 2]))
    embedding.backward(np.ones((2, 6), np.float32))
    assert embedding.weight.grad is not None
    embedding.weight.grad[30] = 1.0
    AdamW({"table": embedding.weight}, lr=0.1, weight_decay=0.0).step()
    moved = np.flatnonzero((embedding.weight.value != before).any(axis=1))
    assert moved.tolist() == [1, 2, 30]


def test_sgd_with_momentum() -> None:
    ps = parameters()
    start = ps["w"].value.copy()
    optimizer = SGD(ps, lr=0.5, momentum=0.9)
    for _ in range(2):
        ps["w"].grad = np.ones((3, 4))
        optimizer.step()
    np.testing.assert_allclose(ps["w"].value, start - 0.5 * (1 + 1.9))


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_a_parameter_without_gradient_stays(kind) -> None:
    ps = parameters()
    before = ps["b"].value.copy()
    ps["w"].grad = np.ones((3, 4))
    kind(ps, 0.1).step()
    np.testing.assert_array_equal(ps["b"].value, before)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_loaded_state_continues_exactly(kind) -> None:
    def steps(ps, optimizer, seeds) -> None:
        for seed in seeds:
            for p in ps.values():
                p.grad = np.random.default_rng(seed).normal(size=p.shape)
            optimizer.step()

    whole = parameters()
    steps(whole, kind(whole), range(4))
    halves = parameters()
    first = kind(halves)
    steps(halves, first, range(2))
    second = kind(halves)
    second.load_state_dict(first.state_dict())
    steps(halves, second, range(2, 4))
    for k in whole:
        np.testing.assert_array_equal(halves[k].value, whole[k].value)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_state_of_other_parameters_is_refused_and_changes_nothing(kind) -> None:
    ps = parameters()
    ps["w"].grad = np.ones((3, 4))
    optimizer = kind(ps)
    optimizer.step()
    before = {name: array.copy() for name, array in optimizer.state_dict().items()}
    other = kind({"w": Parameter(np.ones((2, 4))), "c": Parameter(np.ones(3))})
    with pytest.raises(CheckpointError, match="belongs to other parameters") as error:
        optimizer.load_state_dict(other.state_dict())
    for problem in (r"missing: \w+/b", r"unexpected: \w+/c", r"wrong shape: \w+/w is \(2, 4\)"):
        assert re.search(problem, str(error.value))
    with pytest.raises(CheckpointError, match="missing"):
        optimizer.load_state_dict({})
    for name, array in optimizer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_state_of_another_kind_of_optimizer_is_refused() -> None:
    with pytest.raises(CheckpointError, match="unexpected: velocity/w"):
        AdamW(parameters()).load_state_dict(SGD(parameters(), 0.1, 0.9).state_dict())


@pytest.mark.parametrize("kind", [lambda p: SGD(p, 0.1), AdamW])
def test_optimizers_say_what_parameters_they_want(kind) -> None:
    with pytest.raises(ConfigError, match="a list: expected a mapping from name to Parameter"):
        kind(list(parameters().values()))
    with pytest.raises(ConfigError, match="no parameters to optimize"):
        kind({})


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ({"lr": -1.0}, "lr=-1.0"),
        ({"lr": math.nan}, "lr=nan"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
        ({"betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\)"),
    ],
)
def test_numbers_out_of_range_are_refused(number, message) -> None:
    with pytest.raises(ConfigError, match=message):
        AdamW(parameters(), **number)


def test_schedule_rises_to_the_peak_and_falls_to_zero() -> None:
    rate = warmup_linear_decay(1.0, 4, 10)
    rates = [rate(i) for i in range(11)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[7] == pytest.approx(0.5)
    assert rates[10] == 0
    with pytest.raises(ConfigError, match="warmup_steps=11"):
        warmup_linear_decay(1.0, 11, 10)


def test_clipping_keeps_the_direction_and_reports_the_norm() -> None:
    ps = parameters()
    ps["w"].grad, ps["b"].grad = np.full((3, 4), 3.0), np.full(4, 4.0)
    norm = math.sqrt(12 * 9 + 4 * 16)
    assert clip_by_global_norm(ps, 1.0) == pytest.approx(norm)
    np.testing.assert_allclose(ps["b"].grad, 4 / norm)
    with pytest.raises(ConfigError, match="max_norm=-1"):
        clip_by_global_norm(ps, -1)
    assert clip_by_global_norm(ps, 5.0) == pytest.approx(1.0)
    np.testing.assert_allclose(ps["b"].grad, 4 / norm)

"""Shards computed side by side give the losses and gradients of the whole batch."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer.data.batches import Batch
from minitransformer.errors import ConfigError, ShapeError
from minitransformer.nn.layers import Dropout
from minitransformer.training.data_parallel import DataParallel, PerExampleGenerator, shards


def batch_of(rows: int, width: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, width + 1, rows)
    mask = (np.arange(width) < lengths[:, None]).astype(np.int64)
    ids = rng.integers(0, 50, (rows, width)) * mask
    return Batch(ids, mask, rng.integers(0, 2, rows), np.arange(rows))


@pytest.fixture
def classifier(small_transformer) -> mt.Classifier:
    base = small_transformer()
    base.freeze()
    base.add_adapter("a", mt.AdapterConfig(bottleneck=4))
    model = mt.Classifier(base, 2, rng=np.random.default_rng(0))
    model.astype(np.float64)
    return model


def gradients(model: mt.Classifier, batch: Batch, threads: int) -> tuple[float, int, dict]:
    with DataParallel(model, threads) as data_parallel:
        loss, right = data_parallel.forward_backward(batch, mt.CrossEntropy(0.1))
    return loss, right, {n: p.grad.copy() for n, p in model.trainable_parameters().items()}


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_gradients_do_not_depend_on_the_number_of_threads(classifier, threads) -> None:
    batch = batch_of(7, 9)
    loss, right, grads = gradients(classifier, batch, 1)
    loss_n, right_n, grads_n = gradients(classifier, batch, threads)
    assert loss_n == pytest.approx(loss, rel=1e-12)
    assert (
        right_n
        == right
        == (classifier(batch.ids, batch.attention_mask).argmax(1) == batch.labels).sum()
    )
    for name, grad in grads.items():
        np.testing.assert_allclose(grads_n[name], grad, rtol=1e-9, atol=1e-15)


def test_more_threads_than_rows(classifier) -> None:
    loss, _, _ = gradients(classifier, batch_of(2, 5), 1)
    assert gradients(classifier, batch_of(2, 5), 6)[0] == pytest.approx(loss, rel=1e-12)


def test_same_threads_same_bits(classifier) -> None:
    first = gradients(classifier, batch_of(8, 9), 3)[2]
    for _ in range(3):
        again = gradients(classifier, batch_of(8, 9), 3)[2]
        for name, grad in first.items():
            np.testing.assert_array_equal(again[name], grad)


def test_replicas_share_weights_and_nothing_else(classifier) -> None:
    data_parallel = DataParallel(classifier, 2)
    own, other = (dict(model.named_parameters()) for model in data_parallel.replicas)
    assert own.keys() == other.keys()
    for name in own:
        assert own[name] is not other[name]
        assert own[name].value is other[name].value


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 10), st.integers(1, 5))
def test_shards_hold_every_row_once_as_wide_as_the_batch(rows: int, width: int, n: int) -> None:
    batch = batch_of(rows, width, seed=rows)
    parts = shards(batch, n)
    index = np.concatenate([part.index for part in parts])
    assert sorted(index) == list(range(rows))
    for part in parts:
        np.testing.assert_array_equal(part.ids, batch.ids[part.index])
        np.testing.assert_array_equal(part.attention_mask, batch.attention_mask[part.index])
        np.testing.assert_array_equal(part.labels, batch.labels[part.index])


def test_map_keeps_the_order(classifier) -> None:
    batches = [batch_of(2, 4, seed) for seed in range(7)]
    with DataParallel(classifier, 3) as data_parallel:
        found = list(data_parallel.map(lambda model, batch: batch.ids, batches))
    for ids, batch in zip(found, batches, strict=True):
        np.testing.assert_array_equal(ids, batch.ids)


# Two threads, one after the other in and out; prints the number of BLAS threads each time.
TWO_USERS = """
import sys, threading
import numpy
from threadpoolctl import threadpool_info
from minitransformer.training.process import single_threaded_products

def report():
    print({lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}.pop())

def use(name):
    with single_threaded_products:
        entered[name].set()
        leave[name].wait(10)
    left[name].set()
    done.wait(10)  # threadpoolctl: what a living thread has set, no other one can change

entered, leave, left = ({n: threading.Event() for n in ("first", "second")} for _ in range(3))
done = threading.Event()
report()
for name in entered:
    threading.Thread(target=use, args=(name,)).start()
    entered[name].wait(10)
    report()
for name in (sys.argv[1], *(set(left) - {sys.argv[1]})):
    leave[name].set()
    left[name].wait(10)
    report()
done.set()
"""


@pytest.mark.parametrize("first_out", ["first", "second"])
def test_products_use_one_thread_inside_and_what_they_had_afterwards(first_out) -> None:
    # In a process of its own, whose number of BLAS threads is known.
    environment = os.environ | {
        "OPENBLAS_NUM_THREADS": "2",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", TWO_USERS, first_out]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2", "1", "1", "1", "2"], done.stderr


# Prints the number of BLAS threads: before, in a batch of few tokens, of many, between, afterwards.
FEW_AND_MANY = """
import numpy as np
from threadpoolctl import threadpool_info
import minitransformer as mt
from minitransformer.data.batches import Batch
from minitransformer.training.data_parallel import FEW_TOKENS, DataParallel

found = []

def report():
    found.append({l["num_threads"] for l in threadpool_info() if l["user_api"] == "blas"}.pop())

class Reports(mt.Classifier):
    def forward(self, *args, **kwargs):
        report()
        return super().forward(*args, **kwargs)

config = mt.TransformerConfig(d_model=8, n_heads=2, n_layers=1, d_ff=8, vocab_size=9)
model = Reports(mt.Transformer(config), 2)
report()
with DataParallel(model, 2) as data_parallel:
    for tokens in (FEW_TOKENS - 8, FEW_TOKENS):
        ids = np.ones((tokens // 8, 8), int)
        rows = np.zeros(len(ids), int)
        data_parallel.forward_backward(Batch(ids, ids, rows, np.arange(len(ids))))
    report()
report()
print(*found)
"""


@pytest.mark.parametrize("before", ["2", "1"])
def test_few_tokens_are_one_shard_with_the_threads_of_the_matrix_library(before) -> None:
    environment = os.environ | {
        "OPENBLAS_NUM_THREADS": before,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", FEW_AND_MANY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    expected = [before, before, "1", "1", "1", before]  # once for few tokens, twice for many
    assert done.stdout.split() == expected, done.stderr


def test_spread_gives_the_results_in_order(classifier) -> None:
    with DataParallel(classifier, 3) as data_parallel:
        for n in (0, 1, 2, 3, 7):
            assert data_parallel.spread(lambda i: i * i, range(n)) == [i * i for i in range(n)]


@pytest.mark.parametrize("threads", [-1, -3, 1.5, "2", True])
def test_what_is_no_number_of_threads_is_refused(classifier, threads) -> None:
    with pytest.raises(ConfigError, match=f"threads={threads!r}"):
        DataParallel(classifier, threads)


# -- dropout ------------------------------------------------------------------------------


def with_dropout(small_transformer) -> mt.Classifier:
    base = small_transformer(dropout=0.3, attention_dropout=0.3).freeze()
    base.add_adapter("a", mt.AdapterConfig(bottleneck=4, dropout=0.3))
    model = mt.Classifier(base, 2, dropout=0.3, rng=np.random.default_rng(0))
    return model.astype(np.float64)


@pytest.mark.parametrize("threads", [2, 3])
def test_dropout_masks_do_not_depend_on_the_number_of_threads(small_transformer, threads) -> None:
    batch = batch_of(7, 9)
    loss, right, grads = gradients(with_dropout(small_transformer), batch, 1)
    loss_n, right_n, grads_n = gradients(with_dropout(small_transformer), batch, threads)
    assert loss_n == pytest.approx(loss, rel=1e-12)
    assert right_n == right
    for name, grad in grads.items():
        np.testing.assert_allclose(grads_n[name], grad, rtol=1e-9, atol=1e-15)


def test_another_step_or_seed_has_other_dropout_masks(small_transformer) -> None:
    model, batch = with_dropout(small_transformer), batch_of(6, 5)
    with DataParallel(model, 1, seed=1) as data_parallel:
        losses = [data_parallel.forward_backward(batch)[0] for _ in range(3)]
        data_parallel.step = 0
        assert data_parallel.forward_backward(batch)[0] == losses[0]
    with DataParallel(model, 1, seed=2) as data_parallel:
        losses.append(data_parallel.forward_backward(batch)[0])
    assert len(set(losses)) == 4


def test_the_models_own_generators_are_back_afterwards(small_transformer) -> None:
    model = with_dropout(small_transformer)
    dropouts = [m for _, m in model.named_modules() if isinstance(m, Dropout)]
    before = [dropout.rng for dropout in dropouts]
    with DataParallel(model, 2) as data_parallel:
        data_parallel.forward_backward(batch_of(6, 5))
    assert all(d.rng is rng for d, rng in zip(dropouts, before, strict=True))
    other = batch_of(3, 4)  # a batch of another size is no problem
    model(other.ids, other.attention_mask)


def test_an_example_gets_the_same_numbers_in_any_shard() -> None:
    shape = (2, 3, 4)
    whole = PerExampleGenerator(0, 5, [4, 7, 9, 2]).random((4, *shape), np.float32)
    part = PerExampleGenerator(0, 5, [7, 2]).random((2, *shape), np.float32)
    np.testing.assert_array_equal(part, whole[[1, 3]])
    assert whole.dtype == np.float32
    assert len(np.unique(whole)) == whole.size
    assert (whole >= 0).all()
    assert (whole < 1).all()


def test_numbers_for_another_batch_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"shape \(3, 5\) in a shard of 2 examples"):
        PerExampleGenerator(0, 0, [0, 1]).random((3, 5))

"""Slices walked side by side give the gradients of the whole batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

import minitransformer as mt
from minitransformer.data.batches import Batch
from minitransformer.errors import ConfigError
from minitransformer.training.data_parallel import DataParallel, shards


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
        loss, right = data_parallel.forward_backward(batch, label_smoothing=0.1)
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
    own, twin = (dict(model.named_parameters()) for model in data_parallel.replicas)
    assert own.keys() == twin.keys()
    for name in own:
        assert own[name] is not twin[name]
        assert own[name].value is twin[name].value


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 10), st.integers(1, 5))
def test_slices_hold_every_row_once_and_every_token(rows: int, width: int, n: int) -> None:
    batch = batch_of(rows, width, seed=rows)
    slices = list(shards(batch, n))
    index = np.concatenate([part.index for part in slices])
    assert sorted(index) == list(range(rows))
    assert sum(part.attention_mask.sum() for part in slices) == batch.attention_mask.sum()
    for part in slices:
        np.testing.assert_array_equal(part.ids, batch.ids[part.index, : part.ids.shape[1]])


def test_map_keeps_the_order(classifier) -> None:
    batches = [batch_of(2, 4, seed) for seed in range(7)]
    with DataParallel(classifier, 3) as data_parallel:
        found = list(data_parallel.map(lambda model, batch: batch.ids, batches))
    for ids, batch in zip(found, batches, strict=True):
        np.testing.assert_array_equal(ids, batch.ids)


def test_products_use_one_thread_inside_and_what_they_had_afterwards(classifier) -> None:
    def blas_threads() -> list[int]:
        return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]

    before = blas_threads()
    with DataParallel(classifier, 2):
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_negative_number_of_threads_is_refused(classifier) -> None:
    with pytest.raises(ConfigError, match="threads=-1"):
        DataParallel(classifier, -1)

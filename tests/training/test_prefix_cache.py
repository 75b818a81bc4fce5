"""The prefix cache changes the time, not the result."""

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.data.batches import Batch, Encoded
from minitransformer.errors import ConfigError
from minitransformer.training.prefix_cache import PrefixCache, frozen_depth
from minitransformer.training.trainer import Trainer, TrainingOptions

RNG = np.random.default_rng(0)
SEQUENCES = [RNG.integers(0, 50, RNG.integers(2, 12)).tolist() for _ in range(40)]
ENCODED = Encoded([*SEQUENCES, SEQUENCES[0]], RNG.integers(0, 2, 41))  # one text twice
OPTIONS = TrainingOptions(epochs=3, batch_size=8, lr=5e-3)
NUMBER = 16 * 4  # bytes of a position: d_model float32 numbers


@pytest.fixture
def classifier(small_transformer):
    def make(layers=(2,), dropout: float = 0.0) -> mt.Classifier:
        base = small_transformer(dropout=dropout)
        base.freeze()
        base.add_adapter("a", mt.AdapterConfig(bottleneck=4, layers=layers))
        return mt.Classifier(base, 2, rng=np.random.default_rng(0))

    return make


def losses(model: mt.Classifier, prefix: PrefixCache | None) -> list[float]:
    trainer = Trainer(model, ENCODED, ENCODED, OPTIONS, progress=False, threads=2, prefix=prefix)
    return [row.loss for row in trainer.fit() if row.step]


@pytest.mark.parametrize("layers", [(1,), (2,), (1, 2)])
@pytest.mark.parametrize("limit", [2 << 30, 100 * NUMBER, 0])
def test_losses_are_the_same_with_and_without(classifier, layers, limit) -> None:
    model = classifier(layers)
    prefix = PrefixCache(model.transformer, ENCODED, limit)
    np.testing.assert_allclose(losses(model, prefix), losses(classifier(layers), None), rtol=1e-5)
    assert prefix.states.nbytes <= limit
    assert (len(prefix.slices) == len(SEQUENCES)) == (limit > 1000 * NUMBER)


def test_the_second_epoch_does_not_enter_the_lower_blocks(classifier) -> None:
    model = classifier()
    prefix = PrefixCache(model.transformer, ENCODED)
    losses(model, prefix)

    def closed(*_: object) -> None:
        raise AssertionError("a block of the prefix ran again")

    for block in model.transformer.blocks[:2]:
        block.forward = closed
    index = np.array([0, 5])
    width = max(len(ENCODED.sequences[i]) for i in index)
    ids = np.zeros((2, width), np.int64)
    batch = Batch(ids, np.ones_like(ids), ENCODED.labels[index], index)
    assert prefix.hidden(model.transformer, batch).shape == (2, width, 16)


def test_dropout_is_off_below_and_stays_on_above(classifier) -> None:
    model = classifier(dropout=0.3)
    PrefixCache(model.transformer, ENCODED)
    blocks = model.transformer.blocks
    assert [block.ffn.dropout.p for block in blocks] == [0, 0, 0.3]
    assert model.transformer.embeddings.dropout.p == 0


def test_depth_is_where_training_begins(classifier, small_transformer) -> None:
    assert frozen_depth(classifier(layers=(1, 2)).transformer) == 1
    assert frozen_depth(small_transformer()) == 0
    assert frozen_depth(small_transformer().freeze()) == 3


def test_head_alone_caches_the_whole_base(small_transformer) -> None:
    def head_alone() -> mt.Classifier:
        return mt.Classifier(small_transformer().freeze(), 2, rng=np.random.default_rng(0))

    model = head_alone()
    prefix = PrefixCache(model.transformer, ENCODED)
    assert prefix.depth == 3
    np.testing.assert_allclose(losses(model, prefix), losses(head_alone(), None), rtol=1e-5)


def test_another_base_or_text_is_another_entry(classifier) -> None:
    model = classifier()
    prefix = PrefixCache(model.transformer, ENCODED)
    model.transformer.blocks[0].ffn.norm.bias.value[0] += 1
    other = PrefixCache(model.transformer, ENCODED)
    assert not set(prefix.keys) & set(other.keys)
    assert len(set(prefix.keys)) == len(SEQUENCES)


def test_no_frozen_prefix_is_an_error(classifier) -> None:
    with pytest.raises(ConfigError, match="no frozen prefix to cache"):
        PrefixCache(classifier(layers=(0, 2)).transformer, ENCODED)

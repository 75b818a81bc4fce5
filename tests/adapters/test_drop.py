"""AdapterDrop: blocks without adapters are those of the plain base."""

from __future__ import annotations

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.adapters.config import LoRAConfig, PrefixConfig
from minitransformer.data.batches import Encoded
from minitransformer.errors import ConfigError
from minitransformer.training.prefix_cache import frozen_depth
from minitransformer.training.trainer import Trainer, TrainingOptions

CONFIG = mt.TransformerConfig(30, d_model=12, n_layers=4, n_heads=2, d_ff=16)
IDS = np.random.default_rng(0).integers(0, 30, (3, 8))


def adapted(layers: tuple[int, ...] | None = None, method: str = "adapter") -> mt.Transformer:
    """The same base always; the adapters of a block do not depend on those of others."""
    model = mt.Transformer(CONFIG, np.random.default_rng(0)).eval()
    config = {
        "adapter": mt.AdapterConfig(bottleneck=3, layers=layers),
        "lora": LoRAConfig(rank=2, layers=layers),
        "prefix": PrefixConfig(length=2, layers=layers),
    }[method]
    model.add_method("a", config)
    for i, block in enumerate(model.blocks):
        rng = np.random.default_rng([1, i])
        for name, p in block.named_parameters():
            if ".adapters." in name:
                p.value[...] = rng.standard_normal(p.shape) / 3
    return model


@pytest.mark.parametrize("method", ["adapter", "lora", "prefix"])
def test_dropped_is_as_if_the_upper_blocks_alone_had_any(method: str) -> None:
    model = adapted(method=method)
    whole = model(IDS)
    model.drop_adapters(2)
    np.testing.assert_array_equal(model(IDS), adapted((2, 3), method)(IDS))
    model.drop_adapters(4)
    with model.use(None):
        plain = model(IDS)
    np.testing.assert_array_equal(model(IDS), plain)
    model.drop_adapters(0)
    np.testing.assert_array_equal(model(IDS), whole)
    assert not np.allclose(whole, plain)


def test_it_lasts_until_it_is_changed_whatever_is_activated() -> None:
    model = adapted()
    model.drop_adapters(2)
    dropped = model(IDS)
    with model.use(None):
        pass
    np.testing.assert_array_equal(model(IDS), dropped)
    model.set_active("a")
    np.testing.assert_array_equal(model(IDS), dropped)
    np.testing.assert_array_equal(model.replica()(IDS), dropped)


def test_rows_with_adapters_of_their_own_share_the_blocks_below() -> None:
    model = adapted().freeze()
    model.add_adapter("b", mt.AdapterConfig(bottleneck=3))
    model.freeze()
    with model.use_adapter_per_row(["a", "b", None]):
        assert frozen_depth(model) == 0
    model.drop_adapters(3)
    expected = []
    for i, name in enumerate(["a", "b", None]):
        with model.use(name):
            expected.append(model(IDS[i : i + 1])[0])
    with model.use_adapter_per_row(["a", "b", None]):
        assert frozen_depth(model) == 3
        np.testing.assert_allclose(model(IDS), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [-1, 5, 1.5, True])
def test_a_number_of_blocks_that_there_is_not(n: int) -> None:
    with pytest.raises(ConfigError, match="whole number from 0 to 4"):
        adapted().drop_adapters(n)


def test_not_together_with_a_merge() -> None:
    model = adapted(method="lora")
    model.drop_adapters(1)
    with pytest.raises(ConfigError, match=r"drop_adapters\(0\) before you merge"):
        model.merge("a")
    model.drop_adapters(0)
    model.merge("a")
    with pytest.raises(ConfigError, match="unmerge"):
        model.drop_adapters(1)


def test_training_with_a_random_number_in_each_step() -> None:
    """Each depth is drawn, adapters that are left out stay as they are, evaluation has them all."""
    model = adapted().train()
    model.train_adapter("a")
    classifier = mt.Classifier(model, 2)
    data = Encoded(IDS.tolist() * 8, np.arange(24) % 2)
    options = TrainingOptions(epochs=10, batch_size=8, lr=1e-2, adapter_drop=3)
    trainer = Trainer(classifier, data, data, options, progress=False, threads=2)
    drawn = []
    forward_backward = trainer.data_parallel.forward_backward

    def watched(*args, **kwargs):
        result = forward_backward(*args, **kwargs)
        depths = {replica.transformer.dropped for replica in trainer.data_parallel.replicas}
        drawn.append(depths)
        (n,) = depths
        for i, block in enumerate(model.blocks):
            grads = [p.grad for name, p in block.named_parameters() if ".adapters." in name]
            assert all((grad is None) == (i < n) for grad in grads)
        return result

    trainer.data_parallel.forward_backward = watched
    trainer.fit()
    assert len(drawn) == 30
    assert {n for (n,) in drawn} == {0, 1, 2, 3}
    assert model.dropped == 0


def test_more_than_there_are_blocks_is_refused_in_training() -> None:
    classifier = mt.Classifier(adapted().train(), 2)
    data = Encoded(IDS.tolist(), np.array([0, 1, 0]))
    with pytest.raises(ConfigError, match=r"9 blocks without adapters.*from 0 to 4"):
        Trainer(classifier, data, data, TrainingOptions(adapter_drop=9))
    classifier.transformer.set_active(None)
    with pytest.raises(ConfigError, match="none is active"):
        Trainer(classifier, data, data, TrainingOptions(adapter_drop=2))
    with pytest.raises(ConfigError, match="adapter_drop=-1"):
        TrainingOptions(adapter_drop=-1)


def test_any_blocks_may_be_without_adapters() -> None:
    model = adapted()
    model.drop_adapters(range(1, 3))
    np.testing.assert_array_equal(model(IDS), adapted((0, 3))(IDS))
    np.testing.assert_array_equal(model.replica()(IDS), model(IDS))
    model.drop_adapters((0, 1))
    lowest = model(IDS)
    model.drop_adapters(2)
    np.testing.assert_array_equal(model(IDS), lowest)
    model.drop_adapters(())
    np.testing.assert_array_equal(model(IDS), adapted()(IDS))


@pytest.mark.parametrize("blocks", [(4,), (0, 0), (-1,), (1.5,), "01"])
def test_blocks_that_are_not_there(blocks: object) -> None:
    model = adapted()
    with pytest.raises(ConfigError):
        model.drop_adapters(blocks)  # type: ignore[arg-type]
    np.testing.assert_array_equal(model(IDS), adapted()(IDS))

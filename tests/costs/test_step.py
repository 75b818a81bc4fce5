"""What a step is said to cost, against a real step: equal to the last multiply-add and byte."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer import (
    AdapterConfig,
    Classifier,
    LanguageModel,
    Transformer,
    TransformerConfig,
)
from minitransformer.adapters.config import TARGETS, IA3Config, LoRAConfig, PrefixConfig
from minitransformer.adapters.select import select_trainable
from minitransformer.costs.counting import count_multiply_adds
from minitransformer.costs.memory import saved_bytes
from minitransformer.costs.parameters import SHAPES, count_adapters, count_parameters
from minitransformer.costs.step import count_step
from minitransformer.errors import ConfigError
from minitransformer.nn.functional import cross_entropy, cross_entropy_backward
from minitransformer.training.optim import AdamW

K = 4  # classes


@dataclass(frozen=True)
class Measured:
    forward: int
    backward: int
    saved_bytes: int
    trained: int
    gradient_bytes: int
    optimizer_bytes: int


def measure(
    model: Classifier | LanguageModel, padded: bool, batch: int, length: int, pairs: bool = False
) -> Measured:
    """A real training step of a model, counted. `pairs`: two texts in each sequence."""
    rng, config = np.random.default_rng(1), model.transformer.config
    ids = rng.integers(1, config.vocab_size, (batch, length))
    mask = np.ones_like(ids)
    types = [(np.arange(length) >= length // 2) * np.ones_like(ids)] if pairs else []
    if padded:
        mask[-1, length // 2 :] = 0
    labels = rng.integers(0, K, batch if isinstance(model, Classifier) else ids.shape)
    with count_multiply_adds(model.train()) as counter:
        logits = model(ids, mask, *types)
        forward, saved = counter.multiply_adds, saved_bytes(model)
        _, p = cross_entropy(np.asarray(logits), labels)
        model.backward(cross_entropy_backward(p, labels))
    trained = model.trainable_parameters()
    optimizer = AdamW(trained)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return Measured(
        forward,
        counter.multiply_adds - forward,
        saved,
        sum(p.size for p in trained.values()),
        sum(g.nbytes for g in gradients),
        sum(a.nbytes for a in (*optimizer.m.values(), *optimizer.v.values())),
    )


def classifier(
    config: TransformerConfig,
    method: str,
    adapter: Any = None,
    layer_norm: bool = False,
    pooling: str = "cls",
    head_dropout: float = 0.0,
) -> Classifier:
    """A real model in which the method trains, and nothing else."""
    base = Transformer(config, np.random.default_rng(0))
    if adapter is not None:
        base.add_method("one", adapter)
    model = Classifier(base, K, pooling, head_dropout)
    select_trainable(model, method, "one")
    if layer_norm:
        base.train_layer_norms()
    return model


configs = st.builds(
    lambda heads, width, causal, pad_id, **others: TransformerConfig(
        n_heads=heads,
        d_model=heads * width,
        causal=causal,
        pad_id=None if causal else pad_id,
        **others,
    ),
    heads=st.integers(1, 3),
    width=st.integers(1, 4),
    vocab_size=st.integers(5, 20),
    n_layers=st.integers(1, 3),
    d_ff=st.integers(1, 16),
    max_positions=st.just(12),
    token_types=st.integers(0, 2),
    norm=st.sampled_from(["post", "pre"]),
    causal=st.booleans(),
    activation=st.sampled_from(["gelu", "gelu_tanh", "relu", "silu"]),
    dropout=st.sampled_from([0.0, 0.1]),
    attention_dropout=st.sampled_from([0.0, 0.1]),
    pooler=st.just(True),
    pad_id=st.sampled_from([None, 0]),
)

adapters = st.builds(
    AdapterConfig,
    bottleneck=st.integers(1, 5),
    activation=st.sampled_from(["relu", "tanh", "linear"]),
    placement=st.sampled_from(["after_norm", "houlsby", "pfeiffer", "parallel"]),
    sites=st.sampled_from([("attention", "ffn"), ("attention",), ("ffn",), None]),
    layers=st.sampled_from([None, (0,)]),
    scaling=st.sampled_from([1.0, 2.0, "learned"]),
    dropout=st.sampled_from([0.0, 0.1]),
    norm=st.sampled_from([None, "before", "after"]),
)

layers = st.sampled_from([None, (0,)])
dropouts = st.sampled_from([0.0, 0.1])
targets = st.lists(st.sampled_from(TARGETS), min_size=1, unique=True).map(tuple)
inserted = {
    "adapter": adapters,
    "lora": st.builds(LoRAConfig, rank=st.integers(1, 3), dropout=dropouts, targets=targets,
                      layers=layers),
    "ia3": st.builds(IA3Config, layers=layers),
    "prefix": st.builds(PrefixConfig, length=st.integers(1, 4), layers=layers),
}  # fmt: skip
methods = st.one_of(
    st.tuples(st.sampled_from(["full", "head", "bitfit", "layer-norm"]), st.none(), st.booleans()),
    *(st.tuples(st.just(name), configs, st.booleans()) for name, configs in inserted.items()),
)


@settings(deadline=None, max_examples=300)
@given(
    config=configs,
    method=methods,
    pooling=st.sampled_from(["cls", "last", "mean", "pooler"]),
    head_dropout=st.sampled_from([0.0, 0.1]),
    batch=st.integers(1, 3),
    length=st.integers(2, 9),
    padded=st.booleans(),
    pairs=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_a_step_costs_what_is_counted_beforehand(
    config: TransformerConfig,
    method: tuple[str, Any, bool],
    pooling: str,
    head_dropout: float,
    batch: int,
    length: int,
    padded: bool,
    pairs: bool,
    dtype: type,
) -> None:
    name, adapter, layer_norm = method
    if config.causal and pooling != "mean":
        pooling = "last"
    model = classifier(config, name, adapter, layer_norm, pooling, head_dropout)
    pairs = pairs and config.token_types == 2
    real = measure(model.astype(dtype), padded, batch, length, pairs)
    counted = count_step(
        config, batch, length, name, adapter, K, layer_norm, pooling,
        padded=padded, head_dropout=head_dropout, itemsize=np.dtype(dtype).itemsize,
    )  # fmt: skip
    work = counted.multiply_adds
    assert real == Measured(
        work.forward,
        work.backward,
        counted.saved_bytes,
        counted.trained,
        counted.gradient_bytes,
        counted.optimizer_bytes,
    )


@settings(deadline=None, max_examples=100)
@given(
    config=configs,
    several=st.lists(st.one_of(*inserted.values()), min_size=2, max_size=3),
    layer_norm=st.booleans(),
    padded=st.booleans(),
)
def test_several_at_once_cost_what_is_counted(
    config: TransformerConfig, several: list[Any], layer_norm: bool, padded: bool
) -> None:
    base = Transformer(config, np.random.default_rng(0)).freeze()
    for n, one in enumerate(several):
        base.add_method(f"number{n}", one)
    base.train_adapter(*(f"number{n}" for n in range(len(several))))
    base.train_layer_norms(layer_norm)
    pooling = "last" if config.causal else "cls"
    real = measure(Classifier(base, K, pooling, 0.0), padded, 2, 7)
    counted = count_step(config, 2, 7, several[0].method, several, K, layer_norm, padded=padded)
    work = counted.multiply_adds
    assert (real.forward, real.backward) == (work.forward, work.backward)
    assert (real.saved_bytes, real.trained) == (counted.saved_bytes, counted.trained)


@settings(deadline=None, max_examples=60)
@given(config=configs, method=methods, batch=st.integers(1, 3), padded=st.booleans())
def test_a_step_of_a_language_model(
    config: TransformerConfig, method: tuple[str, Any, bool], batch: int, padded: bool
) -> None:
    name, adapter, _ = method
    base = Transformer(replace(config, pooler=False), np.random.default_rng(0))
    model = LanguageModel(base)
    if name != "full":
        model.freeze()
        if adapter is None:
            return
        base.add_method("one", adapter)
        base.train_adapter("one")
    real = measure(model, padded, batch, 7)
    counted = count_step(config, batch, 7, name, adapter, padded=padded, language_model=True)
    work = counted.multiply_adds
    assert (real.forward, real.backward) == (work.forward, work.backward)
    assert (real.saved_bytes, real.trained) == (counted.saved_bytes, counted.trained)


def test_a_language_model_has_no_prefix_cache() -> None:
    with pytest.raises(ConfigError, match="no prefix cache"):
        count_step(
            SHAPES["gpt2"], 1, 8, "adapter", AdapterConfig(layers=(5,)), start=2,
            language_model=True,
        )  # fmt: skip


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_with_a_prefix_cache_the_blocks_below_cost_nothing(norm: str) -> None:
    config = TransformerConfig(19, d_model=6, n_layers=4, n_heads=2, d_ff=10, norm=norm)
    adapter = AdapterConfig(bottleneck=3, layers=(2, 3))
    model = classifier(config, "adapter", adapter)
    ids = np.random.default_rng(0).integers(0, 19, (2, 7))
    hidden = model.transformer.forward_below(2, ids)
    with count_multiply_adds(model.train()) as counter:
        logits = model(ids, start=2, hidden=hidden)
        forward = counter.multiply_adds
        model.backward(np.asarray(logits))
    counted = count_step(config, 2, 7, "adapter", adapter, K, start=2).multiply_adds
    assert (counted.forward, counted.total) == (forward, counter.multiply_adds)
    whole = count_step(config, 2, 7, "adapter", adapter, K).multiply_adds
    assert whole.backward == counted.backward
    assert whole.forward > counted.forward


def test_a_cache_above_what_trains_is_refused() -> None:
    with pytest.raises(ConfigError, match="those are 1 block"):
        count_step(SHAPES["minilm"], 1, 8, "adapter", AdapterConfig(layers=(1, 5)), start=2)
    with pytest.raises(ConfigError, match="those are 0 blocks"):
        count_step(SHAPES["minilm"], 1, 8, "full", start=1)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="'adaptr'"):
        count_step(SHAPES["minilm"], 1, 8, "adaptr")
    with pytest.raises(ConfigError, match="method='lora' does not go with adapter=AdapterConfig"):
        count_step(SHAPES["minilm"], 1, 8, "lora", AdapterConfig())
    for several in ([LoRAConfig(), "lora"], [AdapterConfig(), LoRAConfig()], []):
        with pytest.raises(ConfigError, match="does not go with adapter="):
            count_step(SHAPES["minilm"], 1, 8, "lora", several)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="method='full' does not go with adapter=AdapterConfig"):
        count_step(SHAPES["minilm"], 1, 8, "full", AdapterConfig())


# -- what the counts say --------------------------------------------------------------------


def test_full_fine_tuning_costs_three_forward_passes_and_adapters_two() -> None:
    full = count_step(SHAPES["bert-base"], 32, 128, "full").multiply_adds
    adapters = count_step(SHAPES["bert-base"], 32, 128, "adapter").multiply_adds
    assert full.total == pytest.approx(3 * full.forward, rel=0.02)
    assert adapters.total == pytest.approx(2 * full.forward, rel=0.05)


def test_a_head_alone_needs_no_backward_pass_through_the_base() -> None:
    work = count_step(SHAPES["minilm"], 4, 16, "head", n_classes=3).multiply_adds
    assert (work.input_gradients, work.weight_gradients) == (0, 4 * 384 * 3)


@pytest.mark.parametrize("name", SHAPES)
def test_what_trains_is_what_the_parameter_counts_say(name: str) -> None:
    config, adapter = SHAPES[name], AdapterConfig(bottleneck=16, placement="pfeiffer")
    head = 2 * config.d_model + 2
    step = count_step(config, 1, 8, "adapter", adapter)
    assert step.trained == count_adapters(config, adapter).total + head
    counts = count_parameters(config)
    assert count_step(config, 1, 8, "full").trained == counts.total - counts.pooler + head
    in_blocks = counts.layer_norms - 2 * config.d_model
    assert count_step(config, 1, 8, "layer-norm").trained == in_blocks + head

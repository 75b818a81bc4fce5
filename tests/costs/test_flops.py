"""The counts against the objects that they describe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer import AdapterConfig, CrossEntropy, Transformer, TransformerConfig
from minitransformer.costs.flops import (
    SHAPES,
    MultiplyAdds,
    count_adapters,
    count_multiply_adds,
    count_parameters,
)
from minitransformer.costs.memory import saved_bytes
from minitransformer.runs.options import RunOptions, build_classifier

configs = st.builds(
    lambda heads, width, **others: TransformerConfig(
        n_heads=heads, d_model=heads * width, **others
    ),
    heads=st.integers(1, 3),
    width=st.integers(1, 4),
    vocab_size=st.integers(5, 20),
    n_layers=st.integers(1, 3),
    d_ff=st.integers(1, 16),
    max_positions=st.integers(8, 12),
    token_types=st.integers(0, 2),
    norm=st.sampled_from(["post", "pre"]),
    causal=st.booleans(),
    pooler=st.booleans(),
)

adapters = st.builds(
    AdapterConfig,
    bottleneck=st.integers(1, 5),
    sites=st.sampled_from([("attention", "ffn"), ("attention",), ("ffn",)]),
)


# -- parameters ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("minilm", 22_713_216),
        ("bert-base", 109_482_240),
        ("bert-large", 335_141_888),
        ("roberta-base", 124_645_632),
        ("distilbert", 66_362_880),
        ("gpt2", 124_439_808),
    ],
)
def test_well_known_models_have_their_published_size(name: str, total: int) -> None:
    assert count_parameters(SHAPES[name]).total == total


def test_adapters_of_the_text_book_example() -> None:
    counts = count_adapters(SHAPES["bert-base"], AdapterConfig(bottleneck=64))
    assert (counts.per_site, counts.sites, counts.total) == (99_136, 24, 2_379_264)


def test_adapters_of_minilm() -> None:
    assert count_adapters(SHAPES["minilm"], AdapterConfig(bottleneck=64)).total == 595_200


@settings(deadline=None, max_examples=50)
@given(configs)
def test_parameters_are_those_of_a_real_model(config: TransformerConfig) -> None:
    rows = Transformer(config).summary().rows
    counts = count_parameters(config)

    def held(part: str) -> int:
        return sum(row.count for row in rows if part in row.name and ".norm." not in row.name)

    norms = sum(row.count for row in rows if "norm." in row.name)
    assert counts.embeddings == held("embeddings.")
    assert counts.attention == held(".attention.module.")
    assert counts.feed_forward == held(".ffn.module.")
    assert counts.pooler == held("pooler.")
    # BERT's embeddings end in a norm; GPT-2's blocks end in one.
    assert counts.layer_norms == norms
    assert counts.total == sum(row.count for row in rows)


@settings(deadline=None, max_examples=50)
@given(configs, adapters, st.data())
def test_adapters_are_those_of_a_real_model(
    config: TransformerConfig, adapter: AdapterConfig, data: st.DataObject
) -> None:
    blocks = st.lists(st.integers(0, config.n_layers - 1), min_size=1, unique=True)
    layers = data.draw(st.none() | blocks.map(tuple))
    adapter = AdapterConfig(bottleneck=adapter.bottleneck, sites=adapter.sites, layers=layers)
    model = Transformer(config)
    model.freeze()
    model.add_adapter("one", adapter)
    assert count_adapters(config, adapter).total == model.summary().trainable


def test_a_reduction_factor_counts_as_its_bottleneck() -> None:
    assert count_adapters(SHAPES["bert-base"], AdapterConfig(reduction_factor=12)).bottleneck == 64


# -- multiply-adds ------------------------------------------------------------------------


class Counted(np.ndarray):
    """An array that notes the multiply-adds of every matrix product that it takes part in."""

    multiply_adds = 0

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **kwargs: Any
    ) -> Any:
        plain = [x.view(np.ndarray) if isinstance(x, Counted) else x for x in inputs]
        if out is not None:
            kwargs["out"] = tuple(x.view(np.ndarray) if isinstance(x, Counted) else x for x in out)
        result = getattr(ufunc, method)(*plain, **kwargs)
        if ufunc is np.matmul:
            Counted.multiply_adds += result.size * plain[0].shape[-1]
        return result.view(Counted) if isinstance(result, np.ndarray) else result


def measured_work(options: RunOptions, config: TransformerConfig, n_classes: int) -> MultiplyAdds:
    """Walk a real classifier there and back, and count what it multiplies."""
    model = build_classifier(Transformer(config, np.random.default_rng(0)), n_classes, options)
    for parameter in model.parameters():
        parameter.value = parameter.value.view(Counted)
    rng = np.random.default_rng(1)
    ids = rng.integers(0, config.vocab_size, (2, 7))
    mask = np.ones_like(ids)
    mask[1, 4:] = 0
    loss = CrossEntropy()
    Counted.multiply_adds = 0
    logits = model(ids, mask)
    loss(np.asarray(logits), np.array([0, 1]))
    forward = Counted.multiply_adds
    model.backward(loss.backward().view(Counted))
    return MultiplyAdds(forward, Counted.multiply_adds - forward, 0)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize(
    "options",
    [
        RunOptions(adapter=AdapterConfig(bottleneck=3)),
        RunOptions(adapter=AdapterConfig(bottleneck=3, layers=(1, 2))),
        RunOptions(adapter=AdapterConfig(bottleneck=3, layers=(2,), sites=("ffn",))),
        RunOptions(adapter=AdapterConfig(bottleneck=3, layers=(1,)), layer_norm=True),
        RunOptions(adapter=AdapterConfig(bottleneck=3), pooling="pooler"),
        RunOptions(method="head"),
        RunOptions(method="full"),
        RunOptions(method="full", pooling="pooler"),
        RunOptions(method="full", pooling="mean"),
    ],
    ids=lambda o: (
        f"{o.method}-{o.adapter and (o.adapter.layers, o.adapter.sites)}-{o.pooling}-{o.layer_norm}"
    ),
)
def test_multiply_adds_are_those_of_a_real_step(options: RunOptions, norm: str) -> None:
    config = TransformerConfig(
        19, d_model=6, n_layers=3, n_heads=2, d_ff=10, max_positions=9, norm=norm, pooler=True
    )
    measured = measured_work(options, config, n_classes=4)
    counted = count_multiply_adds(
        config, 2, 7, options.method, options.adapter, 4, options.layer_norm, options.pooling
    )
    assert counted.forward == measured.forward
    assert counted.total - counted.forward == measured.input_gradients


def test_full_fine_tuning_costs_three_forward_passes_and_adapters_two() -> None:
    full = count_multiply_adds(SHAPES["bert-base"], 32, 128, "full")
    adapters = count_multiply_adds(SHAPES["bert-base"], 32, 128, "adapter")
    assert full.total == pytest.approx(3 * full.forward, rel=0.02)
    assert adapters.total == pytest.approx(2 * full.forward, rel=0.05)


def test_a_head_alone_needs_no_way_back() -> None:
    work = count_multiply_adds(SHAPES["minilm"], 4, 16, "head", n_classes=3)
    assert (work.input_gradients, work.weight_gradients) == (0, 4 * 384 * 3)


# -- memory -------------------------------------------------------------------------------


def test_saved_bytes_of_a_single_product() -> None:
    from minitransformer.nn.layers import Linear

    layer = Linear(5, 3, np.random.default_rng(0))
    x = np.ones((4, 5), np.float32)
    layer(x)
    assert saved_bytes(layer) == x.nbytes
    layer.freeze()
    layer(x)
    assert saved_bytes(layer) == 0  # a frozen weight needs no input


def test_frozen_models_save_less_and_evaluation_nothing() -> None:
    config = TransformerConfig(30, d_model=16, n_layers=4, n_heads=2, d_ff=64)
    ids = np.random.default_rng(0).integers(0, 30, (3, 8))
    saved = {}
    cases = {
        "full": RunOptions(method="full"),
        "adapter": RunOptions(adapter=AdapterConfig(bottleneck=2)),
        "top": RunOptions(adapter=AdapterConfig(bottleneck=2, layers=(3,))),
        "head": RunOptions(method="head"),
    }
    for name, options in cases.items():
        model = build_classifier(Transformer(config, np.random.default_rng(0)), 2, options)
        model(ids)
        saved[name] = saved_bytes(model)
        model.eval()
        model(ids)
        assert saved_bytes(model) == 0
    assert saved["full"] > saved["adapter"] > 2 * saved["top"] > 2 * saved["head"] > 0

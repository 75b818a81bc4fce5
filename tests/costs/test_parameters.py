"""The counts against the objects that they describe."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer import AdapterConfig, Transformer, TransformerConfig
from minitransformer.costs.parameters import SHAPES, count_adapters, count_parameters

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

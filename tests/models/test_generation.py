"""generation: the cache changes nothing but the time, and draws follow the probabilities."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import minitransformer as mt
from minitransformer.data.tokenization import pad
from minitransformer.errors import ConfigError, MiniTransformerError, ShapeError
from minitransformer.models.generation import keep_likely
from minitransformer.models.transformer import Embeddings
from minitransformer.nn.functional import softmax

Array = np.ndarray
POSITIONS, VOCAB = 24, 50


@pytest.fixture
def decoder(small_transformer: Callable[..., mt.Transformer]) -> mt.LanguageModel:
    """A random decoder in float64, wide awake: its weights are large enough to have preferences."""
    base = small_transformer(norm="pre", causal=True, token_types=0, max_positions=POSITIONS)
    rng = np.random.default_rng(3)
    for name, parameter in base.astype(np.float64).named_parameters():
        sigma = 1.0 if "position" in name else 0.2  # each position wants a token of its own
        parameter.value += sigma * rng.standard_normal(parameter.shape)
    return mt.LanguageModel(base)


@pytest.fixture
def prompts() -> Array:
    return np.random.default_rng(5).integers(0, VOCAB, (3, 6))


def one_by_one(model: mt.LanguageModel, ids: Array, new: int) -> Array:
    """Greedy continuation without a cache: a forward pass over the whole text for each token."""
    model.eval()
    for _ in range(new):
        best = model(ids)[:, -1].argmax(axis=-1)
        ids = np.concatenate([ids, best[:, None]], axis=1)
    return ids


# ------------------------------------------------------------------------------------------- cache


@given(cuts=st.lists(st.integers(1, 11), max_size=4, unique=True))
def test_in_pieces_with_a_cache_or_at_once(cuts: list[int]) -> None:
    rng = np.random.default_rng(0)
    config = mt.TransformerConfig(VOCAB, 16, 2, 2, 32, POSITIONS, norm="pre", causal=True)
    base = mt.Transformer(config, rng).astype(np.float64).eval()
    ids = rng.integers(0, VOCAB, (2, 12))
    mask = np.ones_like(ids)
    mask[1, :3] = 0  # hidden keys stay hidden from later pieces
    for given_mask in (None, mask):
        cache = base.new_cache(2)
        ends = [0, *sorted(cuts), 12]
        pieces = [
            base(ids[:, a:b], None if given_mask is None else mask[:, :b], cache=cache)
            for a, b in pairwise(ends)
        ]
        np.testing.assert_allclose(
            np.concatenate(pieces, axis=1), base(ids, given_mask), rtol=0, atol=1e-12
        )
        assert all(kept.length == 12 for kept in cache)


def test_a_cleared_cache_is_as_good_as_a_new_one(decoder: mt.LanguageModel, prompts: Array) -> None:
    base = decoder.transformer.eval()
    cache = base.new_cache(3)
    base(prompts[:, ::-1], cache=cache)
    for kept in cache:
        kept.clear()
    assert np.array_equal(base(prompts, cache=cache), base(prompts, cache=base.new_cache(3)))


def test_where_a_cache_cannot_be_used(
    small_transformer: Callable[..., mt.Transformer], decoder: mt.LanguageModel, prompts: Array
) -> None:
    base = decoder.transformer
    with pytest.raises(ConfigError, match=r"eval\(\) mode"):
        base.train()(prompts, cache=base.new_cache(3))
    encoder = small_transformer().eval()
    with pytest.raises(ConfigError, match="needs a causal model"):
        encoder(prompts, cache=encoder.new_cache(3))
    cache = base.eval().new_cache(3)
    with pytest.raises(ShapeError, match="25 tokens is too long: this model has 24 positions"):
        base(np.tile(prompts[:, :5], 5), cache=cache)
    base(prompts, cache=cache)
    with pytest.raises(ShapeError, match="25 tokens is too long"):
        base(np.tile(prompts, 4)[:, :19], cache=cache)
    with pytest.raises(ShapeError, match=r"a cache for 2 sequences .* of 3 sequences"):
        base(prompts, cache=base.new_cache(2))


def test_embeddings_at_given_positions() -> None:
    config = mt.TransformerConfig(9, 4, 1, 2, 8, 6, norm="pre", causal=True)
    embeddings = Embeddings(config, np.random.default_rng(0)).astype(np.float64)
    ids, places = np.array([[1, 2, 3], [4, 4, 0]]), np.array([[0, 1, 2], [0, 0, 5]])
    expected = embeddings.token.weight.value[ids] + embeddings.position.weight.value[places]
    assert np.array_equal(embeddings(ids, None, places), expected)
    for positions in (places, places[1]):
        mt.gradcheck(embeddings, ids, None, positions)


# ---------------------------------------------------------------------------------------- generate


def test_greedy_is_what_the_whole_text_yields(decoder: mt.LanguageModel, prompts: Array) -> None:
    expected = one_by_one(decoder, prompts, POSITIONS - 6)
    assert np.array_equal(mt.generate(decoder, prompts, POSITIONS - 6), expected)
    assert np.array_equal(mt.generate(decoder, prompts, POSITIONS - 6, temperature=0), expected)
    assert len(np.unique(expected[:, 6:])) > 5  # a model that repeats one token proves little


def test_left_padding_changes_nothing(decoder: mt.LanguageModel) -> None:
    rng = np.random.default_rng(1)
    texts = [rng.integers(0, VOCAB, n).tolist() for n in (2, 7, 4)]
    ids, mask = pad(texts, left=True)
    # so many that padding and prompts leave the window
    together = mt.generate(decoder, ids, 40, attention_mask=mask)
    for row, text in zip(together, texts, strict=True):
        alone = mt.generate(decoder, np.array([text]), 17)[0]
        start = ids.shape[1] - len(text)
        assert np.array_equal(row[start : start + len(alone)], alone)


def test_beyond_the_context_the_newest_half_goes_on(
    decoder: mt.LanguageModel, prompts: Array
) -> None:
    text = mt.generate(decoder, prompts, 60)
    half = POSITIONS // 2
    assert text.shape == (3, 66)
    for start in range(13, 66 - POSITIONS, half + 1):  # 25, 38, ...: each time it is full
        window = text[:, start : start + half]
        again = one_by_one(decoder, window, half + 1)
        assert np.array_equal(again, text[:, start : start + POSITIONS + 1])
    long = np.tile(prompts, 5)  # 30 tokens: the prompt alone is too long
    expected = mt.generate(decoder, long[:, -half:], 4)
    assert np.array_equal(mt.generate(decoder, long, 4)[:, -half - 4 :], expected)


def test_samples_come_again_with_the_same_seed(decoder: mt.LanguageModel, prompts: Array) -> None:
    def sample(seed: int) -> Array:
        rng = np.random.default_rng(seed)
        return mt.generate(decoder, prompts, 12, temperature=1.0, rng=rng)

    assert np.array_equal(sample(1), sample(1))
    assert not np.array_equal(sample(1), sample(2))
    by_default = [mt.generate(decoder, prompts, 12, temperature=1.0) for _ in range(2)]
    assert np.array_equal(*by_default) and np.array_equal(by_default[0], sample(0))


def test_one_candidate_is_greedy(decoder: mt.LanguageModel, prompts: Array) -> None:
    greedy = mt.generate(decoder, prompts, 12)
    for option in ({"top_k": 1}, {"top_p": 1e-9}):
        assert np.array_equal(mt.generate(decoder, prompts, 12, temperature=1.0, **option), greedy)
    assert np.array_equal(mt.generate(decoder, prompts, 12, temperature=1e-6), greedy)


@pytest.mark.parametrize(
    "options",
    [{"temperature": 1.0}, {"temperature": 2.5}, {"temperature": 1.5, "top_k": 7, "top_p": 0.8}],
)
def test_draws_follow_the_probabilities(
    decoder: mt.LanguageModel, prompts: Array, options: dict[str, Any]
) -> None:
    n = 8_000
    prompt = np.repeat(prompts[:1], n, axis=0)
    drawn = mt.generate(decoder, prompt, 1, rng=np.random.default_rng(8), **options)[:, -1]
    scaled = decoder.eval()(prompts[:1])[0, -1] / options["temperature"]
    p = softmax(keep_likely(scaled, options.get("top_k"), options.get("top_p")))
    counts = np.bincount(drawn, minlength=VOCAB)
    assert not counts[p == 0].any()
    often = n * p >= 5
    statistic = ((counts - n * p)[often] ** 2 / (n * p)[often]).sum()
    freedom = often.sum() - 1
    assert freedom >= 3
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)  # mean and deviation of chi-square


def test_stop(decoder: mt.LanguageModel, prompts: Array) -> None:
    greedy = mt.generate(decoder, prompts, 15)
    stop = int(greedy[0, 9])
    stopped = mt.generate(decoder, prompts, 15, stop_id=stop)
    ends = []
    for row, expected in zip(stopped, greedy, strict=True):
        found = np.flatnonzero(expected[6:] == stop)
        end = 6 + int(found[0]) + 1 if len(found) else 21
        assert np.array_equal(row[:end], expected[:end]) and (row[end:] == stop).all()
        ends.append(end)
    assert ends[0] <= 10 and stopped.shape[1] == max(ends)
    alone = mt.generate(decoder, prompts[:1], 15, stop_id=stop)
    assert alone.shape == (1, ends[0])


def test_active_adapters_take_part(decoder: mt.LanguageModel, prompts: Array) -> None:
    base = decoder.transformer
    plain = mt.generate(decoder, prompts, 12)
    base.add_adapter("identity", mt.AdapterConfig(4, init="zero_up"))
    assert np.array_equal(mt.generate(decoder, prompts, 12), plain)
    rng = np.random.default_rng(2)
    base.add_adapter("style", mt.AdapterConfig(4))
    for name, parameter in base.named_parameters():
        if ".style." in name:
            parameter.value += 0.3 * rng.standard_normal(parameter.shape)
    styled = mt.generate(decoder, prompts, 12)
    assert not np.array_equal(styled, plain)
    assert np.array_equal(styled, one_by_one(decoder, prompts, 12))
    base.set_active(None)
    assert np.array_equal(mt.generate(decoder, prompts, 12), plain)


def test_the_mode_and_the_prompts_stay_as_they_were(
    decoder: mt.LanguageModel, prompts: Array
) -> None:
    before = prompts.copy()
    for mode in (True, False):
        decoder.train(mode)
        mt.generate(decoder, prompts, 2)
        assert decoder.training == decoder.transformer.blocks[0].training == mode
    assert np.array_equal(prompts, before)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "temperature": ({"temperature": -0.5}, "temperature=-0.5: expected a number >= 0"),
    "NaN": ({"temperature": float("nan")}, "temperature=nan"),
    "top_k": ({"temperature": 1, "top_k": 0}, "top_k=0: expected 1 or more"),
    "top_p of 0": ({"temperature": 1, "top_p": 0}, "top_p=0: expected 0 < top_p <= 1"),
    "top_p above 1": ({"temperature": 1, "top_p": 1.5}, "top_p=1.5"),
    "no effect": ({"top_k": 5}, "give temperature=1.0"),
    "no tokens to make": ({"max_new_tokens": 0}, "max_new_tokens=0: expected a whole number"),
    "too many tokens": ({"max_new_tokens": 10**9}, "=1000000000: .* at most 1,000,000"),
    "half a token": ({"max_new_tokens": 2.5}, "max_new_tokens=2.5: expected a whole number"),
    "empty prompt": ({"ids": np.ones((1, 0), int)}, r"prompt of shape \(1, 0\)"),
    "one row": ({"ids": np.ones(3, int)}, r"write \[tokens\]"),
    "not integers": ({"ids": np.ones((1, 3))}, "dtype float64"),
    "mask": ({"attention_mask": np.ones((3, 5))}, r"\(3, 5\); expected \(3, 6\)"),
    "padded on the right": (
        {"attention_mask": np.array([[1] * 6, [1] * 5 + [0], [1] * 6])},
        "prompt 1 ends in padding; pad on the left",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options(decoder: mt.LanguageModel, prompts: Array, case: str) -> None:
    options, message = BAD[case]
    with pytest.raises(MiniTransformerError, match=message):
        mt.generate(decoder, **{"ids": prompts, "max_new_tokens": 3, **options})


def test_encoders_do_not_generate(small_transformer: Callable[..., mt.Transformer]) -> None:
    with pytest.raises(ConfigError, match="this model is an encoder"):
        mt.generate(mt.LanguageModel(small_transformer()), np.ones((1, 2), int), 3)


# ------------------------------------------------------------------------------------- keep_likely


@given(
    arrays(np.float64, (3, 8), elements=st.floats(-20, 20)),
    st.integers(1, 10),
    st.floats(0.01, 1.0),
)
def test_what_stays_is_the_likely(logits: Array, top_k: int, top_p: float) -> None:
    for row, kept in zip(logits, keep_likely(logits, top_k) > -np.inf, strict=True):
        assert kept.sum() >= min(top_k, 8)
        assert np.count_nonzero(row > row[kept].min()) < min(top_k, 8)  # more are ties alone
        assert kept.all() or row[kept].min() > row[~kept].max()
    p = softmax(logits)
    for row, kept in zip(p, keep_likely(logits, top_p=top_p) > -np.inf, strict=True):
        assert row[kept].sum() >= top_p - 1e-9
        assert row[kept].sum() - row[kept].min() < top_p + 1e-9  # one fewer would not do
        assert kept.all() or row[kept].min() >= row[~kept].max()

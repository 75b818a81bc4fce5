"""The pretrained encoder that comes with the library: what it holds, and what it has learned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.data.hub import find_checkpoint
from minitransformer.data.tokenization import Tokenizer, pad
from minitransformer.data.toy_reviews import generate_sentences, mirror
from minitransformer.runs.classification import train
from minitransformer.runs.options import RunOptions
from minitransformer.training.trainer import TrainingOptions
from scripts import pretrain_tiny

FOLDER = find_checkpoint("tiny")
FOUND = json.loads((FOLDER / "pretraining.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model() -> mt.LanguageModel:
    """The encoder as a language model: its head is the token embedding, and no bias."""
    return mt.LanguageModel(mt.Transformer.from_pretrained("tiny")).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(FOLDER)


def test_shape_and_size(model: mt.LanguageModel) -> None:
    config = model.transformer.config
    assert (config.d_model, config.n_layers, config.n_heads, config.d_ff) == (64, 2, 4, 256)
    assert (config.max_positions, config.norm, config.pooler) == (64, "post", False)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_000_000
    for parameter in model.parameters():
        assert parameter.value.dtype == np.float32
        assert np.isfinite(parameter.value).all()


def test_tokenizer_belongs_to_the_model_and_to_the_grammar(
    model: mt.LanguageModel, tokenizer: Tokenizer
) -> None:
    assert tokenizer.vocab_size == model.transformer.config.vocab_size < 500
    assert pretrain_tiny.make_tokenizer().to_str() + "\n" == (FOLDER / "tokenizer.json").read_text(
        encoding="utf-8"
    )
    [ids] = tokenizer.encode(["The plot isn't dull."], max_length=64)
    assert ids[0] == pretrain_tiny.SPECIAL.index("[CLS]")
    assert ids[-1] == pretrain_tiny.SPECIAL.index("[SEP]")
    assert tokenizer.decode(ids) == "the plot isn ' t dull."
    assert len(ids) == len("[CLS] the plot isn ' t dull . [SEP]".split())


def test_words_outside_the_grammar_are_spelled(tokenizer: Tokenizer) -> None:
    unknown = pretrain_tiny.SPECIAL.index("[UNK]")
    ids = tokenizer.encode(["Zoë's 3rd quixotic blog-post (100% jazz), @home!"], max_length=64)[0]
    assert unknown not in ids
    assert "zoe ' s 3rd quixotic blog - post" in tokenizer.decode(ids)


def test_sentences_fit(tokenizer: Tokenizer) -> None:
    lengths = [len(ids) for ids in tokenizer.encode(generate_sentences(5000, seed=1), 1000)]
    assert max(lengths) <= 64


# ---------------------------------------------------------------------------- what it has learned


def test_fills_gaps_as_well_as_recorded(model: mt.LanguageModel, tokenizer: Tokenizer) -> None:
    """On new sentences, the loss is that of the record, and far from guessing."""
    options = pretrain_tiny.Options(**FOUND["options"])
    rates = pretrain_tiny.mask_rates(pretrain_tiny.make_tokenizer(), options)
    new = tokenizer.encode(generate_sentences(1000, seed=31), max_length=64)
    measured = pretrain_tiny.evaluate(model, new, rates)
    assert measured["loss"] == pytest.approx(FOUND["after"]["loss"], abs=0.1)
    assert measured["accuracy"] == pytest.approx(FOUND["after"]["accuracy"], abs=0.03)
    assert FOUND["before"]["loss"] > np.log(tokenizer.vocab_size) - 0.2
    assert FOUND["after"]["loss"] < 0.25 * FOUND["before"]["loss"]
    assert FOUND["after"]["accuracy"] > 10 * FOUND["before"]["accuracy"]


def verdict(model: mt.LanguageModel, tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """Whether "loved" is a better filling than "hated" for the gap in "i [MASK] it"."""
    encoded = tokenizer.encode([f"{text} i [MASK] it." for text in texts], max_length=64)
    ids, attention_mask = pad(encoded)
    logits = model(ids, attention_mask)[ids == pretrain_tiny.MASK]  # (texts, V)
    loved, hated = (tokenizer.encode([word], 64)[0][1] for word in ("loved", "hated"))
    return logits[:, loved] > logits[:, hated]


def test_knows_which_words_praise(model: mt.LanguageModel, tokenizer: Tokenizer) -> None:
    """Words of opinion it knows by themselves; what "not" does to them is left for adapters."""
    praise = ["the film was gripping and original.", "the soup was very tasty."]
    assert verdict(model, tokenizer, praise).all()
    assert not verdict(model, tokenizer, [mirror(text) for text in praise]).any()


@pytest.mark.slow
def test_adapters_learn_what_a_head_alone_cannot(tmp_path: Path) -> None:
    accuracy = {}
    adapter = mt.AdapterConfig(bottleneck=16)
    for method, config, lr in (
        ("head", None, 1e-2),
        ("adapter", adapter, 5e-3),
    ):
        options = RunOptions(
            base="tiny",
            method=method,
            adapter=config,
            dropout=0.0,
            head_dropout=0.0,
            training=TrainingOptions(epochs=8, lr=lr),
        )
        run = train("toy-reviews", options, tmp_path / method, progress=False)
        accuracy[method] = run.metrics["test_accuracy"]
        assert run.metrics["base_sha256_before"] == run.metrics["base_sha256_after"]
    assert accuracy["head"] < 0.8
    assert accuracy["adapter"] > 0.9


def test_pretraining_is_repeatable(tmp_path: Path) -> None:
    options = pretrain_tiny.Options(steps=30, batch_size=16, held_out=100, seed=4)
    first = pretrain_tiny.run(options, tmp_path / "first")
    assert first == pretrain_tiny.run(options, tmp_path / "second")
    assert first["after"]["loss"] < first["before"]["loss"]
    for name in ("config.json", "model.safetensors", "tokenizer.json", "pretraining.json"):
        written = (tmp_path / "first" / name).read_bytes()
        assert written == (tmp_path / "second" / name).read_bytes()
    mt.Transformer.from_pretrained(tmp_path / "first")

"""Language models: pretrained from scratch, adapted with the base frozen, and generating."""

from __future__ import annotations

import math
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.data.batches import batches
from minitransformer.data.corpus import windows
from minitransformer.errors import CheckpointError, ConfigError
from minitransformer.formats.files import read_tensors
from minitransformer.models.heads import LanguageModel
from minitransformer.nn.functional import IGNORE, softmax
from minitransformer.runs.classification import load_run
from minitransformer.runs.language_modeling import (
    load_language_run,
    new_decoder,
    pretrain,
    train_language,
)
from minitransformer.runs.options import LanguageOptions, PretrainOptions, from_dict, to_dict
from minitransformer.training.data_parallel import DataParallel
from minitransformer.training.evaluation import perplexity
from minitransformer.training.history import History
from minitransformer.training.trainer import Trainer, TrainingOptions

SHORT = TrainingOptions(epochs=3, batch_size=8, lr=1e-2)
TINY = PretrainOptions(
    d_model=16, n_layers=2, n_heads=2, vocab_size=280, block_size=16, threads=2, training=SHORT
)


def speech(words: str, seed: int) -> str:
    rng = np.random.default_rng(seed)
    lines = [" ".join(rng.choice(words.split(), 8)) for _ in range(400)]
    return "\n\n".join(lines)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("texts")
    words = {"sea": "the sea is wide and the ship is gone", "war": "the king rides to war with men"}
    for seed, (name, line) in enumerate(words.items()):
        (folder / f"{name}.txt").write_text(speech(line, seed), encoding="utf-8")
    return {name: folder / f"{name}.txt" for name in words}


@pytest.fixture(scope="module")
def base(texts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "base"
    pretrain(texts["sea"], TINY, folder)
    return folder


def adapting(base: Path, **changes: object) -> LanguageOptions:
    adapter = mt.AdapterConfig(bottleneck=8)
    return LanguageOptions(
        **{"base": str(base), "adapter": adapter, "threads": 2, "training": SHORT, **changes}
    )


@pytest.fixture(scope="module")
def adapted(texts, base):
    return train_language(texts["war"], adapting(base), base.parent / "war")


@pytest.fixture
def decoder(small_transformer) -> LanguageModel:
    config = {"norm": "pre", "causal": True, "token_types": 0, "activation": "gelu_tanh"}
    model = LanguageModel(small_transformer(**config))
    return model.astype(np.float64)


def log_probability(model: LanguageModel, context: np.ndarray, token: int) -> float:
    """log p(token | context), from a forward pass over the context alone."""
    return math.log(softmax(model(context[None]))[0, -1, token])


# -- the loss over tokens -----------------------------------------------------------------


def test_perplexity_is_that_of_each_token_after_those_in_its_window(decoder) -> None:
    tokens = np.random.default_rng(1).integers(0, 50, 30)
    one_window = [log_probability(decoder, tokens[:i], tokens[i]) for i in range(1, 24)]
    assert perplexity(decoder, tokens[:24]) == pytest.approx(math.exp(-np.mean(one_window)))
    strided = []  # windows of 8 begin at 0, 3, 6, ..., the last at 21
    for i in range(1, 30):
        start = 0 if i <= 8 else min(3 * math.ceil((i - 8) / 3), 21)
        strided.append(log_probability(decoder, tokens[start:i], tokens[i]))
    found = perplexity(decoder, tokens, block_size=8, stride=3)
    assert found == pytest.approx(math.exp(-np.mean(strided)))
    assert decoder.training


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_loss_and_gradients_are_of_the_mean_token_for_any_shards(decoder, threads) -> None:
    encoded = windows(np.random.default_rng(2).integers(0, 50, 38), 9)  # the last overlaps
    assert (encoded.labels == IGNORE).sum() == 8
    batch = batches(encoded, len(encoded))[0]
    with DataParallel(decoder, threads) as data_parallel:
        loss, right = data_parallel.forward_backward(batch)
    found = {name: p.grad.copy() for name, p in decoder.trainable_parameters().items()}

    decoder.zero_grad()
    criterion, logits = mt.CrossEntropy(), decoder(batch.ids)
    assert loss == pytest.approx(criterion(logits, batch.labels), rel=1e-12)
    assert right == (logits.argmax(-1) == batch.labels).sum()
    decoder.backward(criterion.backward())
    for name, p in decoder.trainable_parameters().items():
        np.testing.assert_allclose(found[name], p.grad, rtol=1e-9, atol=1e-13)


def test_a_shard_without_a_label_adds_nothing(decoder) -> None:
    encoded = windows(np.arange(19) % 50, 9)
    encoded.labels[1] = IGNORE
    with DataParallel(decoder, 2) as data_parallel:
        loss, _ = data_parallel.forward_backward(batches(encoded, 2)[0])
    expected = mt.CrossEntropy()(decoder(np.array(encoded.sequences[:1])), encoded.labels[:1])
    assert loss == pytest.approx(expected, rel=1e-12)


def test_the_trainer_measures_what_perplexity_measures(decoder) -> None:
    tokens = np.random.default_rng(3).integers(0, 50, 200)
    options = TrainingOptions(epochs=1, batch_size=4)
    trainer = Trainer(
        decoder, windows(tokens, 8), windows(tokens, 8), options, progress=False, best_by="loss"
    )
    last = trainer.fit()[-1]
    assert perplexity(decoder, tokens, 8, 8) == pytest.approx(math.exp(last.validation_loss))


# -- start values -------------------------------------------------------------------------


def test_start_values_are_those_of_gpt2() -> None:
    options = PretrainOptions(d_model=128, n_layers=8, n_heads=4)
    transformer = new_decoder(options, 300)
    for block in transformer.blocks:
        assert block.attention.module.qkv.weight.value.std() == pytest.approx(0.0176, rel=0.02)
        for projection in (block.attention.module.out, block.ffn.module.down):  # a quarter of that
            assert projection.weight.value.std() == pytest.approx(0.0044, rel=0.02)
    again = new_decoder(options, 300).state_dict()
    for name, value in transformer.state_dict().items():
        np.testing.assert_array_equal(value, again[name])


# -- pretraining --------------------------------------------------------------------------


def test_pretraining_leaves_a_base_that_learnt(texts, base) -> None:
    assert {path.name for path in base.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "held-out.txt",
        "history.csv", "curves.png", "metrics.json", "options.json",
    }  # fmt: skip
    run = load_language_run(base)
    metrics, rows = run.metrics, run.history.evaluations()
    assert metrics["finished"] and metrics["task"] == "sea"
    assert rows[-1].validation_loss < 0.7 * rows[0].validation_loss
    assert math.log(metrics["held_out_perplexity"]) == pytest.approx(
        rows[-1].validation_loss, abs=0.5
    )
    held_out = (base / "held-out.txt").read_text(encoding="utf-8")
    assert texts["sea"].read_text(encoding="utf-8").endswith(held_out)
    tokens = np.array(run.tokenizer.encode([held_out])[0])
    assert len(tokens) == metrics["tokens"]["held_out"]
    assert perplexity(run.model, tokens, threads=2) == metrics["held_out_perplexity"]


def test_the_best_epoch_is_the_one_with_the_lowest_loss() -> None:
    header = "step,epoch,loss,accuracy,lr,grad_norm,seconds,validation_loss,validation_accuracy\n"
    losses = {1: 3.0, 2: 2.0, 3: 2.5}
    lines = [f"{e},{e},,,,,0.0,{loss},{0.1 * e}\n" for e, loss in losses.items()]
    history = History.from_csv(header + "0,0,,,,,0.0,1.0,0.9\n" + "".join(lines))
    assert history.best("loss").epoch == 2
    assert history.best().epoch == 3


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    real = Trainer.train_step

    def step_then_ctrl_c(self, *args):
        row = real(self, *args)
        if row.step == step:
            os.kill(os.getpid(), signal.SIGINT)  # what Ctrl-C sends
        return row

    monkeypatch.setattr(Trainer, "train_step", step_then_ctrl_c)


def test_interrupted_pretraining_goes_on_bit_for_bit(texts, base, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 35)
        stopped = pretrain(texts["sea"], TINY, tmp_path / "base")
    assert not stopped.metrics["finished"]
    assert load_language_run(tmp_path / "base").write("the", 5).startswith("the")
    resumed = pretrain(texts["sea"], out=tmp_path / "base", resume=True)
    whole = read_tensors(base / "model.safetensors")
    for name, value in read_tensors(tmp_path / "base" / "model.safetensors").items():
        np.testing.assert_array_equal(value, whole[name])
    expected = load_language_run(base).metrics["held_out_perplexity"]
    assert resumed.metrics["held_out_perplexity"] == expected
    assert not (tmp_path / "base" / "state.safetensors").exists()


# -- another text -------------------------------------------------------------------------


def test_an_adapter_learns_a_text_and_the_base_is_unchanged(base, adapted) -> None:
    metrics = adapted.metrics
    assert metrics["perplexity_adapter_on"] < 0.9 * metrics["perplexity_adapter_off"]
    assert metrics["base_sha256_before"] == metrics["base_sha256_after"]
    assert metrics["base_perplexity_before"] == metrics["base_perplexity_after"]
    assert (
        metrics["base_perplexity_before"] == load_language_run(base).metrics["held_out_perplexity"]
    )
    names = read_tensors(adapted.folder / "adapter.safetensors")
    assert all(".adapters.task." in name for name in names)
    assert metrics["trainable_parameters"] == sum(value.size for value in names.values())


def test_interrupted_adaptation_goes_on_bit_for_bit(texts, base, adapted, monkeypatch) -> None:
    folder = base.parent / "stopped"
    with monkeypatch.context() as patch:
        stop_after(patch, 40)
        train_language(texts["war"], adapting(base), folder)
    assert load_language_run(folder).write("the", 5)
    train_language(texts["war"], None, folder, resume=True)
    whole = read_tensors(adapted.folder / "adapter.safetensors")
    for name, value in read_tensors(folder / "adapter.safetensors").items():
        np.testing.assert_array_equal(value, whole[name])


def test_a_run_generates_with_its_adapter_and_without(base, adapted) -> None:
    loaded, plain = load_language_run(adapted.folder), load_language_run(base)
    with_adapter = loaded.write("the", 30)
    assert (
        with_adapter
        == adapted.write("the", 30)
        == load_language_run(base, adapted.folder).write("the", 30)
    )
    assert with_adapter != plain.write("the", 30)
    assert loaded.write("the", 30, adapter=False) == plain.write("the", 30)
    assert loaded.write("the", 30) == with_adapter  # on again
    assert with_adapter.startswith("the") and with_adapter != loaded.write("the", 30, seed=1)
    assert loaded.write("the", 9, temperature=0) == loaded.write("the", 9, temperature=0, seed=1)
    assert plain.write(tokens=20)


# -- errors -------------------------------------------------------------------------------


def test_what_does_not_fit_is_said(texts, base, adapted, tmp_path) -> None:
    with pytest.raises(ConfigError, match="'tiny' is an encoder, which cannot generate"):
        train_language(texts["war"], adapting("tiny"), tmp_path / "a")
    with pytest.raises(ConfigError, match="expected LanguageOptions"):
        train_language(texts["war"], mt.RunOptions(str(base)), tmp_path / "b")
    with pytest.raises(ConfigError, match="holds a run already"):
        pretrain(texts["sea"], TINY, base)
    with pytest.raises(ConfigError, match="finished: nothing to resume"):
        pretrain(texts["sea"], out=base, resume=True)
    with pytest.raises(CheckpointError, match="has no labels"):
        load_run(adapted.folder)
    other = pretrain(texts["war"], TINY, tmp_path / "other")  # the same shape, other weights
    with pytest.raises(CheckpointError, match="trained on another base"):
        load_language_run(other.folder, adapted.folder)
    for name in ("a", "b"):
        assert not (tmp_path / name).exists()


def test_options_check_themselves() -> None:
    with pytest.raises(ConfigError, match="n_heads=5 does not divide d_model=192"):
        PretrainOptions(n_heads=5)
    with pytest.raises(ConfigError, match="vocab_size=100: expected 257"):
        PretrainOptions(vocab_size=100)
    with pytest.raises(ConfigError, match="dropout=1"):
        PretrainOptions(dropout=1)
    assert from_dict(PretrainOptions, to_dict(TINY)) == TINY


def test_language_options_have_what_is_used_and_no_more() -> None:
    with pytest.raises(ConfigError, match="pooling"):
        LanguageOptions(pooling="mean")
    for changes, message in (
        ({"max_length": 0}, "max_length=0"),
        ({"threads": -3}, "threads=-3"),
        ({"dropout": 2}, "dropout=2"),
        ({"base": None}, "base=None: expected text"),
    ):
        with pytest.raises(ConfigError, match=message):
            LanguageOptions(**changes)
    assert LanguageOptions().training.lr is None
    assert LanguageOptions().learning_rate == 1e-3 and PretrainOptions().learning_rate == 2e-3
    assert PretrainOptions(training=TrainingOptions()).learning_rate == 2e-3


def test_without_options_the_base_is_the_one_that_pretraining_leaves(
    texts, base, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no decoder in runs/.*`minitransformer pretrain` makes"):
        train_language(texts["war"])
    shutil.copytree(base, LanguageOptions().base)
    monkeypatch.setattr(Trainer, "train_step", lambda *args: 1 / 0)  # the start is enough
    with pytest.raises(ZeroDivisionError):
        train_language(texts["war"])
    assert (tmp_path / "runs" / "war-adapter-seed0" / "options.json").exists()


def test_a_seed_below_zero_is_an_error(adapted) -> None:
    with pytest.raises(ConfigError, match="seed=-1: expected a whole number, 0 or more"):
        adapted.write("the", 3, seed=-1)


def test_no_option_is_ignored_in_silence(base, adapted) -> None:
    with pytest.raises(ConfigError, match="give one of the two"):
        load_language_run(base, base=base)
    with pytest.raises(ConfigError, match="is a run with an adapter of its own"):
        load_language_run(adapted.folder, adapted.folder)
    for options in ({"top_k": 3}, {"top_p": 0.5}):
        with pytest.raises(ConfigError, match="nothing is drawn"):
            adapted.write("the", 5, temperature=0, **options)

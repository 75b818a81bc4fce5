"""What one writes at the first attempt: it works, or the error names the right call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.errors import CheckpointError, ConfigError, DataError, ShapeError

Model = mt.Classifier


@pytest.fixture
def model() -> Model:
    base = mt.Transformer.from_pretrained("tiny").freeze()
    base.add_adapter("mine", mt.AdapterConfig(4))
    return mt.Classifier(base, 2)


def test_options_by_name(tmp_path: Path) -> None:
    run = mt.train("toy-reviews", out=tmp_path / "run", base="tiny", epochs=1, limit=32, lr=2e-3)
    metrics = run.metrics
    assert (metrics["base"], metrics["limit"]) == ("tiny", 32)
    assert (metrics["training"]["epochs"], metrics["training"]["lr"]) == (1, 2e-3)
    start = mt.PretrainOptions(16, 1, 2, vocab_size=260, block_size=8)
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be, that is the question. " * 200)
    decoder = mt.pretrain(text, start, tmp_path / "base", epochs=1, batch_size=64)
    assert decoder.metrics["training"]["epochs"] == 1 and decoder.metrics["d_model"] == 16
    options = {"base": str(decoder.folder), "epochs": 1, "max_length": 8}
    adapted = mt.train_language(text, out=tmp_path / "adapted", **options)
    assert adapted.metrics["max_length"] == 8


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epoch": 1}, r"epoch=1: there is no such option; there are .*epochs"),
        ({"text_column": "a"}, r"is about the data: data=DataOptions\(text_column='a'\)"),
        ({"bottleneck": 16}, r"belongs to a configuration: adapter=AdapterConfig\(bottleneck=16\)"),
        ({"rank": 4}, r"adapter=LoRAConfig\(rank=4\), method='lora'"),
        ({"adapter": 16}, r"adapter=16: expected .* as adapter=AdapterConfig\(bottleneck=16\)"),
        ({"adapter": 4, "method": "lora"}, r"as adapter=LoRAConfig\(rank=8\)"),
        ({"adapter": mt.Adapter}, "for a class of your own see add_adapter and Trainer"),
        ({"epochs": 0}, "epochs=0: expected a whole number"),
    ],
)
def test_options_that_cannot_be(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        mt.train("toy-reviews", out=tmp_path / "run", base="tiny", **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (mt.RunOptions, {"bottleneck": 8}, r"adapter=AdapterConfig\(bottleneck=8\)"),
        (mt.RunOptions, {"epochs": 1}, r"training=TrainingOptions\(epochs=1\)"),
        (mt.LanguageOptions, {"lr": 1}, r"training=TrainingOptions\(lr=1\)"),
        (mt.PretrainOptions, {"bottleneck": 8}, "no such option; there are block_size"),
    ],
)
def test_options_of_another_class(kind: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**given)


def test_tasks_of_ones_own() -> None:
    """What is typed by hand is exported: a task from lists."""
    split = mt.Split(["good", "bad"], np.array([1, 0]))
    task = mt.Task("own", ("no", "yes"), split, split, split)
    assert mt.load_task(task) is task


def test_options_of_training_alone(tmp_path: Path) -> None:
    training: Any = mt.TrainingOptions(epochs=1)
    expected = r"expected RunOptions, as RunOptions\(training=TrainingOptions\(\.\.\.\)\)"
    with pytest.raises(ConfigError, match=expected):
        mt.train("toy-reviews", training, tmp_path / "run")


def test_texts_where_token_ids_are_expected(model: Model) -> None:
    task: Any = mt.load_task("toy-reviews", limit=8)
    words = r"train is a Split, expected token ids: mt\.encode_split\(split, tokenizer"
    with pytest.raises(DataError, match=words):
        mt.Trainer(model, task.train, task.validation, progress=False)
    for call in (lambda: mt.evaluate(model, task.test), lambda: mt.batches(task.test, 4)):
        with pytest.raises(DataError, match="encoded is a Split, expected token ids"):
            call()


def test_options_of_a_run_for_a_trainer(model: Model) -> None:
    encoded = mt.Encoded([[1, 2]], np.array([0]))
    options: Any = mt.RunOptions()
    with pytest.raises(ConfigError, match="expected TrainingOptions"):
        mt.Trainer(model, encoded, encoded, options, progress=False)


def test_folders_of_other_libraries(model: Model, tmp_path: Path) -> None:
    base = model.transformer
    base.add_lora("low", mt.LoRAConfig(2))
    from minitransformer.formats.adapterhub import save_adapterhub
    from minitransformer.formats.peft import save_peft

    folders = {
        "peft": save_peft(base, "low", tmp_path / "peft"),
        "adapterhub": save_adapterhub(base, "mine", tmp_path / "hub"),
    }
    for kind, folder in folders.items():
        for call in (model.load_adapter, base.load_adapter, mt.load_run):
            with pytest.raises(CheckpointError, match=rf"import_{kind}\(.*load_{kind}\("):
                call(folder)


def decoder() -> mt.LanguageModel:
    shape = mt.TransformerConfig(50, 16, 1, 2, 32, max_positions=8, norm="pre", causal=True)
    return mt.LanguageModel(mt.Transformer(shape))


IDS = np.array([[1, 5, 6, 2], [1, 7, 2, 0]])
MASK = (IDS != 0).astype(np.int64)
ENCODED = mt.Encoded([[1, 5, 2], [1, 2]], np.array([0, 1]))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        # A mask that is added to the scores, with 0 for real tokens: it means the opposite here.
        (lambda m: m(IDS, np.where(MASK, 0, -1e9)), ShapeError, r"contains -1000000000\.0; expec"),
        (lambda m: m(["a text"]), ShapeError, "ids of dtype <U6: expected integers, as tokenizer"),
        (lambda m: m(IDS, MASK, MASK[:1]), ShapeError, r"token_types has shape \(1, 4\); expected"),
        (lambda m: m.astype("int8"), ShapeError, "dtype='int8': expected float32 or float64"),
        (lambda m: mt.Classifier(m, 2), ConfigError, "is a Classifier: expected a Transformer"),
        (lambda m: mt.Classifier("tiny", 2), ConfigError, "is 'tiny', a str: expected a Transform"),
        (lambda m: mt.LanguageModel(m), ConfigError, "is a Classifier: expected a Transformer"),
        (lambda m: mt.Classifier(m.transformer, "2"), ConfigError, "n_classes='2': a classifier"),
        (lambda m: mt.generate(m.transformer, IDS, 4), ConfigError, "expected a LanguageModel"),
        (lambda m: mt.generate(decoder(), IDS, 4.0), ConfigError, r"max_new_tokens=4\.0: expected"),
        (lambda m: mt.evaluate(m.transformer, ENCODED), ConfigError, "expected a Classifier"),
        (lambda m: mt.evaluate(decoder(), ENCODED), ConfigError, "expected a Classifier"),
        (lambda m: mt.evaluate_numbers(m, ENCODED), ConfigError, "classes: evaluate measures it"),
        (lambda m: mt.perplexity(m, IDS[0]), ConfigError, "expected a LanguageModel"),
        (
            lambda m: mt.perplexity(mt.LanguageModel(m.transformer), IDS[0]),
            ConfigError,
            "encoder, which sees all tokens at once",
        ),
        (lambda m: mt.perplexity(decoder(), "text"), DataError, "expected the ids of one text"),
        (lambda m: mt.perplexity(decoder(), IDS), DataError, r"tokens of shape \(2, 4\)"),
        (
            lambda m: mt.Trainer(m.transformer, ENCODED, ENCODED),
            ConfigError,
            "is a Transformer: expected a Classifier or LanguageModel",
        ),
        (
            lambda m: mt.CrossEntropy()(np.zeros((2, 3)), np.array([0.0, 1.0])),
            ShapeError,
            "labels of dtype float64: expected integers",
        ),
        (
            lambda m: mt.encode_split(["a text"], mt.Tokenizer.from_pretrained("tiny"), 8),
            DataError,
            r"split is a list: expected a Split, .* tokenizer\.encode takes a list",
        ),
        (
            lambda m: m.transformer.add_adapter(mt.AdapterConfig()),
            ConfigError,
            "expected a word; the name comes first",
        ),
        (
            lambda m: m.transformer.add_lora("a", mt.AdapterConfig()),
            ConfigError,
            r"config=AdapterConfig\(.*expected LoRAConfig\(\.\.\.\)",
        ),
        (lambda m: m.transformer.add_ia3("a", mt.LoRAConfig()), ConfigError, "expected IA3Config"),
        (lambda m: m.transformer.add_prefix("a", 16), ConfigError, "expected PrefixConfig"),
        (
            lambda m: m.transformer.set_active(["mine"]),
            ConfigError,
            r"\['mine'\]: expected the name of an adapter; several are 'a', 'b'",
        ),
        (
            lambda m: mt.average_adapters(m.transformer, "mean", ["mine"]),
            ConfigError,
            r"each with its weight, as \{'a': 0\.5",
        ),
        (
            lambda m: mt.CrossEntropy(class_weights="balanced"),
            ConfigError,
            "class_weights='balanced': expected a number for each class",
        ),
        (lambda m: mt.Parameter([1, 2]), ShapeError, r"a parameter of dtype int\d+: expected np"),
    ],
)
def test_arguments_that_do_not_fit(
    call: Callable[[Any], Any], error: type[Exception], message: str, model: Model
) -> None:
    with pytest.raises(error, match=message):
        call(model)


def test_a_gradient_that_is_no_array(model: Model) -> None:
    loss: Any = 1.0
    model.train()(IDS, MASK)
    with pytest.raises(ShapeError, match=r"got a float as dy, but forward returned \(2, 2\)"):
        model.backward(loss)


def test_a_mask_as_lists_and_of_other_dtypes(model: Model) -> None:
    expected = model.eval()(IDS, MASK)
    for mask in (MASK.tolist(), MASK.astype(bool), MASK.astype(np.float32)):
        np.testing.assert_array_equal(model(IDS, mask), expected)


def test_a_configuration_of_another_method_inserts_what_it_describes(model: Model) -> None:
    model.transformer.add_adapter("low", mt.LoRAConfig(2))
    assert model.transformer.active == ("low",)
    assert any(name.endswith("qkv.adapters.low.a") for name in model.trainable_parameters())


def test_lists_where_arrays_are_expected(model: Model) -> None:
    assert mt.Parameter([1.0, 2.0]).shape == (2,)
    by_hand: Any = [0, 1]
    found = mt.evaluate(model, mt.Encoded(ENCODED.sequences, by_hand))
    assert found.loss == mt.evaluate(model, ENCODED).loss
    tokenizer = mt.Tokenizer.from_pretrained("tiny")
    encoded = mt.encode_split(mt.Split(["good", "bad"], by_hand), tokenizer, 8)
    np.testing.assert_array_equal(mt.batches(encoded, 2)[0].labels, [0, 1])

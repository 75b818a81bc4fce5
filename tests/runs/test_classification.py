"""A run from a task's name to its folder, and from the folder to predictions."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open

import minitransformer as mt
from minitransformer.data.hub import find_checkpoint
from minitransformer.errors import CheckpointError, ConfigError, DataError
from minitransformer.formats.adapter_file import fingerprint
from minitransformer.formats.adapter_record import FORMAT
from minitransformer.formats.checkpoint import write_checkpoint
from minitransformer.formats.files import write_tensors
from minitransformer.runs.classification import load_run, train
from minitransformer.runs.options import RunOptions

TEXTS = ["a wonderful film", "the meal was not good"]


def options(**changes) -> RunOptions:
    training = mt.TrainingOptions(epochs=1, batch_size=16)
    return RunOptions(**{"base": "tiny", "limit": 64, "training": training, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> mt.Run:
    folder = tmp_path_factory.mktemp("runs") / "adapter"
    return train("toy-reviews", options(), folder)


def test_run_folder_has_everything(run) -> None:
    assert {path.name for path in run.folder.iterdir()} == {
        "adapter.safetensors",
        "adapter-last.safetensors",
        "history.csv",
        "curves.png",
        "metrics.json",
        "options.json",
        "report.txt",
        "predictions.csv",
        "confusion.png",
    }
    assert (run.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len(run.history) == 1 + 4  # 64 examples, batches of 16
    metrics = run.metrics
    assert metrics["finished"]
    assert metrics["base_sha256_before"] == metrics["base_sha256_after"]
    assert metrics["file_bytes"] == (run.folder / "adapter.safetensors").stat().st_size


def test_test_accuracy_is_that_of_the_file(run) -> None:
    loaded = load_run(run.folder)
    assert loaded.evaluate("toy-reviews").accuracy == run.metrics["test_accuracy"]


def test_loaded_run_predicts_the_same(run) -> None:
    first, second = run.predict(TEXTS), load_run(run.folder).predict(TEXTS)
    assert [p.label for p in first] == [p.label for p in second]
    for a, b in zip(first, second, strict=True):
        assert a.probabilities == pytest.approx(b.probabilities)
        assert sum(a.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert a.label == max(a.probabilities, key=a.probabilities.get)


def test_predictions_do_not_depend_on_the_other_texts(run) -> None:
    together = run.predict([*TEXTS, "x " * 40])
    for text, found in zip(TEXTS, together, strict=False):
        alone = run.predict([text])[0]
        assert alone.probabilities == pytest.approx(found.probabilities, abs=1e-6)


def test_empty_text_has_a_prediction(run) -> None:
    assert run.predict([""])[0].label in run.record.label_names


def test_adapter_file_carries_its_record(run) -> None:
    with safe_open(run.folder / "adapter.safetensors", framework="np") as file:
        record = json.loads(file.metadata()[FORMAT])
        names = set(file.keys())
    assert record["fingerprint"] == fingerprint(mt.Transformer.from_pretrained("tiny"))
    assert record["label_names"] == ["negative", "positive"]
    assert record["task"] == "toy-reviews"
    assert record["adapters"].keys() == {"task"}
    assert "blocks.0.attention.adapters.task.down.weight" in names
    assert "head.linear.weight" in names
    assert all(".adapters.task." in name or name.startswith("head.") for name in names)


@pytest.mark.parametrize("method", ["head", "full"])
def test_other_methods_train_what_they_say(tmp_path, method) -> None:
    run = train("toy-reviews", options(method=method), tmp_path / method)
    metrics = run.metrics
    base_changed = metrics["base_sha256_before"] != metrics["base_sha256_after"]
    assert base_changed == (method == "full")
    loaded = load_run(tmp_path / method)
    assert loaded.evaluate("toy-reviews").accuracy == metrics["test_accuracy"]


def test_layer_norms_are_in_the_file(tmp_path) -> None:
    run = train("toy-reviews", options(layer_norm=True), tmp_path / "n")
    assert load_run(run.folder).predict(TEXTS) == run.predict(TEXTS)
    with safe_open(run.folder / "adapter.safetensors", framework="np") as file:
        assert "blocks.1.ffn.norm.weight" in file.keys()  # noqa: SIM118


def test_wrong_base_is_refused_with_both_fingerprints(run, tmp_path) -> None:
    tiny = find_checkpoint("tiny")
    other = mt.Transformer.from_pretrained("tiny")
    other.blocks[0].ffn.norm.bias.value[0] += 1e-3
    write_checkpoint(tmp_path, other.config, other.state_dict())
    (tmp_path / "tokenizer.json").write_bytes((tiny / "tokenizer.json").read_bytes())
    with pytest.raises(CheckpointError, match="another base") as caught:
        load_run(run.folder, base=tmp_path)
    assert fingerprint(other) in str(caught.value)
    assert run.record.fingerprint in str(caught.value)


@pytest.mark.parametrize(
    ("word", "value"),
    [("num_attention_heads", 1), ("hidden_act", "relu"), ("layer_norm_eps", 1e-3)],
)
def test_same_weights_in_another_configuration_are_another_base(run, tmp_path, word, value) -> None:
    for path in find_checkpoint("tiny").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    words = json.loads((tmp_path / "config.json").read_text())
    assert words[word] != value
    (tmp_path / "config.json").write_text(json.dumps({**words, word: value}))
    with pytest.raises(CheckpointError, match="another base"):
        load_run(run.folder, base=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**words, "hidden_dropout_prob": 0.5}))
    assert load_run(run.folder, base=tmp_path).predict(TEXTS) == load_run(run.folder).predict(TEXTS)


def test_another_tokenizer_is_refused(run, tmp_path) -> None:
    for path in find_checkpoint("tiny").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    path.write_text(json.dumps(tokenizer, indent=7))  # the same in other bytes
    assert load_run(run.folder, base=tmp_path).predict(TEXTS) == load_run(run.folder).predict(TEXTS)
    ids = tokenizer["model"]["vocab"]
    ids["wonderful"], ids["dull"] = ids["dull"], ids["wonderful"]
    path.write_text(json.dumps(tokenizer))
    for load in (load_run, lambda folder, base: mt.load_runs([folder], base)):
        with pytest.raises(CheckpointError, match="trained with another tokenizer"):
            load(run.folder, tmp_path)


def test_same_base_in_another_place_is_accepted(run, tmp_path) -> None:
    model = mt.Transformer.from_pretrained("tiny")
    write_checkpoint(tmp_path, model.config, model.state_dict())
    tokenizer = find_checkpoint("tiny") / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    assert load_run(run.folder, base=tmp_path).predict(TEXTS) == run.predict(TEXTS)


def test_truncated_and_foreign_files_are_clear_errors(run, tmp_path) -> None:
    whole = (run.folder / "adapter.safetensors").read_bytes()
    cut = tmp_path / "adapter.safetensors"
    for size in (0, 5, 500, len(whole) - 1):
        cut.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"cannot read .*truncated"):
            load_run(cut)
    write_tensors(cut, {"x": np.zeros(3, np.float32)}, {})
    with pytest.raises(CheckpointError, match="not an adapter file of this library"):
        load_run(cut)
    with pytest.raises(CheckpointError, match="is not a run"):
        load_run(tmp_path / "nowhere")


def test_file_with_missing_and_extra_tensors_lists_them_all(run, tmp_path) -> None:
    with safe_open(run.folder / "adapter.safetensors", framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors["head.linear.extra"] = tensors.pop("head.linear.bias")
    tensors["head.linear.weight"] = np.zeros((3, 2), np.float32)
    write_tensors(tmp_path / "adapter.safetensors", tensors, metadata)
    with pytest.raises(CheckpointError) as caught:
        load_run(tmp_path)
    for problem in ("missing: head.linear.bias", "unexpected: head.linear.extra", "wrong shape"):
        assert problem in str(caught.value)


def test_unknown_label_is_named(run, tmp_path) -> None:
    rows = [f"{label} text {i},{label}" for i in range(40) for label in ("good", "bad")]
    (tmp_path / "own.csv").write_text("text,label\n" + "\n".join(rows))
    with pytest.raises(DataError, match=r"'bad' of own is unknown here; known: negative, positive"):
        run.evaluate(tmp_path / "own.csv")


def test_own_file_is_a_task(tmp_path) -> None:
    rows = [f"{'good' if i % 2 else 'bad'} number {i},{i % 2}" for i in range(80)]
    (tmp_path / "own.csv").write_text("text,label\n" + "\n".join(rows))
    run = train(tmp_path / "own.csv", options(), tmp_path / "run")
    assert run.record.label_names == ("0", "1")
    assert run.metrics["task"] == "own"


def test_a_run_is_never_overwritten(run, tmp_path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match="holds a run already"):
        train("toy-reviews", options(), run.folder)
    monkeypatch.chdir(tmp_path)
    first = train("toy-reviews", options())
    second = train("toy-reviews", options())
    assert str(first.folder) == os.path.join("runs", "toy-reviews-adapter-seed0")
    assert second.folder.name == "toy-reviews-adapter-seed0-2"


def test_nothing_to_resume_is_said(run, tmp_path) -> None:
    with pytest.raises(ConfigError, match="holds no run to resume"):
        train("toy-reviews", out=tmp_path, resume=True)
    with pytest.raises(ConfigError, match="finished: nothing to resume"):
        train("toy-reviews", out=run.folder, resume=True)


PROGRAM = """
import sys
import minitransformer as mt
training = mt.TrainingOptions(epochs=6, batch_size=8)
options = mt.RunOptions(base="tiny", limit=400, dropout=0.1, threads=2, training=training)
run = mt.train("toy-reviews", options, sys.argv[1])
print(run.metrics["finished"])
"""


def test_ctrl_c_saves_what_was_learnt_and_resume_ends_where_the_whole_run_does(tmp_path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    subprocess.run([sys.executable, "-c", PROGRAM, whole], check=True, capture_output=True)
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, stopped], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (stopped / "state.safetensors").exists():  # the first epoch has been measured
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=60)[0].strip() == "False"
    assert load_run(stopped).predict(TEXTS)  # what was learnt so far is usable

    run = train("toy-reviews", out=stopped, resume=True)
    assert run.metrics["finished"]
    assert not (stopped / "state.safetensors").exists()
    with (
        safe_open(whole / "adapter.safetensors", framework="np") as a,
        safe_open(stopped / "adapter.safetensors", framework="np") as b,
    ):
        for name in a.keys():  # noqa: SIM118
            np.testing.assert_array_equal(a.get_tensor(name), b.get_tensor(name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "loar"}, "method='loar': expected one of adapter, lora, ia3, prefix"),
        ({"pooling": "max"}, "pooling='max'"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"head_dropout": -0.1}, "head_dropout=-0.1"),
        ({"method": "head", "layer_norm": True}, "layer_norm goes with one of adapter, lora"),
        ({"method": "head", "adapter": mt.AdapterConfig(8)}, "expected none, because nothing is"),
        ({"method": "lora", "adapter": mt.AdapterConfig(8)}, "expected LoRAConfig"),
        ({"max_length": 0}, "max_length=0: expected a whole number, 1 or more"),
        ({"max_length": 8.0}, "max_length=8.0"),
        ({"max_length": True}, "max_length=True"),
        ({"limit": -1}, "limit=-1: expected a whole number, 1 or more"),
        ({"limit": "9"}, "limit='9'"),
        ({"threads": -3}, "threads=-3: expected a whole number, 0 or more"),
        ({"dropout": "0"}, "dropout='0'"),
        ({"head_dropout": None}, "head_dropout=None"),
        ({"base": 3}, "base=3: expected text"),
        ({"layer_norm": 1}, "layer_norm=1: expected True or False"),
        ({"adapter": 16}, "adapter=16: expected a configuration, as adapter=AdapterConfig"),
        ({"training": {}}, "training={}: expected TrainingOptions"),
    ],
)
def test_options_check_themselves(changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        options(**changes)


def test_what_is_left_open_stays_open() -> None:
    """`replace` must not carry over what suits another method."""
    default = RunOptions()
    assert default.training.lr is None and default.dropout is None
    for method, lr in (("adapter", 1e-3), ("head", 5e-3), ("full", 5e-5)):
        changed = replace(default, method=method)
        assert changed.learning_rate == lr
        assert changed.resolved(512).training.lr == lr
    back = replace(replace(default, method="head"), method="full")
    assert back.learning_rate == 5e-5 and back.resolved_dropout is None
    assert replace(default, method="head").resolved_dropout == 0.0
    given = RunOptions(training=mt.TrainingOptions(lr=0.5))
    assert replace(given, method="full").learning_rate == 0.5


def test_resume_takes_no_options(run) -> None:
    with pytest.raises(ConfigError, match="resume takes no options"):
        train("toy-reviews", options(), run.folder, resume=True)
    with pytest.raises(ConfigError, match="expected RunOptions"):
        train("toy-reviews", mt.LanguageOptions())


def test_nothing_is_printed_but_what_was_asked_for(tmp_path, capfd) -> None:
    train("toy-reviews", options(), tmp_path / "quiet")
    assert capfd.readouterr() == ("", "")
    train("toy-reviews", options(), tmp_path / "bar", progress=True)
    assert "step" in capfd.readouterr().err

"""Several trained runs on one base: each predicts as if it were alone; added and removed."""

from __future__ import annotations

import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.cli import main
from minitransformer.data.hub import find_checkpoint
from minitransformer.data.toy_reviews import generate_reviews
from minitransformer.errors import CheckpointError, ConfigError, DataError
from minitransformer.formats.adapter_file import fingerprint
from minitransformer.formats.checkpoint import write_checkpoint

LONG = "the plot was gripping and the acting was far from dull " * 8
TEXTS = ["the soup was fresh", "", "the plot was not gripping", LONG, "the soup was fresh"]


def run(folder: Path, task: str | Path = "toy-reviews", **changes: object) -> Path:
    training = mt.TrainingOptions(epochs=1, batch_size=16, lr=1e-2)
    options = mt.RunOptions(**{"base": "tiny", "limit": 48, "training": training, **changes})
    mt.train(task, options, folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of different placements, poolings, lengths and methods; one with labels of its own."""
    root = tmp_path_factory.mktemp("runs")
    sizes = [
        json.dumps({"text": text, "label": "long" if len(text) > 40 else "short"}) + "\n"
        for text, _ in generate_reviews(90, seed=1)
    ]
    file = root / "my.sizes.jsonl"
    file.write_text("".join(sizes))
    pfeiffer = mt.AdapterConfig(8, placement="pfeiffer", layers=(1,))
    return {
        "reviews": run(root / "reviews", max_length=16),
        "top": run(root / "top", adapter=pfeiffer, pooling="mean"),
        "my.sizes": run(root / "sizes", file, adapter=mt.AdapterConfig(8, placement="parallel")),
        "head": run(root / "head", method="head"),
    }


@pytest.fixture
def tasks(folders: dict[str, Path]) -> mt.Tasks:
    return mt.load_runs(folders)


def same_predictions(found: list, expected: list) -> None:
    assert [(p.text, p.label) for p in found] == [(p.text, p.label) for p in expected]
    for p, q in zip(found, expected, strict=True):
        assert p.probabilities == pytest.approx(q.probabilities, abs=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_all_together_predict_as_each_alone(tasks, folders, threads) -> None:
    texts = [*TEXTS, *(text for text, _ in generate_reviews(60, seed=5))]
    together = tasks.predict(texts, threads)
    assert list(together) == list(folders)
    for name, folder in folders.items():
        same_predictions(together[name], mt.load_run(folder).predict(texts))
        same_predictions(tasks[name].predict(texts), together[name])


def test_accuracy_with_all_loaded_is_that_of_each_alone(tasks, folders) -> None:
    test = mt.load_task("toy-reviews").test
    together = tasks.predict(test.texts)
    for name in ("reviews", "top", "head"):
        alone = mt.load_run(folders[name]).evaluate("toy-reviews")
        assert tasks[name].evaluate("toy-reviews").accuracy == alone.accuracy
        labels = tasks[name].record.label_names
        found = np.array([labels.index(p.label) for p in together[name]])
        assert (found == test.labels).mean() == alone.accuracy
        np.testing.assert_array_equal(found, alone.predictions)


def test_shared_blocks_compute_each_text_once(folders, monkeypatch) -> None:
    tasks = mt.load_runs([folders["top"], folders["head"]])  # nothing adapts block 0
    computed: list[tuple[int, int]] = []
    for i, block in enumerate(tasks.transformer.blocks):

        def counted(x, *rest, i=i, forward=block.forward):
            computed.append((i, len(x)))
            return forward(x, *rest)

        monkeypatch.setattr(block, "forward", counted)
    tasks.predict(["the soup was fresh", "the plot was not gripping"], threads=1)
    n = len(tasks.transformer.blocks)
    assert computed == [(0, 2), *((i, 4) for i in range(1, n))]


def test_tasks_by_name(tasks) -> None:
    assert tasks["my.sizes"].record.label_names == ("long", "short")
    assert tasks["my.sizes"].adapter == "my_sizes"
    assert tasks["head"].adapter is None
    with pytest.raises(ConfigError, match="no task 'x'; loaded: reviews, top, my"):
        tasks["x"]


def test_predicting_leaves_the_shared_model_as_it_is(tasks) -> None:
    tasks.transformer.set_active("top")
    tasks["my.sizes"].predict(TEXTS)
    tasks["head"].evaluate("toy-reviews", "validation")
    tasks.predict(TEXTS)
    with pytest.raises(DataError):
        tasks["reviews"].predict([])
    assert tasks.transformer.active_adapters == ("top",)
    assert not tasks.transformer.training


@pytest.mark.parametrize("ways", ["two tasks", "all tasks and one"])
def test_two_threads_may_predict_with_one_object(tasks, ways) -> None:
    texts = [text for text, _ in generate_reviews(30, seed=6)]
    calls = [tasks["reviews"].predict, tasks["top"].predict]
    if ways == "all tasks and one":
        calls[1] = lambda texts: tasks.predict(texts, threads=1)["my.sizes"]
    expected = [call(texts) for call in calls]
    start = threading.Barrier(2)

    def repeat(call: Any) -> list[Any]:
        start.wait()
        return [call(texts) for _ in range(12)]

    with ThreadPoolExecutor(2) as pool:
        for found, right in zip(pool.map(repeat, calls), expected, strict=True):
            for predictions in found:
                same_predictions(predictions, right)


def test_tasks_are_added_and_removed(folders) -> None:
    tasks = mt.load_runs([folders["reviews"]])
    assert list(tasks) == ["toy-reviews"]
    base = fingerprint(tasks.transformer)
    before = tasks.predict(TEXTS)["toy-reviews"]
    tasks.add(folders["my.sizes"])
    tasks.add(folders["head"], "plain")
    assert list(tasks) == ["toy-reviews", "my.sizes", "plain"]
    same_predictions(tasks.predict(TEXTS)["toy-reviews"], before)
    with pytest.raises(ConfigError, match="'plain' is loaded already"):
        tasks.add(folders["top"], "plain")
    tasks.remove("my.sizes")
    tasks.remove("plain")
    assert list(tasks) == ["toy-reviews"]
    assert len(tasks) == 1
    assert tasks.transformer.adapter_names == ["toy-reviews"]
    assert fingerprint(tasks.transformer) == base
    same_predictions(tasks.predict(TEXTS)["toy-reviews"], before)
    tasks.remove("toy-reviews")
    with pytest.raises(ConfigError, match="no task is loaded"):
        tasks.predict(TEXTS)


def test_runs_of_one_task_are_called_after_their_folders(folders) -> None:
    tasks = mt.load_runs([folders["reviews"], folders["my.sizes"], folders["top"]])
    assert list(tasks) == ["reviews", "my.sizes", "top"]
    with pytest.raises(ConfigError, match="several runs are called 'top'"):
        mt.load_runs([folders["top"], folders["top"]])
    with pytest.raises(ConfigError, match="expected a list"):
        mt.load_runs(folders["top"])
    with pytest.raises(ConfigError, match="at least one folder"):
        mt.load_runs([])


def test_what_cannot_share_the_base_is_refused(tasks, tmp_path) -> None:
    names = tasks.transformer.adapter_names
    full = run(tmp_path / "full", method="full")
    with pytest.raises(CheckpointError, match="fully fine-tuned"):
        tasks.add(full, "new")
    norms = run(tmp_path / "norms", layer_norm=True)
    with pytest.raises(CheckpointError, match="trained layer norms of the base"):
        tasks.add(norms, "new")
    other = mt.Transformer.from_pretrained("tiny")
    other.blocks[0].ffn.norm.bias.value[0] += 1e-3
    write_checkpoint(tmp_path / "base", other.config, other.state_dict())
    tokenizer = find_checkpoint("tiny") / "tokenizer.json"
    (tmp_path / "base" / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    elsewhere = run(tmp_path / "elsewhere", base=str(tmp_path / "base"))
    with pytest.raises(CheckpointError, match="another base") as caught:
        tasks.add(elsewhere, "new")
    assert tasks.fingerprint in str(caught.value)
    assert fingerprint(other) in str(caught.value)
    assert tasks.transformer.adapter_names == names
    assert "new" not in tasks


def test_loaded_adapters_can_be_combined(tasks, folders) -> None:
    transformer = tasks.transformer
    tasks.add(folders["reviews"], "again")
    mt.average_adapters(transformer, "mean", {"reviews": 0.5, "again": 0.5})
    alone = tasks["reviews"].predict(TEXTS)
    classifier = tasks["reviews"].model
    ids, mask = mt.pad(tasks.tokenizer.encode(TEXTS, 16))
    with transformer.use("mean"):
        logits = classifier.eval()(ids, mask)
    names = tasks["reviews"].record.label_names
    assert [names[i] for i in logits.argmax(axis=1)] == [p.label for p in alone]


# -- the command line ---------------------------------------------------------------------


def call(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


def test_predict_with_several_runs(folders) -> None:
    texts = ["the soup was fresh", "the plot was not gripping"]
    runs = (folders["reviews"], "--also", folders["my.sizes"], "--also", folders["top"])
    expected = mt.load_runs([folders[name] for name in ("reviews", "my.sizes", "top")])
    expected = expected.predict(texts)
    status, out, _ = call("predict", *runs, *texts)
    assert status == 0
    lines = [line.split("\t") for line in out.splitlines()]
    assert [(task, label, text) for task, label, _, text in lines] == [
        (task, expected[task][i].label, text) for i, text in enumerate(texts) for task in expected
    ]
    status, out, _ = call("predict", "--json", *runs, *texts)
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["task"] for record in records] == ["reviews", "my.sizes", "top"] * 2
    for record in records:
        found = expected[record["task"]][texts.index(record["text"])]
        assert record["probabilities"] == pytest.approx(found.probabilities)


def test_predict_says_which_run_does_not_fit(folders, tmp_path) -> None:
    norms = run(tmp_path / "norms", layer_norm=True)
    status, out, err = call("predict", folders["top"], "--also", norms, "text")
    assert (status, out) == (1, "")
    assert f"{norms / 'adapter.safetensors'} holds trained layer norms of the base" in err
    status, _, err = call("predict", folders["top"], "--also", tmp_path / "nowhere", "text")
    assert status == 1
    assert "nowhere is not a run" in err

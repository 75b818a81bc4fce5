"""Runs exported to the `adapters` library and imported from it, and what the commands say."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.cli import main
from minitransformer.errors import CheckpointError
from minitransformer.formats.adapter_file import (
    read_adapter,
    save_adapter,
)
from minitransformer.formats.adapterhub import WEIGHTS
from minitransformer.formats.files import read_tensors
from minitransformer.runs.adapterhub import export_adapterhub, import_adapterhub
from minitransformer.runs.classification import load_run
from minitransformer.runs.language_modeling import load_language_run
from minitransformer.runs.model import ADAPTER_NAME

TEXTS = ["a wonderful film", "the meal was not good"]


def words_of(folder: Path, file: str = "adapter_config.json") -> dict[str, Any]:
    words: dict[str, Any] = json.loads((folder / file).read_text())
    return words


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run on the tiny base whose adapter and head have random weights."""

    def make(
        method: str = "adapter", pooling: str = "cls", layer_norm: bool = False, seed: int = 5
    ) -> Path:
        transformer = mt.Transformer.from_pretrained("tiny").freeze()
        config = mt.AdapterConfig(bottleneck=6, placement="houlsby", sites=("attention", "ffn"))
        transformer.add_adapter(ADAPTER_NAME, config, np.random.default_rng(seed))
        folder = tmp_path / "run"
        save_adapter(
            folder / f"{method}.safetensors",
            mt.Classifier(transformer, 3, pooling, rng=np.random.default_rng(6)),
            [ADAPTER_NAME],
            base_part="layer_norms" if layer_norm else "none",
            base="tiny",
            method=method,
            task="my task",
            label_names=("a", "b", "c"),
            max_length=40,
        )
        return folder

    return make


def test_run_is_the_same_after_export_and_import(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = make_run()
    there = export_adapterhub(run, tmp_path / "there")
    assert words_of(there)["name"] == "my_task"
    assert words_of(there, "head_config.json")["config"] == {
        "head_type": "classification",
        "num_labels": 3,
        "layers": 1,
        "activation_function": None,
        "use_pooler": False,
        "bias": True,
        "dropout_prob": None,
        "label2id": {"a": 0, "b": 1, "c": 2},
    }
    back = import_adapterhub(there, "tiny", tmp_path / "back")
    file, copy = (read_adapter(path / "adapter.safetensors") for path in (run, back))
    assert copy.record == file.record
    assert copy.tensors.keys() == file.tensors.keys()
    assert all(np.array_equal(copy.tensors[key], file.tensors[key]) for key in file.tensors)
    texts = [load_run(folder).predict(TEXTS) for folder in (run, back)]
    assert texts[0] == texts[1]


def test_runs_without_equivalent(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for options, named in (
        ({"layer_norm": True}, "layer norms of the base were trained"),
        ({"pooling": "mean"}, "pooling 'mean'"),
    ):
        run = make_run(**options)
        with pytest.raises(CheckpointError, match=named):
            export_adapterhub(run, tmp_path / "there")
        assert not (tmp_path / "there").exists()
        (run / "adapter.safetensors").unlink()
        run.rmdir()


def test_base_with_other_weights(make_run: Callable[..., Path], tmp_path: Path) -> None:
    there = export_adapterhub(make_run(), tmp_path / "there")
    words = words_of(there)
    words["minitransformer"]["fingerprint"] = "0" * 64
    (there / "adapter_config.json").write_text(json.dumps(words))
    with pytest.raises(CheckpointError, match="another base"):
        import_adapterhub(there, "tiny", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_language_models_have_no_head_to_export(
    small_transformer: Callable[..., mt.Transformer], tmp_path: Path
) -> None:
    tokenizer = mt.Tokenizer.train_bpe(["to be, or not to be, that is the question"], 260)
    model = small_transformer(
        vocab_size=tokenizer.vocab_size, norm="pre", causal=True, token_types=0
    )
    base = tmp_path / "base"
    model.save_pretrained(base, tokenizer)
    model.freeze()
    config = mt.AdapterConfig(bottleneck=4, placement="parallel", sites=("ffn",))
    model.add_adapter(ADAPTER_NAME, config, np.random.default_rng(4))
    run = tmp_path / "run"
    file = run / "adapter.safetensors"
    about = {"base": str(base), "task": "novel", "max_length": 20}
    record = save_adapter(file, mt.LanguageModel(model), [ADAPTER_NAME], **about)

    there = export_adapterhub(run, tmp_path / "there")
    assert not (there / "head_config.json").exists()
    back = import_adapterhub(there, base, tmp_path / "back")
    assert read_adapter(back).record == record
    texts = [load_language_run(folder).write("to be", 8) for folder in (run, back)]
    assert texts[0] == texts[1]


def call(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


def test_commands(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run()
    status, out, _ = call("export", run)
    there = tmp_path / "run-adapterhub"
    assert status == 0
    assert f"model.load_adapter({str(there)!r}, use_safetensors=True, set_active=True)" in out
    status, out, _ = call("import", there, "--base", "tiny", "--out", tmp_path / "back", "--json")
    assert status == 0
    record = json.loads(out)
    assert record["label_names"] == ["a", "b", "c"] and record["adapter"]["bottleneck"] == 6
    assert call("predict", run, *TEXTS)[1] == call("predict", tmp_path / "back", *TEXTS)[1]
    status, out, _ = call("export", run, tmp_path / "two", "--name", "x", "--json")
    assert status == 0 and json.loads(out)["name"] == "x"
    assert set(json.loads(out)["files"]) == {path.name for path in there.iterdir()}

    status, _, err = call("export", run)
    assert status == 2 and "exists already" in err
    status, _, err = call("import", there, "--base", "tiny", "--out", "x", "--max-length", 0)
    assert status == 2 and "max_length=0" in err
    (there / "head_config.json").unlink()
    status, _, err = call("import", there, "--base", "tiny", "--out", tmp_path / "more")
    assert status == 1 and "without a head" in err and len(err.splitlines()) == 1


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")  # those of other packages
def test_run_predicts_the_same_there(make_run: Callable[..., Path], tmp_path: Path) -> None:
    adapters = pytest.importorskip("adapters")
    import torch

    run = load_run(make_run())
    folder = export_adapterhub(run, tmp_path / "there")
    run.model.transformer.save_pretrained(tmp_path / "base")
    theirs = adapters.BertAdapterModel.from_pretrained(tmp_path / "base")
    theirs.load_adapter(str(folder), use_safetensors=True, set_active=True)
    theirs.eval()
    for text, found in zip(TEXTS, run.predict(TEXTS), strict=True):
        (ids,) = run.tokenizer.encode([text], run.record.max_length)
        with torch.no_grad():
            p = theirs(input_ids=torch.tensor([ids])).logits.softmax(-1)[0].tolist()
        assert list(found.probabilities.values()) == pytest.approx(p, abs=1e-5)


def test_one_of_several_runs_on_a_base_is_exported(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    first = make_run()
    second = first.rename(tmp_path / "first") and make_run(seed=7)
    tasks = mt.load_runs({ADAPTER_NAME: tmp_path / "first", "second": second})
    for name, folder in ((ADAPTER_NAME, tmp_path / "first"), ("second", second)):
        alone = read_tensors(export_adapterhub(folder, tmp_path / f"{name}-alone") / WEIGHTS)
        shared = read_tensors(export_adapterhub(tasks[name], tmp_path / f"{name}-shared") / WEIGHTS)
        assert alone.keys() == shared.keys()
        assert all(np.array_equal(alone[key], shared[key]) for key in alone)

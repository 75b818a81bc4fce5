"""Runs exported to PEFT and imported from it, and what the commands say."""

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
from minitransformer.data.hub import find_checkpoint
from minitransformer.errors import CheckpointError, ConfigError
from minitransformer.formats.adapter_file import read_adapter, save_adapter
from minitransformer.runs.classification import load_run
from minitransformer.runs.language_modeling import load_language_run
from minitransformer.runs.model import ADAPTER_NAME

TEXTS = ["a wonderful film", "the meal was not good"]
LORA = mt.LoRAConfig(rank=3, alpha=6.0)
CONFIGS: dict[str, Any] = {"lora": LORA, "ia3": mt.IA3Config(), "prefix": mt.PrefixConfig()}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The tiny base with a pooler of random weights."""
    model = mt.Transformer.from_pretrained("tiny")
    if model.pooler is None:
        from dataclasses import replace

        with_pooler = mt.Transformer(replace(model.config, pooler=True))
        with_pooler.load_state_dict({**with_pooler.state_dict(), **model.state_dict()})
        model = with_pooler
    tokenizer = mt.Tokenizer.from_folder(find_checkpoint("tiny"))
    model.save_pretrained(tmp_path / "base", tokenizer)
    return tmp_path / "base"


@pytest.fixture
def make_run(base: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a run whose additions and head have random weights."""

    def make(method: str = "lora", pooling: str = "pooler", layer_norm: bool = False) -> Path:
        rng = np.random.default_rng(5)
        transformer = mt.Transformer.from_pretrained(base).freeze()
        transformer.add_method(ADAPTER_NAME, CONFIGS[method])
        for parameter in transformer.trainable_parameters().values():
            parameter.value[...] += 0.3 * rng.standard_normal(parameter.shape)
        folder = tmp_path / f"{method}-run"
        save_adapter(
            folder / f"{method}.safetensors",
            mt.Classifier(transformer, 3, pooling, rng=rng),
            [ADAPTER_NAME],
            base_part="layer_norms" if layer_norm else "none",
            base=str(base),
            method=method,
            task="my task",
            label_names=("a", "b", "c"),
            max_length=40,
        )
        return folder

    return make


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_run_is_the_same_after_export_and_import(
    make_run: Callable[..., Path], base: Path, tmp_path: Path, method: str
) -> None:
    run = make_run(method)
    there = mt.export_peft(run, tmp_path / "there")
    back = mt.import_peft(there, base, tmp_path / "back")
    file, copy = (read_adapter(path) for path in (run, back))
    assert copy.path.name == f"{method}.safetensors"
    assert copy.record == file.record
    assert copy.tensors.keys() == file.tensors.keys()
    assert all(np.array_equal(copy.tensors[key], file.tensors[key]) for key in file.tensors)
    texts = [load_run(folder).predict(TEXTS) for folder in (run, back)]
    assert texts[0] == texts[1]


def test_label_names_are_given_or_numbers(
    make_run: Callable[..., Path], base: Path, tmp_path: Path
) -> None:
    there = mt.export_peft(make_run(), tmp_path / "there")
    (there / "minitransformer.json").unlink()  # so does PEFT write it
    back = mt.import_peft(there, base, tmp_path / "back")
    assert read_adapter(back).record.label_names == ("0", "1", "2")
    assert read_adapter(back).record.task == "there"
    names = ("bad", "so so", "good")
    back = mt.import_peft(there, base, tmp_path / "named", label_names=names)
    assert read_adapter(back).record.label_names == names
    for wrong in (("bad", "good"), ("bad", "bad", "good")):
        with pytest.raises(ConfigError, match="expected 3 different names"):
            mt.import_peft(there, base, tmp_path / "more", label_names=wrong)


def test_runs_without_equivalent(make_run: Callable[..., Path], base: Path, tmp_path: Path) -> None:
    for options, named in (
        ({"layer_norm": True}, "layer norms of the base were trained"),
        ({"pooling": "mean"}, "pooling 'mean'.*train with pooling 'pooler'"),
        ({"method": "prefix"}, "PrefixConfig"),
    ):
        with pytest.raises(CheckpointError, match=named):
            mt.export_peft(make_run(**options), tmp_path / "there")
        assert not (tmp_path / "there").exists()
    with pytest.raises(CheckpointError, match="only bottleneck adapters"):
        mt.export_adapterhub(make_run(), tmp_path / "there")


def test_base_with_other_weights(make_run: Callable[..., Path], base: Path, tmp_path: Path) -> None:
    there = mt.export_peft(make_run(), tmp_path / "there")
    other = mt.Transformer.from_pretrained(base)
    other.parameters()[0].value += 1
    other.save_pretrained(base)
    with pytest.raises(CheckpointError, match="another base"):
        mt.import_peft(there, base, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_language_models(small_transformer: Callable[..., mt.Transformer], tmp_path: Path) -> None:
    tokenizer = mt.Tokenizer.train_bpe(["to be, or not to be, that is the question"], 260)
    model = small_transformer(
        vocab_size=tokenizer.vocab_size, norm="pre", causal=True, token_types=0
    )
    base, run = tmp_path / "base", tmp_path / "run"
    model.save_pretrained(base, tokenizer)
    model.freeze()
    model.add_lora(ADAPTER_NAME, LORA)
    for parameter in model.trainable_parameters().values():
        parameter.value[...] += 0.3 * np.random.default_rng(4).standard_normal(parameter.shape)
    about = {"base": str(base), "method": "lora", "task": "novel", "max_length": 20}
    language_model = mt.LanguageModel(model)
    record = save_adapter(run / "lora.safetensors", language_model, [ADAPTER_NAME], **about)

    there = mt.export_peft(run, tmp_path / "there")
    back = mt.import_peft(there, base, tmp_path / "back")
    assert read_adapter(back).record == record
    texts = [load_language_run(folder).write("to be", 8) for folder in (run, back)]
    assert texts[0] == texts[1]


def call(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


def test_commands(make_run: Callable[..., Path], base: Path, tmp_path: Path) -> None:
    run = make_run()
    status, out, _ = call("export", run)
    there = tmp_path / "lora-run-peft"
    assert status == 0
    assert f"PeftModel.from_pretrained(model, {str(there)!r})" in out
    assert "BertForSequenceClassification.from_pretrained(..., num_labels=3)" in out
    to = tmp_path / "back"
    status, out, _ = call(
        "import", there, "--base", base, "--out", to, "--labels", "x,y,z", "--json"
    )
    assert status == 0
    record = json.loads(out)
    assert record["label_names"] == ["x", "y", "z"] and record["adapter"]["rank"] == 3
    (there / "minitransformer.json").unlink()
    status, out, _ = call("import", there, "--base", base, "--out", tmp_path / "numbers")
    assert status == 0 and "labels   0, 1, 2" in out and "only you can know" in out
    assert call("predict", to, *TEXTS)[0] == 0

    status, _, err = call("export", run, tmp_path / "two", "--name", "x")
    assert status == 2 and "--name x" in err
    status, _, err = call("export", make_run(pooling="cls"), tmp_path / "three")
    assert status == 1 and "'pooler'" in err and len(err.splitlines()) == 1


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")  # those of other packages
@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_run_predicts_the_same_there(
    make_run: Callable[..., Path], base: Path, tmp_path: Path, method: str
) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    import torch

    run = load_run(make_run(method))
    folder = mt.export_peft(run, tmp_path / "there")
    model = transformers.BertForSequenceClassification.from_pretrained(base, num_labels=3)
    theirs = peft.PeftModel.from_pretrained(model, folder).eval()
    for text, found in zip(TEXTS, run.predict(TEXTS), strict=True):
        (ids,) = run.tokenizer.encode([text], run.record.max_length)
        with torch.no_grad():
            p = theirs(input_ids=torch.tensor([ids])).logits.softmax(-1)[0].tolist()
        assert list(found.probabilities.values()) == pytest.approx(p, abs=1e-5)

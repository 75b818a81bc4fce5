"""Damaged and hostile files: each is one that raised something raw, or took gigabytes, once.

`fuzz/fuzz.py` found most of them; CI runs it for a minute a format.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.data.hub import find_checkpoint
from minitransformer.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    MiniTransformerError,
    TrainingError,
)
from minitransformer.formats import adapter_file
from minitransformer.formats.adapter_file import read_adapter, save_adapter
from minitransformer.formats.adapter_record import FORMAT
from minitransformer.formats.adapterhub import read_head
from minitransformer.formats.files import json_text, read_safetensors, write_tensors
from minitransformer.formats.peft import load_peft, save_peft
from minitransformer.runs.classification import load_run
from minitransformer.runs.model import ADAPTER_NAME, build_classifier
from minitransformer.runs.options import parse_whole_numbers
from minitransformer.sweeps.study import parse_study, read_study
from minitransformer.sweeps.table import Row, read_row, write_row
from minitransformer.training.history import History
from minitransformer.training.state import TrainingState

DEEP = "[" * 100_000
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An untrained run on tiny."""
    model = build_classifier(
        mt.Transformer.from_pretrained("tiny"),
        2,
        mt.RunOptions("tiny", adapter=mt.AdapterConfig(4)),
    )
    save_adapter(
        tmp_path / "run" / "adapter.safetensors", model, [ADAPTER_NAME],
        base="tiny", task="toy-reviews", label_names=("negative", "positive"), max_length=32,
    )  # fmt: skip
    return tmp_path / "run"


def change_record(run: Path, change: Change) -> None:
    path = run / "adapter.safetensors"
    tensors, metadata = read_safetensors(path)
    record = json.loads(metadata[FORMAT])
    change(record)
    write_tensors(path, tensors, {FORMAT: json.dumps(record)})


RECORDS: dict[str, tuple[Change, str]] = {
    "part of the base": (lambda r: r.update(base_part=2**31), "base_part"),
    "max_length of text": (lambda r: r.update(max_length="x"), "max_length='x': expected a whole"),
    "max_length of a half": (lambda r: r.update(max_length=0.5), "max_length=0.5"),
    "a table for the base": (lambda r: r.update(base={}), "base={}: expected text"),
    "lists for names": (lambda r: r.update(active=[[]]), "active"),
    "an adapter that is not there": (lambda r: r.update(active=["c"]), "active"),
    "fusion of what is not there": (lambda r: r.update(fusions={"f": ["no", "task"]}), "f="),
    "labels that are tables": (lambda r: r.update(label_names=[{}, {}]), "label_names"),
    "one label twice": (lambda r: r.update(label_names=["a", "a"]), "label_names"),
    "labels without a pooling": (lambda r: r.update(pooling=None), "pooling=None with the labels"),
    "a factor without bounds": (lambda r: r["adapters"]["task"].update(scaling=10**400), "scaling"),
    "deep lists": (lambda r: r.update(task=[[]] * 9), "task"),
    "many adapters, and nothing of them": (
        lambda r: r["adapters"].update({str(i): {"method": "ia3"} for i in range(20_000)}),
        r"holds nothing of 0, 1, 10, .* \.\.\. and 19,990 more$",
    ),
    "many names that are not there": (
        lambda r: r.update(active=[str(i) for i in range(20_000)]),
        r"active=0, 1, 2, .* \.\.\. and 19,990 more: expected some of task$",
    ),
    "one label many times": (lambda r: r.update(label_names=["a"] * 99), r"\.\.\. and 89 more"),
    "a wide adapter": (
        lambda r: r["adapters"]["task"].update(bottleneck=10**7),
        "bottleneck=10000000 in 2 blocks of width 64, but the tensors of 'task' have",
    ),
    "an adapter of almost no factor": (
        lambda r: r["adapters"]["task"].update(bottleneck=None, reduction_factor=1e-300),
        r"bottleneck=6.*e\+301 in 2 blocks",
    ),
    "many labels": (
        lambda r: r.update(label_names=[str(i) for i in range(99_999)]),
        "99,999 labels on a base of width 64, but the head",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_that_cannot_be_is_refused(name: str, run: Path) -> None:
    change, words = RECORDS[name]
    change_record(run, change)
    with pytest.raises(MiniTransformerError, match=words):
        load_run(run)


def test_a_record_that_is_nested_too_deeply_is_refused(run: Path) -> None:
    path = run / "adapter.safetensors"
    write_tensors(path, read_adapter(path).tensors, {FORMAT: DEEP})
    with pytest.raises(MiniTransformerError, match="damaged record"):
        load_run(run)


def with_many_adapters(run: Path, n: int, **config: Any) -> None:
    """Have the run's file name n adapters, and hold one number of each."""
    path = run / "adapter.safetensors"
    metadata = read_safetensors(path)[1]
    record = json.loads(metadata[FORMAT])
    one = {**record["adapters"].pop("task"), **config}
    record |= {"adapters": {f"a{i}": one for i in range(n)}, "active": ["a0"]}
    tensors = {f"blocks.0.ffn.adapters.a{i}.x": np.zeros(1, np.float32) for i in range(n)}
    write_tensors(path, tensors, {FORMAT: json.dumps(record)})


def test_a_file_of_thousands_of_adapters_is_refused_before_one_is_inserted(run: Path) -> None:
    with_many_adapters(run, 5000, layers=[0], bottleneck=1)  # once 21 seconds for 2,000 of them
    model = mt.Transformer.from_pretrained("tiny").freeze()
    with pytest.raises(CheckpointError, match="more than 512 adapters"):
        model.load_adapter(run)
    assert model.adapter_names == []


def test_adapters_that_are_large_only_together_are_refused(run: Path) -> None:
    with_many_adapters(run, 500, bottleneck=1000)  # 4 MB each
    model = mt.Transformer.from_pretrained("tiny").freeze()
    with pytest.raises(CheckpointError, match="500 adapters have 64,000,000 values or more, but"):
        model.load_adapter(run)


def test_a_file_does_not_get_more_adapters_than_can_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_file, "MOST_IN_A_FILE", 3)
    model, other = (mt.Transformer.from_pretrained("tiny").freeze() for _ in range(2))
    names = ["a", "b", "c", "d"]
    for name in names:
        model.add_adapter(name, mt.AdapterConfig(1))
    with pytest.raises(CheckpointError, match="more than 3 adapters"):
        model.save_adapter(tmp_path / "many.safetensors", *names)
    model.save_adapter(tmp_path / "many.safetensors", *names[1:])
    assert other.load_adapter(tmp_path / "many.safetensors") == "d"


def test_fusions_of_fusions_have_bounds(run: Path) -> None:
    """Each fusion of the two before it has more copies of the first two than they have together."""
    model = mt.Transformer.from_pretrained("tiny").freeze()
    names = ["a0", "a1", *(f"f{i}" for i in range(30))]
    for name in names[:2]:
        model.add_adapter(name, mt.AdapterConfig(1, layers=(0,)))
    for i in range(11):
        model.add_fusion(names[2 + i], names[i : i + 2])
    with pytest.raises(ConfigError, match="a fusion of 752 adapters"):
        model.add_fusion("next", names[11:13])

    with_many_adapters(run, 2, layers=[0], bottleneck=1)
    fusions = {name: names[i : i + 2] for i, name in enumerate(names[2:])}
    change_record(run, lambda r: r.update(fusions=fusions))
    with pytest.raises(CheckpointError, match="more than 512 adapters"):
        mt.Transformer.from_pretrained("tiny").load_adapter(run)


def test_answers_that_are_no_numbers_are_errors(run: Path) -> None:
    path = run / "adapter.safetensors"
    tensors, metadata = read_safetensors(path)
    huge = {key: np.full_like(t, 3e38) if "up.weight" in key else t for key, t in tensors.items()}
    write_tensors(path, huge, metadata)
    loaded = load_run(run)
    with pytest.raises(TrainingError, match="not finite"):
        loaded.predict(["a film"])
    with pytest.raises(TrainingError, match="not finite"):
        loaded.evaluate("toy-reviews")
    with pytest.raises(TrainingError, match="not finite"):
        mt.load_runs([run]).predict(["a film"])
    program = [sys.executable, "-m", "minitransformer", "predict", str(run), "a film"]
    said = subprocess.run(program, capture_output=True, text=True)
    assert said.returncode == 1 and said.stderr.count("\n") == 1  # no warnings of NumPy's beside it


CONFIGS: dict[str, tuple[Any, str]] = {
    "100,000 blocks": ({"num_hidden_layers": 100_000}, "100000 blocks, but 37 tensors"),
    "a vocabulary of a billion": ({"vocab_size": 10**9}, "but model.safetensors holds"),
    "an infinite width": ({"hidden_size": float("inf")}, "d_model=inf"),
    "half a vocabulary": ({"vocab_size": 218.5}, "vocab_size=218.5"),
    "half a token type": ({"type_vocab_size": 1.5}, "token_types=1.5"),
    "yes for token types": ({"type_vocab_size": True}, "token_types=True"),
    "no number for epsilon": ({"layer_norm_eps": float("nan")}, "layer_norm_eps=nan"),
    "text for epsilon": ({"layer_norm_eps": "small"}, "layer_norm_eps='small'"),
    "text for dropout": ({"hidden_dropout_prob": "x"}, "dropout='x'"),
    "a list for the activation": ({"hidden_act": ["gelu"]}, "config.json"),
    "a list for the type": ({"model_type": []}, r"model of type \[\]"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_that_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    changes, words = CONFIGS[name]
    copy_of_tiny(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(MiniTransformerError, match=words):
        mt.Transformer.from_pretrained(tmp_path)


def copy_of_tiny(folder: Path) -> None:
    for path in find_checkpoint("tiny").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())


def test_files_of_a_base_that_are_nested_too_deeply(tmp_path: Path) -> None:
    copy_of_tiny(tmp_path)
    (tmp_path / "config.json").write_text(DEEP)
    with pytest.raises(MiniTransformerError, match="cannot read"):
        mt.Transformer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(DEEP)
    with pytest.raises(MiniTransformerError, match="not a readable tokenizer"):
        mt.Tokenizer.from_folder(tmp_path)


def test_a_vocabulary_with_gaps_is_refused(tmp_path: Path) -> None:
    copy_of_tiny(tmp_path)
    words = json.loads((tmp_path / "tokenizer.json").read_text())
    del words["model"]["vocab"]["[UNK]"]
    words["added_tokens"] = [t for t in words["added_tokens"] if t["content"] != "[UNK]"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(MiniTransformerError):
        mt.Tokenizer.from_folder(tmp_path).encode(["漢"])


def test_a_text_of_megabytes_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    tokenizer = mt.Tokenizer.from_pretrained("tiny")
    with pytest.raises(DataError, match="text 1 has 2,000,000 characters"):
        tokenizer.encode(["short", "ab " * 666_666 + "ab"], 16)
    path = tmp_path / "long.csv"
    path.write_text("text,label\nshort,1\n" + "x" * 200_000 + ",1\n")
    with pytest.raises(DataError, match="line 3: a field of more than 131,072 characters"):
        mt.load_task(path)


# -- other libraries' folders --------------------------------------------------------------


def test_patterns_of_peft_that_are_no_tables(tmp_path: Path) -> None:
    model = mt.Transformer.from_pretrained("tiny").freeze()
    model.add_lora("a")
    folder = save_peft(model, "a", tmp_path / "a")
    words = json.loads((folder / "adapter_config.json").read_text())
    for changes in ({"rank_pattern": 3}, {"r": 10**400}, {"lora_alpha": float("inf")}):
        (folder / "adapter_config.json").write_text(json.dumps({**words, **changes}))
        with pytest.raises(MiniTransformerError, match="adapter_config"):
            load_peft(mt.Transformer.from_pretrained("tiny"), folder, "b")


@pytest.mark.parametrize("n", [10**30, float("inf"), "2", None, 3])
def test_labels_that_the_weights_do_not_have(run: Path, tmp_path: Path, n: object) -> None:
    folder = mt.export_adapterhub(run, tmp_path / "there")
    words = json.loads((folder / "head_config.json").read_text())
    words["config"]["num_labels"] = n
    (folder / "head_config.json").write_text(json.dumps(words))
    with pytest.raises(MiniTransformerError, match="but the weights are for 2"):
        read_head(folder)


@pytest.mark.parametrize("length", ["x", 0.5, None, -3])
def test_a_length_that_cannot_be_is_not_imported(run: Path, tmp_path: Path, length: object) -> None:
    folder = mt.export_adapterhub(run, tmp_path / "there")
    words = json.loads((folder / "adapter_config.json").read_text())
    words["minitransformer"]["max_length"] = length
    (folder / "adapter_config.json").write_text(json.dumps(words))
    with pytest.raises(MiniTransformerError, match="max_length"):
        mt.import_adapterhub(folder, "tiny", tmp_path / "back")


# -- runs and sweeps -----------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"\xff\xfe", DEEP.encode(), b"3", b"{", b"9" * 5000])
def test_metrics_that_are_damaged(run: Path, content: bytes) -> None:
    (run / "metrics.json").write_bytes(content)
    with pytest.raises(MiniTransformerError, match=r"metrics\.json is damaged"):
        _ = load_run(run).metrics


@pytest.mark.parametrize("state", [DEEP, "3", '{"run": {}, "inputs": {}, "step": Infinity}'])
def test_states_that_are_damaged(tmp_path: Path, state: str) -> None:
    path = tmp_path / "state.safetensors"
    write_tensors(path, {"values/x": np.zeros(1)}, {"state": state})
    with pytest.raises(MiniTransformerError, match="not the state of a training run"):
        TrainingState.read(path)


@pytest.mark.parametrize(
    "row", ["1,x", "1,1," + "9" * 200_000, "1,1,,,,,,0.5,7.5,100", "1,1,,,,,,0.5,0.5,-1", "1e9,1"]
)
def test_histories_that_are_damaged(row: str) -> None:
    header = History().to_csv()
    with pytest.raises(MiniTransformerError, match="not a training history"):
        History.from_csv(header + row + "\n").best()


def finished_row(**changes: Any) -> Row:
    known: dict[str, Any] = {
        "options": {"training": {"lr": 1e-3}}, "validation_accuracy": 0.5, "test_accuracy": 0.5,
        "test_loss": 0.7, "test_examples": 9, "trained": 10,
    }  # fmt: skip
    return Row("key", "toy-reviews", {}, **{**known, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"test_accuracy": None}, {"test_accuracy": "0.5"}, {"validation_accuracy": 3.5},
        {"options": {}}, {"options": 3}, {"options": {"training": 3}}, {"test_examples": [9]},
        {"key": {}}, {"key": "another"}, {"values": 0.5}, {"epochs": ["x"]},
    ],
)  # fmt: skip
def test_rows_that_are_damaged(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_row(tmp_path, finished_row())
    (path,) = tmp_path.glob("rows/*")
    assert read_row(path) == finished_row()
    path.write_text(json.dumps({**asdict(finished_row()), **changes}))
    with pytest.raises(MiniTransformerError, match="holds no row of a sweep"):
        read_row(path)


def test_a_row_and_a_study_that_are_nested_too_deeply(tmp_path: Path) -> None:
    (tmp_path / "row.json").write_text(DEEP)
    with pytest.raises(MiniTransformerError, match="holds no row of a sweep"):
        read_row(tmp_path / "row.json")
    (tmp_path / "study.toml").write_text(f"name = {DEEP}")
    with pytest.raises(MiniTransformerError, match="not a TOML file"):
        read_study(tmp_path / "study.toml")
    (tmp_path / "study.toml").write_text(f"name = {'9' * 5000}")
    with pytest.raises(MiniTransformerError, match=r"study\.toml"):
        read_study(tmp_path / "study.toml")


@pytest.mark.parametrize(
    ("task", "part", "words"),
    [
        ({"name": "x" * 5000}, {}, "File name too long"),
        ({}, {"bottleneck": [[1], [1]]}, "bottleneck"),
        ({}, {"layers": "9" * 5000}, "expected numbers"),
        ({}, {"layers": "1-100000000"}, "at most 10,000"),
        ({}, {"tasks": 3}, "tasks=3"),
        ({}, {k: list(range(1, 300)) for k in ("bottleneck", "epochs", "batch_size")}, "cells"),
    ],
)
def test_studies_that_cannot_be(task: dict[str, Any], part: dict[str, Any], words: str) -> None:
    values = {
        "name": "x",
        "task": [{"name": "toy-reviews", **task}],
        "part": [{"name": "a", "base": "tiny", **part}],
    }
    with pytest.raises(ConfigError, match=words):
        parse_study(values)


# -- options -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1-100000000", "5-3", "1-2-3", "", "9" * 5000, "0-9999,1"])
def test_ranges_of_numbers_have_bounds(text: str) -> None:
    with pytest.raises(ConfigError, match="layers: expected numbers"):
        parse_whole_numbers(text, "layers")


def test_options_have_bounds() -> None:
    with pytest.raises(ConfigError, match="threads=1000000: expected at most 256"):
        mt.RunOptions(threads=10**6)
    with pytest.raises(ConfigError, match="threads=1000000"):
        mt.LanguageOptions(threads=10**6)
    for changes in ({"threads": 10**6}, {"n_layers": 10**9}, {"block_size": 2**63}):
        with pytest.raises(ConfigError, match="expected at most"):
            mt.PretrainOptions(**changes)
    model = mt.Transformer.from_pretrained("tiny")
    for n in (10**8, 2**63):  # each digit of it
        for config in (mt.AdapterConfig(n), mt.LoRAConfig(n), mt.PrefixConfig(n)):
            with pytest.raises(ConfigError, match=f"={n} in a base of width 64: .* at most 1024"):
                model.add_method("a", config)
    assert not model.adapter_names
    for name in ("vocab_size", "d_model", "d_ff", "max_positions", "token_types"):
        with pytest.raises(ConfigError, match=f"{name}={2**63}.*expected at most 100,000,000,000"):
            mt.Transformer(replace(model.config, **{name: 2**63}))


def test_a_message_names_ten_of_many() -> None:
    model = mt.Transformer.from_pretrained("tiny")
    for i in range(30):
        model.add_method(f"n{i}", mt.IA3Config())
    with pytest.raises(ConfigError, match=r"no adapter 'x'; .* n9, \.\.\. and 20 more$"):
        model.set_active("x")


def test_json_has_neither_nan_nor_infinity() -> None:
    text = json_text({"a": [float("nan"), {"b": (float("inf"), 1.5)}], "c": "NaN"})
    assert json.loads(text) == {"a": [None, {"b": [None, 1.5]}], "c": "NaN"}

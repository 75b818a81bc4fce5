"""The formats that are read from elsewhere: a small valid example of each, and who reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import minitransformer as mt
from minitransformer.data.corpus import load_corpus
from minitransformer.data.hub import find_checkpoint
from minitransformer.data.tokenization import Tokenizer
from minitransformer.formats.adapter_file import read_adapter
from minitransformer.formats.peft import load_peft, save_peft
from minitransformer.runs.classification import load_run
from minitransformer.runs.folder import resumed
from minitransformer.runs.language_modeling import load_language_run
from minitransformer.sweeps.results import results_of
from minitransformer.sweeps.study import RunSpec, read_study
from minitransformer.sweeps.sweep import open_folder, study_of
from minitransformer.sweeps.table import Row, read_rows, write_row
from minitransformer.training.state import TrainingState

TEXTS = ["a wonderful film", "the soup was cold"]


@dataclass(frozen=True)
class Format:
    """What is tried.

    Attributes:
        examples: make files in a folder; each is an example of its own.
        read: reads the damaged copy of a folder, and uses what it read.
        touched: which files are damaged, as a pattern.
    """

    examples: Callable[[Path], Iterator[Path]]
    read: Callable[[Path], Any]
    touched: str = "*"


def options(**changes: Any) -> mt.RunOptions:
    training = mt.TrainingOptions(epochs=1, batch_size=16)
    return mt.RunOptions(**{"base": "tiny", "limit": 32, "training": training, **changes})


def run_on_tiny(folder: Path, method: str = "adapter", **changes: Any) -> Path:
    mt.train("toy-reviews", options(method=method, **changes), folder)
    return folder


def check_predictions(folder: Path) -> None:
    """Predict with a run; whatever it says must be finite."""
    for found in load_run(folder).predict(TEXTS):
        p = np.array(list(found.probabilities.values()))
        assert np.isfinite(p).all(), f"probabilities {p}"


# -- adapter files, and other libraries' folders -------------------------------------------


def adapter_files(folder: Path) -> Iterator[Path]:
    small: dict[str, Any] = {
        "adapter": {"adapter": mt.AdapterConfig(4, norm="before", scaling="learned")},
        "lora": {"adapter": mt.LoRAConfig(2)},
        "prefix": {"adapter": mt.PrefixConfig(3)},
        "ia3": {},
        "bitfit": {},
        "head": {},
    }
    for method, changes in small.items():
        run = run_on_tiny(folder / "runs" / method, method, **changes)
        (folder / method).mkdir()
        shutil.copy(run / f"{method}.safetensors", folder / method)
        yield folder / method
    model = mt.Transformer.from_pretrained("tiny").freeze()
    for name in ("a", "b"):
        model.add_adapter(name, mt.AdapterConfig(2))
    model.add_fusion("mix", ["a", "b"])
    (folder / "fusion").mkdir()
    model.train_adapter("mix")
    model.save_adapter(folder / "fusion" / "adapter.safetensors", "mix")
    yield folder / "fusion"


def read_adapter_file(folder: Path) -> None:
    file = read_adapter(folder)
    if file.record.fusions:
        mt.Transformer.from_pretrained("tiny").load_adapter(folder)
    else:
        check_predictions(folder)


def peft_folders(folder: Path) -> Iterator[Path]:
    for method in ("lora", "ia3"):
        run = run_on_tiny(folder / "runs" / method, method, pooling="cls")
        transformer = load_run(run).model.transformer
        (name,) = transformer.adapter_names
        yield save_peft(transformer, name, folder / method)


def read_peft_folder(folder: Path) -> None:
    model = mt.Transformer.from_pretrained("tiny")
    load_peft(model, folder)
    model(np.ones((1, 4), np.int64))


def adapterhub_folders(folder: Path) -> Iterator[Path]:
    run = run_on_tiny(folder / "run", adapter=mt.AdapterConfig(4))
    yield mt.export_adapterhub(run, folder / "exported")


def read_adapterhub_folder(folder: Path) -> None:
    out = folder.parent / "imported"
    shutil.rmtree(out, ignore_errors=True)
    check_predictions_of_import(folder, out)


def check_predictions_of_import(folder: Path, out: Path) -> None:
    mt.import_adapterhub(folder, "tiny", out)
    check_predictions(out)


# -- bases, data, runs ---------------------------------------------------------------------


def checkpoints(folder: Path) -> Iterator[Path]:
    yield Path(shutil.copytree(find_checkpoint("tiny"), folder / "bert"))
    text = "the cat sat on the mat and the dog ran to the sea. " * 5
    (folder / "text.txt").write_text("\n\n".join([text] * 40))
    training = mt.TrainingOptions(epochs=1, batch_size=8)
    small = mt.PretrainOptions(16, 2, 2, 257, 32, training=training)
    run = mt.pretrain(folder / "text.txt", small, folder / "run")
    (folder / "gpt2").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(run.folder / name, folder / "gpt2")
    yield folder / "gpt2"


def read_checkpoint_folder(folder: Path) -> None:
    model = mt.Transformer.from_pretrained(folder)
    ids, mask = mt.pad(Tokenizer.from_folder(folder).encode(TEXTS, 16))
    model(ids, mask)
    if model.config.causal:
        load_language_run(folder).write("the", 3)


def data_files(folder: Path) -> Iterator[Path]:
    task = mt.load_task("toy-reviews", limit=20)
    texts = [*task.train.texts, 'with "quotes", comma', "zwei\nZeilen", "漢字 é"]
    rows = [
        {"text": text, "label": ("no", "yes")[i % 2], "split": ("train", "test")[i % 3 == 0]}
        for i, text in enumerate(texts)
    ]
    for name, separator in (("csv", ","), ("tsv", "\t")):
        (folder / name).mkdir()
        lines = [separator.join(rows[0])]
        for row in rows:
            cells = (f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row.values())
            lines.append(separator.join(cells))
        (folder / name / f"data.{name}").write_text("\n".join(lines), encoding="utf-8")
        yield folder / name
    for name, keys in (("jsonl", ("text", "label", "split")), ("plain", ("text", "label"))):
        (folder / name).mkdir()
        lines = [json.dumps({key: row[key] for key in keys}) for row in rows]
        (folder / name / "data.jsonl").write_text("\n".join(lines), encoding="utf-8")
        yield folder / name
    (folder / "text").mkdir()
    (folder / "text" / "data.txt").write_text("\n\n".join(texts * 3), encoding="utf-8")
    yield folder / "text"


def read_data_file(folder: Path) -> None:
    (path,) = folder.iterdir()
    if path.suffix == ".txt":
        load_corpus(path)
        return
    task = mt.load_task(path)
    TOKENIZER.encode(task.train.texts or task.test.texts, 16)


TOKENIZER = Tokenizer.from_pretrained("tiny")


def run_folders(folder: Path) -> Iterator[Path]:
    run = run_on_tiny(folder / "run", adapter=mt.AdapterConfig(4))
    state = folder / "state"
    shutil.copytree(run, state)
    training = mt.TrainingOptions(epochs=1, batch_size=16)
    task = mt.load_task("toy-reviews", limit=32)
    model = mt.Classifier(mt.Transformer.from_pretrained("tiny").freeze(), 2)
    encoded = mt.encode_split(task.train, TOKENIZER, 16)
    trainer = mt.Trainer(model, encoded, encoded, training, state_file=state / "state.safetensors")
    trainer.save_state()
    yield run
    yield state


def read_run_folder(folder: Path) -> None:
    state = folder / "state.safetensors"
    if state.is_file():
        TrainingState.read(state)
        resumed(folder, "toy-reviews", mt.RunOptions)
    run = load_run(folder)
    run.history.best()
    run.metrics.get("test_accuracy")
    check_predictions(folder)


# -- sweeps --------------------------------------------------------------------------------

STUDY = """
name = "tiny"
seeds = [0, 1]

[run]
base = "tiny"
epochs = 1
max_length = 16

[[task]]
name = "toy-reviews"
limit = 64
test_limit = 32

[[part]]
name = "sizes"
placement = ["houlsby", "parallel"]
bottleneck = [2, 8]
layers = "0-1"
lr = [1e-3, 1e-2]

[[part]]
name = "others"
method = ["head", "full", "lora"]
"""


def studies(folder: Path) -> Iterator[Path]:
    (folder / "study.toml").write_text(STUDY)
    yield folder


def read_study_file(folder: Path) -> None:
    read_study(folder / "study.toml").run_count()


def sweeps(folder: Path) -> Iterator[Path]:
    (folder / "study.toml").write_text(STUDY)
    study = read_study(folder / "study.toml")
    (folder / "study.toml").unlink()
    open_folder(folder, study)
    for cell in study.cells():
        for run in (*cell.first_phase(), *cell.second_phase(cell.rates[0])):
            write_row(folder, made_up_row(run))
    yield folder


def made_up_row(run: RunSpec) -> Row:
    return Row(
        run.key, "toy-reviews", dict(run.values), {"training": {"lr": 1e-3}},
        validation_accuracy=0.75, validation_loss=0.5, test_accuracy=0.75, test_loss=0.5,
        test_examples=32, train_examples=64, trained=130, parameters=1000, training_seconds=1.0,
        seconds=2.0, best_epoch=1, epochs=(0.5, 0.75),
    )  # fmt: skip


def read_sweep(folder: Path) -> None:
    study, rows = study_of(folder), read_rows(folder)
    for result in results_of(study, rows):
        str(result.accuracy), str(result.standard_error), result.label


FORMATS = {
    "adapter_file": Format(adapter_files, read_adapter_file),
    "peft": Format(peft_folders, read_peft_folder),
    "adapterhub": Format(adapterhub_folders, read_adapterhub_folder),
    "checkpoint": Format(checkpoints, read_checkpoint_folder),
    "data": Format(data_files, read_data_file),
    "run": Format(run_folders, read_run_folder),
    "study": Format(studies, read_study_file),
    "sweep": Format(sweeps, read_sweep),
}

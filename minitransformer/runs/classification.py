"""A run: from a task's name to a folder with the trained adapter, and from there to answers."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..adapters.config import AdapterConfig
from ..data.batches import Encoded, encode_split
from ..data.datasets import Task, load_task, relabel
from ..data.tokenization import Tokenizer
from ..errors import CheckpointError, ConfigError
from ..formats.adapter_file import (
    AdapterRecord,
    check_base,
    fingerprint,
    load_values,
    read_adapter,
    save_adapter,
)
from ..formats.files import write_text
from ..models.heads import Classifier
from ..models.transformer import Transformer
from ..nn.module import Array
from ..plots import plot_history
from ..training.evaluation import Evaluation, evaluate, predict_probabilities
from ..training.prefix_cache import PrefixCache
from ..training.process import cores
from ..training.trainer import Trainer
from .folder import RunFolder, adapter_path, folder_and_options, peak_memory_mb
from .options import ADAPTER_NAME, RunOptions, build_classifier

# -- a trained model ----------------------------------------------------------------------


@dataclass(frozen=True)
class Prediction:
    """The answer for one text: the label, and every label's probability."""

    text: str
    label: str
    probabilities: dict[str, float]


class Run(RunFolder):
    """A trained task: text in, label out. Made by `train` or `load_run`."""

    def __init__(
        self, folder: Path, record: AdapterRecord, model: Classifier, tokenizer: Tokenizer
    ) -> None:
        self.folder, self.record, self.model, self.tokenizer = folder, record, model, tokenizer

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """A label for each text. Raises: DataError for an empty batch or what is not text."""
        encoded = Encoded(
            self.tokenizer.encode(texts, self.record.max_length),
            np.zeros(len(texts), np.int64),
            self.tokenizer.pad_id,
        )
        return self.predictions(texts, predict_probabilities(self.model, encoded))

    def predictions(self, texts: Sequence[str], p: Array) -> list[Prediction]:
        """What probabilities (n, n_classes) say about n texts."""
        names = self.record.label_names
        return [
            Prediction(text, names[row.argmax()], dict(zip(names, row.tolist(), strict=True)))
            for text, row in zip(texts, p, strict=True)
        ]

    def evaluate(self, task: str | Path | Task, split: str = "test") -> Evaluation:
        """Loss and accuracy on a split of a task, whose labels must be known to this run.

        Raises: DataError for a task that cannot be read or a label that this run never saw.
        """
        if split not in ("train", "validation", "test"):
            raise ConfigError(f"split={split!r}: expected train, validation or test")
        task = task if isinstance(task, Task) else load_task(task)
        task = relabel(task, self.record.label_names)
        encoded = encode_split(getattr(task, split), self.tokenizer, self.record.max_length)
        return evaluate(self.model, encoded)


def load_run(folder: str | Path, base: str | Path | None = None) -> Run:
    """A trained run from its folder (or from its adapter file alone), ready for texts.

    `base` replaces the recorded name of the base, say by a folder where it lies here.
    Raises: CheckpointError if the folder holds no run, or the base is not the one it needs.
    """
    path = adapter_path(Path(folder).expanduser())
    record, tensors = read_adapter(path)
    base = base if base is not None else record.base
    transformer = Transformer.from_pretrained(base)
    check_base(record, fingerprint(transformer), path)
    if not record.label_names:
        raise CheckpointError(f"{path} has no labels, it continues texts: minitransformer generate")
    name = ADAPTER_NAME if record.method == "adapter" else None
    model = build_classifier(
        transformer,
        len(record.label_names),
        RunOptions(
            method=record.method,
            adapter=record.adapter or AdapterConfig(),
            layer_norm=any(".norm." in key for key in tensors) and name is not None,
            pooling=record.pooling,
        ),
    )
    load_values(model, tensors, name, path)
    model.eval()
    return Run(path.parent, record, model, Tokenizer.from_pretrained(base))


# -- training -----------------------------------------------------------------------------


def train(
    task: str | Path,
    options: RunOptions | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Run:
    """Train a task and leave a run folder: what `minitransformer train` does.

    The folder (default: runs/TASK-METHOD-seedN, with a number if that exists) receives
    `METHOD.safetensors` (the best epoch), `METHOD-last.safetensors`, `history.csv`, `curves.png`,
    `metrics.json` and `options.json`. Ctrl-C keeps what was learnt so far, and `resume=True` with
    the same folder goes on from there, with the options of the folder.

    Raises: ConfigError if the folder holds a run already, or (resume) none that can go on;
    DataError, HubError, CheckpointError for a task or base that cannot be used; TrainingError if
    the loss is not finite.
    """
    folder, options = folder_and_options(task, options, RunOptions, out, resume)
    data = load_task(task, limit=options.limit)
    tokenizer = Tokenizer.from_pretrained(options.base)
    transformer = Transformer.from_pretrained(options.base, options.dropout)
    positions = transformer.config.max_positions
    options = replace(
        options,
        max_length=min(options.max_length, positions),
        threads=options.threads or cores(),
    )
    train_set, validation, test = (
        encode_split(split, tokenizer, options.max_length)
        for split in (data.train, data.validation, data.test)
    )

    before = fingerprint(transformer)
    model = build_classifier(transformer, len(data.label_names), options)
    record = AdapterRecord(
        fingerprint=before,
        base=options.base,
        method=options.method,
        task=data.name,
        label_names=data.label_names,
        pooling=options.pooling,
        max_length=options.max_length,
        adapter=options.adapter if options.method == "adapter" else None,
    )
    folder.mkdir(parents=True, exist_ok=True)
    state_file = folder / "state.safetensors"
    prefix = PrefixCache(transformer, train_set) if options.prefix_cache else None
    trainer = Trainer(
        model,
        train_set,
        validation,
        options.training,
        state_file,
        progress,
        options.threads,
        prefix,
    )
    if resume:
        trainer.load_state()
    else:
        kept = {"task": str(task), **options.to_dict()}
        write_text(folder / "options.json", json.dumps(kept, indent=2) + "\n")
    trainer.fit()

    best = trainer.history.best()

    # What was learnt is on disk before anything else is tried.
    name = ADAPTER_NAME if options.method == "adapter" else None
    save_adapter(folder / f"{options.method}-last.safetensors", model, record, name)
    last = None if trainer.interrupted else evaluate(model, test, threads=options.threads)
    trainer.restore_best()
    size = save_adapter(folder / f"{options.method}.safetensors", model, record, name)
    write_text(folder / "history.csv", trainer.history.to_csv())
    plot_history(trainer.history, f"{data.name}: {describe(options)}", folder / "curves.png")

    run = Run(folder, record, model, tokenizer)
    summary = model.summary()
    metrics: dict[str, Any] = {
        "task": data.name,
        **options.to_dict(),
        "finished": not trainer.interrupted,
        "steps": trainer.step,
        "best_epoch": best.epoch if best else None,
        "validation_accuracy": best.validation_accuracy if best else None,
        "parameters": summary.total,
        "trainable_parameters": summary.trainable,
        "file_bytes": size,
        "training_seconds": trainer.seconds,
        "peak_memory_mb": peak_memory_mb(),
        "base_sha256_before": before,
        "base_sha256_after": fingerprint(transformer),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }
    if last is not None:
        found = evaluate(model, test, threads=options.threads)
        metrics |= {"test_accuracy": found.accuracy, "test_loss": found.loss}
        metrics |= {"test_accuracy_last_epoch": last.accuracy, "test_examples": len(test)}
        state_file.unlink(missing_ok=True)
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    model.eval()
    return run


def describe(options: RunOptions) -> str:
    """A few words for a figure's title."""
    if options.method == "adapter":
        return f"adapters on a frozen {options.base}"
    what = "head alone on a frozen" if options.method == "head" else "full fine-tuning of"
    return f"{what} {options.base}"

"""A run: from a task's name to a folder with the trained adapter, and from there to predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..adapters.select import PART_OF_METHOD
from ..data.batches import Encoded, encode_split
from ..data.datasets import Task, load_task, relabel
from ..data.hub import find_checkpoint
from ..data.tokenization import Tokenizer
from ..errors import CheckpointError, ConfigError
from ..formats.adapter_file import (
    AdapterFile,
    AdapterRecord,
    check_tokenizer,
    fingerprint,
    load_adapter,
    read_adapter,
    save_adapter,
)
from ..models.heads import Classifier
from ..models.transformer import Transformer
from ..nn.module import Array
from ..training.evaluation import Evaluation, evaluate, predict_probabilities
from ..training.prefix_cache import PrefixCache
from ..training.state import digest_of
from .folder import RunFolder, base_of, open_run
from .options import (
    ADAPTER_NAME,
    WHAT_TRAINS,
    RunOptions,
    build_classifier,
    freeze_for,
    with_changes,
)
from .pipeline import Job, base_digests, digest, train_in_folder

SPLITS = ("train", "validation", "test")

# -- a trained model ----------------------------------------------------------------------


@dataclass(frozen=True)
class Prediction:
    """What is predicted for one text: the label, and every label's probability."""

    text: str
    label: str
    probabilities: dict[str, float]


class Run(RunFolder):
    """A trained task: text in, label out. Made by `train` or `load_run`.

    Attributes:
        folder: where it lies.
        record: what its adapter file says.
        model, tokenizer: the base with adapters and head, and what makes tokens of a text.
        adapter: the adapter's name in the model; None for a head on the plain base.
    """

    def __init__(
        self,
        folder: Path,
        record: AdapterRecord,
        model: Classifier,
        tokenizer: Tokenizer,
        adapter: str | None = None,
    ) -> None:
        self.folder, self.record, self.model, self.tokenizer = folder, record, model, tokenizer
        self.adapter = adapter

    def classifier(self) -> Classifier:
        """The model that predicts."""
        return self.model

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """A label for each text. Raises: DataError for an empty batch or what is not text."""
        encoded = Encoded(
            self.tokenizer.encode(texts, self.record.max_length),
            np.zeros(len(texts), np.int64),
            self.tokenizer.pad_id,
        )
        return self.predictions(texts, predict_probabilities(self.classifier(), encoded))

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
        if split not in SPLITS:
            raise ConfigError(f"split={split!r}: expected one of {', '.join(SPLITS)}")
        task = task if isinstance(task, Task) else load_task(task)
        task = relabel(task, self.record.label_names)
        encoded = encode_split(getattr(task, split), self.tokenizer, self.record.max_length)
        return evaluate(self.classifier(), encoded)


def load_run(folder: str | Path, base: str | Path | None = None) -> Run:
    """A trained run from its folder (or from its adapter file alone), ready for texts.

    `base` replaces the recorded name of the base, say by a folder where it lies here.
    Raises: CheckpointError if the folder holds no run, or the base is not the one it needs.
    """
    return run_from(read_adapter(folder), base)


def run_from(file: AdapterFile, base: str | Path | None = None) -> Run:
    """The run that an adapter file belongs to; as `load_run`."""
    record = file.record
    check_labels(file)
    checkpoint = base_of(file, base)
    transformer = Transformer.from_pretrained(checkpoint)
    assert record.pooling is not None  # there are labels, so there is a head
    check_head_size(file, transformer.config.d_model)
    model = Classifier(transformer, len(record.label_names), record.pooling)
    adapter = load_adapter(file, model)
    tokenizer = Tokenizer.from_folder(checkpoint)
    check_tokenizer(file, tokenizer.fingerprint)
    freeze_for(record.method, model, trained_layer_norms(record))
    model.eval()
    return Run(file.path.parent, record, model, tokenizer, adapter)


def trained_layer_norms(record: AdapterRecord) -> bool:
    """Whether layer norms were trained beside what was inserted."""
    return bool(record.adapters) and record.base_part == "layer_norms"


def check_labels(file: AdapterFile) -> None:
    """Raises: CheckpointError for a file that does not belong to a run on a task."""
    if not file.record.task:
        raise CheckpointError(
            f"{file.path} is not from a run: it names no labels; in Python, "
            "Classifier.load_adapter reads it"
        )
    record = file.record
    if bool(record.label_names) != (record.pooling is not None):
        raise CheckpointError(
            f"{file.path} has a damaged record: pooling={record.pooling!r} with the labels "
            f"{record.label_names}"
        )
    if not file.record.label_names:
        raise CheckpointError(
            f"{file.path} has no labels, it continues texts: minitransformer generate"
        )


def check_head_size(file: AdapterFile, d_model: int) -> None:
    """Refuse more labels than the head in the file has weights for, before it is built.

    Raises: CheckpointError.
    """
    n = len(file.record.label_names)
    there = sum(tensor.size for key, tensor in file.tensors.items() if key.startswith("head."))
    if n * d_model > there:
        raise CheckpointError(
            f"{file.path} does not fit: {n:,} labels on a base of width {d_model}, but the head in "
            f"it has {there:,} values"
        )


# -- training -----------------------------------------------------------------------------


def train(
    task: str | Path,
    options: RunOptions | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    **changes: Any,
) -> Run:
    """Train a task and leave a run folder: what `minitransformer train` does.

    `changes` are options by name, those of training too: `train(task, base="tiny", epochs=1)`.

    The folder (default: runs/TASK-METHOD-seedN, with a number if that exists) receives
    `METHOD.safetensors` (the best epoch), `METHOD-last.safetensors`, `history.csv`, `curves.png`,
    `metrics.json` and `options.json`. Ctrl-C (also SIGTERM, SIGHUP) saves what was learnt so far.
    However a run was stopped, `resume=True` with the same folder goes on, with the options of the
    folder, to the same files, bit for bit but for the times that it took. `progress` shows a bar.

    Raises: ConfigError if the folder is not empty, or (resume) holds no run that can go on;
    DataError, HubError, CheckpointError for a task or base that cannot be used; TrainingError if
    the loss is not finite.
    """
    options = with_changes(RunOptions, options, changes)
    with open_run(task, options, RunOptions, out, resume) as (folder, options):
        job = Classification(load_task(task, limit=options.limit), options)
        train_in_folder(job, folder, task, resume, progress)
    return Run(folder, job.record, job.model, job.tokenizer, job.adapter)


class Classification(Job):
    """A classifier for a task. Saves adapters and head, or everything; measures the accuracy."""

    model: Classifier
    options: RunOptions

    def __init__(self, task: Task, options: RunOptions) -> None:
        checkpoint = find_checkpoint(options.base)
        self.tokenizer = Tokenizer.from_folder(checkpoint)
        transformer = Transformer.from_pretrained(checkpoint, options.resolved_dropout)
        self.options = options = options.resolved(transformer.config.max_length)
        self.name = task.name
        self.title = f"{task.name}: {describe(options)}"
        self.train, self.validation, self.test = (
            encode_split(split, self.tokenizer, options.max_length)
            for split in (task.train, task.validation, task.test)
        )
        self.adapter = ADAPTER_NAME if options.config is not None else None
        self.label_names = task.label_names
        self.base_before = fingerprint(transformer)
        self.inputs = {
            "the test examples": digest_of(self.test),
            "the label names": digest(*task.label_names),
            **base_digests(transformer, self.base_before, checkpoint),
        }
        self.model = build_classifier(transformer, len(task.label_names), options)
        if options.prefix_cache:
            self.prefix = PrefixCache(transformer, self.train)

    def save(self, folder: Path) -> Path:
        return self.write(folder / f"{self.options.method}.safetensors")

    def write(self, path: Path) -> Path:
        part = PART_OF_METHOD.get(self.options.method, "none")
        self.record = save_adapter(
            path,
            self.model,
            [self.adapter] if self.adapter is not None else [],
            base_fingerprint=self.base_before,
            base_part="layer_norms" if self.options.layer_norm else part,
            tokenizer=self.tokenizer.fingerprint,
            base=self.options.base,
            method=self.options.method,
            task=self.name,
            label_names=self.label_names,
            max_length=self.options.max_length,
        )
        return path

    def last_epoch(self, folder: Path, finished: bool) -> dict[str, Any]:
        self.write(folder / f"{self.options.method}-last.safetensors")
        if not finished:
            return {}
        found = evaluate(self.model, self.test, threads=self.options.threads)
        return {"test_accuracy_last_epoch": found.accuracy}

    def measure(self, finished: bool) -> dict[str, Any]:
        after = fingerprint(self.model.transformer)
        metrics: dict[str, Any] = {
            "base_sha256_before": self.base_before,
            "base_sha256_after": after,
        }
        if finished:
            found = evaluate(self.model, self.test, threads=self.options.threads)
            metrics |= {"test_accuracy": found.accuracy, "test_loss": found.loss}
            metrics |= {"test_examples": len(self.test)}
        return metrics


def describe(options: RunOptions) -> str:
    """What trains, in a few words."""
    return f"{WHAT_TRAINS[options.method]} {options.base}"

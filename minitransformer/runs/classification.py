"""A run: from a task's name to a folder with the trained adapter, and from there to predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..adapters.select import PART_OF_METHOD
from ..data.batches import Encoded, encode_split, encode_texts
from ..data.datafiles import DataOptions
from ..data.datasets import TASKS, load_task, name_of, relabel
from ..data.hub import find_checkpoint
from ..data.splits import Split, Task
from ..data.tokenization import Tokenizer
from ..errors import CheckpointError, ConfigError, DataError
from ..formats.adapter_file import (
    BUILT_ANYWAY,
    AdapterFile,
    check_tokenizer,
    fingerprint,
    load_adapter,
    read_adapter,
    save_adapter,
)
from ..formats.adapter_record import AdapterRecord
from ..models.heads import Classifier, Regressor
from ..models.transformer import Transformer
from ..nn.module import Array
from ..training.evaluation import (
    Evaluation,
    NumberEvaluation,
    evaluate,
    evaluate_numbers,
    predict_probabilities,
)
from ..training.prefix_cache import PrefixCache
from ..training.state import digest_of
from .folder import RunFolder, base_of, open_run, read_options
from .model import ADAPTER_NAME, build_classifier, freeze_for
from .options import WHAT_TRAINS, RunOptions, with_changes
from .pipeline import Job, base_digests, digest, train_in_folder
from .results import PREDICTIONS, read_predictions, results, texts_of, write_report

SPLITS = ("train", "validation", "test")

# -- a trained model ----------------------------------------------------------------------


@dataclass(frozen=True)
class Prediction:
    """What is predicted for one text, or one pair: the label, and every label's probability.

    Of a number: the number and, as label, its digits.
    """

    text: str
    label: str
    probabilities: dict[str, float]
    pair: str | None = None
    number: float | None = None


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

    @property
    def is_number(self) -> bool:
        """Whether it predicts a number; its one label name is what the number is called."""
        return len(self.record.label_names) == 1

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]:
        """A label, or a number, for each text; `pairs`: the second texts, of a run on pairs.

        Raises: DataError for an empty batch, what is not text, or pairs where there should be none.
        """
        p = self.probabilities(texts, pairs)
        return self.predictions(texts, p, pairs)

    def probabilities(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Array:
        """(n, n_classes), or of a number (n, 1); as `predict`."""
        self.check_pairs(pairs is not None)
        labels = np.zeros(len(texts), np.int64)
        encoded = encode_texts(texts, pairs, labels, self.tokenizer, self.record.max_length)
        return predict_probabilities(self.classifier(), encoded)

    def predictions(
        self, texts: Sequence[str], p: Array, pairs: Sequence[str] | None = None
    ) -> list[Prediction]:
        """What probabilities (n, n_classes), or numbers (n, 1), say about n texts."""
        names = self.record.label_names
        second = pairs if pairs is not None else [None] * len(texts)
        if self.is_number:
            return [
                Prediction(text, f"{y:.4g}", {}, pair, float(y))
                for text, pair, (y,) in zip(texts, second, p, strict=True)
            ]
        return [
            Prediction(text, names[row.argmax()], dict(zip(names, row.tolist(), strict=True)), pair)
            for text, pair, row in zip(texts, second, p, strict=True)
        ]

    def check_pairs(self, given: bool) -> None:
        """Raises: DataError for pairs of texts to a run on single ones, or the other way round."""
        if given != self.record.pair:
            wants, got = ("pairs of texts", "single ones")[:: 1 if self.record.pair else -1]
            raise DataError(f"{self.folder} was trained on {wants}, not on {got}")

    def own_task(self) -> Task:
        """What this run was trained on, its limit included, read anew.

        Raises: CheckpointError if the folder does not say, or is damaged; DataError if the data is
        not a file, is not there, or its test split is not the one that this run was tested on.
        """
        path = self.folder / "options.json"
        if not path.is_file():
            raise CheckpointError(f"{self.folder} has no {path.name}, so say the task")
        name, options = read_options(path, RunOptions)
        if name not in TASKS and not Path(name).expanduser().is_file():
            raise DataError(
                f"{self.folder} was trained on {name!r}, which is no file here and no built-in "
                "task: say where the data lies"
            )
        task = load_task(name, limit=options.limit, options=options.data)
        if (self.folder / PREDICTIONS).is_file():
            tested, now = read_predictions(self.folder).texts, texts_of(task.test)
            if tested != now:
                raise DataError(
                    f"{name} has changed: {self.folder} was tested on {len(tested):,} examples, "
                    f"which are not the {len(now):,} of its test split now, and may be trained on "
                    "some of these. To measure it nevertheless, say the task"
                )
        return task

    def evaluate(
        self, task: Any, split: str = "test", options: DataOptions | None = None
    ) -> Evaluation:
        """How good it is on a split of a task, whose labels must be known to this run.

        `task` and `options` as in `load_task`; `run.own_task()` is what it was trained on.

        Raises: DataError for a task that cannot be read or a label that this run never saw;
        ConfigError if this run predicts numbers.
        """
        if self.is_number:
            raise ConfigError(f"{self.folder} predicts numbers: evaluate_numbers measures it")
        return evaluate(self.classifier(), self.encoded(task, split, options))

    def evaluate_numbers(
        self, task: Any, split: str = "test", options: DataOptions | None = None
    ) -> NumberEvaluation:
        """The same for a run that predicts numbers. Raises: ConfigError if it does not."""
        model = self.classifier()
        if not isinstance(model, Regressor):
            raise ConfigError(f"{self.folder} predicts labels: evaluate measures it")
        return evaluate_numbers(model, self.encoded(task, split, options))

    def encoded(self, task: Any, split: str, options: DataOptions | None = None) -> Encoded:
        """A split as this run reads it."""
        if split not in SPLITS:
            raise ConfigError(f"split={split!r}: expected one of {', '.join(SPLITS)}")
        task = load_task(task, options=options)
        part: Split = getattr(task, split)
        if len(part) == 0:
            raise DataError(f"{task.name} has no {split} examples")
        if self.is_number != (part.labels.dtype.kind == "f"):  # a file may hold one label only
            kinds = ("a number", "a label")[:: 1 if self.is_number else -1]
            raise DataError(f"{self.folder} predicts {kinds[0]}, but {task.name} has {kinds[1]}")
        if not self.is_number:
            part = getattr(relabel(task, self.record.label_names), split)
        self.check_pairs(part.pairs is not None)
        return encode_split(part, self.tokenizer, self.record.max_length)


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
    if len(record.label_names) == 1:
        model: Classifier = Regressor(transformer, record.pooling)
    else:
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
    if n * d_model > there + BUILT_ANYWAY:
        raise CheckpointError(
            f"{file.path} does not fit: {n:,} labels on a base of width {d_model}, but the head in "
            f"it has {there:,} values"
        )


# -- training -----------------------------------------------------------------------------


def train(
    task: Any,
    options: RunOptions | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    **changes: Any,
) -> Run:
    """Train a task and leave a run folder: what `minitransformer train` does.

    `task`: the name of a built-in one, the user's own file, or data in memory: a list of (text,
    label), a list of dictionaries, a dictionary of columns, a pandas DataFrame, or a `Task`.
    `RunOptions.data` says which columns count. `changes` are options by name, those of training
    too: `train(task, base="tiny", epochs=1)`.

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
    name = task if isinstance(task, str | Path) else name_of(task)
    with open_run(name, options, RunOptions, out, resume) as (folder, options):
        job = Classification(load_task(task, limit=options.limit, options=options.data), options)
        train_in_folder(job, folder, name, resume, progress)
    return Run(folder, job.record, job.model, job.tokenizer, job.adapter)


class Classification(Job):
    """A classifier, or regressor, for a task. Saves adapters and head, or everything.

    Measures the best epoch on the test split, beside a baseline.
    """

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
        self.task, self.label_names = task, task.label_names
        self.base_before = fingerprint(transformer)
        self.inputs = {
            "the test examples": digest_of(self.test),
            "the label names": digest(*task.label_names),
            **base_digests(transformer, self.base_before, checkpoint),
        }
        units = units_of(task.train) if task.is_number else (0.0, 1.0)
        self.model = build_classifier(transformer, len(task.label_names), options, units)
        self.best_by = options.select_by or ("loss" if task.is_number else "accuracy")
        if task.is_number and self.best_by != "loss":
            raise ConfigError(f"select_by={self.best_by!r} is for classes; a number goes by 'loss'")
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
            pair=self.task.train.pairs is not None,
        )
        return path

    def last_epoch(self, folder: Path, finished: bool) -> dict[str, Any]:
        self.write(folder / f"{self.options.method}-last.safetensors")
        if not finished:
            return {}
        found = measured(self.model, self.test, self.options.threads)
        if isinstance(found, NumberEvaluation):
            return {"test_pearson_last_epoch": found.pearson}
        return {"test_accuracy_last_epoch": found.accuracy}

    def measure(self, finished: bool, folder: Path) -> dict[str, Any]:
        after = fingerprint(self.model.transformer)
        metrics: dict[str, Any] = {
            "base_sha256_before": self.base_before,
            "base_sha256_after": after,
        }
        if finished:
            found = measured(self.model, self.test, self.options.threads)
            of_test = results(found, self.task)
            metrics["warnings"] = of_test.pop("warnings")
            metrics |= {f"test_{name}": value for name, value in of_test.items()}
            write_report(folder, found, self.task.test, self.label_names, self.title)
        return metrics


def units_of(train: Split) -> tuple[float, float]:
    """The mean and the standard deviation of the numbers to learn.

    Raises: DataError if they are all the same.
    """
    labels = train.labels
    mean, deviation = float(labels.mean()), float(labels.std())
    if deviation == 0:
        raise DataError(
            f"the labels of the {len(labels)} training examples are all {labels[0]:g}, or too near "
            "to each other to be told apart: there is nothing to learn"
        )
    return mean, deviation


def measured(
    model: Classifier, encoded: Encoded, threads: int = 0
) -> Evaluation | NumberEvaluation:
    """What `evaluate` or `evaluate_numbers` finds, by the kind of model."""
    if isinstance(model, Regressor):
        return evaluate_numbers(model, encoded, threads=threads)
    return evaluate(model, encoded, threads=threads)


def describe(options: RunOptions) -> str:
    """What trains, in a few words."""
    return f"{WHAT_TRAINS[options.method]} {options.base}"

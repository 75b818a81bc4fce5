"""Many tasks, one base: trained runs side by side, in one forward pass through what they share.

Each run has an adapter and a head, a few per cent of the base's size. A text passes once through
all that lies below the first adapter; from there on it has a row for each task, and each row goes
through its own task's adapters (`PerRowAdapters`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..data.batches import Batch, Encoded, batches
from ..data.tokenization import Tokenizer
from ..errors import CheckpointError, ConfigError, listed
from ..formats.adapter_file import (
    AdapterFile,
    check_base,
    check_tokenizer,
    fingerprint,
    load_adapter,
    read_adapter,
)
from ..models.heads import Classifier
from ..models.transformer import Transformer
from ..nn.kernels import softmax
from ..nn.module import Array, Module
from ..training.data_parallel import DataParallel, Model
from ..training.evaluation import AT_ONCE, check_finite
from ..training.prefix_cache import frozen_depth
from ..training.process import cores
from .classification import Prediction, Run, check_head_size, check_labels
from .folder import base_of


class SharedRun(Run):
    """A run on a base that it shares with others: its adapter is one of several in the model."""

    def classifier(self) -> Classifier:
        """A replica with this task's adapter active, so that several threads may predict."""
        model = self.model.replica()
        model.transformer.set_active(self.adapter)
        return model.eval()


class Tasks:
    """Trained runs on one base, by name. Made by `load_runs`.

    `tasks[name]` is a run that predicts for its task, `tasks.predict` for all of them. Both work on
    replicas, so that several threads may predict with one object while no task is added or
    removed. Adapters can be combined further in `tasks.transformer`, where they have the names
    that `tasks[name].adapter` tells.
    """

    def __init__(self, transformer: Transformer, tokenizer: Tokenizer) -> None:
        self.transformer, self.tokenizer = transformer.freeze().eval(), tokenizer
        self.fingerprint = fingerprint(transformer)
        self.runs: dict[str, SharedRun] = {}

    def __getitem__(self, name: str) -> SharedRun:
        if name not in self.runs:
            known = listed(self.runs)
            raise ConfigError(f"there is no task {name!r}; loaded: {known}")
        return self.runs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    # -- adding and removing ---------------------------------------------------------------

    def add(self, folder: str | Path, name: str | None = None) -> SharedRun:
        """Load one more run; `name`: what to call it (default: its task).

        Raises: ConfigError if the name is taken; CheckpointError if the folder holds no run, or
        one that cannot share this base. Then nothing has changed.
        """
        return self.add_file(read_adapter(folder), name)

    def add_file(self, file: AdapterFile, name: str | None = None) -> SharedRun:
        """As `add`, for an adapter file that was read already."""
        record, name = file.record, name or file.record.task
        if name in self.runs:
            raise ConfigError(
                f"a task {name!r} is loaded already; choose another name for {file.path}"
            )
        check_base(file, self.fingerprint)
        check_tokenizer(file, self.tokenizer.fingerprint)
        check_shareable(file)
        check_head_size(file, self.transformer.config.d_model)
        adapter = name.translate({ord(c): "_" for c in ".:"}) if record.adapters else None
        model = Classifier(self.transformer, len(record.label_names), record.pooling or "")
        with self.transformer.restored():
            load_adapter(file, model, adapter, base_fingerprint=self.fingerprint)
        model.freeze().eval()
        run = SharedRun(file.path.parent, record, model, self.tokenizer, adapter)
        self.runs[name] = run
        return run

    def remove(self, name: str) -> None:
        """Take a task out, adapter and head. Raises: ConfigError for an unknown name."""
        run = self[name]
        if run.adapter is not None:
            self.transformer.delete_adapter(run.adapter)
        del self.runs[name]

    # -- predictions -----------------------------------------------------------------------

    def predict(self, texts: Sequence[str], threads: int = 0) -> dict[str, list[Prediction]]:
        """For each task a label for each text, in one forward pass through what the tasks share.

        `threads`: how many compute batches side by side; 0 for one for each core.
        Raises: DataError for an empty batch or what is not text; ConfigError without any task.
        """
        if not self.runs:
            raise ConfigError("no task is loaded: add a run first")
        unique, reads = self.encode(texts)
        model = ManyHeads(
            self.transformer,
            {name: run.model for name, run in self.runs.items()},
            {name: run.adapter for name, run in self.runs.items()},
        )
        batch_size = max(1, AT_ONCE // len(self.runs))  # of texts; each has a row for each task
        n_batches = math.ceil(len(unique) / batch_size)
        wanted = {name: np.isin(np.arange(len(unique)), read) for name, read in reads.items()}

        def forward(model: Any, batch: Batch) -> tuple[Array, dict[str, Array], dict[str, Array]]:
            rows = {name: np.flatnonzero(want[batch.index]) for name, want in wanted.items()}
            logits = model.forward(batch.ids, batch.attention_mask, rows)
            p = {name: softmax(of_task) for name, of_task in logits.items()}
            for of_task in p.values():
                check_finite(of_task)
            return batch.index, rows, p

        found = {
            name: np.empty((len(unique), len(run.record.label_names)), self.transformer.dtype)
            for name, run in self.runs.items()
        }
        # DataParallel runs any module; its training step alone needs a single head.
        replica = cast(Model, model.replica().eval())  # nothing changes in the shared model
        with DataParallel(replica, min(threads or cores(), n_batches)) as data_parallel:
            for index, rows, p in data_parallel.map(forward, batches(unique, batch_size)):
                for name in p:
                    found[name][index[rows[name]]] = p[name]
        return {
            name: run.predictions(texts, found[name][reads[name]])
            for name, run in self.runs.items()
        }

    def encode(self, texts: Sequence[str]) -> tuple[Encoded, dict[str, Array]]:
        """The different token sequences, and for each task which of them it reads, text by text.

        Tasks that cut texts at different lengths read different sequences of a long text.
        """
        lengths = {run.record.max_length for run in self.runs.values()}
        encoded = {length: self.tokenizer.encode(texts, length) for length in lengths}
        place: dict[tuple[int, ...], int] = {}
        read = {
            length: np.array([place.setdefault(tuple(ids), len(place)) for ids in sequences])
            for length, sequences in encoded.items()
        }
        unique = [list(ids) for ids in place]
        labels = np.zeros(len(unique), np.int64)
        return (
            Encoded(unique, labels, self.tokenizer.pad_id),
            {name: read[run.record.max_length] for name, run in self.runs.items()},
        )


class ManyHeads(Module):
    """One transformer under the heads of several tasks.

    Shapes: ids (B, T), attention_mask (B, T), and for each task the rows of the batch that it
    reads -> for each task that reads any, logits (rows, n_classes). There is no backward.
    """

    def __init__(
        self,
        transformer: Transformer,
        classifiers: dict[str, Classifier],
        adapters: dict[str, str | None],
    ) -> None:
        self.transformer, self.classifiers, self.adapters = transformer, classifiers, adapters

    def forward(
        self, ids: Array, attention_mask: Array, reads: Mapping[str, Array]
    ) -> dict[str, Array]:
        reads = {task: rows for task, rows in reads.items() if len(rows)}
        every = np.concatenate(list(reads.values()))  # (R,) which row of the batch each row is
        adapters = [self.adapters[task] for task, rows in reads.items() for _ in rows]
        mask = attention_mask[every]
        # Unless all positions are averaged, the last block need not finish the others.
        first_only = all(self.classifiers[task].pooling.first_only for task in reads)
        with self.transformer.use_adapter_per_row(adapters) as transformer:
            shared = frozen_depth(transformer)  # blocks below every task's first adapter
            hidden = transformer.forward_below(
                shared, ids, attention_mask
            )  # (B, T, d), once for all
            h = transformer.forward(
                ids[every], mask, first_only=first_only, start=shared, hidden=hidden[every]
            )  # (R, T or 1, d)
        logits, start = {}, 0
        for task, rows in reads.items():
            own = slice(start, start + len(rows))
            logits[task] = self.classifiers[task].logits(h[own], mask[own])
            start = own.stop
        return logits


def load_runs(
    folders: Sequence[str | Path] | Mapping[str, str | Path], base: str | Path | None = None
) -> Tasks:
    """Several trained runs on one base, each called after its task.

    Where two are of the same task, they are called after their folders; with a mapping you choose
    the names. `base` replaces the recorded name of the base, as in `load_run`.
    Raises: CheckpointError if a folder holds no run, or one that cannot share the base of the
    first: trained on another base, fully fine-tuned, or with layer norms of its own; ConfigError
    without a folder, or for two of one name.
    """
    if not folders:
        raise ConfigError("no runs to load: give at least one folder")
    if isinstance(folders, str | Path):
        raise ConfigError(f"folders={str(folders)!r}: expected a list; load_run reads a single run")
    if isinstance(folders, Mapping):
        files = {name: read_adapter(folder) for name, folder in folders.items()}
    else:
        files = called_by_task([read_adapter(folder) for folder in folders])
    checkpoint = base_of(next(iter(files.values())), base)
    tasks = Tasks(Transformer.from_pretrained(checkpoint), Tokenizer.from_folder(checkpoint))
    for name, file in files.items():
        tasks.add_file(file, name)
    return tasks


def called_by_task(files: Sequence[AdapterFile]) -> dict[str, AdapterFile]:
    """Runs by the name of their task, or of their folder where a task occurs twice.

    Raises: ConfigError if that leaves two with one name.
    """
    count = Counter(file.record.task for file in files)
    names = [
        file.path.parent.name if count[file.record.task] > 1 else file.record.task for file in files
    ]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(
            f"several runs are called {twice[0]!r}; in Python, "
            "load_runs({name: folder, ...}) lets you choose the names"
        )
    return dict(zip(names, files, strict=True))


def check_shareable(file: AdapterFile) -> None:
    """Raises: CheckpointError if the run changes the base, or does not predict labels."""
    if file.record.base_part == "all":
        raise CheckpointError(
            f"{file.path} is fully fine-tuned: it has a base of its own, and cannot share one"
        )
    check_labels(file)
    if file.record.pair or len(file.record.label_names) == 1:
        what = "pairs of texts" if file.record.pair else "a number"
        raise CheckpointError(f"{file.path} is a run on {what}: load it alone, with load_run")
    if file.record.base_part != "none":
        what = file.record.base_part.replace("_", " ")
        raise CheckpointError(
            f"{file.path} holds trained {what} of the base, which would change it for the other "
            "tasks; train what leaves the base as it is: adapter, lora, ia3, prefix or head"
        )

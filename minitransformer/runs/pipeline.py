"""What every training run does, from an empty folder to its metrics.

A kind of run (a classifier, a decoder from scratch, a decoder adapted to a text) is a `Job`: it
says what trains, how to save it, and what to measure.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from ..data.batches import Encoded
from ..errors import CheckpointError
from ..formats.files import json_text, write_text
from ..models.transformer import Transformer
from ..plots import plot_history
from ..training.data_parallel import Model
from ..training.prefix_cache import PrefixCache
from ..training.state import delete_state
from ..training.trainer import Trainer
from .folder import STATE, has_state, peak_memory_mb
from .options import LanguageOptions, PretrainOptions, RunOptions, to_dict

log = logging.getLogger(__name__)


class Job(ABC):
    """What a run trains, saves and measures.

    Attributes:
        options: resolved, with the numbers that the run uses.
        name: of the task or text.
        title: what is done, for the log and the figure.
        model, train, validation: what the Trainer gets.
        best_by: "accuracy" or "loss": what chooses the best epoch.
        prefix: a prefix cache over `train`, or None.
        inputs: name -> digest of what decides the results beside options, `train` and
            `validation`; a run is resumed with the same.
    """

    options: RunOptions | LanguageOptions | PretrainOptions
    name: str
    title: str
    model: Model
    train: Encoded
    validation: Encoded
    best_by = "accuracy"
    prefix: PrefixCache | None = None
    inputs: dict[str, str]

    def begin(self, folder: Path) -> None:  # noqa: B027 (most have nothing to write)
        """Write what a resumed run will need beside options and state; by default nothing."""

    def trainer(self, state_file: Path | None, progress: bool) -> Trainer:
        """What trains it. `state_file`, `progress`: as in `Trainer`."""
        return Trainer(
            self.model,
            self.train,
            self.validation,
            self.options.training,
            state_file=state_file,
            progress=progress,
            threads=self.options.threads,
            prefix=self.prefix,
            best_by=self.best_by,
            inputs={**self.inputs, "the options in options.json": options_digest(self.options)},
        )

    @abstractmethod
    def save(self, folder: Path) -> Path:
        """Write what the model has learnt. Returns the file."""

    @abstractmethod
    def measure(self, finished: bool, folder: Path) -> dict[str, Any]:
        """What is measured of the best epoch, as plain values; more of it goes to the folder."""

    def last_epoch(self, folder: Path, finished: bool) -> dict[str, Any]:
        """The same of the last epoch, before the best one replaces it; by default nothing."""
        return {}


def train_in_folder(
    job: Job, folder: Path, task: str | Path, resume: bool, progress: bool
) -> dict[str, Any]:
    """Train to the end or until Ctrl-C; save, measure, and write it all down.

    The model then has the values of the best epoch, in eval mode. Returns the metrics.
    Raises: CheckpointError if an unfinished run cannot go on, or a file cannot be written;
    TrainingError if the loss is not finite; KeyboardInterrupt on a second Ctrl-C. Wherever it ends,
    the folder can be resumed.
    """
    state_file = folder / STATE
    trainer = job.trainer(state_file, progress)
    if resume and has_state(folder):
        trainer.load_state()
    else:
        write_json(folder / "options.json", {"task": str(task), **to_dict(job.options)})
        job.begin(folder)
    log.info("%s; the run goes to %s", job.title, folder)
    try:
        trainer.fit()
        metrics = write_results(job, trainer, folder)
    except (KeyboardInterrupt, CheckpointError, OSError, MemoryError):
        log.warning(
            "stopped. The run goes on from its last state with --resume --out %s "
            "(in Python: resume=True and out)",
            folder,
        )
        raise
    if metrics["finished"]:
        delete_state(state_file)
    job.model.eval()
    return metrics


def write_results(job: Job, trainer: Trainer, folder: Path) -> dict[str, Any]:
    """Save what was learnt, measure it, draw it. Returns the metrics."""
    finished = not trainer.interrupted
    of_last = job.last_epoch(folder, finished)
    trainer.restore_best()
    file = job.save(folder)
    write_text(folder / "history.csv", trainer.history.to_csv())
    summary, best = job.model.summary(), trainer.history.best(trainer.best_by)
    metrics = {
        "task": job.name,
        **to_dict(job.options),
        "finished": finished,
        "steps": trainer.step,
        "best_epoch": best.epoch if best else None,
        "validation_accuracy": best.validation_accuracy if best else None,
        "validation_macro_f1": best.validation_macro_f1 if best else None,
        "validation_loss": best.validation_loss if best else None,
        "parameters": summary.total,
        "trainable_parameters": summary.trainable,
        "file_bytes": file.stat().st_size,
        "training_seconds": trainer.seconds,
        "peak_memory_mb": peak_memory_mb(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        **job.measure(finished, folder),
        **of_last,
    }
    write_json(folder / "metrics.json", metrics)
    plot_history(trainer.history, job.title, folder / "curves.png", trainer.best_by)
    return metrics


def digest(*texts: str) -> str:
    """SHA-256 of texts."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def options_digest(options: RunOptions | LanguageOptions | PretrainOptions) -> str:
    """Of what has no other check: neither the trainer's, nor a digest of what it names."""
    others = ("training", "threads", "base", "data", "limit")
    return digest(json.dumps({k: v for k, v in to_dict(options).items() if k not in others}))


def base_digests(transformer: Transformer, weights: str, checkpoint: Path) -> dict[str, str]:
    """Digests of what decides a base's answers; `weights`: its fingerprint before training."""
    files = (checkpoint / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    return {
        "the base's weights or configuration": digest(weights, repr(transformer.config)),
        **{
            f"the base's {file.name}": hashlib.sha256(file.read_bytes()).hexdigest()
            for file in files
            if file.is_file()
        },
    }


def write_json(path: Path, values: dict[str, Any]) -> None:
    """A readable JSON file, complete or not at all."""
    write_text(path, json_text(values, indent=2) + "\n")

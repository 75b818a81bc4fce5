"""One run of a study, from what it says to its row."""

from __future__ import annotations

import logging
import os
import platform
import socket
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ..data.datasets import load_task
from ..errors import CheckpointError
from ..formats.files import delete_leftovers
from ..runs.classification import Classification
from ..runs.options import to_dict
from ..training.evaluation import evaluate
from ..training.process import single_threaded_products
from ..training.state import delete_state, previous
from .study import RunSpec
from .table import ROWS, STATES, Row, claimed, read_row, row_file, write_row

log = logging.getLogger(__name__)


def run_to_row(spec: RunSpec, threads: int = 1, state_file: Path | None = None) -> Row:
    """Train and test; whatever goes wrong stands in the row. Ctrl-C alone gets through.

    With `state_file`, a run that was stopped goes on from there, bit for bit. Keeps to `threads`
    cores: matrix products are single-threaded, and so many shards of a batch are computed side by
    side.
    """
    started, begun = time.perf_counter(), datetime.now(timezone.utc)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it would take every core
    try:
        with single_threaded_products:
            results = train_and_test(spec, threads, state_file)
    except Exception as error:
        results = {"error": f"{type(error).__name__}: {error}"}
    return Row(
        spec.key,
        spec.task.name,
        dict(spec.values),
        **results,
        seconds=round(time.perf_counter() - started, 2),
        host=socket.gethostname(),
        pid=os.getpid(),
        started=begun.isoformat(timespec="seconds"),
        threads=threads,
        versions=versions(),
    )


def train_and_test(spec: RunSpec, threads: int, state_file: Path | None) -> dict[str, Any]:
    """The columns of a row that tell how it went. Raises: KeyboardInterrupt on Ctrl-C."""
    source = spec.task
    task = load_task(
        source.path or source.name,
        limit=source.limit,
        validation_limit=source.validation_limit,
        test_limit=source.test_limit,
    )
    job = Classification(task, replace(spec.options, limit=source.limit, threads=threads))
    trainer = job.trainer(state_file, progress=False)
    if state_file is not None and (state_file.exists() or previous(state_file).exists()):
        try:
            trainer.load_state()
        except CheckpointError as error:  # from another number of threads, or damaged
            log.info("%s begins anew: %s", spec.key, error)
    trainer.fit()
    if trainer.interrupted:
        raise KeyboardInterrupt
    trainer.restore_best()
    tested = evaluate(job.model, job.test, threads=threads)
    best, summary = trainer.history.best(job.best_by), job.model.summary()
    assert best is not None  # there was at least one epoch
    measured = [row.validation_accuracy for row in trainer.history.evaluations()]
    return {
        "options": to_dict(job.options),
        "validation_accuracy": best.validation_accuracy,
        "validation_loss": best.validation_loss,
        "best_epoch": best.epoch,
        "epochs": tuple(measured),
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "test_examples": len(job.test),
        "train_examples": len(job.train),
        "trained": summary.trainable,
        "parameters": summary.total,
        "training_seconds": round(trainer.seconds, 2),
    }


def run_into(folder: Path, spec: RunSpec, threads: int = 1) -> Row:
    """The row of a run: the one on disk, or else a new one, which is then on disk.

    Until then the run's state is, so that one that was stopped goes on where it was.
    """
    with claimed(folder, spec.key):
        if row_file(folder, spec.key).is_file():
            return read_row(row_file(folder, spec.key))
        state_file = folder / STATES / f"{spec.key}.safetensors"
        state_file.parent.mkdir(exist_ok=True)
        row = run_to_row(spec, threads, state_file)
        write_row(folder, row)
        delete_state(state_file)
        delete_leftovers(state_file.parent, state_file.name)
        delete_leftovers(folder / ROWS, row_file(folder, spec.key).name)
        return row


def versions() -> dict[str, str]:
    """Of what a result may depend on."""
    from .. import __version__

    return {
        "minitransformer": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }

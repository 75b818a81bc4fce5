"""The rows of a sweep on disk: one small file for each run that has ended.

A row is written at once and complete when its run ends, by whichever process ran it. So a sweep
that is stopped anywhere, or killed, loses nothing that has ended, and goes on with the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..adapters.config import is_number
from ..errors import CheckpointError, ConfigError
from ..formats.files import write_text
from ..formats.kinds import check_kinds

ROWS, LOCKS, STATES = "rows", "locks", "states"  # folders below that of the sweep


@dataclass(frozen=True)
class Row:
    """What one run came to.

    Attributes:
        key: names the run.
        task, values: what was run, as the study says it.
        options: the same, resolved, with all defaults.
        error: what went wrong; None for a run that reached its end, and then all below is known.
        validation_accuracy, validation_loss: of the best epoch, which is the one that is tested.
        test_accuracy, test_loss, test_examples, train_examples.
        trained, parameters: how many parameters train (the head's too), and how many there are.
        training_seconds: spent in training steps, while the machine had other runs to do.
        seconds: from beginning to end, with reading and evaluation.
        epochs: the validation accuracy before training and after each epoch.
        host, pid, started, threads: where and when it ran.
        versions: of python, numpy and this library.
    """

    key: str
    task: str
    values: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    validation_accuracy: float | None = None
    validation_loss: float | None = None
    test_accuracy: float | None = None
    test_loss: float | None = None
    test_examples: int | None = None
    train_examples: int | None = None
    trained: int | None = None
    parameters: int | None = None
    training_seconds: float | None = None
    seconds: float | None = None
    best_epoch: int | None = None
    epochs: tuple[float, ...] = ()
    host: str = ""
    pid: int = 0
    started: str = ""
    threads: int = 1
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether it reached its end; otherwise `error` says what went wrong."""
        return self.error is None


def row_file(folder: Path, key: str) -> Path:
    """Where the row of that key is, if it is there."""
    return folder / ROWS / f"{key}.json"


def write_row(folder: Path, row: Row) -> None:
    """Put a row on disk, complete or not at all."""
    (folder / ROWS).mkdir(parents=True, exist_ok=True)
    write_text(row_file(folder, row.key), json.dumps(asdict(row), indent=1) + "\n")


def read_row(path: Path) -> Row:
    """Raises: CheckpointError for a file that holds no row."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Row)}
        values = {name: value for name, value in values.items() if name in known}
        check_kinds(Row, values)
        row = Row(**{**values, "epochs": tuple(values["epochs"])})
        if row.key != path.stem:
            raise ConfigError(f"its key is {row.key!r}")
        if row.finished:
            check_finished(row)
        return row
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} holds no row of a sweep ({error}); delete it to have its run done again"
        ) from error


def check_finished(row: Row) -> None:
    """Raises: ConfigError or KeyError unless a run that reached its end has its results."""
    for name in ("validation_accuracy", "test_accuracy"):
        accuracy = getattr(row, name)
        if accuracy is None or not 0 <= accuracy <= 1:
            raise ConfigError(f"{name}={accuracy}: expected 0 to 1")
    if not is_number(row.options["training"]["lr"]) or (row.test_examples or 0) < 0:
        raise ConfigError(f"options={row.options}, test_examples={row.test_examples}")


def read_rows(folder: Path) -> dict[str, Row]:
    """All rows of a sweep, by their keys. Raises: CheckpointError for a damaged one."""
    paths = sorted((folder / ROWS).glob("*.json"))
    return {path.stem: read_row(path) for path in paths}


@contextmanager
def claimed(folder: Path, key: str) -> Iterator[None]:
    """Hold the run of this key, so that no other process on this machine does it meanwhile.

    Whoever comes second waits, and then looks whether there is a row: a sweep may be started again
    while a worker of the killed one still runs, or twice by mistake. The lock ends with the
    process, however that ends.
    """
    from filelock import FileLock

    (folder / LOCKS).mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCKS / key):
        yield

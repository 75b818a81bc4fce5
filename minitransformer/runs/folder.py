"""The folder of a run: what is in it, where a new one goes, and how an old one is read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CheckpointError, ConfigError
from ..formats.adapter_file import (
    METHODS,
)
from ..training.history import History
from .options import PretrainOptions, RunOptions

Options = TypeVar("Options", RunOptions, PretrainOptions)


class RunFolder:
    """What every trained run has on disk."""

    folder: Path

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured, from `metrics.json`."""
        return read_json(self.folder / "metrics.json")

    @property
    def history(self) -> History:
        """The training history, from `history.csv`."""
        return History.from_csv(read_text(self.folder / "history.csv"))


def adapter_path(folder: Path) -> Path:
    """The adapter file of a run folder. Raises: CheckpointError if there is none."""
    if folder.is_file():
        return folder
    for method in METHODS:
        if (folder / f"{method}.safetensors").is_file():
            return folder / f"{method}.safetensors"
    names = " or ".join(f"{method}.safetensors" for method in METHODS)
    raise CheckpointError(f"{folder} is not a run: no {names} there; train one first")


def folder_and_options(
    task: str | Path,
    options: Options | None,
    kind: type[Options],
    out: str | Path | None,
    resume: bool,
) -> tuple[Path, Options]:
    """Where a run goes, and its options: of a new one, or of an interrupted one."""
    if not resume:
        options = options if options is not None else kind()
        return new_folder(task, options, out), options
    if out is None:
        raise ConfigError("resume needs the folder of the run to go on with (out)")
    folder = Path(out).expanduser()
    return folder, resumed(folder, task, options, kind)


def new_folder(
    task: str | Path, options: RunOptions | PretrainOptions, out: str | Path | None
) -> Path:
    """Where a new run goes; never where one lies already."""
    if out is not None:
        folder = Path(out).expanduser()
        files = ("options.json", *(f"{method}.safetensors" for method in METHODS))
        if any((folder / name).exists() for name in files):
            raise ConfigError(f"{folder} holds a run already; choose another folder, or resume it")
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file; expected a folder to put the run in")
        return folder
    stem = f"{Path(task).stem}-{options.method}-seed{options.training.seed}"
    folder, number = Path("runs") / stem, 2
    while folder.exists():
        folder, number = Path("runs") / f"{stem}-{number}", number + 1
    return folder


def resumed(
    folder: Path, task: str | Path, options: Options | None, kind: type[Options]
) -> Options:
    """The options of an interrupted run on this task.

    Raises: ConfigError if there is nothing to go on with, or other options are asked for.
    """
    if not (folder / "options.json").is_file():
        raise ConfigError(f"{folder} holds no run to resume")
    if not (folder / "state.safetensors").is_file():
        raise ConfigError(f"{folder} holds a run that is finished: nothing to resume")
    values = read_json(folder / "options.json")
    try:
        kept_task = values.pop("task")
        kept = kind.from_dict(values)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / 'options.json'} is damaged: {error}") from error
    if str(task) != kept_task:
        raise ConfigError(f"{folder} holds a run on {kept_task!r}, not on {str(task)!r}")
    if options is not None and options != kept:
        raise ConfigError(
            f"{folder} was started with other options; resume without any: they are kept there"
        )
    return kept


def peak_memory_mb() -> float | None:
    """The most memory this process has used, MB; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kB elsewhere


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def read_json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(read_text(path))
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    return values

"""The folder of a run: what is in it, where a new one goes, and how an old one is read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ..adapters.config import METHODS
from ..data.hub import find_checkpoint
from ..errors import CheckpointError, ConfigError
from ..formats.adapter_file import AdapterFile
from ..training.history import History
from ..training.trainer import TrainingOptions
from .options import LanguageOptions, Options, PretrainOptions, RunOptions, from_dict


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


def base_of(file: AdapterFile, base: str | Path | None) -> Path:
    """The checkpoint folder of the base that an adapter file needs; `base` replaces its name.

    Raises: ConfigError if neither names a base; HubError if there is no such checkpoint.
    """
    if base is None and not file.record.base:
        raise ConfigError(f"{file.path} does not say where its base is: give it as base")
    return find_checkpoint(base if base is not None else file.record.base)


def folder_and_options(
    task: str | Path,
    options: Options | None,
    kind: type[Options],
    out: str | Path | None,
    resume: bool,
) -> tuple[Path, Options]:
    """Where a run goes, and its options: of a new one, or of an interrupted one.

    Raises: ConfigError for options of another kind, or a folder that does not fit.
    """
    if options is not None and not isinstance(options, kind):
        hint = ""
        if isinstance(options, TrainingOptions):
            hint = f", as {kind.__name__}(training=TrainingOptions(...))"
        raise ConfigError(f"options={options!r}: expected {kind.__name__}{hint}")
    if not resume:
        options = options if options is not None else kind()
        return new_folder(task, options, out), options
    if out is None:
        raise ConfigError("resume needs the folder of the run to go on with (out)")
    folder = Path(out).expanduser()
    if options is not None:
        raise ConfigError(f"resume takes no options: those of the run are in {folder}")
    return folder, resumed(folder, task, kind)


def new_folder(
    task: str | Path,
    options: RunOptions | LanguageOptions | PretrainOptions,
    out: str | Path | None,
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


def resumed(folder: Path, task: str | Path, kind: type[Options]) -> Options:
    """The options of an interrupted run on this task.

    Raises: ConfigError if there is nothing to go on with; CheckpointError if a file is damaged.
    """
    path = folder / "options.json"
    if not path.is_file():
        raise ConfigError(f"{folder} holds no run to resume")
    if not (folder / "state.safetensors").is_file():
        raise ConfigError(f"{folder} holds a run that is finished: nothing to resume")
    values = read_json(path)
    try:
        its_task = values.pop("task")
        options = from_dict(kind, values)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{path} is not of such a run, or damaged: {error}") from error
    if str(task) != its_task:
        raise ConfigError(f"{folder} holds a run on {its_task!r}, not on {str(task)!r}")
    return options


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


def peak_memory_mb() -> float | None:
    """The most memory this process has used, MB; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kB elsewhere

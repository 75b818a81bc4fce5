"""The folder of a run: what is in it, where a new one goes, and how an old one is read."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.datafiles import stem_of
from ..data.hub import find_checkpoint
from ..errors import CheckpointError, ConfigError
from ..formats.adapter_file import AdapterFile
from ..formats.files import delete_leftovers
from ..training.history import History
from ..training.state import previous
from ..training.trainer import TrainingOptions
from .options import LanguageOptions, Options, PretrainOptions, RunOptions, from_dict

if TYPE_CHECKING:
    from filelock import BaseFileLock

STATE = "state.safetensors"  # of an unfinished run
LOCK = "run.lock"  # while a run is going on, or unfinished
BEGUN = r"\.options\.json\.\d+\.tmp"  # a run that was killed at its first file


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


@contextmanager
def open_run(
    task: str | Path,
    options: Options | None,
    kind: type[Options],
    out: str | Path | None,
    resume: bool,
) -> Iterator[tuple[Path, Options]]:
    """Where a run goes, and its options: of a new one, or of an unfinished one.

    While inside, no other process can open the same folder, which is a new or an empty one unless
    the run is resumed. If the run fails before it has written anything, nothing is left.
    Raises: ConfigError for options of another kind, or a folder that does not fit.
    """
    if options is not None and not isinstance(options, kind):
        hint = ""
        if isinstance(options, TrainingOptions):
            hint = f", as {kind.__name__}(training=TrainingOptions(...))"
        raise ConfigError(f"options={options!r}: expected {kind.__name__}{hint}")
    there = out is not None and Path(out).expanduser().is_dir()
    if resume:
        if out is None:
            raise ConfigError("resume needs the folder of the run to go on with (out)")
        folder = Path(out).expanduser()
        if options is not None:
            raise ConfigError(f"resume takes no options: those of the run are in {folder}")
        resumed(folder, task, kind)
        lock = locked(folder)
        if lock is None:
            raise ConfigError(why_taken(folder))
    else:
        options = options if options is not None else kind()
        folder, lock = claim(task, options, out)
    try:
        yield folder, options if options is not None else resumed(folder, task, kind)
    finally:
        leave(folder, lock)
        if not there and not contents(folder):
            with suppress(OSError):
                folder.rmdir()
                if out is None:
                    folder.parent.rmdir()


def claim(
    task: str | Path,
    options: RunOptions | LanguageOptions | PretrainOptions,
    out: str | Path | None,
) -> tuple[Path, BaseFileLock]:
    """The folder of a new run, locked: `out`, or the first of runs/NAME, NAME-2, ... that is free.

    Raises: ConfigError if `out` is not a new or an empty folder.
    """
    if out is None:
        named = (
            (folder, lock_if_free(folder)) for folder in default_folders(stem_of(task), options)
        )
        return next((folder, lock) for folder, lock in named if lock is not None)
    folder = Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; expected a folder to put the run in")
    lock = lock_if_free(folder)
    if lock is None:
        raise ConfigError(why_taken(folder))
    return folder, lock


def default_folders(
    stem: str, options: RunOptions | LanguageOptions | PretrainOptions
) -> Iterator[Path]:
    """runs/STEM-METHOD-seedN, then the same with -2, -3, ..."""
    name = f"{stem}-{options.method}-seed{options.training.seed}"
    yield Path("runs") / name
    yield from (Path("runs") / f"{name}-{number}" for number in count(2))


# -- one process at a time -----------------------------------------------------------------


def lock_if_free(folder: Path) -> BaseFileLock | None:
    """The lock on a new or empty folder; None if something is in there, or somebody has it."""
    if contents(folder):
        return None
    lock = locked(folder)
    if lock is not None and contents(folder):  # another run came, and ended, in between
        lock.release()
        return None
    return lock


def locked(folder: Path) -> BaseFileLock | None:
    """Make the folder if need be and lock it; None if another process has it.

    The lock ends with the process, however that ends. Raises: CheckpointError if the folder cannot
    be made.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(blocking=False)
    except Timeout:
        return None
    except OSError as error:
        raise CheckpointError(f"cannot write into {folder}: {error.strerror}") from error
    delete_leftovers(folder)
    return lock


def leave(folder: Path, lock: BaseFileLock) -> None:
    """Unlock the folder. The lock file remains as long as the run can be resumed."""
    if not unfinished(folder):
        with suppress(OSError):  # Windows removes it itself, when it is released
            (folder / LOCK).unlink(missing_ok=True)
    lock.release()


def contents(folder: Path) -> list[str]:
    """The names in a folder, but for what a run writes before its first file."""
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted(n for n in names if n != LOCK and not re.fullmatch(BEGUN, n))


def why_taken(folder: Path) -> str:
    """Why no run can begin in a folder, and what to do, for an error."""
    from filelock import FileLock, Timeout

    if (folder / LOCK).is_file():
        try:
            FileLock(folder / LOCK).acquire(blocking=False).lock.release()
        except Timeout:
            return f"a run is going on in {folder}: wait until it ends, or choose another folder"
    if unfinished(folder):
        return f"{folder} holds an unfinished run: choose another folder, or resume it"
    if (folder / "options.json").is_file():
        return f"{folder} holds a run already; choose another folder"
    names = contents(folder)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (
        f"{folder} holds files that are no run's ({', '.join(names[:5])}{more}), and nothing is "
        "overwritten: choose a new folder, or an empty one"
    )


# -- going on ------------------------------------------------------------------------------


def unfinished(folder: Path) -> bool:
    """Whether a run was stopped here before its end."""
    begun = (folder / "options.json").is_file() and not (folder / "metrics.json").is_file()
    return begun or has_state(folder)


def has_state(folder: Path) -> bool:
    """Whether there is a state to go on from; a run that was stopped very early has none."""
    state = folder / STATE
    return state.is_file() or previous(state).is_file()


def resumed(folder: Path, task: str | Path, kind: type[Options]) -> Options:
    """The options of an unfinished run on this task.

    Raises: ConfigError if there is nothing to go on with; CheckpointError if a file is damaged.
    """
    path = folder / "options.json"
    if not path.is_file():
        raise ConfigError(f"{folder} holds no run to resume")
    if not unfinished(folder):
        raise ConfigError(f"{folder} holds a run that is finished: nothing to resume")
    its_task, options = read_options(path, kind)
    if str(task) != its_task:
        raise ConfigError(f"{folder} holds a run on {its_task!r}, not on {str(task)!r}")
    return options


def read_options(path: Path, kind: type[Options]) -> tuple[str, Options]:
    """The task of a run, as it was typed, and its options, from `options.json`.

    Raises: CheckpointError if the file is damaged, or of another kind of run.
    """
    values = read_json(path)
    try:
        task = values.pop("task")
        return str(task), from_dict(kind, values)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{path} is not of such a run, or damaged: {error}") from error


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is damaged: expected a JSON object")
    return values


def peak_memory_mb() -> float | None:
    """The most memory this process has used, MB; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kB elsewhere

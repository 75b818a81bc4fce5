"""What folders of adapters in other libraries' formats have in common."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError
from ..nn.module import Array
from .files import write_text

Words = dict[str, Any]  # what a JSON file holds


@dataclass(frozen=True)
class LinearHead:
    """A linear classifier on one vector: of the first position, or what BERT's pooler makes of it.

    Attributes:
        label_names: one for each class, in order.
        pooling: "cls" or "pooler".
        weight, bias: (d_model, n_classes) and (n_classes,).
    """

    label_names: tuple[str, ...]
    pooling: str
    weight: Array
    bias: Array


def read_words(path: Path) -> Words:
    """A JSON object. Raises: CheckpointError if it cannot be read."""
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(words, dict):
        raise CheckpointError(f"{path} is damaged: expected a JSON object")
    return words


def refuse_foreign(path: Path) -> None:
    """Raises: CheckpointError for a folder that PEFT or the `adapters` library wrote."""
    config = path / "adapter_config.json"
    if config.is_file():
        library, name = "adapters", "adapterhub"
        if "peft_type" in read_words(config):
            library = name = "peft"
        raise CheckpointError(
            f"{path} is a folder of the library {library!r}: import_{name}(folder, base, out) "
            f"makes a run of it (minitransformer import), and load_{name}(transformer, folder) of "
            f"minitransformer.formats.{name} inserts it into a model"
        )


def write_words(path: Path, words: Words) -> None:
    write_text(path, json.dumps(words, indent=2, sort_keys=True) + "\n")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name `folder` at the end; if anything fails it is gone.

    A process that is killed may leave `.FOLDER.PID.tmp` behind.
    Raises: ConfigError if `folder` exists; CheckpointError if it cannot be written.
    """
    if folder.exists():
        raise ConfigError(f"{folder} exists already; choose another folder")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")  # another may write it, too
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process with the same number
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(folder)
    except OSError as error:
        raise CheckpointError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def summed_up(problems: list[str], limit: int = 20) -> str:
    """The lines of an error: the first of all problems, sorted."""
    rest = [f"and {len(problems) - limit:,} more"] if len(problems) > limit else []
    return "\n  ".join([*sorted(problems)[:limit], *rest])

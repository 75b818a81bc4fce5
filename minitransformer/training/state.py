"""The state of an unfinished training run, as a file: to go on later, bit for bit."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.batches import Encoded
from ..errors import CheckpointError
from ..formats.files import DIGEST, read_safetensors, write_tensors
from ..nn.module import Array
from .history import History

PARTS = ("values", "best", "optimizer")  # fields that hold arrays, and how their names begin

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingState:
    """What a run needs to go on.

    No random generators: batches follow from seed and epoch, dropout masks from seed, step and
    example.

    Attributes:
        run: what must be the same in the run that goes on: options, threads.
        inputs: what else must be, as digests: name, as an error calls it -> SHA-256.
        step, seconds, history: as in `Trainer`.
        values, best: name -> array of what trains, now and in the best epoch so far.
        optimizer: its `state_dict`.
    """

    run: dict[str, Any]
    inputs: dict[str, str]
    step: int
    seconds: float
    history: History
    values: dict[str, Array]
    best: dict[str, Array]
    optimizer: dict[str, Array]

    def write(self, path: Path) -> None:
        """One safetensors file; the one that was there is kept as `previous(path)`.

        At every instant a complete one is on the disk. Raises: CheckpointError as `write_bytes`.
        """
        tensors = {
            f"{part}/{name}": array for part in PARTS for name, array in getattr(self, part).items()
        }
        record = {name: value for name, value in vars(self).items() if name not in PARTS}
        record["history"] = self.history.to_csv()
        if path.is_file():
            os.replace(path, previous(path))
        write_tensors(path, tensors, {"state": json.dumps(record)})

    @classmethod
    def read(cls, path: Path) -> TrainingState:
        """The inverse of `write`. Raises: CheckpointError for a damaged file, or another kind."""
        parts: dict[str, dict[str, Array]] = {part: {} for part in PARTS}
        tensors, metadata = read_safetensors(path)
        if DIGEST not in metadata:
            raise CheckpointError(
                f"{path} is not the state of a training run: it carries no SHA-256 of itself. If "
                "an older version wrote it, start the run again in another folder"
            )
        for key, array in tensors.items():
            part, _, name = key.partition("/")
            if part in parts:
                parts[part][name] = array
        try:
            record = json.loads(metadata["state"])
            run, inputs = dict(record["run"]), dict(record["inputs"])
            step, seconds = int(record["step"]), float(record["seconds"])
            history = History.from_csv(record["history"])
        except (
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise CheckpointError(f"{path} is not the state of a training run") from error
        return cls(run, inputs, step, seconds, history, *parts.values())

    @classmethod
    def read_last(cls, path: Path) -> TrainingState:
        """The state at `path`; if that is missing or damaged the one before, which takes its place.

        Raises: CheckpointError if neither is whole.
        """
        try:
            return cls.read(path)
        except CheckpointError as error:
            if not previous(path).is_file():
                raise
            if path.exists():
                log.warning("%s; going on from the state before that", error)
            state = cls.read(previous(path))
            try:
                os.replace(previous(path), path)
            except OSError as blocked:
                raise CheckpointError(f"cannot write {path}: {blocked.strerror}") from blocked
            return state

    def check(
        self,
        path: Path,
        run: Mapping[str, Any],
        inputs: Mapping[str, str],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        """Raises: CheckpointError unless this is the state of such a run, from the same inputs."""
        for key, value in run.items():
            if self.run.get(key) != value:
                raise CheckpointError(
                    f"{path} is from another run: {key} {self.run.get(key)}, not {value}"
                )
        if {name: array.shape for name, array in self.values.items()} != shapes:
            raise CheckpointError(f"{path} is from another run: it trains other parameters")
        changed = [name for name in {**inputs, **self.inputs} if not self._same(name, inputs)]
        if changed:
            raise CheckpointError(
                f"the run of {path} cannot go on, because these are not what it was started with: "
                f"{', '.join(changed)}. Put them back as they were, or start a new run in another "
                "folder"
            )

    def _same(self, name: str, inputs: Mapping[str, str]) -> bool:
        return self.inputs.get(name) == inputs.get(name)


def previous(path: Path) -> Path:
    """Where the state before that at `path` is."""
    return path.with_name(f"{path.stem}-previous{path.suffix}")


def delete_state(path: Path) -> None:
    """Delete the states of a run that has ended, the older one first."""
    previous(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def digest_of(encoded: Encoded) -> str:
    """SHA-256 of a split: its texts, as token ids and types, and its labels."""
    kind = "<f8" if encoded.labels.dtype.kind == "f" else "<i8"  # numbers, or classes
    digest = hashlib.sha256(np.ascontiguousarray(encoded.labels, kind).tobytes())
    for sequence in (*encoded.sequences, *(encoded.token_types or ())):
        digest.update(np.array([len(sequence), *sequence], "<i8").tobytes())
    return digest.hexdigest()

"""The state of an unfinished training run, as a file: to go on later, bit for bit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..formats.files import read_safetensors, write_tensors
from ..nn.module import Array
from .history import History

PARTS = ("values", "best", "optimizer")  # fields that hold arrays, and how their names begin


@dataclass(frozen=True)
class TrainingState:
    """What a run needs to go on.

    No random generators: batches follow from seed and epoch, dropout masks from seed, step and
    example.

    Attributes:
        run: what must be the same in the run that goes on: options, examples, threads.
        step, seconds, history: as in `Trainer`.
        values, best: name -> array of what trains, now and in the best epoch so far.
        optimizer: its `state_dict`.
    """

    run: dict[str, Any]
    step: int
    seconds: float
    history: History
    values: dict[str, Array]
    best: dict[str, Array]
    optimizer: dict[str, Array]

    def write(self, path: Path) -> None:
        """One safetensors file, complete or not at all."""
        tensors = {
            f"{part}/{name}": array for part in PARTS for name, array in getattr(self, part).items()
        }
        history = self.history.to_csv()
        record = {"run": self.run, "step": self.step, "seconds": self.seconds, "history": history}
        write_tensors(path, tensors, {"state": json.dumps(record)})

    @classmethod
    def read(cls, path: Path) -> TrainingState:
        """The inverse of `write`. Raises: CheckpointError for a damaged file, or another kind."""
        parts: dict[str, dict[str, Array]] = {part: {} for part in PARTS}
        tensors, metadata = read_safetensors(path)
        for key, array in tensors.items():
            part, _, name = key.partition("/")
            if part in parts:
                parts[part][name] = array
        try:
            record = json.loads(metadata["state"])
            run, step, seconds = record["run"], record["step"], record["seconds"]
            history = History.from_csv(record["history"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is not the state of a training run") from error
        return cls(run, step, seconds, history, *parts.values())

    def check(self, path: Path, run: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
        """Raises: CheckpointError unless this is the state of a run on parameters of `shapes`."""
        for key, value in run.items():
            if self.run.get(key) != value:
                raise CheckpointError(
                    f"{path} is from another run: {key} {self.run.get(key)}, not {value}"
                )
        if {name: array.shape for name, array in self.values.items()} != shapes:
            raise CheckpointError(f"{path} is from another run: it trains other parameters")

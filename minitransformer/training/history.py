"""The record of a training run, one row a step, as a list and as a CSV file."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import CheckpointError, ConfigError

BEST_BY = ("accuracy", "macro-f1", "loss")  # what may choose the best epoch


@dataclass(frozen=True)
class HistoryRow:
    """One training step (step 0: before training). Evaluation columns are filled once an epoch.

    `loss` and `accuracy` are those of the step's batch, `grad_norm` is before clipping,
    `seconds` is the time in training steps so far (without evaluations).
    """

    step: int
    epoch: int
    loss: float | None = None
    accuracy: float | None = None
    lr: float | None = None
    grad_norm: float | None = None
    seconds: float = 0.0
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    validation_macro_f1: float | None = None
    validation_examples: float | None = None


class History(list[HistoryRow]):
    """The rows of a training run, in order; `to_csv` and `from_csv` lose no digit."""

    def to_csv(self) -> str:
        text = io.StringIO()
        names = [field.name for field in fields(HistoryRow)]
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        for row in self:
            values = asdict(row)
            writer.writerow({k: "" if v is None else repr(v) for k, v in values.items()})
        return text.getvalue()

    @classmethod
    def from_csv(cls, text: str) -> History:
        """The inverse of `to_csv`. Raises: CheckpointError for anything else."""
        try:
            return cls(_row(line) for line in csv.DictReader(io.StringIO(text)))
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise CheckpointError(f"this is not a training history: {error}") from error

    def best(self, by: str = "accuracy") -> HistoryRow | None:
        """The evaluation after training began that was the best; None before the first.

        `by` says in what: the highest "accuracy" or "macro-f1", or the lowest "loss". An accuracy
        that is within one standard error of the highest, sqrt(p (1 - p) / n) on n examples, is as
        good: of those epochs it is the latest, whose learning rate was the lowest. (Breiman et al.
        1984, Classification and Regression Trees, section 3.4.3, which takes the simplest.)
        Raises: ConfigError for another `by`.
        """
        if by not in BEST_BY:
            raise ConfigError(f"by={by!r}: expected one of {', '.join(BEST_BY)}")
        trained = [row for row in self.evaluations() if row.step]
        if by == "loss":
            return min(reversed(trained), key=lambda row: row.validation_loss or 0.0, default=None)
        if by == "macro-f1":
            return max(
                reversed(trained), key=lambda row: row.validation_macro_f1 or 0.0, default=None
            )
        accuracies = [row.validation_accuracy or 0.0 for row in trained]
        if not trained:
            return None
        highest = max(accuracies)
        n = trained[-1].validation_examples
        error = math.sqrt(highest * (1 - highest) / n) if n else 0.0
        as_good = zip(trained, accuracies, strict=True)
        return [row for row, accuracy in as_good if accuracy >= highest - error][-1]

    def evaluations(self) -> list[HistoryRow]:
        """The rows that hold an evaluation: before training, and after each epoch."""
        measured = ("validation_loss", "validation_accuracy")
        return [row for row in self if any(getattr(row, name) is not None for name in measured)]


def _row(line: dict[str, str]) -> HistoryRow:
    values: dict[str, Any] = {k: None if v == "" else float(v) for k, v in line.items()}
    row = HistoryRow(**{**values, "step": int(line["step"]), "epoch": int(line["epoch"])})
    if not 0 <= (row.validation_accuracy or 0) <= 1 or not (row.validation_examples or 0) >= 0:
        raise ValueError(f"validation_accuracy={row.validation_accuracy}: expected 0 to 1")
    return row

"""The loop: batches, history, evaluation, the best and the last state, interruption, resume."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.batches import Batch, Encoded, batches
from ..errors import CheckpointError, ConfigError, TrainingError
from ..formats.files import read_tensors, tensor_metadata, write_tensors
from ..nn.functional import IGNORE
from ..nn.layers import Dropout
from ..nn.module import Array
from .data_parallel import DataParallel, Model
from .evaluation import loss_and_accuracy
from .history import History, HistoryRow
from .optim import AdamW, clip_by_global_norm, warmup_linear_decay
from .prefix_cache import PrefixCache


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. Checks itself; raises ConfigError.

    Attributes:
        epochs, batch_size, seed.
        lr: peak learning rate; warm-up over the first `warmup` share of the steps, then decay
            in a line to 0. None: 1e-3, or in a run what its method usually takes.
        weight_decay: of matrices only.
        max_grad_norm: gradients are scaled down to this global norm.
        label_smoothing: see `functional.cross_entropy`.
    """

    epochs: int = 3
    batch_size: int = 32
    lr: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r}: expected a whole number above 0"
                )
        for name in ("lr", "max_grad_norm"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected a positive number")
        for name in ("warmup", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected 0 <= {name} < 1")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(f"weight_decay={self.weight_decay!r}: expected 0 or more")
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed}: expected 0 or more")


# -- interruption -------------------------------------------------------------------------


class Interrupt:
    """Whether Ctrl-C was pressed."""

    pressed = False


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Turn the first Ctrl-C into a flag, so that a step is never cut in two; the second one acts.

    Outside the main thread, where Python hears no signals, nothing is changed.
    """
    interrupt = Interrupt()

    def on_signal(number: int, frame: Any) -> None:
        if interrupt.pressed:
            raise KeyboardInterrupt
        interrupt.pressed = True

    try:
        before = signal.signal(signal.SIGINT, on_signal)
    except ValueError:
        yield interrupt
        return
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


# -- the loop -----------------------------------------------------------------------------


class Trainer:
    """Trains what is trainable in a classifier or a language model, and nothing else.

    After each epoch it evaluates on the validation split; `best` holds the trained values of the
    best epoch so far (`History.best`, by `best_by`). With `state_file`, the complete state is kept
    there after each epoch and on Ctrl-C: a run that is resumed gives bit for bit what it would
    have given without the interruption.

    Raises: TrainingError if the loss is not finite; ConfigError if nothing is trainable.
    """

    def __init__(
        self,
        model: Model,
        train: Encoded,
        validation: Encoded,
        options: TrainingOptions | None = None,
        state_file: Path | None = None,
        progress: bool = True,
        threads: int = 0,
        prefix: PrefixCache | None = None,
        best_by: str = "accuracy",
    ) -> None:
        self.model, self.train_set, self.validation = model, train, validation
        self.options = options or TrainingOptions()
        self.state_file, self.progress, self.prefix = state_file, progress, prefix
        self.best_by = best_by
        self.parameters = model.trainable_parameters()
        if not self.parameters:
            raise ConfigError("nothing to train: every parameter of this model is frozen")

        o = self.options
        lr = o.lr if o.lr is not None else 1e-3
        self.optimizer = AdamW(self.parameters, lr, weight_decay=o.weight_decay)
        self.steps_per_epoch = math.ceil(len(train) / o.batch_size)
        self.total_steps = o.epochs * self.steps_per_epoch
        self.schedule = warmup_linear_decay(lr, int(o.warmup * self.total_steps), self.total_steps)
        self.data_parallel = DataParallel(model, threads)
        self.data_parallel.seed_dropouts(o.seed)

        self.history = History()
        self.step = 0  # steps done
        self.seconds = 0.0  # spent in them
        self.best: dict[str, Array] = {}
        self.interrupted = False

    def fit(self) -> History:
        """Train to the end, or until Ctrl-C (then `interrupted` is true)."""
        from tqdm.auto import tqdm

        self.interrupted = False
        total, start = self.total_steps, self.step
        with (
            self.data_parallel,
            interruptible() as interrupt,
            tqdm(total=total, initial=start, unit="step", disable=not self.progress) as bar,
        ):
            try:
                while True:
                    if self.evaluation_due():
                        self.evaluate(interrupt)
                        self.save_state()
                    if self.step == total:
                        break
                    self.epoch(interrupt, bar)
            except KeyboardInterrupt:
                self.interrupted = True
                self.save_state()
        return self.history

    def epoch(self, interrupt: Interrupt, bar: Any) -> None:
        """From wherever the run is, to the end of that epoch."""
        number, done = divmod(self.step, self.steps_per_epoch)
        order = np.random.default_rng([self.options.seed, number])
        self.data_parallel.train()
        plan = batches(self.train_set, self.options.batch_size, order)
        for position in range(done, len(plan)):
            row = self.train_step(plan[position], number + 1)
            self.history.append(row)
            bar.update()
            bar.set_postfix(
                loss=f"{self.recent('loss'):.3f}", accuracy=f"{self.recent('accuracy'):.3f}"
            )
            if interrupt.pressed:
                raise KeyboardInterrupt

    def train_step(self, batch: Batch, epoch: int) -> HistoryRow:
        """Forward, backward, clip, update: one batch."""
        started = time.perf_counter()
        smoothing = self.options.label_smoothing
        loss, right = self.data_parallel.forward_backward(batch, smoothing, self.prefix)
        lr = self.schedule(self.step)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {self.step + 1} of {self.total_steps} "
                f"(learning rate {lr:.1e}); try a lower lr, or a longer warm-up"
            )
        norm = clip_by_global_norm(self.parameters, self.options.max_grad_norm)
        self.optimizer.lr = lr
        self.optimizer.step()
        self.step += 1
        self.seconds += time.perf_counter() - started
        return HistoryRow(self.step, epoch, loss, right / batch.counted, lr, norm, self.seconds)

    def evaluation_due(self) -> bool:
        """Before the first step and at the end of each epoch, once."""
        at_end_of_epoch = self.step % self.steps_per_epoch == 0
        return at_end_of_epoch and not (
            self.history and self.history[-1].validation_accuracy is not None
        )

    def evaluate(self, interrupt: Interrupt) -> None:
        """Measure on the validation split; keep the trained values if they are the best so far."""

        def stop_if_pressed() -> None:
            if interrupt.pressed:
                raise KeyboardInterrupt

        loss, accuracy = loss_and_accuracy(self.data_parallel, self.validation, stop_if_pressed)
        self.data_parallel.train()
        last = self.history.pop() if self.history else HistoryRow(0, 0)
        measured = {
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "validation_examples": float((self.validation.labels != IGNORE).sum()),
        }
        self.history.append(HistoryRow(**{**asdict(last), **measured}))
        if self.history.best(self.best_by) is self.history[-1]:
            self.best = {name: p.value.copy() for name, p in self.parameters.items()}

    def recent(self, column: str, rows: int = 50) -> float:
        """Mean of a column over the last training steps, for the progress bar."""
        return float(np.mean([getattr(row, column) for row in self.history[-rows:] if row.step]))

    def restore_best(self) -> None:
        """Put the values of the best epoch into the model (if an epoch was completed)."""
        for name, value in self.best.items():
            self.parameters[name].value[...] = value

    def dropouts(self) -> list[Dropout]:
        found = [m for replica in self.data_parallel.replicas for _, m in replica.named_modules()]
        return [m for m in found if isinstance(m, Dropout)]

    # -- state on disk --------------------------------------------------------------------

    def save_state(self) -> None:
        """Everything that `load_state` needs, complete or not at all."""
        if self.state_file is None:
            return
        tensors = {f"now/{name}": p.value for name, p in self.parameters.items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        tensors |= {f"optimizer/{name}": value for name, value in self.optimizer.state().items()}
        record = {
            "options": asdict(self.options),
            "examples": len(self.train_set),
            "threads": len(self.data_parallel.replicas),
            "step": self.step,
            "seconds": self.seconds,
            "dropout": [d.rng.bit_generator.state for d in self.dropouts()],
            "history": self.history.to_csv(),
        }
        write_tensors(self.state_file, tensors, {"state": json.dumps(record)})

    def load_state(self) -> None:
        """Go on where `save_state` left off.

        Raises: CheckpointError if the file is damaged or belongs to another run.
        """
        if self.state_file is None:
            raise ConfigError("this trainer has no state_file to go on from")
        path = self.state_file
        tensors = read_tensors(path)
        try:
            record = json.loads(tensor_metadata(path)["state"])
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{path} is not the state of a training run") from error
        own = {
            "options": asdict(self.options),
            "examples": len(self.train_set),
            "threads": len(self.data_parallel.replicas),
        }
        for key, value in own.items():
            if record[key] != value:
                raise CheckpointError(
                    f"{path} is from another run: {key} {record[key]}, not {value}"
                )
        now = {k.removeprefix("now/"): v for k, v in tensors.items() if k.startswith("now/")}
        shapes = {name: p.shape for name, p in self.parameters.items()}
        if {name: v.shape for name, v in now.items()} != shapes:
            raise CheckpointError(f"{path} is from another run: it trains other parameters")
        for name, value in now.items():
            self.parameters[name].value[...] = value
        self.best = {k[5:]: v for k, v in tensors.items() if k.startswith("best/")}
        self.optimizer.load_state(
            {k.removeprefix("optimizer/"): v for k, v in tensors.items() if k.startswith("optim")}
        )
        for dropout, state in zip(self.dropouts(), record["dropout"], strict=True):
            dropout.rng.bit_generator.state = state
        self.step, self.seconds = record["step"], record["seconds"]
        self.history = History.from_csv(record["history"])

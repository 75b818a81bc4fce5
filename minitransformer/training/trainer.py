"""The loop: batches, history, evaluation, the best values, interruption."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..adapters.drop import check_droppable
from ..data.batches import Batch, Encoded, batches, check_encoded, counted
from ..errors import ConfigError, DataError, TrainingError
from ..models.heads import Classifier, LanguageModel, Regressor, check_model
from ..nn.losses import CrossEntropy, SquaredError
from ..nn.module import Array
from .data_parallel import DataParallel, LossFunction, Model
from .evaluation import validate
from .history import BEST_BY, History, HistoryRow
from .interruption import Interrupt, Stop, interruptible
from .metrics import balanced_weights
from .optim import AdamW, clip_by_global_norm, spread_over, warmup_linear_decay
from .prefix_cache import PrefixCache
from .process import keep_freed_memory
from .progress import progress_bar
from .state import TrainingState, digest_of

LEARNING_RATE = 1e-3  # of a Trainer whose options leave it open
STATE_EVERY = 30.0  # seconds; with a slow step and an evaluation, at most a minute of work is lost
ADAPTER_DROP = 2  # last word of the seed of how many blocks are without adapters in a step


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. Checks itself; raises ConfigError.

    Attributes:
        epochs, batch_size, seed.
        lr: peak learning rate; warm-up over the first `warmup` share of the steps, then decay
            in a line to 0. None: 1e-3 in a `Trainer`, in a run what its method usually takes.
        weight_decay: of matrices only.
        max_grad_norm: gradients are scaled down to this global norm.
        label_smoothing: see `functional.cross_entropy`.
        class_weights: how much an example of each class counts in the loss: numbers above 0, or
            "balanced" for n / (n_classes * examples of the class), as in scikit-learn. None: alike.
        patience: stop early, after so many epochs that did not become the best. None: never.
        adapter_drop: in each step, leave adapters out of the lowest n blocks, with another n
            between 0 and this number each time, so that blocks may be left out afterwards (robust
            AdapterDrop: Rücklé et al. 2021, arXiv 2010.11918, section 4.2).
    """

    epochs: int = 3
    batch_size: int = 32
    lr: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.0
    class_weights: str | tuple[float, ...] | None = None
    patience: int | None = None
    adapter_drop: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        whole = {"epochs": 1, "batch_size": 1, "patience": 1, "adapter_drop": 0, "seed": 0}
        for name, least in whole.items():
            value = getattr(self, name)
            if name == "patience" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name}={value!r}: expected a whole number, {least} or more")
        allowed: dict[str, tuple[Callable[[float], bool], str]] = {
            "lr": (lambda x: 0 < x < math.inf, "a positive number, or None"),
            "max_grad_norm": (lambda x: 0 < x < math.inf, "a positive number"),
            "weight_decay": (lambda x: 0 <= x < math.inf, "a number, 0 or more"),
            "warmup": (lambda x: 0 <= x < 1, "a number from 0 to below 1"),
            "label_smoothing": (lambda x: 0 <= x < 1, "a number from 0 to below 1"),
        }
        for name, (fits, expected) in allowed.items():
            value = getattr(self, name)
            if name == "lr" and value is None:
                continue
            if not isinstance(value, int | float) or isinstance(value, bool) or not fits(value):
                raise ConfigError(f"{name}={value!r}: expected {expected}")
        if isinstance(self.class_weights, list):  # from a file
            object.__setattr__(self, "class_weights", tuple(self.class_weights))
        if self.class_weights not in (None, "balanced") and not (
            isinstance(self.class_weights, tuple)
            and all(isinstance(w, int | float) and 0 < w < math.inf for w in self.class_weights)
        ):
            raise ConfigError(
                f"class_weights={self.class_weights!r}: expected 'balanced', or a number above 0 "
                "for each class"
            )


class Trainer:
    """Trains what is trainable in a classifier or a language model, and nothing else.

    After each epoch it evaluates on the validation split; `best` holds the trained values of the
    best epoch so far (`History.best`, by `best_by`; of a regressor by the loss). With
    `state_file`, the complete state is written there at the end of each epoch, every minute, and on
    Ctrl-C, SIGTERM or SIGHUP: a run that is resumed gives bit for bit what it would have given
    without the interruption. It needs the same data and base: the state holds digests of both
    splits, and of whatever else `inputs` names (name -> digest). What depends on the number of
    `threads`, and how little, says `DataParallel`. `prefix`: see `PrefixCache`.

    Raises: TrainingError if the loss is not finite; ConfigError if nothing is trainable;
    DataError without examples.
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
        inputs: Mapping[str, str] | None = None,
    ) -> None:
        if best_by not in BEST_BY:
            raise ConfigError(f"best_by={best_by!r}: expected one of {', '.join(BEST_BY)}")
        check_model(model, Classifier, LanguageModel)
        check_encoded(train=train, validation=validation)
        for name, split in (("train", train), ("validation", validation)):
            if len(split) == 0:
                raise DataError(f"the {name} split has no examples")
        options = TrainingOptions() if options is None else options
        if not isinstance(options, TrainingOptions):
            raise ConfigError(f"options={options!r}: expected TrainingOptions")
        self.model, self.train_set, self.validation = model, train, validation
        self.options = options
        self.state_file, self.progress, self.prefix = state_file, progress, prefix
        self.best_by = "loss" if isinstance(model, Regressor) else best_by
        self.loss_function = loss_function_for(model, self.options, train.labels)
        self.inputs = dict(inputs or {})
        self.parameters = model.trainable_parameters()
        if not self.parameters:
            raise ConfigError("nothing to train: every parameter of this model is frozen")
        if self.options.adapter_drop:
            check_droppable(model.transformer, self.options.adapter_drop)
            if not model.transformer.active_adapters:
                raise ConfigError("adapter_drop leaves adapters out, but none is active")

        o = self.options
        lr = o.lr if o.lr is not None else LEARNING_RATE
        self.optimizer = AdamW(self.parameters, lr, weight_decay=o.weight_decay)
        self.steps_per_epoch = math.ceil(len(train) / o.batch_size)
        self.total_steps = o.epochs * self.steps_per_epoch
        self.schedule = warmup_linear_decay(lr, int(o.warmup * self.total_steps), self.total_steps)
        self.data_parallel = DataParallel(model, threads, o.seed)

        self.history = History()
        self.step = 0  # steps done
        self.seconds = 0.0  # spent in them
        self.best: dict[str, Array] = {}
        self.interrupted = False
        self.saved = time.monotonic()  # when the last state was written

    def fit(self) -> History:
        """Train to the end, or until Ctrl-C (then `interrupted` is true).

        A second Ctrl-C raises KeyboardInterrupt at once; the last state then stays as it is.
        """
        self.interrupted = False
        keep_freed_memory()
        total, start = self.total_steps, self.step
        self.saved = time.monotonic()
        with (
            self.data_parallel,
            interruptible() as interrupt,
            progress_bar(total, "step", self.progress, start) as bar,
        ):
            try:
                if self.prefix is not None:
                    self.data_parallel.train(False)
                    self.prefix.fill(self.data_parallel.map, interrupt.check)
                while True:
                    if self.evaluation_due():
                        if self.step:
                            self.save_state()  # the evaluation may take long
                        self.evaluate(interrupt)
                        self.save_state()
                        interrupt.check()
                    if self.step == total or self.out_of_patience():
                        break
                    self.epoch(interrupt, bar)
            except Stop:  # any other KeyboardInterrupt may come halfway through a step
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
            interrupt.check()  # before the bar, which fails when the terminal is gone
            if time.monotonic() - self.saved >= STATE_EVERY:
                self.save_state()
            shown = {"loss": f"{self.recent('loss'):.3f}"}
            if row.accuracy is not None:
                shown["accuracy"] = f"{self.recent('accuracy'):.3f}"
            bar.set_postfix(shown, refresh=False)  # shown with the bar
            bar.update()

    def train_step(self, batch: Batch, epoch: int) -> HistoryRow:
        """Forward, backward, clip, update: one batch."""
        started = time.perf_counter()
        self.data_parallel.step = self.step  # a resumed run draws the masks of the whole one
        with self.data_parallel.adapters_dropped(self.blocks_to_drop()):
            loss, right = self.data_parallel.forward_backward(
                batch, self.loss_function, self.prefix
            )
        self.optimizer.lr = lr = self.schedule(self.step)
        self.expect_finite("the loss", loss)
        with spread_over(self.data_parallel.spread):
            norm = clip_by_global_norm(self.parameters, self.options.max_grad_norm)
            self.expect_finite("the norm of the gradients", norm)
            self.optimizer.step()
        self.step += 1
        self.seconds += time.perf_counter() - started
        accuracy = None if isinstance(self.model, Regressor) else right / batch.counted
        return HistoryRow(self.step, epoch, loss, accuracy, lr, norm, self.seconds)

    def expect_finite(self, what: str, value: float) -> None:
        """Raises: TrainingError if a number of this step is NaN or infinite."""
        if not math.isfinite(value):
            raise TrainingError(
                f"{what} is {value} at step {self.step + 1} of {self.total_steps} "
                f"(learning rate {self.optimizer.lr:.1e}); try a lower lr, or a longer warm-up"
            )

    def blocks_to_drop(self) -> int | tuple[int, ...]:
        """Which blocks are without adapters in this step, as for `drop_adapters`."""
        if not self.options.adapter_drop:
            return self.model.transformer.dropped
        rng = np.random.default_rng([self.options.seed, self.step, ADAPTER_DROP])
        return int(rng.integers(self.options.adapter_drop + 1))

    def evaluation_due(self) -> bool:
        """Before the first step and at the end of each epoch, once."""
        at_end_of_epoch = self.step % self.steps_per_epoch == 0
        done = self.history and self.history.evaluations()[-1:] == self.history[-1:]
        return at_end_of_epoch and not done

    def out_of_patience(self) -> bool:
        """Whether the best epoch lies `patience` epochs back."""
        best = self.history.best(self.best_by)
        patience = self.options.patience
        return (
            best is not None
            and patience is not None
            and self.step // self.steps_per_epoch - best.epoch >= patience
        )

    def evaluate(self, interrupt: Interrupt) -> None:
        """Measure on the validation split; copy the trained values if they are the best so far."""
        self.data_parallel.train(False)
        found = validate(self.data_parallel, self.validation, interrupt.check)
        self.data_parallel.train()
        last = self.history.pop() if self.history else HistoryRow(0, 0)
        measured = {
            "validation_loss": found.loss,
            "validation_accuracy": found.accuracy,
            "validation_macro_f1": found.macro_f1,
            "validation_examples": float(counted(self.validation.labels).sum()),
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

    # -- state on disk --------------------------------------------------------------------

    @cached_property
    def identity(self) -> tuple[dict[str, Any], dict[str, str]]:
        """What must be the same for a run to go on bit for bit: its options, and its inputs."""
        run = {"options": asdict(self.options), "threads": len(self.data_parallel.replicas)}
        splits = {"training": self.train_set, "validation": self.validation}
        examples = {f"the {name} examples": digest_of(split) for name, split in splits.items()}
        return run, {**examples, **self.inputs}

    def save_state(self) -> None:
        """Write the complete state into `state_file`, if there is one."""
        if self.state_file is None:
            return
        values = {name: p.value for name, p in self.parameters.items()}
        TrainingState(
            *self.identity,
            self.step,
            self.seconds,
            self.history,
            values,
            self.best,
            self.optimizer.state_dict(),
        ).write(self.state_file)
        self.saved = time.monotonic()

    def load_state(self) -> None:
        """Go on where `save_state` left off.

        Raises: CheckpointError if the file is damaged or belongs to another run; ConfigError
        without a `state_file`.
        """
        if self.state_file is None:
            raise ConfigError("this trainer has no state_file to go on from")
        state = TrainingState.read_last(self.state_file)
        shapes = {name: p.shape for name, p in self.parameters.items()}
        state.check(self.state_file, *self.identity, shapes)
        self.optimizer.load_state_dict(state.optimizer)
        for name, value in state.values.items():
            self.parameters[name].value[...] = value
        self.step, self.seconds = state.step, state.seconds
        self.history, self.best = state.history, state.best


def loss_function_for(model: Model, options: TrainingOptions, labels: Array) -> LossFunction:
    """Squared error for a regressor, else cross-entropy as the options want it.

    Raises: ConfigError for class weights that do not fit the model.
    """
    weights = options.class_weights
    if isinstance(model, Regressor):
        if weights is not None or options.label_smoothing:
            raise ConfigError("class_weights and label_smoothing are for classes, not for a number")
        return SquaredError(model.unit)
    if weights is None:
        return CrossEntropy(options.label_smoothing)
    if not isinstance(model, Classifier):
        raise ConfigError("class_weights are for a classifier")
    n_classes = model.head.linear.bias.shape[0]
    if weights == "balanced":
        weights = balanced_weights(labels, n_classes)
    if len(weights) != n_classes:
        raise ConfigError(f"{len(weights)} class_weights, expected one for each of {n_classes}")
    return CrossEntropy(options.label_smoothing, tuple(map(float, weights)))

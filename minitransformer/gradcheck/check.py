"""Gradient checking: a hand-written backward against central differences in float64.

The loss is L = sum(y * R) with a random R, so that `backward(R)` must give the gradient of L. One
entry at a time is moved up and down by h, and (L(+h) - L(-h)) / 2h must agree. Large arrays are
checked at a sample of entries, and along random directions u, whose derivative sum(gradient * u)
depends on every entry.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..errors import BackwardError, ConfigError, GradientError, ShapeError
from ..nn.module import Array, Module
from . import diagnosis
from .cases import cases
from .diagnosis import Evidence
from .report import GradCheckReport, GradCheckRow, index_text

__all__ = ["GradCheckReport", "GradCheckRow", "cases", "check_library", "gradcheck"]

N_DIRECTIONS = 4
MAX_CONFIRMED = 4  # disagreements of one array that are computed again, with other steps
MAX_SKIPPED = 0.1  # share of an array's points that may lie at kinks (one always may)
LADDER = (512.0, 64.0, 8.0, 1.0, 1 / 8, 1 / 64)  # the other steps, in units of h
EPSILON = float(np.finfo(np.float64).eps)

Move: TypeAlias = int | Array  # one entry, by its flat index; or a direction, a unit vector


def gradcheck(
    module: Module,
    *inputs: Any,
    tolerance: float = 1e-6,
    eps: float = 1e-5,
    max_entries: int = 100,
    seed: int = 0,
    check_inputs: bool = True,
    raises: bool = True,
    **forward_kwargs: Any,
) -> GradCheckReport:
    """Compare `module.backward` with central differences; return the report if all is well.

    Checked are the trainable parameters and the floating-point arrays among `inputs`. Everything
    else (integers, masks, None, keyword arguments) is passed on and not differentiated. The work
    is done on a float64 copy in train mode: `module` and `inputs` are left as they are. Dropout
    draws the same mask in every forward.

    The relative error of an entry with analytic gradient a and numerical gradient n is
    |a - n| / max(|a|, |n|, size), where size is the root mean square of the array's gradient, or
    1e-6 |y * R| if that is more: far below it, float64 cannot tell a gradient from zero.
    An entry that disagrees is computed again with larger and smaller steps; where the derivatives
    from the left and from the right never meet (a kink, as of ReLU at 0), it is skipped.

    Args:
        tolerance: the largest relative error that passes.
        eps: the step h, for arrays of ordinary size (times the root mean square of larger ones).
        max_entries: arrays with more entries are sampled, and checked along random directions.
        seed: for R, the samples and the directions.
        check_inputs: False if nothing before the module trains, so that backward returns None.
        raises: False to get the report of a failure too.
    Raises: GradientError with the table of the report and, for each wrong array, the likely
        cause; ConfigError if there is nothing to check.
    """
    if not isinstance(module, Module):
        raise ConfigError(f"gradcheck needs a Module with forward and backward; got {module!r}")
    if not (tolerance > 0 and eps > 0 and max_entries > 0):
        raise ConfigError(
            f"tolerance={tolerance}, eps={eps}, max_entries={max_entries}: expected all above 0"
        )
    # A stream of its own: an R equal to an x drawn with the same seed makes x.T @ R symmetric,
    # and a transposed gradient right.
    rng = np.random.default_rng([seed, 2718281828])
    walk = Walk(module, inputs, forward_kwargs, check_inputs)
    rows, problems = [], []
    try:
        suspects = walk.there_and_back(rng)
        problems = walk.frozen_gradients()
        rows = [compare(walk, s, tolerance, eps, max_entries, rng) for s in suspects]
        begin = diagnosis.where_to_begin(walk.module, {row.name for row in rows if row.advice})
        problems += [begin] if begin else []
    except GradientError as stop:  # the walk itself is at fault: numbers would mean nothing
        problems = [str(stop)]
    report = GradCheckReport(type(module).__name__, tolerance, tuple(rows), tuple(problems))
    if raises and not report.passed:
        raise GradientError(str(report))
    return report


def check_library(tolerance: float = 1e-6, seed: int = 0) -> list[tuple[str, GradCheckReport]]:
    """Check every module of this library in tiny sizes: (name, report) for each case."""
    options: dict[str, Any] = {"tolerance": tolerance, "seed": seed, "raises": False}
    return [(c.name, gradcheck(c.module, *c.inputs, **c.options, **options)) for c in cases(seed)]


# -- backward's side ------------------------------------------------------------------------


@dataclass(frozen=True)
class Suspect:
    """An array and what backward gave as its gradient.

    `advice` is what is wrong with that already; if it gave None: what to say should that be wrong.
    """

    name: str
    label: str
    array: Array
    gradient: Array | None
    advice: str | None


class Walk:
    """The module under test in float64, with inputs and random numbers that repeat."""

    def __init__(
        self, module: Module, inputs: tuple[Any, ...], kwargs: dict[str, Any], check_inputs: bool
    ) -> None:
        self.module = copy.deepcopy(module).astype(np.float64).train()
        self.inputs = {
            name: float64_copy(x)
            for name, x in zip(argument_names(module, len(inputs)), inputs, strict=True)
        }
        self.kwargs = {name: float64_copy(x) for name, x in kwargs.items()}
        self.generators = [
            (held, held.bit_generator.state)
            for _, room in self.module.named_modules()
            for held in vars(room).values()
            if isinstance(held, np.random.Generator)
        ]
        self.takes_dy = bool(inspect.signature(module.backward).parameters)
        self.check_inputs = check_inputs
        self.float_inputs = [n for n, x in self.inputs.items() if check_inputs and is_float(x)]
        self.trainable = self.module.trainable_parameters()
        if not self.trainable and not self.float_inputs:
            raise ConfigError(
                "nothing to check: every parameter is frozen, and there is no floating-point "
                "input whose gradient is wanted"
            )

    def forward(self) -> Array:
        for generator, state in self.generators:
            generator.bit_generator.state = state
        y = self.module.call(self.check_inputs, *self.inputs.values(), **self.kwargs)
        if not isinstance(y, np.ndarray | np.generic | float | int):
            raise GradientError(
                f"forward returned a {type(y).__name__}; expected one array, or a number"
            )
        return np.array(y)  # a copy: forward may use its buffer again

    def backward(self) -> dict[str, Any]:
        """dx by the name of the input. A loss may have a backward without argument."""
        try:
            dx = self.module.backward(*([self.R] if self.takes_dy else []))
        except (ShapeError, BackwardError) as error:
            advice = self.refused(error)
            if advice is None:
                raise
            raise GradientError(advice) from error
        given = [copy.copy(d) for d in (dx if isinstance(dx, tuple | list) else [dx])]
        # A tuple has one gradient for each input, or for each floating-point input.
        names = list(self.inputs) if len(given) == len(self.inputs) > 1 else self.float_inputs
        return dict(zip(names, given, strict=False))

    def there_and_back(self, rng: np.random.Generator) -> list[Suspect]:
        """Walk through the module twice and collect its gradients.

        Raises: GradientError if forward or backward itself is at fault.
        """
        before = {name: x.copy() for name, x in self.arrays().items()}
        for name, x in before.items():
            if not np.isfinite(x).all():
                raise GradientError(f"{name} contains NaN or infinity before forward has begun")
        self.y = self.forward()
        diagnosis.check_unchanged("forward", before, self.arrays())
        diagnosis.check_output(self.y, self.forward())

        self.R = np.asarray(rng.standard_normal(self.y.shape) if self.takes_dy else 1.0)
        before["dy"] = self.R.copy()
        self.size = max(float(np.linalg.norm(self.y * self.R)), 1e-300)
        dxs = self.backward()
        diagnosis.check_unchanged("backward", before, {**self.arrays(), "dy": self.R})
        once = {name: copy.copy(p.grad) for name, p in self.trainable.items()}
        self.forward()
        self.backward()

        suspects = []
        for name in self.float_inputs:
            dx, x, label = dxs.get(name), self.inputs[name], f"d{name}"
            if dx is None:
                advice: str | None = diagnosis.not_returned(name)
            else:
                advice = diagnosis.unusable(label, dx := np.asarray(dx), x)
            suspects.append(Suspect(name, label, x, dx, advice))
        for name, p in self.trainable.items():
            grad, label = once[name], f"{name}.grad"
            if grad is None:
                advice = diagnosis.never_added(name)
            else:
                advice = diagnosis.unusable(label, grad, p.value)
                advice = advice or diagnosis.not_doubled(name, grad, p.grad)
            suspects.append(Suspect(name, label, p.value, grad, advice))
        return suspects

    def arrays(self) -> dict[str, Array]:
        """What forward and backward must leave as it is."""
        held = {f"the input {name}": x for name, x in (self.inputs | self.kwargs).items()}
        held |= {f"the parameter {name}": p.value for name, p in self.module.named_parameters()}
        return {
            n: x for n, x in held.items() if isinstance(x, np.ndarray) and x.dtype.kind in "fiub"
        }

    def refused(self, error: Exception) -> str | None:
        """If a Parameter refused the gradient that backward brought: which one, and why."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        there = trace.tb_frame.f_locals if trace is not None else {}
        for name, p in self.module.named_parameters():
            if there.get("self") is p:
                if not p.trainable:
                    return diagnosis.frozen_with_gradient(name)
                return diagnosis.wrong_shape(f"{name}.grad", there["grad"].shape, p.shape)
        return None

    def frozen_gradients(self) -> list[str]:
        named = self.module.named_parameters()
        return [
            diagnosis.frozen_with_gradient(name)
            for name, p in named
            if not p.trainable and p.grad is not None
        ]

    # -- the numerical side --------------------------------------------------------------------

    def derivatives(self, array: Array, move: Move, h: float) -> tuple[float, float]:
        """(L(h) - L(0)) / h and (L(0) - L(-h)) / h, with `array` moved along `move`.

        The outputs are subtracted before they are summed: what does not change cancels exactly.
        """
        up, down = (self.moved(array, move, step) for step in (h, -h))
        right = float(np.sum((up - self.y) * self.R)) / h
        left = float(np.sum((self.y - down) * self.R)) / h
        return right, left

    def moved(self, array: Array, move: Move, step: float) -> Array:
        where = np.unravel_index(move, array.shape) if isinstance(move, int) else ...
        old = array[where].copy()
        array[where] = old + (step if isinstance(move, int) else step * move)
        y = self.forward()
        array[where] = old
        return y

    def careful_derivative(self, array: Array, move: Move, h: float) -> tuple[float, float]:
        """The derivative from the best of several steps, and how far it can be trusted.

        At each step, right and left derivatives are extrapolated to step 0 (Richardson); how far
        they are from meeting, and the rounding error, say how good this step is. At a kink they
        never meet. The gradient under test plays no part in the choice.
        """
        found = []
        for step in (h * factor for factor in LADDER):
            right, left = self.derivatives(array, move, step)
            half_right, half_left = self.derivatives(array, move, step / 2)
            derivative = (2 * (half_right + half_left) - (right + left) / 2) / 3
            gap = abs((2 * half_right - right) - (2 * half_left - left))
            if np.isfinite(gap):
                found.append((gap + 4 * EPSILON * self.size / step, derivative))
        doubt, derivative = min(found, default=(np.inf, 0.0))
        return derivative, doubt


def compare(
    walk: Walk,
    suspect: Suspect,
    tolerance: float,
    eps: float,
    max_entries: int,
    rng: np.random.Generator,
) -> GradCheckRow:
    """The row of the report for one array."""
    array, advice = suspect.array, suspect.advice or ""
    if array.size == 0:
        return GradCheckRow(suspect.name, array.shape, "empty", error=0.0)
    given = suspect.gradient
    if given is not None and (given.shape != array.shape or not np.isfinite(given).all()):
        return GradCheckRow(suspect.name, array.shape, advice=advice)
    g = np.zeros(array.shape) if given is None else given.astype(np.float64)

    entries, directions = choose_moves(g, max_entries, rng)
    moves: list[Move] = [*entries.tolist(), *directions]
    h = step_for(array, eps)
    analytic = np.array([*g.flat[entries], *(np.sum(g * u) for u in directions)])
    numeric = np.array([sum(walk.derivatives(array, move, h)) / 2 for move in moves])
    size = max(rms(g), rms(numeric), 1e-6 * walk.size)

    def errors() -> Array:
        error = np.abs(analytic - numeric)
        error /= np.maximum(np.maximum(np.abs(analytic), np.abs(numeric)), size)
        return np.nan_to_num(error, nan=np.inf)

    skipped, confirmed = np.zeros(len(moves), bool), 0
    allowed = min(max(1, int(MAX_SKIPPED * len(moves))), len(moves) - 1)
    for i in np.argsort(-errors()):
        if errors()[i] <= tolerance or confirmed == MAX_CONFIRMED or skipped.sum() > allowed:
            break
        numeric[i], doubt = walk.careful_derivative(array, moves[i], h)
        if errors()[i] > tolerance:
            skipped[i] = doubt > 0.1 * abs(analytic[i] - numeric[i])
            confirmed += not skipped[i]
    error = np.where(skipped, 0, errors())
    wrong = error > tolerance
    unknown = skipped.sum() > allowed

    if given is None and not unknown and not wrong.any():
        advice = ""  # the array is not used here: no gradient is the right one
    elif given is not None and unknown and not confirmed:
        advice = diagnosis.at_kinks(suspect.name, int(skipped.sum()), len(moves))
    elif given is not None and wrong.any():
        n = len(entries)
        evidence = Evidence(
            suspect.label, g, entries, numeric[:n], wrong[:n], walk.R,
            tuple(walk.inputs.values()), walk.module,
        )  # fmt: skip
        advice = ". Also, ".join(filter(None, (diagnosis.explain(evidence), advice)))

    worst = int(np.argmax(error))
    checked = f"all {array.size:,}"
    if directions:
        checked = f"{len(entries):,} of {array.size:,} + {len(directions)} directions"
    where = f"direction {worst - len(entries)}"
    if worst < len(entries):
        where = index_text(np.unravel_index(entries[worst], array.shape))
    return GradCheckRow(
        suspect.name, array.shape, checked, where,
        float(analytic[worst]), float(numeric[worst]), float(error[worst]),
        int(skipped.sum()), advice,
    )  # fmt: skip


def choose_moves(
    gradient: Array, max_entries: int, rng: np.random.Generator
) -> tuple[Array, list[Array]]:
    """Flat indices of the entries to check, and random directions if those are not all."""
    n = gradient.size
    if n <= max_entries:
        return np.arange(n), []
    # Half of the sample where there is a gradient: most rows of an embedding have none.
    reached = np.flatnonzero(gradient)
    half = min(max_entries // 2, reached.size)
    entries = np.union1d(
        rng.choice(reached, half, replace=False), rng.choice(n, max_entries - half, replace=False)
    )
    draws = (rng.standard_normal(gradient.shape) for _ in range(N_DIRECTIONS))
    return entries, [u / np.linalg.norm(u) for u in draws]


def step_for(array: Array, eps: float) -> float:
    """eps, times the size of arrays above 1; a power of two, so that x + h is (nearly) exact."""
    return float(2.0 ** np.round(np.log2(eps * max(1.0, rms(array)))))


def rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x)))) if x.size else 0.0


def is_float(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def float64_copy(x: Any) -> Any:
    return np.array(x, np.float64) if is_float(x) else copy.deepcopy(x)


def argument_names(module: Module, n: int) -> list[str]:
    """What forward calls its first n arguments."""
    parameters = inspect.signature(module.forward).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [names[i] if i < len(names) else f"x{i}" for i in range(n)]

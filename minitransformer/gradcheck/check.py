"""Gradient checking: a hand-written backward against central differences in float64.

The loss is L = sum(y * R) with a random R, so that `backward(R)` must give the gradient of L. One
entry at a time is moved up and down by h, and (L(+h) - L(-h)) / 2h must agree. Large arrays are
checked at a sample of entries, and along random directions u, whose derivative sum(gradient * u)
depends on every entry.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..errors import ConfigError, GradientError, UntestedGradientWarning
from ..nn.module import Array, Module
from . import diagnosis, messages
from .blind_spots import blind_spots, check_float64
from .cases import cases
from .checked_module import AnalyticGradient, CheckedModule, Move, rms
from .diagnosis import Evidence
from .report import GradCheckReport, GradCheckRow, index_text

N_DIRECTIONS = 4
MAX_CONFIRMED = 4  # disagreements of one array that are computed again, with other steps
MAX_SKIPPED = 0.1  # share of an array's points that may lie at kinks (one always may)


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
    is done on float64 copies in train mode: `module` and `inputs` are left as they are. Dropout
    draws the same mask in every forward. In the copy, parameters whose entries are all equal get
    random values, because weights of 0 and gains of 1 hide mistakes; so does an input that is
    constant or symmetric, and the report says so. Fresh copies are run after another input, in
    eval mode, with frozen parameters, ... : see `blind_spots`. An array whose analytic and
    numerical gradients are zero all the same is reported as not tested, with a warning.

    The relative error of an entry with analytic gradient a and numerical gradient n is
    |a - n| / max(|a|, |n|, size), where size is the root mean square of the array's gradient, or
    1e-6 |y * R| if that is more: far below it, float64 cannot tell a gradient from zero.
    An entry that disagrees is computed again with larger and smaller steps; where the derivatives
    from the left and from the right never meet (a kink, as of ReLU at 0), it is skipped, if the
    analytic gradient lies between them.

    Args:
        tolerance: the largest relative error that passes.
        eps: the step h, for arrays of ordinary size (times the root mean square of larger ones).
        max_entries: arrays with more entries are sampled, and checked along random directions.
        seed: for R, the samples, the directions and the values that replace constants.
        check_inputs: False if nothing before the module trains, so that backward returns None.
        raises: False to get the report of a failure too.
    Raises: GradientError with the table of the report and, for each wrong array, the likely
        cause, or if no array could be tested; ConfigError if there is nothing to check.
    Warns: UntestedGradientWarning that names the arrays that were not tested.
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
    checked = CheckedModule(module, inputs, forward_kwargs, check_inputs, rng)
    rows, problems = [], []
    try:
        gradients = checked.forward_backward_twice(rng)
        check_float64(checked)
        problems = checked.frozen_gradients()
        rows = [compare(checked, g, tolerance, eps, max_entries, rng) for g in gradients]
        begin = messages.where_to_begin(
            checked.backward_order, {row.name for row in rows if row.wrong}
        )
        problems += [begin] if begin else []
        usable = all(row.checked != "not compared" for row in rows)
        if usable and not problems:
            problems += blind_spots(checked, not any(row.wrong for row in rows))
    except GradientError as stop:  # forward or backward itself is at fault: numbers mean nothing
        problems = [str(stop)]
    untested = [row.name for row in rows if row.status == "not tested"]
    if untested and len(untested) == len(rows):
        problems.append(messages.not_tested(untested))
    report = GradCheckReport(
        type(module).__name__, tolerance, tuple(rows), tuple(problems), tuple(checked.notes)
    )
    if raises and not report.passed:
        raise GradientError(str(report))
    if untested:
        message = f"gradcheck of {report.title}: {messages.not_tested(untested)}"
        warnings.warn(message, UntestedGradientWarning, stacklevel=2)
    return report


def check_library(tolerance: float = 1e-6, seed: int = 0) -> list[tuple[str, GradCheckReport]]:
    """Check every module of this library in tiny sizes: (name, report) for each case."""
    options: dict[str, Any] = {"tolerance": tolerance, "seed": seed, "raises": False}
    return [(c.name, gradcheck(c.module, *c.inputs, **c.options, **options)) for c in cases(seed)]


def compare(
    checked: CheckedModule,
    analytic_gradient: AnalyticGradient,
    tolerance: float,
    eps: float,
    max_entries: int,
    rng: np.random.Generator,
) -> GradCheckRow:
    """The row of the report for one array."""
    name, array = analytic_gradient.name, analytic_gradient.array
    given, advice = analytic_gradient.gradient, analytic_gradient.advice or ""
    if array.size == 0:
        return GradCheckRow(name, array.shape, "empty", error=0.0, tested=False)
    if given is not None and (given.shape != array.shape or not np.isfinite(given).all()):
        return GradCheckRow(name, array.shape, advice=advice)
    g = np.zeros(array.shape) if given is None else given.astype(np.float64)

    entries, directions = choose_moves(g, max_entries, rng)
    moves: list[Move] = [*entries.tolist(), *directions]
    h = step_for(array, eps)
    analytic = np.array([*g.flat[entries], *(np.sum(g * u) for u in directions)])
    numeric = np.array([sum(checked.derivatives(array, move, h)) / 2 for move in moves])
    size = max(rms(g), rms(numeric), 1e-6 * checked.size)

    def errors() -> Array:
        error: Array = np.abs(analytic - numeric)
        error /= np.maximum(np.maximum(np.abs(analytic), np.abs(numeric)), size)
        error[np.isnan(error)] = np.inf
        return error

    skipped, confirmed, at_kink = np.zeros(len(moves), bool), 0, False
    allowed = min(max(1, int(MAX_SKIPPED * len(moves))), len(moves) - 1)
    for i in np.argsort(-errors()):
        if errors()[i] <= tolerance or confirmed == MAX_CONFIRMED or skipped.sum() > allowed:
            break
        numeric[i], doubt = checked.extrapolated_derivative(array, moves[i], h)
        if errors()[i] > tolerance:
            skipped[i] = doubt > 0.1 * abs(analytic[i] - numeric[i])
            if skipped[i] and checked.is_outside_kink(array, moves[i], analytic[i]):
                skipped[i], at_kink = False, True
            confirmed += not skipped[i]
    error = np.where(skipped, 0, errors())
    wrong = error > tolerance
    unknown = skipped.sum() > allowed

    if given is None and not unknown and not wrong.any():
        advice = ""  # the array is not used here: no gradient is the right one
    elif given is not None and unknown and not confirmed:
        advice = messages.at_kinks(name, int(skipped.sum()), len(moves))
    elif given is not None and at_kink and wrong.sum() == 1:
        advice = messages.outside_kink(analytic_gradient.label)
    elif given is not None and wrong.any():
        n = len(entries)
        evidence = Evidence(
            analytic_gradient.label, g, entries, numeric[:n], wrong[:n], checked.dy,
            tuple(checked.inputs.values()), checked.module, checked.linear_calls(),
        )  # fmt: skip
        advice = ". Also, ".join(filter(None, (diagnosis.explain(evidence), advice)))

    worst = int(np.argmax(error))
    how = f"all {array.size:,}"
    if directions:
        how = f"{len(entries):,} of {array.size:,} + {len(directions)} directions"
    where = f"direction {worst - len(entries)}"
    if worst < len(entries):
        where = index_text(np.unravel_index(entries[worst], array.shape))
    return GradCheckRow(
        name, array.shape, how, where,
        float(analytic[worst]), float(numeric[worst]), float(error[worst]),
        int(skipped.sum()), advice, tested=bool(g.any() or numeric.any()),
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

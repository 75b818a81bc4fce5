"""Mistakes that one forward and one backward pass at one input cannot show.

Each function here runs a fresh copy of the module in another way: after another input, in eval
mode, with parameters frozen, with nothing earlier to train, backward twice, with another dy. What
must not depend on that is compared; advice says what does. `check.py` calls `blind_spots`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import GradientError
from ..nn.module import Array, Module
from .checked_module import CheckedModule, generators_of, rewind, rms

Gradients = dict[str, Array]  # "dx", "weight.grad", ... -> values; what is None is left out

SAME = 1e-9  # relative: far above the rounding of float64, far below that of float32
ROUND_OFF = 1e-13  # times |y * dy|: what a gradient that is zero on paper may come out as
MAX_FROZEN = 8  # modules with more parameters are tried with all of them frozen alone
STEP, TINY_STEP = 2.0**-23, 2.0**-36  # of the float32 test: 1e-7 and 1e-11


class Trial:
    """A fresh copy of the checked module."""

    def __init__(self, checked: CheckedModule) -> None:
        self.checked = checked
        self.module: Module = copy.deepcopy(checked.untouched)
        self.generators = generators_of(self.module)

    def forward(self, inputs: dict[str, Any] | None = None, needs_input_grad: bool = True) -> Array:
        rewind(self.generators)
        given = (self.checked.inputs if inputs is None else inputs).values()
        wanted = needs_input_grad and self.checked.check_inputs
        return np.array(self.module.call(wanted, *given, **self.checked.kwargs))

    def backward(self, factor: float = 1.0) -> Gradients:
        """The gradients of one backward pass, for `factor` times the dy of the check."""
        checked = self.checked
        self.module.zero_grad()
        dx = self.module.backward(*([factor * checked.dy] if checked.takes_dy else []))
        found = {f"d{name}": d for name, d in checked.by_input(dx).items() if d is not None}
        for name, p in self.module.named_parameters():
            if p.grad is not None:
                found[f"{name}.grad"] = p.grad
        return {name: np.array(g) for name, g in found.items()}


def blind_spots(checked: CheckedModule, all_right: bool) -> list[str]:
    """Advice for what differs. With wrong gradients (`all_right` false) only the stale cache."""
    tests: tuple[Callable[[CheckedModule, Gradients], str | None], ...] = (stale_cache,)
    if all_right:
        tests += (nothing_before, frozen_parameters, eval_mode, second_backward)
        tests += (linear_in_dy, saved_float32)
    trial = Trial(checked)
    trial.forward()
    usual = trial.backward()
    return [advice for test in tests if (advice := test(checked, usual))]


def stale_cache(checked: CheckedModule, usual: Gradients) -> str | None:
    trial = Trial(checked)
    try:
        trial.forward(other_inputs(checked.inputs))
        trial.backward(0.5)
    except Exception:
        return None  # these numbers are no input for this module
    if not same(trial.forward(), checked.y):
        return (
            "forward gives another result after another input: it keeps something of an earlier "
            "forward pass; compute it anew each time"
        )
    names = different(checked, usual, trial.backward())
    if not names:
        return None
    return (
        f"after a forward pass with another input, {names} would be wrong: backward reads "
        "something that an earlier forward pass has kept (a mask, an input); every forward must "
        "save anew, with self.save_for_backward"
    )


def nothing_before(checked: CheckedModule, usual: Gradients) -> str | None:
    if not (checked.trainable and checked.float_inputs):
        return None
    trial = Trial(checked)
    what = "when nothing before the module trains (needs_input_grad is false)"
    try:
        trial.forward(needs_input_grad=False)
        found = trial.backward()
    except Exception:
        return None  # an error is no silent mistake
    names = different(checked, {n: g for n, g in usual.items() if n.endswith(".grad")}, found)
    return names and (
        f"{what}, {names} would be wrong: add the gradients of parameters before "
        "`if not self.needs_input_grad: return None`, and save what they need in either case"
    )


def frozen_parameters(checked: CheckedModule, usual: Gradients) -> str | None:
    names = list(checked.trainable)
    sets = [[name] for name in names] if len(names) <= MAX_FROZEN else []
    sets += [names] if checked.float_inputs else []
    for frozen in sets:
        trial = Trial(checked)
        parameters = dict(trial.module.named_parameters())
        for name in frozen:
            parameters[name].requires_grad = False
        if not checked.float_inputs and not trial.module.trainable_parameters():
            continue
        labels = {f"{name}.grad" for name in frozen}
        what = f"with {', '.join(frozen)} frozen"
        try:
            trial.forward()
            found = trial.backward()
        except Exception:
            continue
        wrong = different(checked, {n: g for n, g in usual.items() if n not in labels}, found)
        if wrong:
            return (
                f"{what}, {wrong} would be wrong: whether one array is trained must not change the "
                "gradient of another; look at the conditions in backward, and at what forward "
                "saves then"
            )
    return None


def eval_mode(checked: CheckedModule, usual: Gradients) -> str | None:
    trial = Trial(checked)
    if not trial.generators:  # nothing is random; a batch norm may well differ in eval mode
        return None
    trial.module.eval()
    y = trial.forward()
    again = np.array(trial.module(*checked.inputs.values(), **checked.kwargs))  # not rewound
    if not same(y, again):
        return "in eval() mode forward is still random: no dropout there (test self.training)"
    trial = Trial(checked)
    for _, module in trial.module.named_modules():
        if hasattr(module, "p"):
            module.p = 0.0
    if same(trial.forward(), y):
        return None
    return (
        "forward in eval() mode differs from train() mode with dropout 0: with dropout scaled by "
        "1 / (1 - p) in training, eval mode must change nothing else"
    )


def second_backward(checked: CheckedModule, usual: Gradients) -> str | None:
    trial = Trial(checked)
    trial.forward()
    trial.backward()
    try:
        found = trial.backward()
    except Exception:
        return None  # as it should be
    names = different(checked, usual, found)
    return names and (
        f"a second backward after one forward gives another {names} without an error: the first "
        "has changed or used up what forward kept; self.pop_saved(dy) makes that an error"
    )


def linear_in_dy(checked: CheckedModule, usual: Gradients) -> str | None:
    if not checked.takes_dy:
        return None
    trial = Trial(checked)
    trial.forward()
    names = different(checked, {name: 3 * g for name, g in usual.items()}, trial.backward(3.0))
    return names and (
        f"three times dy does not give three times {names} to the precision of float64: somewhere "
        "backward computes in float32, or it depends on dy in another way than by products"
    )


def saved_float32(checked: CheckedModule, usual: Gradients) -> str | None:
    trial = Trial(checked)
    before = {id(a) for _, a in arrays_in(trial.module)}
    trial.forward()
    for name, array in arrays_in(trial.module):
        new = id(array) not in before and array.dtype in (np.float16, np.float32)
        if new and not np.array_equal(array, np.round(array)):  # 0 and 1 are exact in any dtype
            return (
                f"forward keeps an array of {array.dtype} for backward ({name}), though inputs and "
                "weights are float64: somewhere it rounds; use x.dtype"
            )
    return None


def check_float64(checked: CheckedModule) -> None:
    """Raises: GradientError if forward rounds to float32 somewhere inside.

    Everything is moved along one direction by a step that float32 cannot see and by one that is
    10,000 times as long; a float64 function changes in proportion.
    """
    rng = np.random.default_rng(0)
    arrays = [checked.inputs[n] for n in checked.float_inputs]
    arrays += [p.value for p in checked.trainable.values()]
    moves = [(a, a.copy(), rng.standard_normal(a.shape) * rms(a)) for a in arrays if a.size]

    def change(step: float) -> Array:
        for array, old, direction in moves:
            array[...] = old + step * direction
        y = checked.forward()
        for array, old, _ in moves:
            array[...] = old
        return (y - checked.y) / step

    coarse, fine = change(STEP), change(TINY_STEP)
    allowed = 0.1 * rms(coarse) + 100 * np.finfo(np.float64).eps * rms(checked.y) / TINY_STEP
    if rms(fine - coarse) > allowed:
        raise GradientError(
            "forward computes in float32 somewhere inside, though inputs and weights are float64 "
            "(or it jumps): changes of 1e-11 are lost. Use x.dtype for every array that it makes; "
            "numerical gradients of rounded numbers mean nothing"
        )


# -- helpers ---------------------------------------------------------------------------------


def other_inputs(inputs: dict[str, Any]) -> dict[str, Any]:
    """Other numbers of the same kinds: floats reversed along every axis, integers by rows alone."""

    def other(x: Any) -> Any:
        if not isinstance(x, np.ndarray) or not x.ndim:
            return x
        return np.flip(x).copy() if x.dtype.kind == "f" else x[::-1].copy()

    return {name: other(x) for name, x in inputs.items()}


def arrays_in(module: Module) -> Iterator[tuple[str, Array]]:
    """Arrays that modules hold as attributes or have saved, with names."""
    for path, inner in module.named_modules():
        for name, value in vars(inner).items():
            held = value.arrays if name == "_saved" and value is not None else (value,)
            for array in held:
                if isinstance(array, np.ndarray):
                    yield f"{path}.{name}" if path else name, array


def different(checked: CheckedModule, expected: Gradients, found: Gradients) -> str:
    """The names of the gradients that differ or are missing, for a sentence."""
    noise = ROUND_OFF * checked.size
    return " and ".join(
        name for name, g in expected.items() if name not in found or not same(found[name], g, noise)
    )


def same(a: Array, b: Array, noise: float = 0.0) -> bool:
    return a.shape == b.shape and bool(np.all(np.abs(a - b) <= SAME * (np.abs(b) + rms(b)) + noise))

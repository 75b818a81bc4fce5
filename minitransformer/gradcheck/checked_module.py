"""The module under check: a float64 copy whose forward pass repeats exactly.

It gives both sides of the comparison: the gradients that `backward` computes, and numerical
derivatives of the same loss.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..errors import BackwardError, ConfigError, GradientError, ShapeError
from ..nn.layers import Linear, flat
from ..nn.module import Array, Module, Parameter
from ..nn.row_gradient import RowGradient
from . import messages

STEP_FACTORS = (512.0, 64.0, 8.0, 1.0, 1 / 8, 1 / 64)  # other steps to try, in units of h
EPSILON = float(np.finfo(np.float64).eps)

Move: TypeAlias = int | Array  # one entry, by its flat index; or a direction, a unit vector


@dataclass(frozen=True)
class AnalyticGradient:
    """An array and what backward gave as its gradient.

    `advice` is what is wrong with that already; if it gave None: the advice should the numerical
    gradient not be zero.
    """

    name: str
    label: str
    array: Array
    gradient: Array | None
    advice: str | None


class CheckedModule:
    """A copy of the module and its inputs in float64 and train mode, with repeatable dropout.

    Attributes:
        backward_order: the names of the parameters as backward adds their gradients.
        notes: what was changed in the inputs, for the report.
        untouched: a copy as it was before the first forward pass.
        y, dy: the output, and the random gradient that backward gets (set by
            `forward_backward_twice`).
        size: the norm of y * dy: round-off in the loss is proportional to it.
    """

    def __init__(
        self,
        module: Module,
        inputs: tuple[Any, ...],
        kwargs: dict[str, Any],
        check_inputs: bool,
        rng: np.random.Generator,
    ) -> None:
        self.module = copy.deepcopy(module).astype(np.float64).train()
        vary_constants(self.module.parameters(), rng)
        self.inputs = {
            name: float64_copy(x)
            for name, x in zip(argument_names(module, len(inputs)), inputs, strict=True)
        }
        self.notes = [note for n, x in self.inputs.items() if (note := vary_special(n, x, rng))]
        self.kwargs = {name: float64_copy(x) for name, x in kwargs.items()}
        self.check_inputs = check_inputs
        self.generators = generators_of(self.module)
        self.takes_dy = bool(inspect.signature(module.backward).parameters)
        self.float_inputs = [n for n, x in self.inputs.items() if check_inputs and is_float(x)]
        self.trainable = self.module.trainable_parameters()
        if not self.trainable and not self.float_inputs:
            raise ConfigError(
                "nothing to check: every parameter is frozen, and there is no floating-point "
                "input whose gradient is wanted"
            )
        self.untouched = copy.deepcopy(self.module)
        self.backward_order: list[str] = []
        for name, p in self.trainable.items():
            record_calls(p, name, self.backward_order)

    def forward(self) -> Array:
        """The only place that calls the module."""
        rewind(self.generators)
        y = self.module.call(self.check_inputs, *self.inputs.values(), **self.kwargs)
        if not isinstance(y, np.ndarray | np.generic | float | int):
            raise GradientError(
                f"forward returned a {type(y).__name__}; expected one array, or a number"
            )
        return np.array(y)  # a copy: forward may use its buffer again

    def backward(self) -> dict[str, Any]:
        """dx by the name of the input. A loss may have a backward without argument."""
        try:
            dx = self.module.backward(*([self.dy] if self.takes_dy else []))
        except (ShapeError, BackwardError) as error:
            advice = self.rejected_gradient(error)
            if advice is None:
                raise
            raise GradientError(advice) from error
        return self.by_input(dx)

    def by_input(self, dx: Any) -> dict[str, Any]:
        """What backward returned, by the name of the input."""
        given = [copy.copy(d) for d in (dx if isinstance(dx, tuple | list) else [dx])]
        # A tuple has one gradient for each input, or for each floating-point input.
        names = list(self.inputs) if len(given) == len(self.inputs) > 1 else self.float_inputs
        return dict(zip(names, given, strict=False))

    def forward_backward_twice(self, rng: np.random.Generator) -> list[AnalyticGradient]:
        """Run both passes twice and collect the gradients.

        Raises: GradientError if forward or backward itself is at fault.
        """
        before = {name: x.copy() for name, x in self.arrays().items()}
        for name, x in before.items():
            if not np.isfinite(x).all():
                raise GradientError(f"{name} contains NaN or infinity before forward has begun")
        self.y = self.forward()
        messages.check_unchanged("forward", before, self.arrays())
        messages.check_output(self.y, self.forward())

        self.dy = np.asarray(rng.standard_normal(self.y.shape) if self.takes_dy else 1.0)
        before["dy"] = self.dy.copy()
        self.size = max(float(np.linalg.norm(self.y * self.dy)), 1e-300)
        dxs = self.backward()
        messages.check_unchanged("backward", before, {**self.arrays(), "dy": self.dy})
        once = {name: copy.copy(p.grad) for name, p in self.trainable.items()}
        self.forward()
        self.backward()

        gradients = []
        for name in self.float_inputs:
            dx, x, label = dxs.get(name), self.inputs[name], f"d{name}"
            if dx is None:
                advice: str | None = messages.not_returned(name)
            else:
                advice = messages.unusable(label, dx := np.asarray(dx), x)
            gradients.append(AnalyticGradient(name, label, x, dx, advice))
        for name, p in self.trainable.items():
            grad, label = once[name], f"{name}.grad"
            if grad is None:
                advice = messages.never_added(name)
            else:
                advice = messages.unusable(label, grad, p.value, self.input_shapes())
                advice = advice or messages.not_doubled(name, grad, p.grad)
            gradients.append(AnalyticGradient(name, label, p.value, grad, advice))
        return gradients

    def input_shapes(self) -> list[tuple[int, ...]]:
        return [np.shape(x) for x in self.inputs.values()]

    def arrays(self) -> dict[str, Array]:
        """What forward and backward must leave as it is."""
        named = {f"the input {name}": x for name, x in (self.inputs | self.kwargs).items()}
        named |= {f"the parameter {name}": p.value for name, p in self.module.named_parameters()}
        return {
            n: x for n, x in named.items() if isinstance(x, np.ndarray) and x.dtype.kind in "fiub"
        }

    def rejected_gradient(self, error: Exception) -> str | None:
        """If a Parameter rejected the gradient that backward computed: which one, and why."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        variables = trace.tb_frame.f_locals if trace is not None else {}
        for name, p in self.module.named_parameters():
            if variables.get("self") is p:
                if not p.trainable:
                    return messages.frozen_with_gradient(name)
                return messages.wrong_shape(
                    f"{name}.grad", variables["grad"].shape, p.shape, self.input_shapes()
                )
        return None

    def frozen_gradients(self) -> list[str]:
        """Advice for every frozen parameter that has a gradient."""
        named = self.module.named_parameters()
        return [
            messages.frozen_with_gradient(name)
            for name, p in named
            if not p.trainable and p.grad is not None
        ]

    def linear_calls(self) -> dict[str, tuple[Array, Array, Array]]:
        """For each Linear inside that ran: its x and y, and the dy it was given, as (N, d)."""
        module = copy.deepcopy(self.untouched)
        calls: dict[str, dict[str, Array]] = {}
        for name, layer in module.named_modules():
            if isinstance(layer, Linear) and layer is not module:
                record_arrays(layer, calls.setdefault(name, {}))
        rewind(generators_of(module))
        module.call(self.check_inputs, *self.inputs.values(), **self.kwargs)
        module.backward(*([self.dy] if self.takes_dy else []))
        return {n: (c["x"], c["y"], c["dy"]) for n, c in calls.items() if "dy" in c}

    # -- numerical derivatives -----------------------------------------------------------------

    def derivatives(self, array: Array, move: Move, h: float) -> tuple[float, float]:
        """(L(h) - L(0)) / h and (L(0) - L(-h)) / h, with `array` moved along `move`.

        The outputs are subtracted before they are summed: what does not change cancels exactly.
        """
        up, down = (self.moved(array, move, step) for step in (h, -h))
        right = float(np.sum((up - self.y) * self.dy)) / h
        left = float(np.sum((self.y - down) * self.dy)) / h
        return right, left

    def is_outside_kink(self, array: Array, move: Move, gradient: float) -> bool:
        """Whether `gradient` is none of those between the derivatives from the two sides.

        Known only for modules without others inside: there each output has one kink at most.
        """
        if not isinstance(move, int) or any(True for _ in self.module.children()):
            return False
        h = 1e-7 * max(1.0, float(np.abs(array).max()))
        up, down = (self.moved(array, move, step) for step in (h, -h))
        sides = np.stack([(up - self.y) * self.dy / h, (self.y - down) * self.dy / h])
        low, high = float(sides.min(axis=0).sum()), float(sides.max(axis=0).sum())
        margin = 1e-6 * max(abs(low), abs(high), 1e-6 * self.size)
        return not low - margin <= gradient <= high + margin

    def moved(self, array: Array, move: Move, step: float) -> Array:
        """The output with `array` moved by `step` along `move`."""
        where = np.unravel_index(move, array.shape) if isinstance(move, int) else ...
        old = array[where].copy()
        array[where] = old + (step if isinstance(move, int) else step * move)
        y = self.forward()
        array[where] = old
        return y

    def extrapolated_derivative(self, array: Array, move: Move, h: float) -> tuple[float, float]:
        """The derivative from the best of several steps, and how far it can be trusted.

        At each step, right and left derivatives are extrapolated to step 0 (Richardson); how far
        they are from meeting, and the rounding error, say how good this step is. At a kink they
        never meet. The gradient under check plays no part in the choice.
        """
        found = []
        for step in (h * factor for factor in STEP_FACTORS):
            right, left = self.derivatives(array, move, step)
            half_right, half_left = self.derivatives(array, move, step / 2)
            derivative = (2 * (half_right + half_left) - (right + left) / 2) / 3
            gap = abs((2 * half_right - right) - (2 * half_left - left))
            if np.isfinite(gap):
                found.append((gap + 4 * EPSILON * self.size / step, derivative))
        doubt, derivative = min(found, default=(np.inf, 0.0))
        return derivative, doubt


def vary_constants(parameters: Iterable[Parameter], rng: np.random.Generator) -> None:
    """Move parameters whose entries are all equal: weights of 0 and gains of 1 hide mistakes."""
    for p in parameters:
        if p.size and (p.value == p.value.flat[0]).all():
            noise = rng.uniform(-0.5, 0.5, p.shape)
            if p.value.any():
                p.value *= 1 + noise  # keeps the sign: some values must be positive
            else:
                p.value += noise / np.sqrt(p.shape[-1] if p.shape else 1)  # small in wide layers


def vary_special(name: str, x: Any, rng: np.random.Generator) -> str | None:
    """Move an input in which numbers repeat by a pattern, in place; the note for the report.

    At a constant or symmetric input x.T @ dy, sums over one axis or another, and a mean and a
    single entry may be the same: mistakes hide. Signs are kept, and zeros move if all are zero.
    """
    if not is_float(x) or x.size < 2 or not (pattern := pattern_in(x)):
        return None
    noise = rng.uniform(-0.5, 0.5, x.shape)
    x += noise * x if x.any() else noise
    return f"{name} is {pattern}, which hides mistakes: random numbers were added to it"


def pattern_in(x: Array) -> str | None:
    if (x == x.flat[0]).all():
        return "constant"
    long = [axis for axis in range(x.ndim) if x.shape[axis] > 1]
    if any((x == x.take([0], axis)).all() for axis in long):
        return "the same along an axis"
    square = x.ndim >= 2 and x.shape[-1] == x.shape[-2] > 1
    if square and (x == x.swapaxes(-1, -2)).all():
        return "symmetric"
    return "symmetric" if any((x == np.flip(x, axis)).all() for axis in long) else None


def generators_of(module: Module) -> list[tuple[np.random.Generator, Any]]:
    """Every random generator that a module holds, with its state."""
    return [
        (value, value.bit_generator.state)
        for _, submodule in module.named_modules()
        for value in vars(submodule).values()
        if isinstance(value, np.random.Generator)
    ]


def rewind(generators: list[tuple[np.random.Generator, Any]]) -> None:
    for generator, state in generators:
        generator.bit_generator.state = state


def record_calls(parameter: Parameter, name: str, calls: list[str]) -> None:
    """Append `name` to `calls` whenever a gradient is added to this parameter."""
    accumulate = parameter.accumulate

    def recorded(grad: Array | RowGradient, own: bool = False) -> None:
        calls.append(name)
        accumulate(grad, own)

    parameter.accumulate = recorded  # type: ignore[method-assign]


def record_arrays(layer: Linear, found: dict[str, Array]) -> None:
    """Note what `layer` reads and returns, and the gradient that reaches it."""
    forward, backward = layer.forward, layer.backward

    def recorded_forward(x: Array) -> Array:
        y = forward(x)
        found["x"], found["y"] = flat(x).copy(), flat(y).copy()
        return y

    def recorded_backward(dy: Array) -> Array | None:
        found["dy"] = flat(dy).copy()
        return backward(dy)

    layer.forward = recorded_forward  # type: ignore[method-assign]
    layer.backward = recorded_backward  # type: ignore[method-assign]


def is_float(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def float64_copy(x: Any) -> Any:
    return np.array(x, np.float64) if is_float(x) else copy.deepcopy(x)


def argument_names(module: Module, n: int) -> list[str]:
    """What forward calls its first n arguments."""
    parameters = inspect.signature(module.forward).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [names[i] if i < len(names) else f"x{i}" for i in range(n)]


def rms(x: Array) -> float:
    """The root mean square of the entries."""
    return float(np.sqrt(np.mean(np.square(x)))) if x.size else 0.0

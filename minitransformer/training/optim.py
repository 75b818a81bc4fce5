"""Optimizers, learning-rate schedule, gradient clipping. They see only what trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import numpy as np

from ..errors import CheckpointError, ConfigError
from ..nn import kernels
from ..nn.module import Array, Parameter
from ..nn.row_gradient import RowGradient

Schedule = Callable[[int], float]
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # as the built-in `map`

PIECE = 1 << 20  # numbers of a parameter that are handled at a time

_map: ContextVar[Map] = ContextVar("map", default=map)


@contextmanager
def spread_over(map: Map) -> Iterator[None]:
    """Inside, AdamW and clipping give their pieces of work to this `map`, as that of a thread pool.

    Their results are the same.
    """
    token = _map.set(map)
    try:
        yield
    finally:
        _map.reset(token)


class SGD:
    """w <- w - lr g, with optional momentum v <- momentum v + g, w <- w - lr v.

    `parameters`: name -> Parameter, as `model.trainable_parameters()` gives. `lr` is an attribute:
    a schedule sets it before each step.
    Raises: ConfigError for parameters without names, or a number out of range.
    """

    def __init__(
        self, parameters: Mapping[str, Parameter], lr: float, momentum: float = 0.0
    ) -> None:
        check_optimizer(parameters, lr=lr, momentum=momentum)
        self.parameters, self.lr, self.momentum = dict(parameters), lr, momentum
        self.velocity = zeros_for(parameters) if momentum else {}

    def step(self) -> None:
        """Move every parameter that has a gradient, in place."""
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            direction = parameter.grad
            if self.momentum:
                velocity = self.velocity[name]
                velocity *= self.momentum
                velocity += direction
                direction = velocity
            parameter.value -= self.lr * direction

    def state_dict(self) -> dict[str, Array]:
        """The arrays that resuming needs, beside the parameters (themselves, not copies)."""
        return {f"velocity/{name}": v for name, v in self.velocity.items()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy a state in. Raises: CheckpointError for a state of other parameters."""
        load_arrays(self.state_dict(), state)


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101, alg. 2).

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;
    w <- w - lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay w).
    Only matrices decay: biases and norms have no direction to shrink along.

    `parameters`: name -> Parameter, as `model.trainable_parameters()` gives. `lr` is an attribute:
    a schedule sets it before each step. `t` counts the steps; `updates` how often each
    parameter has moved, name -> (1,), which is the t of its own m and v above.

    Most rows of an embedding have been in no batch yet: their m and v are 0, so they only decay.
    Nothing else is computed for them, and the result is the same to the last bit.
    Raises: ConfigError for parameters without names, or a number out of range.
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        check_optimizer(parameters, lr=lr, eps=eps, weight_decay=weight_decay)
        if not all(0 <= beta < 1 for beta in betas):
            raise ConfigError(f"betas={betas}: expected two numbers, each from 0 to below 1")
        self.parameters, self.lr = dict(parameters), lr
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.t = 0
        self.updates = {name: np.zeros(1, np.int64) for name in parameters}
        self.m, self.v = zeros_for(parameters), zeros_for(parameters)
        self.reached: dict[str, Array] = {}  # rows of an embedding that had a gradient, (n,) bool

    def step(self) -> None:
        """Move every parameter that has a gradient, in place."""
        self.t += 1
        moving = {name: p for name, p in self.parameters.items() if p.stored_grad is not None}
        rows = {name: self.rows_to_move(name, p) for name, p in moving.items()}
        grads = {name: gradient_of(p, rows[name]) for name, p in moving.items()}
        for name in moving:
            self.updates[name] += 1

        def move(piece: tuple[str, slice]) -> None:
            name, part = piece
            some = rows[name]
            where = part if some is None else some[part]
            arrays = (moving[name].value, self.m[name], self.v[name])
            value, m, v = own = [a[where] for a in arrays]  # views by a slice, copies by indices
            decay = self.weight_decay if value.ndim >= 2 else 0.0
            t = int(self.updates[name][0])
            grad = grads[name][part]
            kernels.adamw(value, grad, m, v, t, self.lr, self.betas, self.eps, decay)
            if some is not None:
                for array, moved in zip(arrays, own, strict=True):
                    array[where] = moved

        def decay_others(piece: tuple[str, slice]) -> None:
            name, part = piece
            factor = np.where(self.reached[name][part], 1, 1 - self.lr * self.weight_decay)
            moving[name].value[part] *= factor[:, None].astype(moving[name].value.dtype)

        if self.weight_decay:
            partly = {name: moving[name] for name in moving if rows[name] is not None}
            list(_map.get()(decay_others, pieces(partly)))
        list(_map.get()(move, pieces(grads)))

    def rows_to_move(self, name: str, parameter: Parameter) -> Array | None:
        """Of an embedding, the rows that have had a gradient; None where all rows are moved."""
        if not isinstance(parameter.stored_grad, RowGradient):
            self.reached.pop(name, None)
            return None
        if name not in self.reached:
            self.reached[name] = ((self.m[name] != 0) | (self.v[name] != 0)).any(axis=1)
        self.reached[name][parameter.stored_grad.rows] = True
        rows = np.flatnonzero(self.reached[name])
        return rows if 2 * len(rows) < len(parameter.value) else None

    def state_dict(self) -> dict[str, Array]:
        """The arrays that resuming needs, beside the parameters (themselves, not copies)."""
        kinds = {"updates": self.updates, "m": self.m, "v": self.v}
        state = {f"{k}/{name}": a for k, arrays in kinds.items() for name, a in arrays.items()}
        return {"t": np.array([self.t]), **state}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy a state in. Raises: CheckpointError for a state of other parameters."""
        load_arrays(self.state_dict(), state)
        self.t = int(state["t"][0])
        self.reached.clear()


def warmup_linear_decay(peak: float, warmup_steps: int, total_steps: int) -> Schedule:
    """Learning rate for step 0, 1, ...: up in a line to `peak`, then down in a line to 0.

    During warm-up this is one step ahead of `get_linear_schedule_with_warmup` of `transformers`,
    whose first step has rate 0 and moves nothing: here the first has peak / warmup_steps. After
    warm-up the two are equal.
    Raises: ConfigError if warm-up is longer than training.
    """
    if not 0 <= warmup_steps <= total_steps:
        raise ConfigError(f"warmup_steps={warmup_steps}: expected 0 to total_steps={total_steps}")

    def rate(step: int) -> float:
        if step < warmup_steps:
            return peak * (step + 1) / warmup_steps
        return peak * max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))

    return rate


def clip_by_global_norm(parameters: Mapping[str, Parameter], max_norm: float) -> float:
    """Scale all gradients so that their common norm is at most `max_norm`; return the norm before.

    (Pascanu et al. 2013, arXiv 1211.5063, algorithm 1.)
    Raises: ConfigError unless `max_norm` is positive.
    """
    if not max_norm > 0:
        raise ConfigError(f"max_norm={max_norm}: expected a positive number")
    grads = {name: stored_values(p) for name, p in parameters.items() if p.stored_grad is not None}
    parts = [grads[name][rows] for name, rows in pieces(grads)]
    each = _map.get()
    norm = math.sqrt(sum(each(lambda g: float(np.vdot(g, g)), parts)))
    if norm > max_norm:
        list(each(lambda g: np.multiply(g, max_norm / norm, out=g), parts))
    return norm


# -- what both optimizers need ------------------------------------------------------------


def check_optimizer(parameters: Mapping[str, Parameter], **numbers: float) -> None:
    """Raises: ConfigError for parameters without names, none at all, or a bad number."""
    if not isinstance(parameters, Mapping):
        raise ConfigError(
            f"parameters is a {type(parameters).__name__}: expected a mapping from name to "
            "Parameter, as model.trainable_parameters() gives"
        )
    if not parameters:
        raise ConfigError("no parameters to optimize: is every one of them frozen?")
    for name, number in numbers.items():
        if not 0 <= number < math.inf:
            raise ConfigError(f"{name}={number}: expected a number, 0 or more")


def pieces(arrays: Mapping[str, Parameter | Array]) -> Iterator[tuple[str, slice]]:
    """Rows of about PIECE numbers: the name of the array, and which of its rows."""
    for name, array in arrays.items():
        value = array.value if isinstance(array, Parameter) else array
        for rows in kernels.row_tiles(value, PIECE):
            yield name, rows


def stored_values(parameter: Parameter) -> Array:
    """The numbers of a gradient that may differ from zero."""
    stored = parameter.stored_grad
    return stored.values if isinstance(stored, RowGradient) else cast(Array, stored)


def gradient_of(parameter: Parameter, rows: Array | None) -> Array:
    """The gradient of these rows, (k, d), if all others have none; None: the whole gradient."""
    if rows is None:
        return cast(Array, parameter.grad)
    stored = cast(RowGradient, parameter.stored_grad)
    grad = np.zeros((len(rows), stored.shape[1]), stored.values.dtype)
    grad[np.searchsorted(rows, stored.rows)] = stored.values
    return grad


def zeros_for(parameters: Mapping[str, Parameter]) -> dict[str, Array]:
    """An array of zeros for each parameter."""
    return {name: np.zeros_like(p.value) for name, p in parameters.items()}


def load_arrays(own: Mapping[str, Array], state: Mapping[str, Array]) -> None:
    """Copy arrays of the same names and shapes in; nothing is changed unless all fit.

    Raises: CheckpointError that names what does not fit.
    """
    problems = [f"missing: {name}" for name in own if name not in state]
    problems += [f"unexpected: {name}" for name in state if name not in own]
    problems += [
        f"wrong shape: {name} is {state[name].shape}, expected {own[name].shape}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        listed = "\n  ".join(sorted(problems))
        raise CheckpointError(f"this optimizer state belongs to other parameters:\n  {listed}")
    for name, array in own.items():
        array[...] = state[name]

"""Optimizers, learning-rate schedule, gradient clipping. They see only what trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ..errors import ConfigError
from ..nn.module import Array, Parameter

Schedule = Callable[[int], float]


class SGD:
    """w <- w - lr g, with optional momentum v <- momentum v + g, w <- w - lr v."""

    def __init__(self, parameters: Mapping[str, Parameter], lr: float, momentum: float = 0.0):
        self.parameters, self.lr, self.momentum = dict(parameters), lr, momentum
        self.velocity: dict[str, Array] = {}

    def step(self) -> None:
        """Move every parameter that has a gradient, in place."""
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            direction = parameter.grad
            if self.momentum:
                velocity = self.velocity.setdefault(name, np.zeros_like(direction))
                velocity *= self.momentum
                velocity += direction
                direction = velocity
            parameter.value -= self.lr * direction

    def state(self) -> dict[str, Array]:
        """Arrays to keep for resuming."""
        return {f"velocity/{name}": v for name, v in self.velocity.items()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """The inverse of `state`."""
        self.velocity = {k.removeprefix("velocity/"): v.copy() for k, v in state.items()}


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101, alg. 2).

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;
    w <- w - lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay w).
    Only matrices decay: biases and norms have no direction to shrink along.
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        self.parameters, self.lr = dict(parameters), lr
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.t = 0
        self.m: dict[str, Array] = {}
        self.v: dict[str, Array] = {}

    def step(self) -> None:
        """Move every parameter that has a gradient, in place."""
        self.t += 1
        b1, b2 = self.betas
        step_size = self.lr / (1 - b1**self.t)
        root = math.sqrt(1 - b2**self.t)
        for name, parameter in self.parameters.items():
            g = parameter.grad
            if g is None:
                continue
            if name not in self.m:
                self.m[name], self.v[name] = np.zeros_like(g), np.zeros_like(g)
            m, v = self.m[name], self.v[name]
            m += (1 - b1) * (g - m)
            v += (1 - b2) * (g * g - v)
            if self.weight_decay and g.ndim >= 2:
                parameter.value *= 1 - self.lr * self.weight_decay
            denominator = np.sqrt(v)
            denominator /= root
            denominator += self.eps
            np.divide(m, denominator, out=denominator)
            denominator *= step_size
            parameter.value -= denominator

    def state(self) -> dict[str, Array]:
        """Arrays to keep for resuming."""
        moments = {"m": self.m, "v": self.v}
        state = {f"{k}/{name}": a for k, arrays in moments.items() for name, a in arrays.items()}
        return {"t": np.array([self.t]), **state}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """The inverse of `state`."""
        self.t = int(state["t"][0])
        for kind, arrays in (("m/", self.m), ("v/", self.v)):
            arrays.clear()
            arrays.update({k[2:]: a.copy() for k, a in state.items() if k.startswith(kind)})


def warmup_linear_decay(peak: float, warmup_steps: int, total_steps: int) -> Schedule:
    """Learning rate for step 0, 1, ...: up in a line to `peak`, then down in a line to 0.

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
    """
    grads = [p.grad for p in parameters.values() if p.grad is not None]
    norm = math.sqrt(sum(float(np.vdot(g, g)) for g in grads))
    if norm > max_norm:
        for g in grads:
            g *= max_norm / norm
    return norm

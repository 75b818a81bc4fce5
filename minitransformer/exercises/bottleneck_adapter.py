"""Exercise 3: the bottleneck adapter, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..adapters.bottleneck import Adapter
from ..adapters.config import AdapterConfig
from ..errors import WrongAnswer
from ..models.transformer import Transformer
from ..nn.layers import flat
from ..nn.module import Array
from .catalogue import Part
from .judging import (
    call,
    forward_first,
    right_gradients,
    right_in_model,
    rng_for,
    same_number,
    same_values,
)
from .linear_and_layer_norm import sums_of_dy
from .solution import Solution, variant

D, M = 6, 4
TOKENS = 3, 5  # a width that is one of them would look like it
NEAR_KINK = 1e-2
NO_RELU = "the ReLU is not passed backward: da counts only where a is above 0"


def numbers(rng: np.random.Generator) -> dict[str, Any]:
    """Width, bottleneck and sites of the question about parameters."""
    d, m = 64 * int(rng.integers(5, 17)), int(rng.integers(9, 97))
    return {"d": d, "m": m, "sites": 2 * int(rng.integers(4, 25))}


def adapter(solution: Solution, seed: int, scaling: float = 0.6) -> tuple[Any, np.random.Generator]:
    """A MyAdapter in float64 whose weights are far from their start, where mistakes show."""
    rng = rng_for(seed, 3)
    config = AdapterConfig(M, scaling=scaling)
    mine = call("MyAdapter(...)", solution.get("MyAdapter"), D, config, rng).astype(np.float64)
    for p in mine.parameters():
        p.value[...] = 0.5 * rng.standard_normal(p.shape)
    return mine, rng


def states(mine: Any, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Random h that show a mistake wherever it is: no zeros of the ReLU hide it in some places.

    At each position some of the bottleneck is active (where none is, dh = dy whatever backward does
    with f), and each of its units at two positions, if there are several. None is at a kink.
    """
    while True:
        h = rng.standard_normal(shape)
        z = flat(h @ mine.w_down.value + mine.b_down.value)
        active = z > 0
        units = len(z) == 1 or (active.sum(axis=0) > 1).all()
        if units and active.any(axis=1).all() and np.abs(z).min() > NEAR_KINK:
            return h


def expected_forward(mine: Any, h: Array) -> tuple[Array, dict[str, Array]]:
    """h + s f(h), and what known mistakes would give instead."""
    w_down, b_down = mine.w_down.value, mine.b_down.value
    w_up, b_up, s = mine.w_up.value, mine.b_up.value, mine.scaling
    z = h @ w_down + b_down
    f = np.maximum(z, 0) @ w_up + b_up
    mistakes = {
        "the skip connection is missing, h + ...": s * f,
        "the scaling s is missing": h + f,
        "s multiplies the skip connection as well; it belongs to f alone": s * (h + f),
        "the ReLU is missing": h + s * (z @ w_up + b_up),
        "the bias of the down-projection is missing": h
        + s * (np.maximum(h @ w_down, 0) @ w_up + b_up),
        "the bias of the up-projection is missing": h + s * (np.maximum(z, 0) @ w_up),
        "f(h) is subtracted": h - s * f,
    }
    return h + s * f, mistakes


def known_gradients(mine: Any, inputs: tuple[Any, ...], dy: Array) -> Any:
    """What known mistakes make of the gradients."""
    (h,), s = inputs, mine.scaling
    w_down, w_up = mine.w_down.value, mine.w_up.value
    z = h @ w_down + mine.b_down.value
    da, on = s * dy @ w_up.T, z > 0  # (..., m)
    return {
        "dh": {
            NO_RELU: dy + da @ w_down.T,
            "the scaling s is missing on the way through f": dy + (da / s * on) @ w_down.T,
            "s multiplies the skip connection's share as well": s * dy + (da * on) @ w_down.T,
            "what comes back through f is subtracted": dy - (da * on) @ w_down.T,
            "what comes back through f is missing: h is used there, too": dy,
        },
        "w_up.grad": {
            "it takes z, before the ReLU; W_up multiplies a": flat(z).T @ flat(s * dy),
        },
        "w_down.grad": {
            NO_RELU: flat(h).T @ flat(da),
        },
        "b_down.grad": {
            NO_RELU: flat(da).sum(axis=0),
            **sums_of_dy(da * on),
        },
        "b_up.grad": {
            **sums_of_dy(s * dy),
        },
    }


def forward(solution: Solution, seed: int) -> None:
    for shape in ((*TOKENS, D), (1, 5, D), (3, D), (D,)):
        mine, rng = adapter(solution, seed)
        h = rng.standard_normal(shape)
        expected, mistakes = expected_forward(mine, h)
        same_values(
            f"forward(h) for h of shape {shape}", call("forward", mine.forward, h), expected,
            mistakes,
        )  # fmt: skip


def gradients(solution: Solution, seed: int) -> None:
    forward_first(lambda: forward(solution, seed))
    mine, rng = adapter(solution, seed)
    right_gradients(mine, states(mine, rng, (*TOKENS, D)), known=known_gradients)


def any_shape(solution: Solution, seed: int) -> None:
    forward_first(lambda: forward(solution, seed))
    for shape in ((1, 5, D), (3, 1, D), (7, D), (D,)):
        mine, rng = adapter(solution, seed)
        right_gradients(mine, states(mine, rng, shape), known=known_gradients)


def frozen(solution: Solution, seed: int) -> None:
    forward_first(lambda: forward(solution, seed))
    for name in ("w_down", "b_down", "w_up", "b_up"):
        mine, rng = adapter(solution, seed)
        h = states(mine, rng, (*TOKENS, D))
        getattr(mine, name).requires_grad = False
        right_gradients(mine, h, known=known_gradients)
    mine, rng = adapter(solution, seed)
    mine.call(False, rng.standard_normal((*TOKENS, D)))
    if mine.backward(rng.standard_normal((*TOKENS, D))) is not None:
        raise WrongAnswer(
            "backward returns the gradient of h although nothing before the adapter trains: "
            "return None if self.needs_input_grad is false"
        )


def parameters(solution: Solution, seed: int) -> None:
    own = numbers(variant(solution.named_student(), 3))
    d, m, sites = own["d"], own["m"], own["sites"]
    answer = solution.get("PARAMETERS")
    mistakes = {
        "the biases are missing": 2 * d * m * sites,
        "it is the number for a single adapter": 2 * d * m + d + m,
        "one of the two projections is missing": (d * m + d + m) * sites,
        "the two biases have not the same length: one has m entries, the other d": (
            2 * d * m + 2 * m
        )
        * sites,
    }
    what = f"PARAMETERS, for d={d}, m={m} and {sites} adapters,"
    same_number(what, answer, (2 * d * m + d + m) * sites, mistakes)


def prepare(transformer: Transformer) -> None:
    """Freeze the base; scaled adapters at the end of every sub-layer."""
    transformer.freeze()
    transformer.add_adapter("task", AdapterConfig(8, scaling=0.6), np.random.default_rng(0))
    for name, p in transformer.named_parameters():
        if ".adapters.task." in name:
            p.value *= 20  # far from the identity, where mistakes show


def in_the_model(solution: Solution, seed: int) -> None:
    forward_first(lambda: forward(solution, seed))
    right_in_model({"Adapter": solution.get("MyAdapter")}, prepare, "your adapter")


LIBRARY = (Adapter.forward, Adapter.backward, Adapter.f, Adapter.f_backward)
PARTS = (
    Part("forward", 3, forward),
    Part("gradients", 5, gradients),
    Part("any-shape", 2, any_shape),
    Part("frozen", 3, frozen),
    Part("parameters", 1, parameters),
    Part("in-the-model", 3, in_the_model),
)

"""Exercise 4: a start near the identity, and why."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..adapters.bottleneck import Adapter
from ..adapters.config import AdapterConfig
from ..errors import WrongAnswer
from ..models.transformer import Transformer
from ..nn.layers import truncated_normal
from ..nn.module import Array
from .catalogue import Part
from .hooks import use
from .judging import call, forward_first, real_batch, rng_for, same_values
from .solution import Solution, variant

NAMES = ("w_down", "b_down", "w_up", "b_up")
SIGMAS = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)
TRUNCATED = 0.8796  # standard deviation of a normal of sigma 1 that is cut at two sigma
ZEROS = {"zero_up": ("up.weight",), "both_zero": ("up.weight", "down.weight")}


def numbers(rng: np.random.Generator) -> dict[str, Any]:
    """An adapter's size, and how far from the identity it may start."""
    d, m = 64 * int(rng.integers(2, 9)), 8 * int(rng.integers(1, 9))
    allowed = int(rng.integers(1, len(SIGMAS) - 1))  # the largest sigma that is small enough
    f = drift_at(d, m, SIGMAS[allowed])
    return {"d": d, "m": m, "bound": float(f"{2 * f:.2g}")}  # the next sigma has four times as much


def drift_at(d: int, m: int, sigma: float) -> float:
    rng = np.random.default_rng(0)
    down, up = truncated_normal(rng, (d, m), sigma), truncated_normal(rng, (m, d), sigma)
    h = np.random.default_rng(1).standard_normal((200, d))
    return relative(np.maximum(h @ down, 0) @ up, h)


def relative(f: Array, h: Array) -> float:
    return float(np.linalg.norm(f) / np.linalg.norm(h))


def start_weights(solution: Solution, seed: int) -> None:
    d, m = 96, 40
    for sigma in (0.01, 0.3):
        got = call("start_weights", solution.get("start_weights"), d, m, rng_for(seed, 4), sigma)
        if not isinstance(got, tuple | list) or len(got) != 4:
            raise WrongAnswer(f"start_weights returns four arrays: {', '.join(NAMES)}")
        shapes = ((d, m), (m,), (m, d), (d,))
        for name, array, shape in zip(NAMES, got, shapes, strict=True):
            check_start(name, np.asarray(array), shape, sigma)
        if np.array_equal(np.asarray(got[0]), np.asarray(got[2]).T):
            raise WrongAnswer("w_up is the transpose of w_down: draw each of them")
    function = solution.get("start_weights")
    first, second, again = (function(d, m, rng_for(seed, 4, i), 0.01)[0] for i in (0, 1, 0))
    if not np.array_equal(first, again):
        raise WrongAnswer(
            "w_down differs for two generators of the same seed: draw from the rng that you are "
            "given, always, so that a start can be repeated"
        )
    if np.mean(first == second) > 0.1:
        raise WrongAnswer(
            "w_down is the same for two generators: draw from the rng that you are given, always"
        )


def check_start(name: str, array: Array, shape: tuple[int, ...], sigma: float) -> None:
    if array.shape != shape:
        raise WrongAnswer(f"{name} has shape {array.shape}, but should have {shape}")
    if array.dtype != np.float32:
        raise WrongAnswer(f"{name} is {array.dtype}; weights are float32, as those of the encoder")
    if name.startswith("b_"):
        if array.any():
            raise WrongAnswer(f"{name} is not zero: biases start at 0")
        return
    largest, std = float(np.abs(array).max()), float(array.std())
    if std == 0:
        raise WrongAnswer(f"all entries of {name} are equal: draw them at random")
    if abs(std / (TRUNCATED * sigma**2) - 1) < 0.05 and sigma != 1:
        raise WrongAnswer(
            f"{name} has standard deviation {std:.3g} for sigma={sigma}: that is of the order of "
            "sigma squared; sigma is the standard deviation, not the variance"
        )
    if largest > 2 * sigma * 1.0001:
        raise WrongAnswer(
            f"{name} has an entry of size {largest:.3g} for sigma={sigma}: nothing may lie beyond "
            f"two sigma, {2 * sigma:g}"
        )
    if np.mean(array == 0) > 0.01:
        raise WrongAnswer(
            f"{100 * np.mean(array == 0):.0f} % of {name} are exactly 0: entries outside two sigma "
            "are drawn again, not set to 0"
        )
    if abs(array.mean()) > 0.1 * sigma:
        raise WrongAnswer(f"{name} has mean {array.mean():.3g}; expected about 0")
    at_edge = float(np.mean(np.abs(array) > 1.999 * sigma))
    if at_edge > 0.01:
        raise WrongAnswer(
            f"{100 * at_edge:.0f} % of {name} lie exactly at two sigma: entries outside are drawn "
            "again, not moved to the edge"
        )
    if abs(std / (TRUNCATED * sigma) - 1) > 0.05:
        raise WrongAnswer(
            f"{name} has standard deviation {std:.3g} for sigma={sigma}; a normal that is drawn "
            f"again beyond two sigma has {TRUNCATED * sigma:.3g}"
        )


def drift(solution: Solution, seed: int) -> None:
    rng, d, m = rng_for(seed, 4, 2), 12, 5
    h = rng.standard_normal((3, 4, d))
    down, b_down = rng.standard_normal((d, m)), rng.standard_normal(m)
    up, b_up = rng.standard_normal((m, d)), rng.standard_normal(d)
    z = h @ down + b_down
    f = np.maximum(z, 0) @ up + b_up
    mistakes = {
        "it is the size of h + f(h); the skip connection is what does not change h": relative(
            h + f, h
        ),
        "the ReLU is missing": relative(z @ up + b_up, h),
        "it is the inverse of what is asked": 1 / relative(f, h),
        "it is the absolute size of f(h); divide by the size of h": float(np.linalg.norm(f)),
        "it is the square: take the root of the sums of squares": relative(f, h) ** 2,
    }
    got = call("drift", solution.get("drift"), h, down, b_down, up, b_up)
    same_values("drift", np.float64(got), np.float64(relative(f, h)),
                {k: np.float64(v) for k, v in mistakes.items()})  # fmt: skip


def largest_sigma(solution: Solution, seed: int) -> None:
    own = numbers(variant(solution.named_student(), 4))
    fits = [s for s in SIGMAS if drift_at(own["d"], own["m"], s) <= own["bound"]]
    answer = solution.get("LARGEST_SIGMA")
    if answer not in SIGMAS:
        raise WrongAnswer(f"LARGEST_SIGMA is {answer!r}: expected one of {SIGMAS}")
    if answer != max(fits):
        side = "too large" if answer > max(fits) else "not the largest"
        raise WrongAnswer(
            f"LARGEST_SIGMA={answer} is {side} for {own}: its drift is "
            f"{drift_at(own['d'], own['m'], answer):.2g}"
        )


def without_gradient(start: str) -> set[str]:
    """The arrays whose gradient is zero in the first step; of the library's own adapter."""
    rng = rng_for(0, 4)
    adapter = Adapter(4, AdapterConfig(3, activation="relu"), rng)
    named = dict(adapter.named_parameters())
    for name in ZEROS[start]:
        named[name].value[...] = 0
    h = rng.standard_normal((20, 4)).astype(np.float32)
    adapter.call(True, h)
    adapter.backward(h)
    ours = zip(NAMES, ("down.weight", "down.bias", "up.weight", "up.bias"), strict=True)
    return {mine for mine, name in ours if not np.any(named[name].grad)}


def no_gradient(solution: Solution, seed: int) -> None:
    answer = solution.get("NO_GRADIENT")
    for start in ZEROS:
        expected = without_gradient(start)
        try:
            given = answer[start]
            given = {given} if isinstance(given, str) else set(given)
        except (TypeError, KeyError) as error:
            raise WrongAnswer(f"NO_GRADIENT[{start!r}] is a set of names of {NAMES}") from error
        if unknown := given - set(NAMES):
            raise WrongAnswer(f"NO_GRADIENT[{start!r}] has {unknown}: the names are {NAMES}")
        if extra := sorted(given - expected):
            raise WrongAnswer(
                f"NO_GRADIENT[{start!r}]: {extra[0]} does get a gradient in the first step; write "
                "its gradient down, and look at what it is multiplied with"
            )
        if missing := sorted(expected - given):
            raise WrongAnswer(
                f"NO_GRADIENT[{start!r}]: {len(missing)} more of the four get none; follow dy from "
                "the end to the beginning"
            )


def in_the_model(solution: Solution, seed: int) -> None:
    forward_first(lambda: start_weights(solution, seed))
    make = solution.get("start_weights")

    class StudentStart(Adapter):
        def __init__(self, d_model: int, config: AdapterConfig, rng: Any = None) -> None:
            super().__init__(d_model, config, rng)
            arrays = make(d_model, config.width(d_model), rng, StudentStart.sigma)
            targets = (self.down.weight, self.down.bias, self.up.weight, self.up.bias)
            for p, array in zip(targets, arrays, strict=True):
                p.value[...] = array

        sigma = 0.01

    ids, mask = real_batch()
    before = Transformer.from_pretrained("tiny").forward(ids, mask)
    changes = []
    for sigma in (0.01, 1.0):
        StudentStart.sigma = sigma
        with use(Adapter=StudentStart):
            model = Transformer.from_pretrained("tiny")
            model.add_adapter("task", AdapterConfig(16), rng_for(seed, 4, 3))
        changes.append(relative(model.forward(ids, mask) - before, before))
    if not 0 < changes[0] < 0.05 < changes[1]:
        raise WrongAnswer(
            f"with your start the encoder's output changes by {changes[0]:.2g} of its size at "
            f"sigma=0.01 and by {changes[1]:.2g} at sigma=1; expected little and much"
        )


LIBRARY = (truncated_normal,)
PARTS = (
    Part("start-weights", 4, start_weights),
    Part("drift", 2, drift),
    Part("largest-sigma", 2, largest_sigma),
    Part("no-gradient", 4, no_gradient),
    Part("in-the-model", 3, in_the_model),
)

"""Exercise 7: LoRA, and merging it into the weight."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..adapters.config import LoRAConfig
from ..adapters.linear import AdaptedLinear
from ..adapters.lora import LoRA
from ..errors import WrongAnswer
from ..models.transformer import Transformer
from ..nn.layers import Linear
from ..nn.module import Array
from .catalogue import Part
from .hooks import use
from .judging import (
    call,
    check_one_array,
    close,
    forward_first,
    real_batch,
    right_gradients,
    right_in_model,
    rng_for,
    same_number,
    same_values,
)
from .solution import Solution, variant

D_IN, D_OUT, R, ALPHA = 6, 7, 4, 9.0
TOKENS = 3, 5  # a width that is one of them would look like it


def numbers(rng: np.random.Generator) -> dict[str, Any]:
    """Sizes of a weight, and the rank of its update."""
    d_in, d_out = (64 * int(n) for n in rng.integers(4, 33, 2))
    return {"d_in": d_in, "d_out": d_out, "rank": int(rng.integers(3, 65))}


def updated(solution: Solution, seed: int) -> tuple[AdaptedLinear, Any, np.random.Generator]:
    """A frozen Linear with the student's update beside it, in float64, away from its start."""
    rng = rng_for(seed, 7)
    linear = AdaptedLinear(Linear(D_IN, D_OUT))
    linear.freeze()
    config = LoRAConfig(R, ALPHA)
    mine = call("MyLoRA(...)", solution.get("MyLoRA"), linear, config, (0,), 1, rng)
    linear.insert("lora", mine)
    linear.active = ("lora",)
    linear.astype(np.float64)
    for p in linear.parameters():
        p.value[...] = rng.standard_normal(p.shape)
    return linear, mine, rng


def right_forward(solution: Solution, seed: int) -> None:
    for shape in ((*TOKENS, D_IN), (1, 5, D_IN), (3, D_IN), (D_IN,)):
        _, mine, rng = updated(solution, seed)
        x, y = rng.standard_normal(shape), rng.standard_normal((*shape[:-1], D_OUT))
        u = x @ mine.a.value @ mine.b.value
        mistakes = {
            "the scaling alpha / r is missing": y + u,
            "it is scaled by alpha alone; divide by the rank": y + ALPHA * u,
            "it is scaled by r / alpha": y + u * R / ALPHA,
            "y, what the Linear gives, is missing: the update is added to it": u * ALPHA / R,
            "the scaling belongs to the update alone, not to y": ALPHA / R * (y + u),
            "the update is subtracted": y - u * ALPHA / R,
        }
        got = call("forward", mine.forward, x, y)
        same_values(f"forward(x, y) for x of shape {shape}", got, y + ALPHA / R * u, mistakes)


def known_gradients(linear: Any, inputs: tuple[Any, ...], dy: Array) -> Any:
    """What known mistakes make of the gradients."""
    mine = linear.adapters["lora"]
    s, a, b = mine.scaling, mine.a.value, mine.b.value
    base = dy @ linear.weight.value.T  # the share of the frozen Linear
    through = s * dy @ b.T @ a.T
    return {
        "dx": {
            "the scaling alpha / r is missing on the way back": base + through / s,
            "what comes back through the update is missing": base,
            "what comes back through the update is subtracted": base - through,
            "the Linear's share is in it twice: return that of the update alone": 2 * base
            + through,
        },
    }


def gradients_of(linear: AdaptedLinear, x: Array) -> None:
    """Check them; a hint names the student's arrays as they do, `a`, not `adapters.lora.a`."""
    try:
        right_gradients(linear, x, known=known_gradients)
    except WrongAnswer as wrong:
        raise WrongAnswer(str(wrong).replace("adapters.lora.", "")) from wrong


def gradients(solution: Solution, seed: int) -> None:
    forward_first(lambda: right_forward(solution, seed))
    for shape in ((*TOKENS, D_IN), (1, 5, D_IN), (3, D_IN)):
        linear, mine, rng = updated(solution, seed)
        x, y = rng.standard_normal(shape), rng.standard_normal((*shape[:-1], D_OUT))
        check_one_array(mine, x, y)
        gradients_of(linear, x)


def frozen(solution: Solution, seed: int) -> None:
    forward_first(lambda: right_forward(solution, seed))
    for name in ("a", "b"):
        linear, mine, rng = updated(solution, seed)
        getattr(mine, name).requires_grad = False
        gradients_of(linear, rng.standard_normal((*TOKENS, D_IN)))
    linear, mine, rng = updated(solution, seed)
    y = linear.call(False, rng.standard_normal((*TOKENS, D_IN)))
    if mine.backward(rng.standard_normal(y.shape)) is not None:
        raise WrongAnswer(
            "backward returns the gradient of x although nothing before the Linear trains: "
            "return None if self.needs_input_grad is false"
        )


def merged(solution: Solution, seed: int) -> None:
    linear, mine, _ = updated(solution, seed)
    weight, bias = linear.weight.value, linear.bias.value
    got = call("merged", mine.merged, weight, bias)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise WrongAnswer(
            f"merged returns {type(got).__name__}; expected two arrays, the weight and the bias"
        )
    ab = mine.a.value @ mine.b.value
    mistakes: dict[str, Array] = {
        "the scaling alpha / r is missing": weight + ab,
        "it is scaled by alpha alone; divide by the rank": weight + ALPHA * ab,
        "the weight itself is missing": ALPHA / R * ab,
        "the update is subtracted": weight - ALPHA / R * ab,
        "it is the plain weight": weight,
    }
    same_values("the merged weight", got[0], weight + ALPHA / R * ab, mistakes)
    same_values("the merged bias", got[1], bias, {"LoRA does not change it": 0 * bias})


def parameters(solution: Solution, seed: int) -> None:
    own = numbers(variant(solution.named_student(), 7))
    d_in, d_out, r = own["d_in"], own["d_out"], own["rank"]
    mistakes = {
        "it is that of the whole weight": d_in * d_out,
        "it is that of A alone": d_in * r,
        "it is that of B alone": d_out * r,
        "LoRA has no biases": r * (d_in + d_out) + r + d_out,
    }
    answer = solution.get("PARAMETERS")
    same_number(f"PARAMETERS, for {own},", answer, r * (d_in + d_out), mistakes)


CONFIG = LoRAConfig(4, 8.0, targets=("output", "up", "down"))


def prepare(transformer: Transformer) -> None:
    transformer.freeze()
    transformer.add_lora("task", CONFIG, np.random.default_rng(0))
    for name, p in transformer.named_parameters():
        if ".adapters.task." in name and p.value.any():
            p.value *= 0.5
        elif ".adapters.task." in name:  # B starts at zero, where nothing shows
            p.value += 0.1 * np.random.default_rng(1).standard_normal(p.shape).astype(np.float32)


def in_the_model(solution: Solution, seed: int) -> None:
    forward_first(lambda: right_forward(solution, seed))
    mine = solution.get("MyLoRA")
    right_in_model({"LoRA": mine}, prepare, "your LoRA")
    try:
        merged(solution, seed)
    except WrongAnswer as wrong:
        raise WrongAnswer(
            "beside the weights your LoRA is right; merged into them it is not: first make the "
            "part `merged` right"
        ) from wrong
    ids, mask = real_batch()
    with use(LoRA=mine):
        model = Transformer.from_pretrained("tiny")
        prepare(model)
        beside = model.forward(ids, mask)
        model.merge("task")
        into = model.forward(ids, mask)
    if not close(into, beside, 1e-3):
        raise WrongAnswer("the merged model gives other values than the one with LoRA beside it")


LIBRARY = (LoRA.forward, LoRA.backward, LoRA.merged)
PARTS = (
    Part("forward", 3, right_forward),
    Part("gradients", 5, gradients),
    Part("frozen", 2, frozen),
    Part("merged", 3, merged),
    Part("parameters", 1, parameters),
    Part("in-the-model", 3, in_the_model),
)

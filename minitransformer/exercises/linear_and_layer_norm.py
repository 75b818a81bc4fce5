"""Exercise 1: Linear and LayerNorm, backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import WrongAnswer
from ..models.transformer import Transformer
from ..nn import functional, kernels
from ..nn.functional import layer_norm
from ..nn.layers import LayerNorm, Linear, flat
from ..nn.module import Array, Module
from .catalogue import Part
from .judging import (
    call,
    drawn_apart,
    forward_first,
    right_gradients,
    right_in_model,
    rng_for,
    same_number,
    same_values,
)
from .solution import Solution, variant

D_IN, D_OUT, D = 4, 6, 6
TOKENS = 3, 5  # sentences and positions; a width that is one of them would look like it
SHAPES = (TOKENS, (1, 5), (3, 1), (7,), ())  # leading axes


def numbers(rng: np.random.Generator) -> dict[str, Any]:
    """A Linear, three positions and a gradient, all of whole numbers."""

    def draw() -> dict[str, Any]:
        shapes = {"x": (3, 2), "W": (2, 2), "dy": (3, 2)}
        return {n: (rng.integers(2, 10, s) * rng.choice((-1, 1), s)).tolist() for n, s in
                shapes.items()}  # fmt: skip

    def answers(own: dict[str, Any]) -> list[float]:
        return [
            n for right, wrong in answers_by_hand(own).values() for n in (right, *wrong.values())
        ]

    return drawn_apart(draw, answers)


def answers_by_hand(own: dict[str, Any]) -> dict[str, tuple[float, dict[str, float]]]:
    """For each question the right answer, and what known mistakes would give."""
    x, weight, dy = (np.array(own[name]) for name in ("x", "W", "dy"))
    one, mean = (
        "it is that of a single position; the sum goes over all three",
        ("a mean stands where the sum over the positions is meant"),
    )
    of_weight, of_bias = x[:, 0] @ dy[:, 1], dy[:, 1].sum()
    return {
        "W[0, 1]": (of_weight, {
            "that is the gradient of W[1, 0]": x[:, 1] @ dy[:, 0],
            mean: of_weight / 3,
            one: x[0, 0] * dy[0, 1],
        }),
        "b[1]": (of_bias, {
            "that is the gradient of b[0]": dy[:, 0].sum(),
            "the sum goes over the columns as well; each entry of the bias has one of its own":
                dy.sum(),
            mean: of_bias / 3,
        }),
        "x[2, 0]": (weight[0] @ dy[2], {
            "x[2, 0] is multiplied by a row of W; that is a column": weight[:, 0] @ dy[2],
            "it reaches both columns of y; that is one of them": weight[0, 0] * dy[2, 0],
        }),
    }  # fmt: skip


def by_hand(solution: Solution, seed: int) -> None:
    own = numbers(variant(solution.named_student(), 1))
    given = solution.get("BY_HAND")
    for name, (right, mistakes) in answers_by_hand(own).items():
        answer = given.get(name) if isinstance(given, dict) else None
        same_number(f"BY_HAND[{name!r}]", answer, right, mistakes)


def module(solution: Solution, name: str, seed: int) -> tuple[Any, np.random.Generator]:
    """MyLinear or MyLayerNorm in float64 with random parameters."""
    rng = rng_for(seed, 1)
    sizes = (D_IN, D_OUT) if name == "MyLinear" else (D,)
    mine = call(f"{name}(...)", solution.get(name), *sizes).astype(np.float64)
    for p in mine.parameters():
        p.value[...] = rng.standard_normal(p.shape)
    return mine, rng


def width(name: str) -> int:
    return D_IN if name == "MyLinear" else D


def known_of_linear(mine: Any, inputs: tuple[Any, ...], dy: Array) -> Any:
    """What known mistakes make of the gradients of a Linear."""
    (x,), weight = inputs, mine.weight.value
    return {
        "weight.grad": {
            "dy is missing; each row of x is multiplied with its dy": np.repeat(
                flat(x).sum(axis=0)[:, None], weight.shape[1], axis=1
            ),
        },
        "bias.grad": sums_of_dy(dy),
    }


def sums_of_dy(dy: Array) -> dict[str, Array]:
    """For a bias: what is mostly written instead of the sum over all positions."""
    rows = flat(dy)
    return {
        "the sum goes over the columns as well; each entry of the bias has a sum of its own": (
            np.full(rows.shape[1], rows.sum())
        ),
        "it is dy at a single position; the bias is used at every one": rows[0],
        "it is dy at the last position alone; the bias is used at every one": rows[-1],
    }


def known_of_layer_norm(mine: Any, inputs: tuple[Any, ...], dy: Array) -> Any:
    """What known mistakes make of the gradients of a layer norm."""
    (x,), gain = inputs, mine.weight.value
    _, x_hat, rstd = layer_norm(x, gain, mine.bias.value, mine.eps)

    def dx(u: Array, mean: float = 1, along: float = 1) -> Array:
        means = u.mean(axis=-1, keepdims=True), (u * x_hat).mean(axis=-1, keepdims=True)
        return u - mean * means[0] - along * x_hat * means[1]

    u, d = gain * dy, dy.shape[-1]
    of_all = x_hat * (u * x_hat).mean()  # where each position has a mean of its own
    return {
        "dx": {
            "the factor r = 1 / sqrt(variance + eps) is missing": dx(u),
            "the gain is missing: u = gain dy": rstd * dx(dy),
            "mean(u) is not subtracted: the mean depends on x as well": rstd * dx(u, mean=0),
            "x_hat mean(u x_hat) is not subtracted: the variance depends on x as well": rstd
            * dx(u, along=0),
            "mean and variance depend on x as well: two terms are missing": rstd * u,
            "the term of the variance is added, but it is subtracted": rstd * dx(u, along=-1),
            "the term of the mean is added, but it is subtracted": rstd * dx(u, mean=-1),
            "a sum stands where the mean of u is meant": rstd * dx(u, mean=d),
            "a sum stands where the mean of u x_hat is meant": rstd * dx(u, along=d),
            "sums stand where means are meant": rstd * dx(u, mean=d, along=d),
            "mean(u) is one number for all; each position has its own": rstd
            * (dx(u, mean=0) - u.mean()),
            "mean(u x_hat) is one number for all; each position has its own": rstd
            * (dx(u, along=0) - of_all),
            "both means are one number for all; each position has its own": rstd
            * (u - u.mean() - of_all),
        },
        "weight.grad": {
            "x_hat is missing: the gain multiplies x_hat": flat(dy).sum(axis=0),
            "it takes x instead of x_hat": flat(dy * x).sum(axis=0),
            "the gain itself does not belong into its gradient": flat(gain * dy * x_hat).sum(
                axis=0
            ),
        },
        "bias.grad": {
            "x_hat does not belong into the bias's gradient": flat(dy * x_hat).sum(axis=0),
            **sums_of_dy(dy),
        },
    }


KNOWN = {"MyLinear": known_of_linear, "MyLayerNorm": known_of_layer_norm}


def right_forward(solution: Solution, name: str, seed: int) -> None:
    """The forward of the page is given; it must have stayed as it was."""
    mine, rng = module(solution, name, seed)
    x = rng.standard_normal((*TOKENS, width(name)))
    weight, bias = mine.weight.value, mine.bias.value
    expected = x @ weight + bias if name == "MyLinear" else layer_norm(x, weight, bias, mine.eps)[0]
    same_values(f"forward of {name}", call("forward", mine.forward, x), expected)


def right_backward(solution: Solution, name: str, seed: int, shapes: Any = SHAPES[:1]) -> None:
    forward_first(lambda: right_forward(solution, name, seed))
    for shape in shapes:
        mine, rng = module(solution, name, seed)
        right_gradients(mine, rng.standard_normal((*shape, width(name))), known=KNOWN[name])


def right_frozen(solution: Solution, name: str, seed: int) -> None:
    forward_first(lambda: right_forward(solution, name, seed))
    shape = (*TOKENS, width(name))
    for frozen in (("weight",), ("bias",), ("weight", "bias")):
        mine, rng = module(solution, name, seed)
        for parameter in frozen:
            getattr(mine, parameter).requires_grad = False
        right_gradients(mine, rng.standard_normal(shape), known=KNOWN[name])
    mine, rng = module(solution, name, seed)
    y = mine.call(False, rng.standard_normal(shape))
    check_no_input_gradient(mine, rng.standard_normal(y.shape))


def check_no_input_gradient(mine: Module, dy: Any) -> None:
    if mine.backward(dy) is not None:
        raise WrongAnswer(
            "backward returns the gradient of its input although nothing before the module "
            "trains: return None if self.needs_input_grad is false"
        )


def linear_gradients(solution: Solution, seed: int) -> None:
    right_backward(solution, "MyLinear", seed)


def linear_frozen(solution: Solution, seed: int) -> None:
    right_frozen(solution, "MyLinear", seed)


def layer_norm_gradients(solution: Solution, seed: int) -> None:
    right_backward(solution, "MyLayerNorm", seed)


def layer_norm_frozen(solution: Solution, seed: int) -> None:
    right_frozen(solution, "MyLayerNorm", seed)


def any_shape(solution: Solution, seed: int) -> None:
    for name in ("MyLinear", "MyLayerNorm"):
        right_backward(solution, name, seed, SHAPES)


def prepare(transformer: Transformer) -> None:
    """The blocks train, the embeddings do not."""
    transformer.embeddings.freeze()


def in_the_model(solution: Solution, seed: int) -> None:
    names = ("MyLinear", "MyLayerNorm")
    for name in names:
        forward_first(lambda name=name: right_forward(solution, name, seed))  # type: ignore[misc]
    mine = {name.removeprefix("My"): solution.get(name) for name in names}
    right_in_model(mine, prepare, "your Linear and LayerNorm")


LIBRARY = (
    Linear.backward, LayerNorm.backward, functional.layer_norm_backward,
    kernels.layer_norm_backward,
)  # fmt: skip
PARTS = (
    Part("linear-gradients", 4, linear_gradients),
    Part("linear-frozen", 2, linear_frozen),
    Part("by-hand", 1, by_hand),
    Part("layer-norm-gradients", 5, layer_norm_gradients),
    Part("layer-norm-frozen", 1, layer_norm_frozen),
    Part("any-shape", 2, any_shape),
    Part("in-the-model", 3, in_the_model),
)

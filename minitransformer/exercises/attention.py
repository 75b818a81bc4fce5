"""Exercise 2: softmax and attention, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..adapters.config import AdapterConfig
from ..errors import WrongAnswer
from ..models.transformer import Transformer
from ..nn import functional, kernels
from ..nn.attention import additive_attention_mask
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

B, H, Q, T, D_HEAD = 3, 2, 4, 5, 6


def numbers(rng: np.random.Generator) -> dict[str, Any]:
    """The probabilities of four keys, in twentieths, and a gradient of whole numbers."""

    def draw() -> dict[str, Any]:
        cuts = np.sort(rng.choice(np.arange(1, 20), 3, replace=False))
        p = np.diff([0, *cuts, 20]) / 20
        return {"p": p.tolist(), "dp": rng.integers(-9, 10, 4).tolist()}

    return drawn_apart(draw, lambda own: [*ds_by_hand(own).values()])


def ds_by_hand(own: dict[str, Any]) -> dict[str, float]:
    """The gradient of the first score (""), and what known mistakes make of it."""
    p, dp = (np.array(own[name]) for name in ("p", "dp"))
    return {
        "": p[0] * (dp[0] - p @ dp),
        "the sum over all p is missing: every p depends on every score": p[0] * dp[0],
        "p in front is missing": dp[0] - p @ dp,
        "the sum is added, but it is subtracted": p[0] * (dp[0] + p @ dp),
        "the sum is one of dp, without p": p[0] * (dp[0] - dp.sum()),
        "it is p (1 - p) dp, which leaves out what every p owes to the other scores": p[0]
        * (1 - p[0])
        * dp[0],
    }


def by_hand(solution: Solution, seed: int) -> None:
    mistakes = ds_by_hand(numbers(variant(solution.named_student(), 2)))
    right = mistakes.pop("")
    same_number("FIRST_DS", solution.get("FIRST_DS"), right, mistakes, 1e-6)


class SoftmaxUnderTest(Module):
    """The library's softmax with the student's backward."""

    def __init__(self, solution: Solution) -> None:
        self.student_backward = solution.get("softmax_backward")

    def forward(self, scores: Array) -> Array:
        p = functional.softmax(scores)
        self.save_for_backward(p.shape, p)
        return p

    def backward(self, dp: Array) -> Array:
        (p,) = self.pop_saved(dp)
        return call("softmax_backward", self.student_backward, dp, p)


class AttentionUnderTest(Module):
    """The student's attention as a module of three inputs."""

    n_heads = 1  # so that the gradient check knows d_head: it is the width of the output

    def __init__(self, solution: Solution, mask: Array | None) -> None:
        self.student_forward = solution.get("attention")
        self.student_backward = solution.get("attention_backward")
        self.mask = mask

    def forward(self, q: Array, k: Array, v: Array) -> Array:
        context = call("attention", self.student_forward, q, k, v, self.mask)
        self.save_for_backward(context.shape, q, k, v)
        return context

    def backward(self, dcontext: Array) -> Any:
        q, k, v = self.pop_saved(dcontext)
        return three_gradients(self.student_backward, dcontext, q, k, v, self.mask)


def three_gradients(function: Any, *arguments: Any) -> tuple[Array, Array, Array]:
    """dQ, dK and dV of a student's attention_backward. Raises: WrongAnswer if it is not three."""
    found = call("attention_backward", function, *arguments)
    if not isinstance(found, tuple | list):
        raise WrongAnswer(
            f"attention_backward returns {type(found).__name__}; expected three arrays, "
            "(dq, dk, dv)"
        )
    if len(found) != 3:
        raise WrongAnswer(
            f"attention_backward returns {len(found)} arrays; expected three, (dq, dk, dv)"
        )
    if any(gradient is None for gradient in found):
        raise WrongAnswer("attention_backward returns None in place of one of dQ, dK and dV")
    dq, dk, dv = found
    return dq, dk, dv


def known_of_softmax(mine: Any, inputs: tuple[Any, ...], dp: Array) -> Any:
    """What known mistakes make of ds."""
    p = functional.softmax(inputs[0])
    total = np.einsum("...j,...j->...", dp, p)[..., None]
    mistakes = {
        "the sum over all p is missing: every p depends on every score": p * dp,
        "p in front is missing": dp - total,
        "dp is missing: the sum of dp p stands alone": p * total,
        "the sum is added, but it is subtracted": p * (dp + total),
        "the sum is one of dp, without p": p * (dp - dp.sum(axis=-1, keepdims=True)),
        "a mean stands where the sum is meant": p * (dp - total / p.shape[-1]),
        "it is p (1 - p) dp, which leaves out what every p owes to the other scores": p
        * (1 - p)
        * dp,
    }
    if p.ndim > 1:
        columns = (dp * p).sum(axis=-2, keepdims=True)
        mistakes["the sum goes over the queries; softmax is over the last axis"] = p * (
            dp - columns
        )
        mistakes["the sum goes over everything; each query has its own"] = p * (dp - (dp * p).sum())
    return {"dscores": mistakes}


def known_of_attention(mine: Any, inputs: tuple[Any, ...], dcontext: Array) -> Any:
    """What known mistakes make of dq, dk and dv."""
    q, k, v = inputs
    root = np.sqrt(q.shape[-1])
    p = functional.attention_weights(q, k, mine.mask)
    dp = dcontext @ v.swapaxes(-1, -2)
    ds = functional.softmax_backward(dp, p) / root
    bare = functional.attention_weights(q, k)
    wrong_ds = {
        "the softmax is not passed backward: that is dP, where dS is meant": dp / root,
        "dS is p dP, without the sum that the softmax's Jacobian has": p * dp / root,
    }
    wrong_ds["dS is multiplied by sqrt(d_head), where it is divided by it"] = ds * root * root
    if mine.mask is not None:
        wrong_ds["P is computed without the mask"] = functional.softmax_backward(dp, bare) / root
    dq = {sentence: wrong @ k for sentence, wrong in wrong_ds.items()}
    dk = {sentence: wrong.swapaxes(-1, -2) @ q for sentence, wrong in wrong_ds.items()}
    dv = {"dV takes the scores' gradient; it is P^T dC": ds.swapaxes(-1, -2) @ dcontext}
    if mine.mask is not None:
        dv["P is computed without the mask"] = bare.swapaxes(-1, -2) @ dcontext
    if q.shape == k.shape:
        dv["P is not transposed"] = p @ dcontext
        dk["dS is not transposed"] = ds @ q
    return {"dq": dq, "dk": dk, "dv": dv}


def qkv(seed: int, batch: int = B, heads: int = H) -> tuple[Array, Array, Array]:
    rng = rng_for(seed, 2)
    q = rng.standard_normal((batch, heads, Q, D_HEAD))
    k, v = rng.standard_normal((2, batch, heads, T, D_HEAD))
    return q, k, v


def padding(dtype: Any = np.float64) -> Array:
    """The additive mask of three sentences, two of which end in padding."""
    real = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    mask = additive_attention_mask(real, False, B, T, dtype)
    assert mask is not None
    return mask


def softmax_backward(solution: Solution, seed: int) -> None:
    for shape in ((B, H, Q, T), (1, 1, 2, T), (T,)):
        scores = rng_for(seed, 2).standard_normal(shape)
        right_gradients(SoftmaxUnderTest(solution), scores, known=known_of_softmax)


def right_forward(solution: Solution, seed: int, mask: Array | None = None) -> None:
    for batch, heads in ((B, H), (B, 1)):
        q, k, v = qkv(seed, batch, heads)
        expected = functional.attention(q, k, v, mask)
        scores = q @ k.swapaxes(-1, -2)
        added = 0 if mask is None else mask
        scaled = scores / np.sqrt(D_HEAD)
        columns = np.exp(scaled + added) / np.exp(scaled + added).sum(axis=-2, keepdims=True)
        mistakes = {
            "the scores are not divided by sqrt(d_head)": functional.softmax(scores + added) @ v,
            "the scores are divided by d_head instead of its square root": functional.softmax(
                scores / D_HEAD + added
            )
            @ v,
            "the mask is not added to the scores": functional.softmax(scaled) @ v,
            "the softmax goes over the queries, but belongs over the keys, the last axis": columns
            @ v,
        }
        if mask is None:
            mistakes.pop("the mask is not added to the scores")
        got = call("attention", solution.get("attention"), q, k, v, mask)
        same_values("attention(q, k, v, mask)" if mask is not None else "attention(q, k, v)",
                    got, expected, mistakes)  # fmt: skip


def attention(solution: Solution, seed: int) -> None:
    right_forward(solution, seed)


def attention_backward(solution: Solution, seed: int) -> None:
    forward_first(lambda: right_forward(solution, seed))
    for batch, heads in ((B, H), (1, 1)):
        inputs = qkv(seed, batch, heads)
        check_no_memory(solution, inputs)
        right_gradients(AttentionUnderTest(solution, None), *inputs, known=known_of_attention)


def check_no_memory(solution: Solution, inputs: tuple[Array, ...]) -> None:
    """Raises: WrongAnswer if what a call returns depends on the call before."""
    function, (q, k, v) = solution.get("attention_backward"), inputs
    dcontext = np.cos(q)
    three_gradients(function, dcontext, q[::-1], -k, v[::-1])
    first = three_gradients(function, dcontext, q, k, v)
    three_gradients(function, dcontext, -q, k, v)
    again = three_gradients(function, dcontext, q, k, v)
    p = functional.attention_weights(q[::-1], -k)
    if not all(np.array_equal(a, b) for a, b in zip(first, again, strict=True)) or np.allclose(
        first[2], p.swapaxes(-1, -2) @ dcontext
    ):
        raise WrongAnswer(
            "attention_backward returns something else after another call: it keeps something of "
            "an earlier one; compute it anew each time"
        )


def with_padding(solution: Solution, seed: int) -> None:
    right_forward(solution, seed, padding())
    right_gradients(AttentionUnderTest(solution, padding()), *qkv(seed), known=known_of_attention)


def prepare(transformer: Transformer) -> None:
    """Adapters below and above attention, so that gradients pass through it."""
    transformer.freeze()
    transformer.add_adapter("task", AdapterConfig(8), np.random.default_rng(0))
    for name, p in transformer.named_parameters():
        if ".adapters.task." in name:
            p.value *= 20


def in_the_model(solution: Solution, seed: int) -> None:
    forward_first(lambda: right_forward(solution, seed, padding()))
    mine = {name: solution.get(name) for name in ("attention", "attention_backward")}
    right_in_model(mine, prepare, "your attention")


LIBRARY = (
    functional.softmax_backward, functional.attention, functional.attention_backward,
    functional.attention_weights, kernels.softmax_backward, kernels.attention,
    kernels.attention_backward, kernels.attention_weights,
)  # fmt: skip
PARTS = (
    Part("softmax-backward", 4, softmax_backward),
    Part("by-hand", 1, by_hand),
    Part("attention", 3, attention),
    Part("attention-backward", 6, attention_backward),
    Part("padding", 2, with_padding),
    Part("in-the-model", 3, in_the_model),
)

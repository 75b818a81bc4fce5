"""Mistakes of state, mode, dtype, and inputs that hide them, for `wrong_backwards.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from mistakes import B, D, numbers, x3
from wrong_layers import Hand, Wrong, affine, square_affine

from minitransformer.nn.layers import Dropout, Linear, flat
from minitransformer.nn.module import Array, Module, Parameter


class Scale(Module):
    """y = s x with one number s; `wrong` is what its gradient is multiplied by."""

    def __init__(self, gradient: Callable[[Array, Array], Any]) -> None:
        self.s, self.gradient = Parameter(np.array([1.5])), gradient

    def forward(self, x: Array) -> Array:
        self.save_for_backward(x.shape, x)
        return self.s.value * x

    def backward(self, dy: Array) -> Array:
        (x,) = self.pop_saved(dy)
        self.s.accumulate(np.array([self.gradient(x, dy)]))
        return self.s.value * dy


class StaleMask(Module):
    """ReLU that keeps its first mask."""

    mask: Array | None = None

    def forward(self, x: Array) -> Array:
        if self.mask is None:
            self.mask = x > 0
        self.save_for_backward(x.shape)
        return np.maximum(x, 0)

    def backward(self, dy: Array) -> Array:
        self.pop_saved(dy)
        return dy * self.mask


class StaleInput(Linear):
    """Its weight's gradient is that of the first input."""

    first: Array | None = None

    def forward(self, x: Array) -> Array:
        self.first = x.copy() if self.first is None else self.first
        return super().forward(x)

    def backward(self, dy: Array) -> Array:
        self.pop_saved(dy)
        assert self.first is not None
        if self.weight.trainable:
            self.weight.accumulate(flat(self.first).T @ flat(dy))
        if self.bias.trainable:
            self.bias.accumulate(flat(dy).sum(axis=0))
        return dy @ self.weight.value.T


class CachedGradient(Linear):
    """Computes dx once and hands it out again."""

    dx: Array | None = None

    def backward(self, dy: Array) -> Array | None:
        dx = super().backward(dy)
        self.dx = dx if self.dx is None else self.dx
        return self.dx


class ReturnsEarly(Linear):
    """Returns before its gradients are added, if the input's is not wanted."""

    def __init__(self, early: str) -> None:
        super().__init__(D, 6, np.random.default_rng(1), 1.0)
        self.early = early

    def backward(self, dy: Array) -> Array | None:
        (x,) = self.pop_saved(dy)
        if self.early == "all" and not self.needs_input_grad:
            return None
        if self.weight.trainable:
            self.weight.accumulate(flat(x).T @ flat(dy))
        if self.early == "bias" and not self.needs_input_grad:
            return None
        if self.bias.trainable:
            self.bias.accumulate(flat(dy).sum(axis=0))
        return dy @ self.weight.value.T


class SharesACondition(Linear):
    """The bias is added only if the weight trains."""

    def backward(self, dy: Array) -> Array | None:
        (x,) = self.pop_saved(dy)
        if self.weight.trainable:
            self.weight.accumulate(flat(x).T @ flat(dy))
            if self.bias.trainable:
                self.bias.accumulate(flat(dy).sum(axis=0))
        return dy @ self.weight.value.T


class NeedsFrozenInput(Module):
    """y = w x^2: saves x only for w, though dx needs it too."""

    def __init__(self) -> None:
        self.w = Parameter(numbers(D))

    def forward(self, x: Array) -> Array:
        self.save_for_backward(x.shape, x if self.w.trainable else np.zeros_like(x))
        return self.w.value * x * x

    def backward(self, dy: Array) -> Array:
        (x,) = self.pop_saved(dy)
        if self.w.trainable:
            self.w.accumulate(flat(dy * x * x).sum(axis=0))
        return 2 * dy * self.w.value * x


class OwnCache(Module):
    """Keeps its input as an attribute; `spoil` is what backward does to it."""

    def __init__(self, spoil: Callable[[Array], Array]) -> None:
        self.spoil = spoil

    def forward(self, x: Array) -> Array:
        self.kept = x.copy()
        return x**2

    def backward(self, dy: Array) -> Array:
        dx = 2 * dy * self.kept
        self.kept = self.spoil(self.kept)
        return dx


class BadDropout(Dropout):
    def __init__(self, mistake: str) -> None:
        super().__init__(0.4)
        self.mistake = mistake

    def forward(self, x: Array) -> Array:
        if self.training:
            return super().forward(x)
        if self.mistake == "random":
            return x * (self.rng.random(x.shape) > self.p)
        return x * (1 - self.p)

    def backward(self, dy: Array) -> Array | None:
        if self.mistake == "scale":
            (mask,) = self.pop_saved(dy)
            return dy * (mask > 0)
        if self.mistake == "new mask":
            self.pop_saved(dy)
            return dy * self.draw(dy.shape, dy.dtype)
        return super().backward(dy)


def single(x: Array) -> Array:
    """Rounded to float32."""
    return x.astype(np.float32).astype(np.float64)


def square(
    f: Callable[[Array], Array], b: Callable[[Array, Array], Array], keep: Any = None
) -> Hand:
    return Hand(
        lambda p, x: (f(x), x if keep is None else keep(x)),
        lambda p, dy, kept, x: ((b(dy, kept),), {}),
    )


def state_mistakes() -> list[Wrong]:
    sums: dict[str, Callable[[Array, Array], Any]] = {
        "a mean": lambda x, dy: np.mean(x * dy), "of flipped sign": lambda x, dy: -np.sum(x * dy),
        "of the first example": lambda x, dy: np.sum((x * dy)[0]),
        "times 2": lambda x, dy: 2 * np.sum(x * dy), "of dy alone": lambda x, dy: np.sum(dy),
        "times the batch": lambda x, dy: B * np.sum(x * dy),
    }  # fmt: skip
    found = [Wrong("one number", n, Scale(f), (x3,)) for n, f in sums.items()]
    rng = np.random.default_rng(1)
    cases: list[tuple[str, str, Module, Array, str | None]] = [
        ("stale", "mask of the first forward", StaleMask(), x3, "earlier forward pass has kept"),
        ("stale", "input of the first forward", StaleInput(D, 6, rng, 1.0), x3,
         "earlier forward pass has kept"),
        ("stale", "dx of the first backward", CachedGradient(D, 6, rng, 1.0), x3,
         "earlier forward pass has kept"),
        ("needs_input_grad", "returns before the bias", ReturnsEarly("bias"), x3,
         "nothing before the module trains.*bias.grad would be wrong"),
        ("needs_input_grad", "returns before all", ReturnsEarly("all"), x3,
         "nothing before the module trains.*weight.grad and bias.grad"),
        ("frozen", "bias goes with the weight", SharesACondition(D, 6, rng, 1.0), x3,
         "with weight frozen, bias.grad"),
        ("frozen", "input saved for the weight alone", NeedsFrozenInput(), x3,
         "with w frozen, dx would be wrong"),
        ("second backward", "the input is doubled", OwnCache(lambda x: 2 * x), x3,
         "second backward"),
        ("second backward", "the input is dropped", OwnCache(lambda x: 0 * x), x3,
         "second backward"),
        ("dropout", "random in eval mode", BadDropout("random"), x3, "still random"),
        ("dropout", "scaled in eval mode", BadDropout("scaled"), x3, "eval.. mode differs"),
        ("dropout", "scale forgotten", BadDropout("scale"), x3, r"1 / \(1 - p\)|0.6 times"),
        ("dropout", "another mask in backward", BadDropout("new mask"), x3, "multiply by the mask"),
        ("float32", "inside forward", square(lambda x: single(x) ** 2, lambda dy, x: 2 * dy * x),
         x3,
         "float32 somewhere inside"),
        ("float32", "at the end of forward", square(lambda x: single(x**2),
         lambda dy, x: 2 * dy * x), x3, "float32 somewhere inside"),
        ("float32", "beside a skip connection", square(lambda x: x + single(x**2),
         lambda dy, x: dy + 2 * dy * x), x3, "float32 somewhere inside"),
        ("float32", "dy in backward", square(lambda x: x**2, lambda dy, x: 2 * single(dy) * x), x3,
         "backward computes in float32"),
        ("float32", "dx in backward", square(lambda x: x**2, lambda dy, x: single(2 * dy * x)), x3,
         "backward computes in float32"),
        ("float32", "what forward saves", square(lambda x: x**2, lambda dy, x: 2 * dy * x,
         lambda x: x.astype(np.float32)), x3, "keeps an array of float32"),
        ("special input", "transposed weight at ones", square_affine(
         dW=lambda x, dy: flat(dy).T @ flat(x)), np.ones((B, D)), "the transpose"),
        ("special input", "x.T for x at a symmetric x", square_affine(
         dx=lambda dy, W: dy @ W.T, dW=lambda x, dy: x @ dy),
         numbers(D, D) + numbers(D, D).T, None),
        ("special input", "square at ones", square(lambda x: x**2, lambda dy, x: 2 * dy),
         np.ones((B, D)), None),
        ("special input", "cube as a square at ones", square(lambda x: x**3,
         lambda dy, x: 3 * dy * x), np.ones((B, D)), None),
        ("special input", "weight times 5 at zeros", affine(
         dW=lambda x, dy: 5 * flat(x).T @ flat(dy)), np.zeros((B, D)), None),
        ("special input", "rows exchanged in equal rows", affine(
         dW=lambda x, dy: flat(x)[::-1].T @ flat(dy)), np.tile(numbers(D), (B, 1)), None),
    ]  # fmt: skip
    return found + [Wrong(family, n, m, (x,), cause) for family, n, m, x, cause in cases]

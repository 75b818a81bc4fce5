"""Modules whose backward has one mistake each, and what gradcheck should say about it."""

from __future__ import annotations

from typing import Any

import numpy as np

from minitransformer.adapters.bottleneck import Adapter
from minitransformer.adapters.config import AdapterConfig
from minitransformer.nn.layers import Dropout, Embedding, LayerNorm, Linear, flat
from minitransformer.nn.module import Array, Module, Parameter

B, T, D = 3, 5, 4


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def linear(d_in: int, d_out: int, kind: type[Linear] = Linear) -> Linear:
    return kind(d_in, d_out, np.random.default_rng(1), sigma=1.0)


# -- modules with one mistake each ---------------------------------------------------------


class Mistaken(Linear):
    """A Linear whose gradients are these functions of x and dy, both flattened to (N, d)."""

    weight_grad = staticmethod(lambda x, dy: x.T @ dy)
    bias_grad = staticmethod(lambda x, dy: dy.sum(axis=0))

    def backward(self, dy):
        (x,) = self.pop_saved(dy)
        self.weight.accumulate(self.weight_grad(flat(x), flat(dy)))
        bias_grad = self.bias_grad(flat(x), flat(dy))
        if bias_grad is not None:
            self.bias.accumulate(bias_grad)
        return dy @ self.weight.value.T


def mistaken(d_in: int = D, d_out: int = 6, **gradients: Any) -> Linear:
    return linear(d_in, d_out, type("Mistaken", (Mistaken,), make_static(gradients)))


def make_static(functions: dict[str, Any]) -> dict[str, Any]:
    return {name: staticmethod(function) for name, function in functions.items()}


def transposed(d_in: int, d_out: int) -> Linear:
    return mistaken(d_in, d_out, weight_grad=lambda x, dy: dy.T @ x)


def scaled(factor: float, d_in: int = D, d_out: int = 6) -> Linear:
    return mistaken(d_in, d_out, weight_grad=lambda x, dy: factor * x.T @ dy)


def one_wrong_entry(x: Array, dy: Array) -> Array:
    grad = x.T @ dy
    grad[7, 3] *= 1.5
    return grad


class Overwrites(Linear):
    """Assigns its gradients, whether or not they are wanted."""

    def backward(self, dy):
        (x,) = self.pop_saved(dy)
        self.weight.grad, self.bias.grad = flat(x).T @ flat(dy), flat(dy).sum(axis=0)
        return dy @ self.weight.value.T


def frozen_bias(module: Linear) -> Linear:
    module.bias.trainable = False
    return module


class NoSkip(Module):
    """y = x + x W + b, but backward forgets the first x."""

    def __init__(self, counted: int = 0) -> None:
        self.linear = linear(D, D)
        self.counted = counted

    def forward(self, x):
        y = x + self.linear.forward(x)
        self.save_for_backward(y.shape)
        return y

    def backward(self, dy):
        self.pop_saved(dy)
        return self.linear.backward(dy) + self.counted * dy


class LastOfRepeated(Embedding):
    def backward(self, dy):
        (ids,) = self.pop_saved(dy)
        grad = np.zeros_like(self.weight.value)
        grad[ids] += dy
        self.weight.accumulate(grad)


class LastPositionForgotten(Linear):
    def backward(self, dy):
        dx = super().backward(dy)
        dx[:, -1] = 0
        return dx


class MaskForgotten(Dropout):
    def backward(self, dy):
        self.pop_saved(dy)
        return dy


class Elementwise(Module):
    """y = f(x), dx = df(dy, x)."""

    def __init__(self, f, df) -> None:
        self.f, self.df = f, df

    def forward(self, x):
        y = self.f(x)
        self.save_for_backward(np.shape(y), x)
        return y

    def backward(self, dy):
        (x,) = self.pop_saved(dy)
        return self.df(dy, x)


class ForwardInPlace(Elementwise):
    def forward(self, x):
        self.save_for_backward(x.shape, x)
        x *= 2
        return x


class BackwardInPlace(Elementwise):
    def backward(self, dy):
        self.pop_saved(dy)
        dy *= 2
        return dy


class BackwardChangesInput(Elementwise):
    def backward(self, dy):
        (x,) = self.pop_saved(dy)
        x *= 2
        return dy * x


class ShiftsItsBias(Linear):
    def forward(self, x):
        self.bias.value += 1
        return super().forward(x)


class Noisy(Module):
    """Draws from a generator of its own making: another mask in each call."""

    def forward(self, x):
        noise = np.random.default_rng().random(x.shape)
        self.save_for_backward(x.shape, noise)
        return x * noise

    def backward(self, dy):
        (noise,) = self.pop_saved(dy)
        return dy * noise


class UnscaledQueries(Linear):
    """Queries of 4 heads, q = (x W + b) / sqrt(d_head): the scaling is in forward only."""

    n_heads = 4

    def forward(self, x):
        return super().forward(x) / (self.bias.size // self.n_heads) ** 0.5


class MeanSquare(Module):
    """A loss: forward gives a number, backward takes nothing."""

    def __init__(self, divide: bool) -> None:
        self.divide = divide

    def forward(self, x):
        self.save_for_backward((), x)
        return float((x * x).sum(axis=-1).mean())

    def backward(self):
        (x,) = self.pop_saved(np.ones(()))
        return 2 * x / (len(x) if self.divide else 1)


class ZeroInit(Linear):
    """Starts at zero throughout; its weight's gradient and its dx are 7 times too large."""

    def __init__(self, d_in: int, d_out: int) -> None:
        self.weight = Parameter(np.zeros((d_in, d_out)))
        self.bias = Parameter(np.zeros(d_out))

    def backward(self, dy):
        (x,) = self.pop_saved(dy)
        self.weight.accumulate(7 * flat(x).T @ flat(dy))
        self.bias.accumulate(flat(dy).sum(axis=0))
        return 7 * dy @ self.weight.value.T


class Stack(Module):
    """One layer after the other."""

    def __init__(self, *layers: Module) -> None:
        self.layers = list(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        self.save_for_backward(x.shape)
        return x

    def backward(self, dy):
        self.pop_saved(dy)
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy


class TimesFive(Adapter):
    """The down-projection's gradient is 5 times too large; with up = 0 it is zero at first."""

    def backward(self, dy):
        dx = super().backward(dy)
        self.down.weight.grad *= 5
        return dx


class GainForgotten(LayerNorm):
    """dx as if every gain were 1, which is where gains start."""

    def backward(self, dy):
        gain = self.weight.value
        self.weight.value = np.ones_like(gain)
        dx = super().backward(dy)
        self.weight.value = gain
        return dx


class Product(Module):
    """y = a b: two inputs, and a tuple of gradients, or the first alone."""

    def __init__(self, both: bool) -> None:
        self.both = both

    def forward(self, a, b):
        self.save_for_backward(a.shape, a, b)
        return a * b

    def backward(self, dy):
        a, b = self.pop_saved(dy)
        return (dy * b, dy * a) if self.both else dy * b


def adapter(kind: type[Adapter] = Adapter, init: str = "near_identity") -> Adapter:
    return kind(D, AdapterConfig(3, activation="gelu", init=init), np.random.default_rng(1))


square = (lambda x: x * x, lambda dy, x: 2 * x * dy)
x3 = numbers(B, T, D)
ids = np.array([[1, 2, 3], [4, 2, 1]])

MISTAKES = {
    "transpose, by value": (transposed(D, D), x3, r"weight\.grad is the transpose"),
    "transpose, by shape": (transposed(D, 6), x3, r"weight\.grad .*the shape of its transpose"),
    "reshape for transpose": (
        mistaken(weight_grad=lambda x, dy: (dy.T @ x).reshape(D, 6)),
        x3,
        r"weight\.grad .*\.reshape is used",
    ),
    "times batch": (scaled(B), x3, r"3 times .*the batch size"),
    "mean over batch": (scaled(1 / B), x3, r"1 / the batch size: a mean"),
    "mean over tokens": (scaled(1 / (B * T)), x3, r"1 / the number of tokens: a mean"),
    "sign": (scaled(-1), x3, r"weight\.grad .*the sign is flipped"),
    "sign and factor": (scaled(-7), x3, r"sign is flipped, and it is -7 times"),
    "half": (scaled(0.5), x3, r"0\.5 times .*1 / 2: one of two uses"),
    "unknown factor": (scaled(1.7), x3, r"1\.7 times .*look for a factor"),
    "zeros": (mistaken(bias_grad=lambda x, dy: 0 * dy[0]), x3, r"bias\.grad is all zeros"),
    "never added": (
        mistaken(bias_grad=lambda x, dy: None),
        x3,
        r"bias\.grad is None.*bias\.accumulate",
    ),
    "frozen, assigned": (
        frozen_bias(linear(D, 6, Overwrites)),
        x3,
        r"bias: a frozen parameter has a gradient",
    ),
    "frozen, added": (frozen_bias(mistaken()), x3, r"bias: a frozen parameter has a grad"),
    "overwritten": (linear(D, 6, Overwrites), x3, r"weight\.grad did not double.*overwritten"),
    "bias not summed": (
        mistaken(bias_grad=lambda x, dy: dy.reshape(B, T, 6)),
        x3,
        r"not summed .*axes \(0, 1\)",
    ),
    "bias summed over one axis": (
        mistaken(bias_grad=lambda x, dy: dy.reshape(B, T, 6).sum(axis=0)),
        x3,
        r"summed over some of the leading axes",
    ),
    "bias half summed": (
        mistaken(bias_grad=lambda x, dy: dy[:T].sum(axis=0)),
        x3,
        r"not summed .*axes \(0, 1\) of dy",
    ),
    "skip forgotten": (NoSkip(), x3, r"dx is too small by exactly dy: the skip connection's"),
    "skip twice": (NoSkip(2), x3, r"dx is too large by exactly dy"),
    "repeated rows": (
        Embedding(9, D, np.random.default_rng(0), 1.0),
        ids,
        None,
    ),
    "repeated rows, last kept": (
        LastOfRepeated(9, D, np.random.default_rng(0), 1.0),
        ids,
        r"rows 1-2 of 9: .*np\.add\.at",
    ),
    "one entry": (
        mistaken(9, weight_grad=one_wrong_entry),
        numbers(2, 9),
        r"grad: 1 of 54 entries .* first \(7, 3\)",
    ),
    "position forgotten": (
        linear(D, 6, LastPositionForgotten),
        x3,
        r"dx is wrong only at positions 4 of 5, and zero",
    ),
    "dropout's mask forgotten": (
        MaskForgotten(0.4),
        x3,
        r"dx is not zero at \d+ entries .*elsewhere it is 0\.6 times",
    ),
    "relu's mask forgotten": (
        Elementwise(lambda x: np.maximum(x, 0), lambda dy, x: dy),
        x3,
        r"dx is not zero at \d+ entries .* and it is right elsewhere",
    ),
    "sqrt(d_head)": (
        linear(D, 12, UnscaledQueries),
        numbers(2, 5, D),
        r"1\.7321 times .*sqrt\(d_head\)",
    ),
    "forward in place": (ForwardInPlace(*square), x3, r"forward changed the input"),
    "dy in place": (BackwardInPlace(*square), x3, r"backward changed dy in place"),
    "x in place": (
        BackwardChangesInput(*square),
        x3,
        r"backward changed the input x in place",
    ),
    "weights in place": (linear(D, 6, ShiftsItsBias), x3, r"forward changed the parameter bias"),
    "random": (Noisy(), x3, r"forward is not deterministic"),
    "no dx": (Elementwise(square[0], lambda dy, x: None), x3, r"must return dx if"),
    "dx shape": (
        Elementwise(square[0], lambda dy, x: (2 * x * dy)[0]),
        x3,
        r"dx has shape \(5, 4\), but",
    ),
    "dx dtype": (
        Elementwise(square[0], lambda dy, x: (2 * x * dy).astype(np.float32)),
        x3,
        r"dx is float32, but",
    ),
    "dx NaN": (
        Elementwise(square[0], lambda dy, x: np.where(x > 1, np.nan, 2 * x * dy)),
        x3,
        r"dx contains NaN or infinity, first at index \(",
    ),
    "y NaN": (Elementwise(lambda x: x / 0.0, square[1]), x3, r"forward returned NaN or inf"),
    "y dtype": (
        Elementwise(lambda x: x.astype(np.float32), square[1]),
        x3,
        r"forward returned float32",
    ),
    "y tuple": (Elementwise(lambda x: (x, x), square[1]), x3, r"forward returned a tuple"),
    "zero_up": (
        adapter(TimesFive, "zero_up"),
        x3,
        r"down\.weight\.grad .*5 times what it should be",
    ),
    "an adapter made without an rng": (
        TimesFive(D, AdapterConfig(3)),
        x3,
        r"down\.weight\.grad .*5 times what it should be",
    ),
    "weights that start at zero": (
        Stack(ZeroInit(D, 6), ZeroInit(6, D)),
        x3,
        r"layers\.1\.weight\.grad .*7 times what it should be",
    ),
    "gains that start at one": (GainForgotten(D), x3, r"dx: .* of 60 entries disagree"),
    "loss not divided": (MeanSquare(divide=False), numbers(7, 2), r"7 times .*the batch size"),
}

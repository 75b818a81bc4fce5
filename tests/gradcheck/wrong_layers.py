"""Wrong gradients of layers and losses, for `wrong_backwards.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mistakes import B, D, T, ids, numbers, x3

from minitransformer.nn import functional as F
from minitransformer.nn.functional import IGNORE
from minitransformer.nn.layers import Linear, flat
from minitransformer.nn.losses import CrossEntropy
from minitransformer.nn.module import Array, Module, Parameter


@dataclass(frozen=True)
class Wrong:
    """A module with a mistake in its backward pass, and the pattern of its right cause."""

    family: str
    name: str
    module: Module
    inputs: tuple[Any, ...]
    cause: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


class Hand(Module):
    """A module written by hand: y, kept = f(p, *inputs); dxs, grads = b(p, dy, kept, *inputs).

    p are the values of the parameters by name; grads are their gradients, dxs a tuple.
    """

    def __init__(self, f: Callable[..., Any], b: Callable[..., Any], **values: Array) -> None:
        self.f, self.b, self.names = f, b, tuple(values)
        for name, value in values.items():
            setattr(self, name, Parameter(value))

    def values(self) -> dict[str, Array]:
        return {name: getattr(self, name).value for name in self.names}

    def forward(self, *inputs: Any) -> Array:
        y, kept = self.f(self.values(), *inputs)
        self.save_for_backward(y.shape, kept, inputs)
        return y

    def backward(self, dy: Array) -> Any:
        kept, inputs = self.pop_saved(dy)
        dxs, grads = self.b(self.values(), dy, kept, *inputs)
        for name, grad in grads.items():
            if getattr(self, name).trainable and grad is not None:
                getattr(self, name).accumulate(grad)
        return dxs if len(dxs) > 1 else dxs[0]


# -- a linear layer: each gradient wrong in many ways -------------------------------------------


def affine(**wrong: Callable[..., Any]) -> Hand:
    """y = x W + b; `wrong` replaces dW(x, dy), db(dy) or dx(dy, W)."""
    gradients = {
        "dW": lambda x, dy: flat(x).T @ flat(dy),
        "db": lambda dy: flat(dy).sum(axis=0),
        "dx": lambda dy, W: dy @ W.T,
    } | wrong

    def backward(p: dict[str, Array], dy: Array, kept: None, x: Array) -> Any:
        grads = {"weight": gradients["dW"](x, dy), "bias": gradients["db"](dy)}
        return (gradients["dx"](dy, p["weight"]),), grads

    wide = D if wrong.keys() & {"dW_square", "dx_square"} else 6
    return Hand(
        lambda p, x: (x @ p["weight"] + p["bias"], None), backward,
        weight=numbers(D, wide, seed=3), bias=numbers(wide, seed=4),
    )  # fmt: skip


def square_affine(**wrong: Callable[..., Any]) -> Hand:
    return affine(dW_square=lambda: None, **wrong)


def factor_cause(k: float) -> str | None:
    known = {1 / B: "1 / the batch size", B: "the batch size", -1: "sign is flipped", 2: "twice"}
    known |= {B * T: "the number of tokens", 1 / (B * T): "1 / the number of tokens"}
    known |= {T: "the sequence length", 1 / T: "1 / the sequence length", 0.5: "one of two uses"}
    return known.get(k)


def doubled(row: int) -> Callable[..., Array]:
    def grad(x: Array, dy: Array) -> Array:
        g = flat(x).T @ flat(dy)
        g[row] *= 2
        return g

    return grad


def with_entry(index: Any, value: float, g: Array) -> Array:
    g[index] = value
    return g


def linear_mistakes() -> list[Wrong]:
    found = []

    def add(name: str, module: Module, cause: str | None = None, x: Array = x3) -> None:
        found.append(Wrong("linear", name, module, (x,), cause))

    for k in (-1, 2, 0.5, B, 1 / B, T, 1 / T, B * T, 1 / (B * T), 1.7, 0.1, -3.3):
        cause = factor_cause(k) or ("sign is flipped" if k < 0 else None)
        add(f"dW times {k:.3g}", affine(dW=lambda x, dy, k=k: k * flat(x).T @ flat(dy)), cause)
        add(f"db times {k:.3g}", affine(db=lambda dy, k=k: k * flat(dy).sum(axis=0)), cause)
        add(f"dx times {k:.3g}", affine(dx=lambda dy, W, k=k: k * dy @ W.T), cause)
    rows = flat(x3)
    add("dW transposed", square_affine(dW=lambda x, dy: flat(dy).T @ flat(x)), "the transpose")
    add("dW transposed, of another shape", affine(dW=lambda x, dy: flat(dy).T @ flat(x)),
        "shape of its transpose")  # fmt: skip
    add("dW reshaped", affine(dW=lambda x, dy: (flat(dy).T @ flat(x)).reshape(D, 6)), "reshape")
    add("dW zero", affine(dW=lambda x, dy: np.zeros((D, 6))), "all zeros")
    add("dW never added", affine(dW=lambda x, dy: None), "added nothing")
    add("dW of the first example", affine(dW=lambda x, dy: x[0].T @ dy[0]))
    add("dW without the last position", affine(dW=lambda x, dy: flat(x[:, 1:]).T @ flat(dy[:, 1:])))
    add("dW of shuffled rows", affine(dW=lambda x, dy: flat(x)[::-1].T @ flat(dy)))
    add("dW squared", affine(dW=lambda x, dy: flat(x).T @ flat(dy) ** 2))
    add("dW absolute", affine(dW=lambda x, dy: np.abs(flat(x).T @ flat(dy))))
    add("dW with decay", affine(dW=lambda x, dy: flat(x).T @ flat(dy) + 0.1))
    add("dW with one doubled row", affine(dW=doubled(2)), r"only at rows 2 of 4.*twice")
    add("dW with one wrong entry", affine(dW=lambda x, dy: with_entry((1, 2), 9.0,
        flat(x).T @ flat(dy))))  # fmt: skip
    add("dW with a column of zeros", affine(dW=lambda x, dy: with_entry((slice(None), 3), 0.0,
        flat(x).T @ flat(dy))), "zero there: backward forgets")  # fmt: skip
    add("dW in float32", affine(dW=lambda x, dy: (flat(x).T @ flat(dy)).astype(np.float32)),
        "float32")  # fmt: skip
    add("dW NaN", affine(dW=lambda x, dy: flat(x).T @ flat(dy) + np.nan), "NaN")
    add("db not summed", affine(db=lambda dy: dy), "not summed")
    add("db of the first example", affine(db=lambda dy: dy[0].sum(axis=0)), "not summed over all")
    add("db of the last example", affine(db=lambda dy: dy[-1].sum(axis=0)), "not summed over all")
    add("db of the first position", affine(db=lambda dy: dy[:, 0].sum(axis=0)), "not summed over")
    add("db without the last position", affine(db=lambda dy: dy[:, :-1].sum(axis=(0, 1))),
        "not summed over")  # fmt: skip
    add("db without the first example", affine(db=lambda dy: dy[1:].sum(axis=(0, 1))), "not summed")
    add("db of absolute values", affine(db=lambda dy: np.abs(flat(dy)).sum(axis=0)))
    add("db of squares", affine(db=lambda dy: (flat(dy) ** 2).sum(axis=0)))
    add("db with an offset", affine(db=lambda dy: flat(dy).sum(axis=0) + 1.0))
    add("db the largest", affine(db=lambda dy: flat(dy).max(axis=0)))
    add("db reversed", affine(db=lambda dy: flat(dy).sum(axis=0)[::-1]))
    add("db zero", affine(db=lambda dy: np.zeros(6)), "all zeros")
    add("db never added", affine(db=lambda dy: None), "added nothing")
    add("db one number", affine(db=lambda dy: dy.sum()), "has shape")
    add("dx with W for W.T", square_affine(dx=lambda dy, W: dy @ W))
    add("dx zero", affine(dx=lambda dy, W: 0 * dy[..., :D]), "all zeros")
    add("dx none", affine(dx=lambda dy, W: None), "backward returned None")
    add("dx of shuffled examples", affine(dx=lambda dy, W: dy[::-1] @ W.T))
    add("dx without the last position", affine(dx=lambda dy, W: with_entry(
        (slice(None), -1), 0.0, dy @ W.T)), "zero there: backward forgets")  # fmt: skip
    add("dx of one example alone", affine(dx=lambda dy, W: dy[0] @ W.T), "has shape")
    add("dx with dy", square_affine(dx=lambda dy, W: dy @ W.T + dy), "or there is none")
    add("dx in float32", affine(dx=lambda dy, W: (dy @ W.T).astype(np.float32)), "float32")
    add("2-D: dW times the batch", affine(dW=lambda x, dy: len(x) * x.T @ dy), "batch size", rows)
    add("2-D: dW a mean", affine(dW=lambda x, dy: x.T @ dy / len(x)), "1 / the batch size", rows)
    add("2-D: db not summed", affine(db=lambda dy: dy), "not summed", rows)
    add("2-D: db a mean", affine(db=lambda dy: dy.mean(axis=0)), "1 / the batch size", rows)
    add("2-D: db of half the rows", affine(db=lambda dy: dy[:7].sum(axis=0)), None, rows)
    add("2-D: db of one row", affine(db=lambda dy: dy[0]), "not summed over all", rows)
    return found


# -- functions of each number, norms, softmax ------------------------------------------------------


def elementwise(f: Callable[[Array], Array], df: Callable[[Array], Array]) -> Hand:
    return Hand(lambda p, x: (f(x), None), lambda p, dy, kept, x: ((dy * df(x),), {}))


def function_mistakes() -> list[Wrong]:
    def sigmoid(x: Array) -> Array:
        return 1 / (1 + np.exp(-x))

    zero = numbers(4, 5)
    zero[0, 0] = 0.0
    cdf, phi = (lambda x: F.gelu(x)[0] / x), (lambda x: np.exp(-x * x / 2) / np.sqrt(2 * np.pi))
    one: list[tuple[str, Hand, Array, str | None]] = [
        ("relu, mask forgotten", elementwise(lambda x: np.maximum(x, 0), np.ones_like), x3,
         "multiply by the mask"),
        ("relu, mask of the wrong sign", elementwise(lambda x: np.maximum(x, 0), lambda x: x < 0),
         x3, None),
        ("relu, 7 at 0", elementwise(lambda x: np.maximum(x, 0),
         lambda x: (x > 0) + 7.0 * (x == 0)), zero, "exactly at a kink"),
        ("relu, -1 at 0", elementwise(lambda x: np.maximum(x, 0),
         lambda x: (x > 0) - 1.0 * (x == 0)), zero, "exactly at a kink"),
        ("absolute value, 3 at 0", elementwise(np.abs, lambda x: np.sign(x) + 3 * (x == 0)), zero,
         "exactly at a kink"),
        ("absolute value, no sign", elementwise(np.abs, np.ones_like), x3, None),
        ("tanh, 1 - y", elementwise(np.tanh, lambda x: 1 - np.tanh(x)), x3, None),
        ("tanh, of y", elementwise(np.tanh, lambda x: 1 - np.tanh(np.tanh(x)) ** 2), x3, None),
        ("sigmoid, s for s (1 - s)", elementwise(sigmoid, sigmoid), x3, None),
        ("silu, s alone", elementwise(lambda x: x * sigmoid(x), sigmoid), x3, None),
        ("gelu, cdf alone", elementwise(lambda x: F.gelu(x)[0], cdf), x3, None),
        ("gelu, density not times x", elementwise(lambda x: F.gelu(x)[0],
         lambda x: cdf(x) + phi(x)), x3, None),
        ("square, 2 forgotten", elementwise(lambda x: x * x, lambda x: x), x3,
         r"2 of d\(x\^2\)/dx"),
        ("square, 2 twice", elementwise(lambda x: x * x, lambda x: 4 * x), x3, r"d\(x\^2\)/dx"),
        ("exp, derivative 1", elementwise(np.exp, np.ones_like), x3, None),
        ("log, x for 1 / x", elementwise(lambda x: np.log(x), lambda x: x), np.exp(x3), None),
        ("clip, mask forgotten", elementwise(lambda x: np.clip(x, -0.5, 0.5), np.ones_like), x3,
         "multiply by the mask"),
    ]  # fmt: skip
    found = [Wrong("function", name, module, (x,), cause) for name, module, x, cause in one]

    def softmax(backward: Callable[[Array, Array], Array]) -> Hand:
        return Hand(
            lambda p, x: ((y := F.softmax(x)), y), lambda p, dy, y, x: ((backward(dy, y),), {})
        )

    axis_sum: dict[str, Callable[[Array, Array], Array]] = {
        "without the sum": lambda dy, y: y * dy,
        "sum over another axis": lambda dy, y: y * (dy - (dy * y).sum(axis=0, keepdims=True)),
        "sum of dy alone": lambda dy, y: y * (dy - dy.sum(axis=-1, keepdims=True)),
        "not times y": lambda dy, y: dy - (dy * y).sum(axis=-1, keepdims=True),
        "y (1 - y)": lambda dy, y: dy * y * (1 - y),
    }
    found += [Wrong("softmax", name, softmax(b), (x3,)) for name, b in axis_sum.items()]

    def norm(dx: Callable[..., Array], dgain: Any = None, dbias: Any = None) -> Hand:
        def forward(p: dict[str, Array], x: Array) -> Any:
            y, x_hat, rstd = F.layer_norm(x, p["gain"], p["bias"], 1e-5)
            return y, (x_hat, rstd)

        def backward(p: dict[str, Array], dy: Array, kept: Any, x: Array) -> Any:
            x_hat, rstd = kept
            gain = flat(dy * x_hat).sum(axis=0) if dgain is None else dgain(dy, x_hat, x)
            bias = flat(dy).sum(axis=0) if dbias is None else dbias(dy)
            return (dx(dy, x_hat, rstd, p["gain"]),), {"gain": gain, "bias": bias}

        return Hand(forward, backward, gain=1 + 0.3 * numbers(D, seed=5), bias=numbers(D, seed=6))

    def mean(a: Array) -> Array:
        return a.mean(axis=-1, keepdims=True)

    right = F.layer_norm_backward
    norms = {
        "dx without the means": (norm(lambda dy, h, r, g: g * dy * r), None),
        "dx without the mean's": (norm(lambda dy, h, r, g: r * (g * dy - h * mean(g * dy * h))),
                                  None),
        "dx without the variance's": (norm(lambda dy, h, r, g: r * (g * dy - mean(g * dy))), None),
        "dx without the gain": (norm(lambda dy, h, r, g: right(dy, h, r, 1.0)), None),  # type: ignore[arg-type]
        "dx without 1 / std": (norm(lambda dy, h, r, g: right(dy, h, r, g) / r), None),
        "dx of flipped sign": (norm(lambda dy, h, r, g: -right(dy, h, r, g)), "sign is flipped"),
        "gain by x": (norm(right, lambda dy, h, x: flat(dy * x).sum(axis=0)), None),
        "gain by dy alone": (norm(right, lambda dy, h, x: flat(dy).sum(axis=0)), None),
        "gain of one example": (norm(right, lambda dy, h, x: (dy * h)[0].sum(axis=0)), None),
        "gain not summed": (norm(right, lambda dy, h, x: dy * h), "not summed"),
        "bias by the gain": (norm(right, None, lambda dy: 2.5 * flat(dy).sum(axis=0)), None),
        "bias a mean": (norm(right, None, lambda dy: flat(dy).mean(axis=0)), "number of tokens"),
    }  # fmt: skip
    return found + [Wrong("layer norm", n, m, (x3,), c) for n, (m, c) in norms.items()]


# -- attention, feed-forward, embedding ------------------------------------------------------------

HEADS_OF_ONE = ("q", "k", "v")


def attention(causal: bool = True, **wrong: Callable[..., Array]) -> Hand:
    """One head of causal self-attention; `wrong` replaces dv(p, dc), ds(p, dp), dq, dk."""
    parts: dict[str, Callable[..., Array]] = {
        "dp": lambda dc, v: dc @ v.swapaxes(-1, -2),
        "dv": lambda p, dc: p.swapaxes(-1, -2) @ dc,
        "ds": lambda dp, p: F.softmax_backward(dp, p) / np.sqrt(D),
        "dq": lambda ds, q, k: ds @ k,
        "dk": lambda ds, q, k: ds.swapaxes(-1, -2) @ q,
    } | wrong
    mask = np.where(np.tri(T, dtype=bool), 0.0, -1e30) if causal else np.zeros((T, T))

    def forward(w: dict[str, Array], x: Array) -> Any:
        q, k, v = (x @ w[name] for name in HEADS_OF_ONE)
        p = F.softmax(q @ k.swapaxes(-1, -2) / np.sqrt(D) + mask)
        return p @ v, (q, k, v, p)

    def backward(w: dict[str, Array], dc: Array, kept: Any, x: Array) -> Any:
        q, k, v, p = kept
        ds = parts["ds"](parts["dp"](dc, v), p)
        d = {"q": parts["dq"](ds, q, k), "k": parts["dk"](ds, q, k), "v": parts["dv"](p, dc)}
        grads = {name: flat(x).T @ flat(d[name]) for name in HEADS_OF_ONE}
        return (sum(d[name] @ w[name].T for name in HEADS_OF_ONE),), grads

    return Hand(forward, backward, **{n: numbers(D, D, seed=i) for i, n in enumerate(HEADS_OF_ONE)})


class Net(Module):
    """x + down(relu(up(x))), with the mistakes that are asked for."""

    def __init__(self, *mistakes: str) -> None:
        self.up, self.down = (Linear(*s, np.random.default_rng(7), 1.0) for s in ((D, 6), (6, D)))
        self.mistakes = mistakes

    def forward(self, x: Array) -> Array:
        z = self.up.forward(x)
        y = x + self.down.forward(np.maximum(z, 0))
        self.save_for_backward(y.shape, z)
        return y

    def backward(self, dy: Array) -> Array:
        (z,) = self.pop_saved(dy)
        dz = self.down.backward(dy)
        assert dz is not None
        if "mask" not in self.mistakes:
            dz = dz * (z > 0 if "mask of dz" not in self.mistakes else dz > 0)
        dx = self.up.backward(dz * (2 if "twice" in self.mistakes else 1))
        assert dx is not None
        dx = dx if "skip" in self.mistakes else dx + dy
        return dx + dy if "skip twice" in self.mistakes else dx


def model_mistakes() -> list[Wrong]:
    wrong: dict[str, dict[str, Any]] = {
        "softmax backward without the sum": {"ds": lambda dp, p: p * dp / np.sqrt(D)},
        "1 / sqrt(d) forgotten": {"ds": lambda dp, p: F.softmax_backward(dp, p)},
        "1 / sqrt(d) twice": {"ds": lambda dp, p: F.softmax_backward(dp, p) / D},
        "dv by p, not p.T": {"dv": lambda p, dc: p @ dc},
        "dk by ds, not ds.T": {"dk": lambda ds, q, k: ds @ q},
        "dq by q": {"dq": lambda ds, q, k: ds @ q},
        "dq of flipped sign": {"dq": lambda ds, q, k: -ds @ k},
        "dk forgotten": {"dk": lambda ds, q, k: 0 * q},
        "dp as if v were the identity": {"dp": lambda dc, v: dc @ (0 * v + 1).swapaxes(-1, -2)},
        "softmax skipped": {"ds": lambda dp, p: dp / np.sqrt(D)},
    }
    causes = {
        "1 / sqrt(d) forgotten": r"sqrt\(the width\)|twice",
        "1 / sqrt(d) twice": r"1 / sqrt\(the width\)|one of two uses|1 / 2",
        "dq of flipped sign": "sign is flipped",
        "dk forgotten": "all zeros",
    }
    found = [
        Wrong("attention", name, attention(**parts), (x3,), causes.get(name))
        for name, parts in wrong.items()
    ]
    nets = {
        "mask": "no ReLU mask|multiply by the mask", "mask of dz": None, "skip": "skip connection",
        "skip twice": "counted twice", "twice": "twice",
    }  # fmt: skip
    found += [Wrong("feed-forward", n, Net(n), (x3,), c) for n, c in nets.items()]

    def embedding(backward: Callable[[Array, Array], Array | None]) -> Hand:
        return Hand(
            lambda p, i: (p["weight"][i], None),
            lambda p, dy, kept, i: ((None,), {"weight": backward(dy, i)}), weight=numbers(9, D),
        )  # fmt: skip

    def scattered(dy: Array, i: Array, n: int = 9) -> Array:
        return F.embedding_backward(dy, i, n)

    tables: dict[str, tuple[Callable[[Array, Array], Array | None], str | None]] = {
        "last of repeated ids kept": (
            lambda dy, i: with_entry(i, dy, np.zeros((9, D))), r"np\.add\.at"),  # type: ignore[arg-type]
        "shifted by one": (lambda dy, i: np.roll(scattered(dy, i), 1, axis=0), None),
        "mean over repeats": (
            lambda dy, i: scattered(dy, i) / np.maximum(np.bincount(i.ravel(), minlength=9), 1)[
                :, None], "a mean over two"),
        "not added": (lambda dy, i: None, "added nothing"),
        "every row": (lambda dy, i: scattered(dy, i) + 0.1, None),
        "first sentence alone": (lambda dy, i: scattered(dy[0], i[0]), None),
    }  # fmt: skip
    return found + [Wrong("embedding", n, embedding(b), (ids,), c) for n, (b, c) in tables.items()]


# -- losses ----------------------------------------------------------------------------------------


class Loss(CrossEntropy):
    def __init__(self, gradient: Callable[..., Array], smoothing: float = 0.0) -> None:
        super().__init__(smoothing)
        self.gradient = gradient

    def backward(self, dy: Any = 1.0) -> Array:
        p, labels = self.pop_saved(np.asarray(dy))
        return dy * self.gradient(p, labels)


def loss_mistakes() -> list[Wrong]:
    logits, labels = numbers(6, 4), np.array([0, 1, 2, 3, 2, 1])
    some = np.where(np.arange(6) < 2, IGNORE, labels)
    right = F.cross_entropy_backward

    def add(name: str, module: Module, cause: str | None, *inputs: Any) -> Wrong:
        return Wrong("loss", name, module, inputs or (logits, labels), cause)

    def counted(p: Array, y: Array) -> Array:
        return (p - np.eye(4)[np.maximum(y, 0)]) / (y != IGNORE).sum()

    return [
        add("not divided by N", Loss(lambda p, y: 6 * right(p, y)), "the batch size"),
        add("divided by N twice", Loss(lambda p, y: right(p, y) / 6), "1 / the batch size"),
        add("divided by the classes", Loss(lambda p, y: right(p, y) / 1.3), None),
        add("q - p", Loss(lambda p, y: -right(p, y)), "sign is flipped"),
        add("label not subtracted", Loss(lambda p, y: p / 6), None),
        add("ignored labels counted", Loss(counted), "multiply by the mask", logits, some),
        add("smoothing forgotten", Loss(lambda p, y: right(p, y), 0.2), None),
        add("times p (1 - p)", Loss(lambda p, y: right(p, y) * p * (1 - p)), None),
    ]

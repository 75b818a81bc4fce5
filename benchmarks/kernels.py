"""Each function of `nn/kernels.py` against its PyTorch counterpart, and against the machine.

    python benchmarks/kernels.py

Forward alone (inference: nothing is saved) and forward with backward, at the sizes of MiniLM on
32 x 32 and 32 x 128 tokens, on one core each, taking turns. The bound is the time to move what
must be moved at the rate at which one core copies arrays of the same size, or, for attention, to
multiply what must be multiplied at one core's rate of matrix products, whichever is longer. What is
counted as moved: forward reads x and writes y; backward reads dy and one saved array and writes dx.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from report import arguments, show, write
from turns import Worker, paired, take_turns

Array = np.ndarray
Run = Callable[..., tuple[Any, ...]]  # inputs, and dy or None -> y, or (y, dx)

D_MODEL, D_FF, HEADS, VOCABULARY, CLASSES = 384, 1536, 12, 30522, 2
D_HEAD = D_MODEL // HEADS
MASKED = 0.15  # share of the positions that a masked language model guesses
EPS = 1e-12
ELEMENT_WISE = ("gelu", "gelu_tanh", "relu", "silu", "tanh")
TURN = 0.02  # seconds: short functions run several times a turn
TOLERANCE = 1e-5  # of the largest value


@dataclass(frozen=True)
class Case:
    """A function at a size of MiniLM."""

    name: str
    batch: int
    length: int

    @property
    def shape(self) -> tuple[int, ...]:
        tokens = self.batch * self.length
        return {
            "softmax": (self.batch, HEADS, self.length, self.length),
            "attention": (self.batch, self.length, 3 * D_MODEL),
            "self_attention, one query": (self.batch, self.length, D_MODEL),
            "layer_norm": (tokens, D_MODEL),
            "cross_entropy, classes": (self.batch, CLASSES),
            "cross_entropy, vocabulary": (round(MASKED * tokens), VOCABULARY),
        }.get(self.name, (tokens, D_FF))

    def arrays(self, backward: bool) -> float:
        """How many arrays of this shape must be moved at least."""
        if self.name == "attention":  # qkv in, context out; dcontext and qkv in, dqkv out
            return 4 / 3 + backward * 7 / 3
        if self.name.startswith("self_attention"):  # x in; x in, dx out
            return 1 + backward * 2
        if self.name.startswith("cross_entropy"):  # logits in; logits in, dlogits out
            return 1 + backward * 2
        return 2 + backward * 3

    def multiply_adds(self, backward: bool) -> int:
        """Two products in attention, and two more for each of them backward.

        With one query, frozen projections of one position take the place of keys and values.
        """
        if self.name == "attention":
            return self.batch * self.length * self.length * D_MODEL * (6 if backward else 2)
        if self.name.startswith("self_attention"):
            projections = 3 * D_MODEL * D_MODEL * (2 if backward else 1)
            products = HEADS * self.length * D_MODEL * (6 if backward else 2)
            return self.batch * (projections + products)
        return 0

    def inputs(self) -> tuple[tuple[Array, ...], Array]:
        """What the function takes, and dy; the same on both sides."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal(self.shape, np.float32)
        if self.name == "layer_norm":
            gain, bias = rng.standard_normal((2, D_MODEL), np.float32)
            return (x, gain, bias), rng.standard_normal(x.shape, np.float32)
        if self.name.startswith("cross_entropy"):
            return (x, rng.integers(0, x.shape[1], len(x))), np.ones((), np.float32)
        if self.name == "attention":
            context = rng.standard_normal((self.batch, self.length, HEADS, D_HEAD), np.float32)
            return (x,), context.swapaxes(1, 2)
        if self.name.startswith("self_attention"):  # x, the weight and bias of q, k and v
            weight = rng.standard_normal((D_MODEL, 3 * D_MODEL), np.float32) * np.float32(0.05)
            bias = rng.standard_normal(3 * D_MODEL, np.float32)
            context = rng.standard_normal((self.batch, 1, HEADS, D_HEAD), np.float32)
            return (x, weight, bias), context.swapaxes(1, 2)
        return (x,), rng.standard_normal(x.shape, np.float32)


class Side:
    """Runs one function, as often as fills a turn."""

    functions: dict[str, Run]

    def prepare(self, case: Case, backward: bool) -> list[Array]:
        """Take a function; answer with what it computes."""
        inputs, dy = case.inputs()
        self.run = self.functions[case.name.partition(",")[0]]
        self.inputs, self.dy = self.own(inputs), self.own((dy,))[0] if backward else None
        self.repeats = 1
        self.repeats = max(1, round(TURN / min(self.turn(0) for _ in range(3))))
        return [np.asarray(value) for value in self.run(*self.inputs, self.dy)]

    def own(self, arrays: tuple[Array, ...]) -> tuple[Any, ...]:
        return arrays

    def turn(self, number: int) -> float:
        """Seconds for one call."""
        started = time.perf_counter()
        for _ in range(self.repeats):
            self.run(*self.inputs, self.dy)
        return (time.perf_counter() - started) / self.repeats


class Ours(Side):
    """`kernels.py`, and of `functional.py` what the layers use."""

    def __init__(self) -> None:
        from minitransformer.nn import functional, kernels
        from minitransformer.training.process import (
            keep_freed_memory,
            single_threaded_products,
        )

        keep_freed_memory()
        self.single = single_threaded_products
        self.single.__enter__()

        def element_wise(function: Callable[..., Any]) -> Run:
            def run(x: Array, dy: Array | None) -> tuple[Any, ...]:
                y, derivative = function(x, with_derivative=dy is not None)
                return (y,) if dy is None else (y, dy * derivative)

            return run

        def softmax(x: Array, dy: Array | None) -> tuple[Any, ...]:
            p = kernels.softmax(x)
            return (p,) if dy is None else (p, kernels.softmax_backward(dy, p))

        def attention(qkv: Array, dy: Array | None) -> tuple[Any, ...]:
            q, k, v = functional.split_qkv(qkv, HEADS)
            context = kernels.attention(q, k, v)
            if dy is None:
                return (context,)
            dqkv = np.empty_like(qkv)
            dq, dk, dv = functional.split_qkv(dqkv, HEADS)
            kernels.attention_backward(dy, q, k, v, out=(dq, dk, dv))
            return context, dqkv

        def self_attention(
            x: Array, weight: Array, bias: Array, dy: Array | None
        ) -> tuple[Any, ...]:
            context = kernels.self_attention(x, weight, bias, HEADS, 1)
            if dy is None:
                return (context,)
            return context, kernels.self_attention_backward(dy, x, weight, bias, HEADS)

        def layer_norm(x: Array, gain: Array, bias: Array, dy: Array | None) -> tuple[Any, ...]:
            y, x_hat, rstd = kernels.layer_norm(x, gain, bias, EPS)
            return (y,) if dy is None else (y, kernels.layer_norm_backward(dy, x_hat, rstd, gain))

        def cross_entropy(logits: Array, labels: Array, dy: Array | None) -> tuple[Any, ...]:
            loss, p = functional.cross_entropy(logits, labels)
            return (loss,) if dy is None else (loss, functional.cross_entropy_backward(p, labels))

        self.functions = {name: element_wise(kernels.ACTIVATIONS[name]) for name in ELEMENT_WISE}
        self.functions |= {"softmax": softmax, "attention": attention}
        self.functions |= {"self_attention": self_attention}
        self.functions |= {"layer_norm": layer_norm, "cross_entropy": cross_entropy}


class Peer(Side):
    """PyTorch's functions; the backward pass is autograd's."""

    def __init__(self) -> None:
        import torch
        import torch.nn.functional as f

        torch.set_num_threads(1)
        self.torch = torch

        def attention(qkv: Any) -> Any:
            B, T, _ = qkv.shape
            q, k, v = qkv.view(B, T, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            return f.scaled_dot_product_attention(q, k, v)

        def self_attention(x: Any, weight: Any, bias: Any) -> Any:
            B, _, d = x.shape
            q = x[:, :1] @ weight[:, :d] + bias[:d]
            k, v = (x @ weight[:, d:] + bias[d:]).chunk(2, dim=-1)
            heads = (y.reshape(B, -1, HEADS, D_HEAD).transpose(1, 2) for y in (q, k, v))
            return f.scaled_dot_product_attention(*heads)

        def with_backward(function: Callable[..., Any]) -> Run:
            def run(*inputs_and_dy: Any) -> tuple[Any, ...]:
                x, *others, dy = inputs_and_dy
                if dy is None:
                    with torch.inference_mode():
                        return (function(x, *others),)
                x = x.detach().requires_grad_()
                y = function(x, *others)
                return y.detach(), *torch.autograd.grad(y, x, dy)

            return run

        functions = {
            "gelu": f.gelu,
            "gelu_tanh": lambda x: f.gelu(x, approximate="tanh"),
            "relu": f.relu,
            "silu": f.silu,
            "tanh": torch.tanh,
            "softmax": lambda x: f.softmax(x, dim=-1),
            "attention": attention,
            "self_attention": self_attention,
            "layer_norm": lambda x, gain, bias: f.layer_norm(x, (D_MODEL,), gain, bias, EPS),
            "cross_entropy": f.cross_entropy,
        }
        self.functions = {name: with_backward(function) for name, function in functions.items()}

    def own(self, arrays: tuple[Array, ...]) -> tuple[Any, ...]:
        return tuple(map(self.torch.from_numpy, arrays))


def check(case: Case, ours: list[Array], theirs: list[Array]) -> float:
    """The largest difference over the largest value. Exits if the two are not the same function."""
    apart = max(
        float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True)
    )
    if apart > TOLERANCE:
        sys.exit(f"{case.name} at {case.batch}x{case.length}: {apart:.1e} apart")
    return apart


def measure(workers: dict[str, Worker], case: Case, backward: bool, rounds: int) -> dict[str, Any]:
    """One row."""
    ours, peer, machine = workers["ours"], workers["peer"], workers["machine"]
    apart = check(case, ours.call("prepare", case, backward), peer.call("prepare", case, backward))
    size = int(np.prod(case.shape))
    sides: dict[str, Callable[[int], float]] = {
        "ours": lambda turn: ours.call("turn", turn),
        "peer": lambda turn: peer.call("turn", turn),
        "copy": lambda turn: machine.call("copy_seconds", size),
    }
    work = case.multiply_adds(backward)
    if work:
        sides["rate"] = lambda turn: machine.call("product_rates", 2)["one_core"]
    turns = take_turns(sides, rounds, pause=0.0)
    bound = np.array(turns["copy"]) * case.arrays(backward) / 2  # a copy moves two arrays
    if work:
        bound = np.maximum(bound, work / np.array(turns["rate"]))
    return {
        **asdict(case),
        "pass": "forward + backward" if backward else "forward",
        "seconds": {name: float(np.median(turns[name])) for name in ("ours", "peer")},
        "bound_seconds": float(np.median(bound)),
        "peer / ours": paired(turns["peer"], turns["ours"]),
        "bound / ours": paired(list(bound), turns["ours"]),
        "bound / peer": paired(list(bound), turns["peer"]),
        "apart": apart,
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    lines = []
    for row in rows:
        seconds, ratio = row["seconds"], row["peer / ours"]
        lines.append(
            {
                "function": row["name"],
                "batch": f"{row['batch']}x{row['length']}",
                "pass": row["pass"],
                "ours": f"{1e3 * seconds['ours']:.3f}",
                "PyTorch": f"{1e3 * seconds['peer']:.3f}",
                "bound": f"{1e3 * row['bound_seconds']:.3f}",
                "PyTorch / ours": f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})",
                "bound / ours": f"{row['bound / ours']['median']:.2f}",
                "bound / PyTorch": f"{row['bound / peer']['median']:.2f}",
            }
        )
    show("Functions on one core: ms a call, and ratios (quartiles)", lines)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--only", nargs="+", help="functions to measure, by their first letters")
    parser.add_argument("--rounds", type=int, default=11)
    args = parser.parse_args()
    shapes, args.threads = [(32, 32), (32, 128)], 1
    if args.quick:
        shapes, args.rounds = [(4, 16)], 2
    functions = [*ELEMENT_WISE, "softmax", "attention", "self_attention, one query", "layer_norm"]
    functions += ["cross_entropy, classes", "cross_entropy, vocabulary"]
    wanted = tuple(args.only or [""])
    rows = []
    with ExitStack() as stack:
        kinds = {"ours": "kernels:Ours", "peer": "kernels:Peer"}
        workers = {name: stack.enter_context(Worker(kind)) for name, kind in kinds.items()}
        workers["machine"] = stack.enter_context(Worker("machine:Machine", threads=1))
        for name in functions:
            for batch, length in shapes if name.startswith(wanted) else []:
                case = Case(name, batch, length)
                rows += [
                    measure(workers, case, backward, args.rounds) for backward in (False, True)
                ]
    print_table(rows)
    write("kernels", args, {"rounds": args.rounds, "rows": rows})


if __name__ == "__main__":
    main()

"""One training step and one forward pass, against PyTorch with the `adapters` library.

    python benchmarks/step.py
    python benchmarks/step.py --shapes 32x32 --pooling mean     # no position may be left out

MiniLM with adapters of m=64 after both norms of every block and a classifier on [CLS]. A step is
forward, backward, clipping and AdamW. Both sides start from the same weights and see the same
batches; before the clock starts, they must agree on loss, logits and every gradient. Then they
take turns, A B A B ..., each in its own process with the same number of threads, and the table
gives the median of the ratios of paired turns, quartiles behind it. In the same rounds the
machine's own rate of matrix products is measured: the bound is what the multiply-adds alone would
take at that rate. Those of every position, or those needed: this library's last block finishes
only the position that the head reads (with --pooling mean, all of them).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from machine import step_work
from ours import STANDSTILL, Arrays
from report import arguments, show, write
from turns import Turns, Worker, WorkerError, paired, take_turns

from minitransformer import Tokenizer, load_task
from minitransformer.data.batches import batches, encode_split
from minitransformer.data.hub import find_checkpoint

ROUNDS = {"32x32": 15, "32x128": 7, "8x256": 7, "real": 16}
FULL_SHAPES = ("32x32", "32x128")  # where full fine-tuning is measured too
REAL_BATCHES = 8

Workers = dict[str, Worker]


# -- batches ------------------------------------------------------------------------------


def random_batch(shape: str) -> list[Arrays]:
    """One batch of random tokens, without padding."""
    batch, length = map(int, shape.split("x"))
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 30522, (batch, length))
    return [(ids, np.ones_like(ids), rng.integers(0, 2, batch))]


def real_batches() -> list[Arrays]:
    """Batches of 32 Rotten Tomatoes sentences, grouped by length as the Trainer does it."""
    tokenizer = Tokenizer.from_folder(find_checkpoint("minilm"))
    encoded = encode_split(load_task("rotten-tomatoes").train, tokenizer, 128)
    plan = batches(encoded, 32, np.random.default_rng(0))
    return [(plan[i].ids, plan[i].attention_mask, plan[i].labels) for i in range(REAL_BATCHES)]


# -- the two sides ------------------------------------------------------------------------


def settings(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of both sides, and of PyTorch's."""
    common = {"threads": args.threads, "pooling": args.pooling}
    theirs = {"lr": STANDSTILL, "folder": str(find_checkpoint("minilm"))}
    return common, common | theirs | {"keep_memory": args.same_malloc}


def start(stack: ExitStack, args: argparse.Namespace) -> Workers:
    """All processes, started side by side."""
    common, theirs = settings(args)
    workers = {
        "machine": Worker("machine:Machine", threads=args.threads),
        "ours": Worker("ours:Ours", **common),
        "peer": Worker("peers:Peer", **theirs),
        "ours full": Worker("ours:Ours", method="full", **common),
        "peer full": Worker("peers:Peer", method="full", **theirs),
    }
    if args.compile:
        workers["compiled"] = Worker("peers:Peer", compiled=True, **theirs)
    for worker in workers.values():
        stack.enter_context(worker)
    for method in ("", " full"):
        values = workers[f"ours{method}"].call("weights")
        for name in {"": ["peer", "compiled"], " full": ["peer full"]}[method]:
            if name in workers:
                workers[name].call("load", {n: v for n, v in values.items() if is_new(n)})
    return workers


def is_new(name: str) -> bool:
    """Whether a parameter is an adapter's or the head's; the rest is MiniLM's on both sides."""
    return ".adapters." in name or name.startswith("head.")


def agreement(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """How far two sides are apart. Exits if they did not compute the same thing."""
    if ours["gradients"].keys() != theirs["gradients"].keys():
        sys.exit(f"different parameters: {ours['gradients'].keys() ^ theirs['gradients'].keys()}")
    loss = abs(ours["loss"] - theirs["loss"]) / theirs["loss"]
    logits = float(np.abs(ours["logits"] - theirs["logits"]).max())
    norm = np.linalg.norm
    apart = {name: norm(g - theirs["gradients"][name]) for name, g in ours["gradients"].items()}
    size = {name: norm(g) for name, g in theirs["gradients"].items()}
    together = float(norm(list(apart.values())) / norm(list(size.values())))
    worst = max(apart, key=lambda name: apart[name] / size[name])
    worst_apart = float(apart[worst] / size[worst])
    found = {"loss": loss, "logits_max_abs": logits, "gradients": together}
    found["worst_gradient"] = worst_apart
    # A rounding error at ReLU's kink may switch a unit off for one token: therefore the last limit.
    if not (loss < 1e-4 and logits < 1e-4 and together < 1e-4 and worst_apart < 2e-2):
        sys.exit(f"the sides did not compute the same: {found}, worst at {worst}")
    return found


def prepare(workers: Workers, feed: list[Arrays], full: bool) -> dict[str, dict[str, float]]:
    """Hand out the batches, compile, warm up, and check that all sides agree."""
    results = {}
    for name, worker in list(workers.items()):
        if name == "machine" or (name.endswith("full") and not full):
            continue
        try:
            worker.call("use", feed)
            for turn in range(len(feed) if name == "compiled" else 1):
                worker.call("step", turn)
                worker.call("forward", turn)
            results[name] = worker.call("result")
        except WorkerError as error:
            if name != "compiled":
                raise
            print(f"torch.compile left out: {error}")
            del workers[name]
    pairs = {"peer": "ours", "compiled": "ours", "peer full": "ours full"}
    return {
        name: agreement(results[mine], results[name])
        for name, mine in pairs.items()
        if name in results
    }


# -- measuring ----------------------------------------------------------------------------


def measure(workers: Workers, feed: list[Arrays], rounds: int, full: bool) -> Turns:
    """Seconds by side and round; the machine's rate of products in each."""

    def caller(worker: Worker, method: str) -> Callable[[int], float]:
        return lambda turn: worker.call(method, turn)

    sides = {"rate": caller(workers["machine"], "best_product_rate")}
    for method in ("step", "forward"):
        for name in ("ours", "peer", "compiled"):
            if name in workers:
                sides[f"{name} {method}"] = caller(workers[name], method)
    if full:
        for name in ("ours", "peer"):
            sides[f"{name} full"] = caller(workers[f"{name} full"], "step")
    return take_turns(sides, rounds)


def shares_of_bound(turns: Turns, feed: list[Arrays], pooling: str) -> dict[str, dict[str, float]]:
    """The bound over our time; for every position, and for what the result depends on."""
    works = [step_work(len(ids), ids.shape[1], pooling) for ids, _, _ in feed]
    found = {}
    for method in ("step", "forward"):
        seconds = turns[f"ours {method}"]
        for kind in (f"{method} whole", f"{method} needed"):
            done = [works[i % len(works)][kind] for i in range(len(seconds))]
            bound = np.divide(done, turns["rate"])
            found[kind] = paired(list(bound), seconds) | {"seconds": float(np.median(bound))}
    return found


def summarize(turns: Turns, feed: list[Arrays], pooling: str) -> dict[str, Any]:
    """Medians and paired ratios."""
    kinds = ("step", "forward", "full")
    pairs = [(f"{peer} {kind}", f"ours {kind}") for kind in kinds for peer in ("peer", "compiled")]
    pairs += [(f"{side} step", f"{side} full") for side in ("ours", "peer")]
    pairs = [(a, b) for a, b in pairs if {a, b} <= turns.keys()]
    medians = {name: float(np.median(values)) for name, values in turns.items()}
    return {
        "gflops": 2e-9 * medians.pop("rate"),
        "seconds": medians,
        "ratios": {f"{a} / {b}": paired(turns[a], turns[b]) for a, b in pairs},
        "bound / ours": shares_of_bound(turns, feed, pooling),
        "rounds": turns,
    }


def peak_memory(args: argparse.Namespace, feed: list[Arrays]) -> dict[str, float]:
    """MB of fresh processes that do nothing but train: three steps."""
    common, theirs = settings(args)
    found = {}
    for name, worker in (
        ("ours", Worker("ours:Ours", **common)),
        ("peer", Worker("peers:Peer", **theirs)),
    ):
        with worker:
            worker.call("use", feed)
            for turn in range(3):
                worker.call("step", turn)
            found[name] = worker.call("peak_memory_mb")
    return found


# -- the tables ---------------------------------------------------------------------------


def spread(found: dict[str, Any], name: str) -> str:
    r = found["ratios"].get(name)
    return f"{r['median']:.2f} ({r['low']:.2f}-{r['high']:.2f})" if r else "-"


def milliseconds(seconds: float | None) -> str:
    return f"{1e3 * seconds:.0f}" if seconds is not None else "-"


def print_tables(shapes: dict[str, dict[str, Any]], threads: int) -> None:
    steps, bounds, methods, memory = [], [], [], []
    for shape, found in shapes.items():
        seconds, used = found["seconds"], found["peak_mb"]
        for kind in ("step", "forward"):
            steps.append(
                {
                    "batch": f"{shape} {kind}",
                    "ours": milliseconds(seconds[f"ours {kind}"]),
                    "PyTorch": milliseconds(seconds[f"peer {kind}"]),
                    "compiled": milliseconds(seconds.get(f"compiled {kind}")),
                    "PyTorch / ours": spread(found, f"peer {kind} / ours {kind}"),
                    "compiled / ours": spread(found, f"compiled {kind} / ours {kind}"),
                }
            )
            whole, needed = (found["bound / ours"][f"{kind} {k}"] for k in ("whole", "needed"))
            bounds.append(
                {
                    "batch": f"{shape} {kind}",
                    "GFLOP/s": f"{found['gflops']:.0f}",
                    "whole": milliseconds(whole["seconds"]),
                    "whole / ours": f"{whole['median']:.2f}",
                    "needed": milliseconds(needed["seconds"]),
                    "needed / ours": f"{needed['median']:.2f}",
                }
            )
        if "ours full" in seconds:
            methods.append(
                {
                    "batch": shape,
                    "ours": milliseconds(seconds["ours full"]),
                    "PyTorch": milliseconds(seconds["peer full"]),
                    "PyTorch / ours": spread(found, "peer full / ours full"),
                    "adapter / full, ours": spread(found, "ours step / ours full"),
                    "PyTorch's": spread(found, "peer step / peer full"),
                }
            )
        memory.append(
            {
                "batch": shape,
                "ours": f"{used['ours']:.0f}",
                "PyTorch": f"{used['peer']:.0f}",
                "ours / PyTorch": f"{used['ours'] / used['peer']:.2f}",
            }
        )
    show(f"Adapters m=64, {threads} threads a side: ms, and ratios (quartiles)", steps)
    show("Bounds in ms: multiply-adds at the machine's rate; of every position, or needed", bounds)
    if methods:
        show("Full fine-tuning: ms, and an adapter step to a full step", methods)
    show("Peak memory of training, MB", memory)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--shapes", nargs="+", default=list(ROUNDS), help="BATCHxTOKENS, or real")
    parser.add_argument("--rounds", type=int, help="for every shape; default: about 10")
    parser.add_argument("--pooling", choices=("cls", "mean"), default="cls")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument(
        "--same-malloc", action="store_true", help="PyTorch's process reuses freed memory too"
    )
    args = parser.parse_args()
    if args.quick:
        args.shapes, args.rounds, args.compile = ["4x16", "real"], args.rounds or 2, False

    shapes: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        workers = start(stack, args)
        pools = {name: workers[name].call("thread_pools") for name in ("ours", "peer")}
        print("threads:", "; ".join(f"{name} {', '.join(found)}" for name, found in pools.items()))
        for shape in args.shapes:
            began = time.perf_counter()
            feed = real_batches() if shape == "real" else random_batch(shape)
            full = shape in FULL_SHAPES or args.quick
            agreed = prepare(workers, feed, full)
            turns = measure(workers, feed, args.rounds or ROUNDS.get(shape, 9), full)
            shapes[shape] = summarize(turns, feed, args.pooling) | {"agreement": agreed}
            gradients = max(a["gradients"] for a in agreed.values())
            worst = max(a["worst_gradient"] for a in agreed.values())
            print(
                f"{shape}: sides agree, gradients {gradients:.0e} apart (worst {worst:.0e}); "
                f"measured in {time.perf_counter() - began:.0f} s",
                flush=True,
            )
    for shape in args.shapes:
        feed = real_batches() if shape == "real" else random_batch(shape)
        shapes[shape]["peak_mb"] = peak_memory(args, feed)
    print_tables(shapes, args.threads)
    common = {"pooling": args.pooling, "same_malloc": args.same_malloc, "thread_pools": pools}
    write("step", args, common | {"shapes": shapes})


if __name__ == "__main__":
    main()

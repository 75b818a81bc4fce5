"""One training step and one forward pass, against PyTorch with the `adapters` library.

    python benchmarks/step.py
    python benchmarks/step.py --shapes 32x32 --pooling mean     # no position may be left out
    python benchmarks/step.py --peers compiled bf16 processes jax onnx --to step-hard-peers

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
from functools import partial
from typing import Any

import numpy as np
from machine import step_work
from ours import STANDSTILL, Arrays
from report import arguments, show, write
from turns import Turns, Worker, WorkerError, paired, take_turns

from minitransformer import Tokenizer, load_task
from minitransformer.data.batches import batches, encode_split
from minitransformer.data.hub import find_checkpoint

ROUNDS = {"1x32": 30, "4x16": 30, "32x32": 15, "32x128": 7, "8x256": 7, "real": 16}
FULL_SHAPES = ("32x32", "32x128")  # where full fine-tuning is measured too
REAL_BATCHES = 8

# Other peers than PyTorch as it comes, and how far their results may be from this library's:
# loss and gradients relative, logits absolute. Half precision is another computation.
PEERS: dict[str, tuple[str, dict[str, Any], float]] = {
    "compiled": ("peers:Peer", {"compiled": True}, 1e-4),
    "bf16": ("peers:Peer", {"autocast": True}, 0.2),
    "processes": ("peer_processes:Processes", {}, 1e-4),
    "jax": ("peer_jax:Jax", {}, 1e-4),
    "onnx": ("peer_onnx:Onnx", {}, 1e-4),
}
INFERENCE_ONLY = {"onnx"}

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
    for name in args.peers:
        kind, extra, _ = PEERS[name]
        workers[name] = Worker(kind, **theirs, **extra)
    for worker in workers.values():
        stack.enter_context(worker)
    values = new_weights(workers["ours"])
    workers["peer full"].call("load", new_weights(workers["ours full"]))
    workers["peer"].call("load", values)
    for name in args.peers:
        leave_out_if_it_fails(workers, name, lambda worker: worker.call("load", values))
    return workers


def new_weights(ours: Worker) -> dict[str, np.ndarray]:
    """Adapters and head: the rest is MiniLM's on both sides."""
    return {name: value for name, value in ours.call("weights").items() if is_new(name)}


def leave_out_if_it_fails(workers: Workers, name: str, prepare: Callable[[Worker], Any]) -> Any:
    """A peer that is not installed, or cannot do this, is left out, and that is said."""
    try:
        return prepare(workers[name])
    except WorkerError as error:
        print(f"{name} left out: {error}")
        del workers[name]


def is_new(name: str) -> bool:
    """Whether a parameter is an adapter's or the head's."""
    return ".adapters." in name or name.startswith("head.")


def agreement(
    ours: dict[str, Any], theirs: dict[str, Any], limit: float = 1e-4
) -> dict[str, float]:
    """How far two sides are apart. Exits if they did not compute the same thing."""
    logits = float(np.abs(ours["logits"] - theirs["logits"]).max())
    if "gradients" not in theirs:
        if logits > limit:
            sys.exit(f"the sides did not compute the same: logits {logits} apart")
        return {"logits_max_abs": logits}
    if ours["gradients"].keys() != theirs["gradients"].keys():
        sys.exit(f"different parameters: {ours['gradients'].keys() ^ theirs['gradients'].keys()}")
    loss = abs(ours["loss"] - theirs["loss"]) / theirs["loss"]
    norm = np.linalg.norm
    apart = {name: norm(g - theirs["gradients"][name]) for name, g in ours["gradients"].items()}
    size = {name: norm(g) for name, g in theirs["gradients"].items()}
    together = float(norm(list(apart.values())) / norm(list(size.values())))
    worst = max(apart, key=lambda name: apart[name] / size[name])
    worst_apart = float(apart[worst] / size[worst])
    found = {"loss": loss, "logits_max_abs": logits, "gradients": together}
    found["worst_gradient"] = worst_apart
    # A rounding error at ReLU's kink may switch a unit off for one token: therefore the last limit.
    near = loss < limit and logits < limit and together < limit
    if not (near and worst_apart < 200 * limit):
        sys.exit(f"the sides did not compute the same: {found}, worst at {worst}")
    return found


def prepare(workers: Workers, feed: list[Arrays], full: bool) -> dict[str, dict[str, float]]:
    """Hand out the batches, compile, warm up, and check that all sides agree."""
    results = {}

    def ready(worker: Worker, name: str) -> Any:
        worker.call("use", feed)
        for turn in range(len(feed) if name == "compiled" else 1):
            if name not in INFERENCE_ONLY:
                worker.call("step", turn)
            worker.call("forward", turn)
        return worker.call("result")

    for name in list(workers):
        if name in PEERS:
            results[name] = leave_out_if_it_fails(workers, name, partial(ready, name=name))
        elif name != "machine" and (full or not name.endswith("full")):
            results[name] = ready(workers[name], name)
    found = {"peer": agreement(results["ours"], results["peer"])}
    if full:
        found["peer full"] = agreement(results["ours full"], results["peer full"])
    for name in PEERS:
        if name in workers:
            found[name] = agreement(results["ours"], results[name], PEERS[name][2])
    return found


# -- measuring ----------------------------------------------------------------------------


def measure(workers: Workers, feed: list[Arrays], rounds: int, full: bool) -> Turns:
    """Seconds by side and round; the machine's rate of products in each."""

    def caller(worker: Worker, method: str) -> Callable[[int], float]:
        return lambda turn: worker.call(method, turn)

    sides = {"rate": caller(workers["machine"], "best_product_rate")}
    for method in ("step", "forward"):
        for name in ("ours", "peer", *PEERS):
            if name in workers and (method == "forward" or name not in INFERENCE_ONLY):
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
    pairs = [(f"{peer} {kind}", f"ours {kind}") for kind in kinds for peer in ("peer", *PEERS)]
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


def print_tables(shapes: dict[str, dict[str, Any]], threads: int, peers: list[str]) -> None:
    steps, bounds, methods, memory = [], [], [], []
    for shape, found in shapes.items():
        seconds, used = found["seconds"], found["peak_mb"]
        for kind in ("step", "forward"):
            row = {
                "batch": f"{shape} {kind}",
                "ours": milliseconds(seconds[f"ours {kind}"]),
                "PyTorch": milliseconds(seconds[f"peer {kind}"]),
            }
            for name in peers:
                row[name] = milliseconds(seconds.get(f"{name} {kind}"))
            for name, side in {"PyTorch": "peer", **{name: name for name in peers}}.items():
                row[f"{name} / ours"] = spread(found, f"{side} {kind} / ours {kind}")
            steps.append(row)
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
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, default=["compiled"], help="beside PyTorch as it comes"
    )
    parser.add_argument(
        "--same-malloc", action="store_true", help="PyTorch's process reuses freed memory too"
    )
    args = parser.parse_args()
    if args.quick:
        args.shapes, args.rounds = ["4x16", "real"], args.rounds or 2

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
            exact = [a for name, a in agreed.items() if name != "bf16" and "gradients" in a]
            gradients = max(a["gradients"] for a in exact)
            worst = max(a["worst_gradient"] for a in exact)
            print(
                f"{shape}: sides agree, gradients {gradients:.0e} apart (worst {worst:.0e}); "
                f"measured in {time.perf_counter() - began:.0f} s",
                flush=True,
            )
    for shape in args.shapes:
        feed = real_batches() if shape == "real" else random_batch(shape)
        shapes[shape]["peak_mb"] = peak_memory(args, feed)
    print_tables(shapes, args.threads, args.peers)
    common = {"pooling": args.pooling, "same_malloc": args.same_malloc, "thread_pools": pools}
    write("step", args, common | {"shapes": shapes})


if __name__ == "__main__":
    main()

"""How the time and memory of a training step grow with batch, length, blocks and bottleneck.

    python benchmarks/growth.py

One of the four grows at a time, from a step on 32 sentences of 32 tokens through 6 blocks of
MiniLM's shape (random weights) with adapters of m=64; lengths are tried with 8 sentences. At each
point, this library and PyTorch with `adapters` take turns in fresh processes with the same number
of threads. Time: the median step. Memory: the most a process held while it trained, all its
libraries included. Beside them, the step's multiply-adds at the machine's own rate of matrix
products. Writes results/growth.json and results/growth.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from machine import step_work
from ours import STANDSTILL
from report import RESULTS, arguments, show, write
from turns import Worker, take_turns

from minitransformer.data.hub import find_checkpoint
from minitransformer.plots import BLUE, GREY, ORANGE, new_figure

START = {"batch": 32, "length": 32, "blocks": 6, "m": 64}
AXES = {  # what grows -> its values, and what is different from START
    "batch": ((1, 8, 16, 32, 64), {}),
    "length": ((16, 32, 64, 128, 256), {"batch": 8}),
    "blocks": ((1, 3, 6, 9, 12), {}),
    "m": ((8, 64, 128, 256, 384), {}),
}
SIDES = {"ours": "minitransformer", "peer": "PyTorch + adapters"}


def measure(point: dict[str, int], args: argparse.Namespace) -> dict[str, Any]:
    """Median seconds and peak memory of a step, on each side; the bound, in seconds."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 30522, (point["batch"], point["length"]))
    feed = [(ids, np.ones_like(ids), rng.integers(0, 2, len(ids)))]
    common = {"threads": args.threads, "blocks": point["blocks"], "bottleneck": point["m"]}
    with (
        Worker("ours:Ours", **common) as ours,
        Worker("peers:Peer", folder=args.folder, lr=STANDSTILL, **common) as peer,
        Worker("machine:Machine", threads=args.threads) as machine,
    ):
        sides = {"ours": ours, "peer": peer}
        for worker in sides.values():
            worker.call("use", feed)
            worker.call("forget_peak_memory")
            worker.call("step", 0)  # warm-up
        turns = take_turns(
            {
                "ours": lambda turn: ours.call("step", turn),
                "peer": lambda turn: peer.call("step", turn),
                "rate": lambda turn: machine.call("best_product_rate", turn),
            },
            args.rounds,
        )
        memory = {name: worker.call("peak_memory_mb") for name, worker in sides.items()}
    work = step_work(point["batch"], point["length"], m=point["m"], blocks=point["blocks"])
    return {
        "seconds": {name: float(np.median(turns[name])) for name in sides},
        "bound_seconds": work["step needed"] / float(np.median(turns["rate"])),
        "peak_mb": memory,
    }


def plot(axes_found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Time above, memory below, a column for each of the four."""
    from matplotlib.ticker import MaxNLocator

    labels = {
        "batch": "batch (sentences of 32 tokens)",
        "length": "length (tokens, of 8 sentences)",
        "blocks": "blocks",
        "m": "bottleneck m",
    }
    figure = new_figure(12, 5.8)
    grid = figure.subplots(2, len(axes_found), sharey="row", squeeze=False)
    for column, (axis, rows) in enumerate(axes_found.items()):
        x = [row[axis] for row in rows]
        time_axis, memory_axis = grid[0][column], grid[1][column]
        for side, color, marker in (("ours", BLUE, "o"), ("peer", ORANGE, "s")):
            style = {"color": color, "marker": marker, "ms": 5, "lw": 1.6, "label": SIDES[side]}
            time_axis.plot(x, [1e3 * row["seconds"][side] for row in rows], **style)
            memory_axis.plot(x, [row["peak_mb"][side] for row in rows], **style)
        bound = [1e3 * row["bound_seconds"] for row in rows]
        time_axis.plot(x, bound, color=GREY, ls="--", lw=1.2, label="matrix products alone")
        memory_axis.set_xlabel(labels[axis])
        for panel in (time_axis, memory_axis):
            panel.set_xlim(left=0)
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 3, 5, 10]))
            panel.grid(color="#dddddd", lw=0.6)
            panel.spines[["top", "right"]].set_visible(False)
    for first_of_row in grid[:, 0]:  # the others share its scale: when all is drawn
        first_of_row.set_ylim(bottom=0)
    grid[0][0].set_ylabel("training step (ms)")
    grid[1][0].set_ylabel("peak memory (MB)")
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(
        "A training step of adapters: 32 sentences of 32 tokens, 6 blocks of MiniLM's shape, "
        "m = 64, but for what grows"
    )
    figure.savefig(path, dpi=150, format="png")


def print_tables(axes_found: dict[str, list[dict[str, Any]]]) -> None:
    for axis, rows in axes_found.items():
        lines = []
        for row in rows:
            seconds, memory = row["seconds"], row["peak_mb"]
            lines.append(
                {
                    axis: str(row[axis]),
                    "ours ms": f"{1e3 * seconds['ours']:.0f}",
                    "PyTorch ms": f"{1e3 * seconds['peer']:.0f}",
                    "bound ms": f"{1e3 * row['bound_seconds']:.0f}",
                    "PyTorch / ours": f"{seconds['peer'] / seconds['ours']:.2f}",
                    "ours MB": f"{memory['ours']:.0f}",
                    "PyTorch MB": f"{memory['peer']:.0f}",
                    "ours / PyTorch": f"{memory['ours'] / memory['peer']:.2f}",
                }
            )
        fixed = ", ".join(f"{k} {v}" for k, v in rows[0].items() if k in START and k != axis)
        show(f"A training step by {axis} ({fixed})", lines)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--picture", type=Path, help="where to draw; default: results/growth.png")
    args = parser.parse_args()
    args.folder = str(find_checkpoint("minilm"))
    if args.quick:
        args.rounds = 1

    known: dict[tuple[int, ...], dict[str, Any]] = {}
    found: dict[str, list[dict[str, Any]]] = {}
    for axis in args.axes:
        values, others = AXES[axis]
        found[axis] = []
        for value in values[:2] if args.quick else values:
            point = START | others | {axis: value}
            key = tuple(point.values())
            if key not in known:
                known[key] = measure(point, args)
            found[axis].append(point | known[key])
            print(f"{axis} {value}", end=" ", flush=True)
    print()
    print_tables(found)
    write("growth", args, {"rounds": args.rounds, "axes": found})
    if args.picture or not args.quick:
        plot(found, args.picture or RESULTS / f"{args.to or 'growth'}.png")


if __name__ == "__main__":
    main()

"""Latency of inference: the base, adapters at each placement and width, LoRA apart and merged.

    python benchmarks/latency.py
    python benchmarks/latency.py --minutes 4 --resume
    python benchmarks/latency.py --quick

The models take turns in one process, in a new random order in each round; a ratio to the base is
the median over rounds, with its 95 % interval; that of a copy of the base says what the place of
arrays in memory alone makes of it. `predicted` is the ratio of the multiply-adds,
counted by `costs/step.py` before anything runs. Widths are compared at one placement, placements at
one width. BERT-base has random weights. Writes `results/latency.json`, `latency.csv` and
`latency.png`; with `--minutes` no further cell (a base, a batch, a length) begins after so long,
and `--resume` goes on with those that are missing.
"""

from __future__ import annotations

import copy
import csv
import json
import time
from functools import partial
from typing import Any

import numpy as np
from report import RESULTS, arguments, rounded, show, write
from threadpoolctl import threadpool_limits

import minitransformer as mt
from minitransformer.adapters.config import AdapterConfig, AnyConfig, LoRAConfig
from minitransformer.costs.latency import measure_latencies
from minitransformer.costs.parameters import shape_of
from minitransformer.costs.step import count_step
from minitransformer.plots import BLUE, GREY, ORANGE, new_figure, write_png

BASES = ("minilm", "bert-base")
BATCHES = (1, 32)
CELLS = [(base, 1, length) for length in (16, 64, 256) for base in BASES]
CELLS += [(base, 32, length) for length in (16, 64) for base in BASES]
LORA = LoRAConfig(rank=8)
MODELS: dict[str, AnyConfig | None] = {
    "base": None,
    "a copy of the base": None,
    **{f"after_norm, m = {m}": AdapterConfig(bottleneck=m) for m in (8, 16, 32, 64, 128, 256)},
    **{
        f"{placement}, m = 64": AdapterConfig(bottleneck=64, placement=placement)
        for placement in ("houlsby", "pfeiffer", "parallel")
    },
    "LoRA, rank 8": LORA,
    "LoRA, merged": LORA,
}
Row = dict[str, Any]


def classifier(base: mt.Transformer, name: str) -> mt.Classifier:
    """A model of its own for inference, random weights in what is inserted too."""
    base, inserted = copy.deepcopy(base), MODELS[name]
    if inserted is not None:
        base.add_method("a", inserted)
        for key, parameter in base.named_parameters():
            if key.endswith("adapters.a.b"):  # LoRA's B starts at 0, and so would its product
                parameter.value += 0.01
    if name == "LoRA, merged":
        base.merge("a")
    return mt.Classifier(base.freeze(), 2).eval()


def measure(base: str, batch: int, length: int, rounds: int, seconds: float) -> list[Row]:
    """A row for each model."""
    config = shape_of(base)
    transformer = mt.Transformer(config, np.random.default_rng(0))
    ids = np.random.default_rng(0).integers(1000, config.vocab_size, (batch, length))
    works = {name: partial(classifier(transformer, name), ids) for name in MODELS}
    found = measure_latencies(works, rounds, seconds)
    plain = count_step(config, batch, length, "head").multiply_adds.forward
    rows = []
    for name, latency in found.items():
        one = None if name == "LoRA, merged" else MODELS[name]
        method = one.method if one is not None else "head"
        low, high = latency.interval_over(found["base"])
        rows.append(
            {
                "base": base,
                "batch": batch,
                "length": length,
                "model": name,
                "median_ms": 1e3 * latency.median,
                "p95_ms": 1e3 * latency.percentile_95,
                "ratio": latency.over(found["base"]),
                "low": low,
                "high": high,
                "predicted": count_step(config, batch, length, method, one).multiply_adds.forward
                / plain,
                "rounds": len(latency.seconds),
            }
        )
    return rows


def cell_of(row: Row) -> tuple[str, int, int]:
    return row["base"], row["batch"], row["length"]


def draw(rows: list[Row]) -> Any:
    """The ratio to the base, a panel for each base and batch; predicted ones as short lines."""
    figure = new_figure(12, 4.2 * len(BASES))
    panels = figure.subplots(len(BASES), len(BATCHES), sharey=True, squeeze=False)
    for base, line in zip(BASES, panels, strict=True):
        for batch, axes in zip(BATCHES, line, strict=True):
            lengths = [cell[2] for cell in CELLS if cell[:2] == (base, batch)]
            looks = ((BLUE, "o"), (ORANGE, "s"), (GREY, "^"))
            for i, (length, (colour, marker)) in enumerate(zip(lengths, looks, strict=False)):
                some = [row for row in rows if cell_of(row) == (base, batch, length)]
                at = np.arange(len(some)) + 0.26 * (i - 1)
                ratio, low, high = (
                    np.array([row[key] for row in some]) for key in ("ratio", "low", "high")
                )
                label = f"{length} tokens"
                error = (ratio - low, high - ratio)
                axes.errorbar(at, ratio, error, fmt=marker, color=colour, label=label)
                axes.hlines([r["predicted"] for r in some], at - 0.13, at + 0.13, color="black")
            axes.set_title(f"{base}, batch {batch}")
            axes.set_xticks(range(len(MODELS)), list(MODELS), rotation=40, ha="right")
            axes.set_ylim(0.9, 1.35)
            axes.axhline(1, color=GREY, lw=0.8)
            axes.legend(fontsize=8, loc="upper left")
        line[0].set_ylabel("latency / base (black: multiply-adds)")
    return figure


def tables(rows: list[Row]) -> None:
    for base in BASES:
        for batch in BATCHES:
            here = [row for row in rows if (row["base"], row["batch"]) == (base, batch)]
            if here:
                show(
                    f"{base}, batch {batch}: median / 95th percentile (ms), latency over the "
                    "base's with its interval, and (the ratio of multiply-adds)",
                    [
                        {"model": name}
                        | {
                            f"{row['length']} tokens": f"{row['median_ms']:.1f} / "
                            f"{row['p95_ms']:.1f}  {row['ratio']:.2f} "
                            f"[{row['low']:.2f}, {row['high']:.2f}] ({row['predicted']:.2f})"
                            for row in here
                            if row["model"] == name
                        }
                        for name in MODELS
                    ],
                )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=np.inf, help="begin no cell after these")
    parser.add_argument("--seconds", type=float, default=20, help="of a cell")
    parser.add_argument("--resume", action="store_true", help="measure the missing cells alone")
    args = parser.parse_args()
    threadpool_limits(args.threads, user_api="blas")
    path, begun, rows = RESULTS / f"{args.to or 'latency'}.json", time.monotonic(), []
    if args.resume and path.exists():
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    for base, batch, length in CELLS[:1] if args.quick else CELLS:
        done = (base, batch, length) in map(cell_of, rows)
        if not done and time.monotonic() - begun < 60 * args.minutes:
            rows += measure(base, batch, length, *((5, 5) if args.quick else (100, args.seconds)))
            write("latency", args, {"rows": rows})
    tables(rows)
    if not args.quick:
        with path.with_suffix(".csv").open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(rounded(rows))
        write_png(draw(rows), path.with_suffix(".png"))


if __name__ == "__main__":
    main()

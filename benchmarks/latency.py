"""Latency of inference: the base, adapters at each placement and width, LoRA apart and merged.

    python benchmarks/latency.py
    python benchmarks/latency.py --quick

The models take turns in one process (A B C A B C ...); the ratio to the base is the median over
rounds. `predicted` is the ratio of the multiply-adds, counted by `costs/step.py` before anything
runs. BERT-base has random weights, cut to 2 blocks: all blocks are alike. Writes
`results/latency.json`, `latency.csv` and `latency.png`.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from report import RESULTS, arguments, show, write
from threadpoolctl import threadpool_limits

import minitransformer as mt
from minitransformer.adapters.config import AdapterConfig, AnyConfig, LoRAConfig
from minitransformer.costs.latency import measure_latencies
from minitransformer.costs.parameters import shape_of
from minitransformer.costs.step import count_step
from minitransformer.nn.config import TransformerConfig
from minitransformer.plots import BLUE, GREY, ORANGE, new_figure, write_png

BATCHES, LENGTHS = (1, 32), (16, 64, 256)
ADAPTERS = {
    f"{placement}, m = {m}": AdapterConfig(bottleneck=m, placement=placement)
    for placement in ("after_norm", "houlsby", "pfeiffer", "parallel")
    for m in ((8, 64, 256) if placement == "after_norm" else (64,))
}
LORA = LoRAConfig(rank=8)
MODELS: dict[str, AnyConfig | None] = {
    "base": None, **ADAPTERS, "LoRA, rank 8": LORA, "LoRA, merged": LORA
}  # fmt: skip


def classifier(config: TransformerConfig, name: str) -> mt.Classifier:
    """A model for inference with random weights, those of what is inserted too."""
    base = mt.Transformer(config, np.random.default_rng(0))
    inserted = MODELS[name]
    if inserted is not None:
        base.add_method("a", inserted)
        for key, parameter in base.named_parameters():
            if key.endswith("adapters.a.b"):  # LoRA's B starts at 0, and so would its product
                parameter.value += 0.01
    if name == "LoRA, merged":
        base.merge("a")
    return mt.Classifier(base.freeze(), 2).eval()


def measure(base: str, config: TransformerConfig, rounds: dict[int, int]) -> list[dict[str, Any]]:
    """A row for each batch, length and model."""
    models = {name: classifier(config, name) for name in MODELS}
    rows = []
    for batch in BATCHES:
        for length in LENGTHS:
            ids = np.random.default_rng(0).integers(1000, config.vocab_size, (batch, length))
            works = {name: partial(model, ids) for name, model in models.items()}
            found = measure_latencies(works, max(5, rounds[batch] * 16 // length))
            plain = count_step(config, batch, length, "head").multiply_adds.forward
            for name, latency in found.items():
                one = None if name == "LoRA, merged" else MODELS[name]
                method = one.method if one is not None else "head"
                forward = count_step(config, batch, length, method, one).multiply_adds.forward
                rows.append(
                    {
                        "base": base, "batch": batch, "length": length, "model": name,
                        "median_ms": 1e3 * latency.median, "p95_ms": 1e3 * latency.percentile_95,
                        "ratio": latency.over(found["base"]), "predicted": forward / plain,
                        "rounds": len(latency.seconds),
                    }
                )  # fmt: skip
    return rows


def draw(rows: list[dict[str, Any]]) -> Any:
    """The ratio to the base, a panel for each base and batch; predicted ones as short lines."""
    bases = list(dict.fromkeys(row["base"] for row in rows))
    figure = new_figure(11, 4.2 * len(bases))
    panels = figure.subplots(len(bases), len(BATCHES), sharey=True, squeeze=False)
    for base, line in zip(bases, panels, strict=True):
        for batch, axes in zip(BATCHES, line, strict=True):
            here = [row for row in rows if (row["base"], row["batch"]) == (base, batch)]
            for i, (length, colour) in enumerate(zip(LENGTHS, (BLUE, ORANGE, GREY), strict=True)):
                some = [row for row in here if row["length"] == length]
                at = np.arange(len(some)) + 0.26 * (i - 1)
                axes.bar(
                    at, [r["ratio"] for r in some], 0.24, color=colour, label=f"{length} tokens"
                )
                axes.hlines([r["predicted"] for r in some], at - 0.13, at + 0.13, color="black")
            axes.set_title(f"{base}, batch {batch}")
            axes.set_xticks(range(len(MODELS)), list(MODELS), rotation=40, ha="right")
            axes.set_ylim(0.8, None)
            axes.axhline(1, color=GREY, lw=0.8)
        line[0].set_ylabel("latency / base (black: multiply-adds)")
    panels[0][0].legend()
    return figure


def main() -> None:
    args = arguments(__doc__).parse_args()
    threadpool_limits(args.threads, user_api="blas")
    shapes = {"MiniLM": shape_of("minilm"), "BERT-base": replace(shape_of("bert-base"), n_layers=2)}
    rounds = {1: 10, 32: 5} if args.quick else {1: 160, 32: 20}
    rows = [row for base, config in shapes.items() for row in measure(base, config, rounds)]
    for base in shapes:
        for batch in BATCHES:
            show(
                f"{base}, batch {batch}: median / 95th percentile (ms), latency over the base's, "
                "and the ratio of multiply-adds",
                [
                    {"model": name}
                    | {
                        f"{row['length']} tokens": f"{row['median_ms']:.2f} / {row['p95_ms']:.2f}"
                        f"  {row['ratio']:.2f} ({row['predicted']:.2f})"
                        for row in rows
                        if (row["base"], row["batch"], row["model"]) == (base, batch, name)
                    }
                    for name in MODELS
                ],
            )
    write("latency", args, {"rows": rows})
    if not args.quick:
        with (RESULTS / "latency.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
        write_png(draw(rows), RESULTS / "latency.png")


if __name__ == "__main__":
    main()

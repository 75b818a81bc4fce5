"""What a training step costs by method: adapters everywhere, in the top blocks, head alone, full.

    python benchmarks/method_cost.py
    python benchmarks/method_cost.py --shape 8x256 --rounds 9

Time: the methods take turns in one process (A B C D A B C D ...), and the table gives the median
of the ratios to the full step of the same round. A step is forward, backward, clipping and AdamW.
Memory: one fresh process for each method, its peak after three steps, and the bytes that forward
saves for backward. Writes `benchmarks/results/method-cost.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import minitransformer as mt
from minitransformer.costs.memory import saved_bytes
from minitransformer.nn.functional import cross_entropy, cross_entropy_backward
from minitransformer.runs.folder import peak_memory_mb
from minitransformer.runs.model import build_classifier
from minitransformer.runs.options import RunOptions
from minitransformer.training.optim import AdamW, clip_by_global_norm

RESULTS = Path(__file__).parent / "results"
METHODS = {
    "full": RunOptions(method="full"),
    "adapter": RunOptions(adapter=mt.AdapterConfig(bottleneck=64)),
    "adapter, top 3 blocks": RunOptions(adapter=mt.AdapterConfig(bottleneck=64, layers=(3, 4, 5))),
    "head": RunOptions(method="head"),
}


class Bench:
    """One method's model and optimizer, and a batch that all methods share."""

    def __init__(self, method: str, batch: int, length: int) -> None:
        rng = np.random.default_rng(0)
        base = mt.Transformer.from_pretrained("minilm")
        self.model = build_classifier(base, 2, METHODS[method]).train()
        self.parameters = self.model.trainable_parameters()
        self.optimizer = AdamW(self.parameters, 1e-5)
        self.ids = rng.integers(1000, base.config.vocab_size, (batch, length))
        self.mask = np.ones_like(self.ids)
        self.labels = rng.integers(0, 2, batch)

    def step(self) -> float:
        started = time.perf_counter()
        self.model.zero_grad()
        _, p = cross_entropy(self.model(self.ids, self.mask), self.labels)
        self.model.backward(cross_entropy_backward(p, self.labels))
        clip_by_global_norm(self.parameters, 1.0)
        self.optimizer.step()
        return time.perf_counter() - started

    def saved(self) -> int:
        """Bytes that one forward pass saves for the backward pass."""
        self.model(self.ids, self.mask)
        return saved_bytes(self.model)


def memory(method: str, shape: str) -> dict[str, float]:
    """Peak memory of a process that does nothing else."""
    command = [sys.executable, __file__, "--shape", shape, "--only", method]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="32x32", help="batch x tokens")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=METHODS, help="print one method's memory as JSON")
    args = parser.parse_args()
    batch, length = (int(n) for n in args.shape.split("x"))

    if args.only:
        bench = Bench(args.only, batch, length)
        for _ in range(3):
            bench.step()
        print(json.dumps({"peak_mb": peak_memory_mb(), "saved_mb": bench.saved() / 1e6}))
        return

    # Before this process grows: a child's peak begins at the size of its parent.
    used = {method: memory(method, args.shape) for method in METHODS}
    benches = {method: Bench(method, batch, length) for method in METHODS}
    for bench in benches.values():
        bench.step()  # warm-up
    rounds = [{m: b.step() for m, b in benches.items()} for _ in range(args.rounds)]
    rows: list[dict[str, Any]] = []
    for method in METHODS:
        seconds = float(np.median([r[method] for r in rounds]))
        ratio = float(np.median([r[method] / r["full"] for r in rounds]))
        row = {"method": method, "seconds": seconds, "ratio_to_full": ratio, **used[method]}
        rows.append(row)

    full_peak = rows[0]["peak_mb"]
    print(f"MiniLM, m=64, batch {args.shape}: a training step; medians of {args.rounds} rounds")
    print(f"{'method':<24}{'seconds':>9}{'/ full':>8}{'peak MB':>9}{'/ full':>8}{'saved MB':>10}")
    for row in rows:
        share = row["peak_mb"] / full_peak
        print(
            f"{row['method']:<24}{row['seconds']:>9.3f}{row['ratio_to_full']:>8.2f}"
            f"{row['peak_mb']:>9.0f}{share:>8.2f}{row['saved_mb']:>10.1f}"
        )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "method-cost.json"
    record = {"shape": args.shape, "rounds": args.rounds, "rows": rows}
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()

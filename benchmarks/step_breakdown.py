"""Where the time of a training step goes: forward, backward, clipping, optimizer; predicted too.

    python benchmarks/step_breakdown.py
    python benchmarks/step_breakdown.py --threads 1
    python benchmarks/step_breakdown.py --quick

MiniLM's shape with random weights; the methods take turns in one process. Predicted: the
multiply-adds that `costs/step.py` counts, at the rate of one large matrix product on this machine,
and for clipping and AdamW the bytes that they must read and write, at the rate of one `a += b` over
arrays that fit in no cache. What predicted bars lack is the element-wise work (activations, norms,
softmax), and that small products are slower than large ones. With `--threads 1` all times are the
processor's, which a busy machine hardly changes. Writes `results/step_breakdown.json`
and `step_breakdown.png`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from machine import seconds
from report import RESULTS, arguments, clock_for, show, write
from threadpoolctl import threadpool_limits

import minitransformer as mt
from minitransformer.costs.parameters import shape_of
from minitransformer.costs.step import count_step
from minitransformer.nn.functional import cross_entropy, cross_entropy_backward
from minitransformer.plots import BLUE, GREY, ORANGE, new_figure, write_png
from minitransformer.runs.model import build_classifier
from minitransformer.runs.options import RunOptions
from minitransformer.training.optim import AdamW, clip_by_global_norm
from minitransformer.training.process import keep_freed_memory

METHODS = ("full", "adapter", "lora", "head")
PARTS = ("forward", "backward", "clipping", "optimizer")
# For each trained float32. Clipping: the gradient for its norm, then read and written. AdamW:
# gradient, m, v and value are read, the last three written.
BYTES = {"clipping": 4 * 3, "optimizer": 4 * 7}
BATCH, LENGTH = 32, 32


class Step:
    """A model, its optimizer, and a batch that all methods share."""

    def __init__(self, method: str, clock: Callable[[], float]) -> None:
        self.clock = clock
        base = mt.Transformer(shape_of("minilm"), np.random.default_rng(0))
        options = RunOptions(method=method, head_dropout=0.0)
        self.model = build_classifier(base, 2, options).train()
        self.parameters = self.model.trainable_parameters()
        self.optimizer = AdamW(self.parameters, 1e-6)
        rng = np.random.default_rng(0)
        self.ids = rng.integers(1000, base.config.vocab_size, (BATCH, LENGTH))
        self.labels = rng.integers(0, 2, BATCH)

    def run(self) -> list[float]:
        """Seconds of each part."""
        self.model.zero_grad()
        at = [self.clock()]
        _, p = cross_entropy(self.model(self.ids), self.labels)
        at.append(self.clock())
        self.model.backward(cross_entropy_backward(p, self.labels))
        at.append(self.clock())
        clip_by_global_norm(self.parameters, 1e-3)
        at.append(self.clock())
        self.optimizer.step()
        at.append(self.clock())
        return np.diff(at).tolist()


def predict(method: str, multiply_adds_a_second: float, bytes_a_second: float) -> list[float]:
    """Seconds of each part, from the shape alone and two rates of the machine."""
    step = count_step(shape_of("minilm"), BATCH, LENGTH, method)
    work = step.multiply_adds
    products = [work.forward / multiply_adds_a_second, work.backward / multiply_adds_a_second]
    return products + [BYTES[part] * step.trained / bytes_a_second for part in PARTS[2:]]


def rates(clock: Callable[[], float]) -> tuple[float, float]:
    """Multiply-adds a second of a large product, and bytes a second of `a += b` from memory."""
    n, k, m = 1024, 384, 1536
    a, b, c = np.ones((n, k), np.float32), np.ones((k, m), np.float32), np.empty((n, m), np.float32)
    x, y = np.ones(1 << 25, np.float32), np.ones(1 << 25, np.float32)
    product = min(seconds(lambda: np.matmul(a, b, out=c), clock) for _ in range(20))
    addition = min(seconds(lambda: np.add(x, y, out=x), clock) for _ in range(5))
    return n * k * m / product, 3 * x.nbytes / addition


def draw(rows: list[dict[str, Any]]) -> Any:
    """Stacked bars: measured, and beside it predicted, paler."""
    figure = new_figure(9, 4.5)
    axes = figure.subplots()
    for side, (kind, alpha) in enumerate((("measured", 1.0), ("predicted", 0.45))):
        at = np.arange(len(rows)) + 0.36 * side - 0.18
        floor = np.zeros(len(rows))
        for part, colour in zip(PARTS, (BLUE, ORANGE, GREY, "black"), strict=True):
            height = np.array([1e3 * row[kind][part] for row in rows])
            label = part if side == 0 else None
            axes.bar(at, height, 0.34, floor, color=colour, alpha=alpha, label=label)
            floor += height
    axes.set_xticks(range(len(rows)), [row["method"] for row in rows])
    axes.set_ylabel("ms a step (paler: predicted)")
    axes.legend()
    return figure


def main() -> None:
    args = arguments(__doc__).parse_args()
    threadpool_limits(args.threads, user_api="blas")
    keep_freed_memory()  # as the Trainer does
    steps = {method: Step(method, clock_for(args.threads)) for method in METHODS}
    for step in steps.values():
        step.run()  # warm-up
    turns = [{m: s.run() for m, s in steps.items()} for _ in range(3 if args.quick else 7)]
    products, memory = rates(clock_for(args.threads))
    rows: list[dict[str, Any]] = []
    for method in METHODS:
        median = np.median([turn[method] for turn in turns], axis=0).tolist()
        predicted = predict(method, products, memory)
        rows.append(
            {
                "method": method,
                "measured": dict(zip(PARTS, median, strict=True)),
                "predicted": dict(zip(PARTS, predicted, strict=True)),
            }
        )
    cells = []
    for row in rows:
        measured, predicted = row["measured"], row["predicted"]
        ms = {p: f"{1e3 * measured[p]:.1f} ({1e3 * predicted[p]:.1f})" for p in PARTS}
        whole = [sum(r["measured"].values()) for r in (row, rows[0])]
        counted = [sum(r["predicted"].values()) for r in (row, rows[0])]
        share = f"{whole[0] / whole[1]:.2f} ({counted[0] / counted[1]:.2f})"
        cells.append({"method": row["method"], **ms, "of full": share})
    show(f"MiniLM, {BATCH} x {LENGTH} tokens: ms, measured (predicted)", cells)
    write(
        "step_breakdown",
        args,
        {"rows": rows, "multiply_adds_a_second": products, "bytes_a_second": memory},
    )
    if not args.quick:
        write_png(draw(rows), RESULTS / "step_breakdown.png")


if __name__ == "__main__":
    main()

"""AdapterDrop: accuracy and speed when the lowest n blocks are without adapters.

    python benchmarks/adapter_drop.py
    python benchmarks/adapter_drop.py --only speed
    python benchmarks/adapter_drop.py --quick

MiniLM on rotten-tomatoes, one seed: standard training, and robust training, in which adapters are
left out of a random number of blocks in each step. Speed: a forward pass for one task, and for
eight tasks that share the blocks below, over the same without dropping. Writes
`results/adapter_drop.json` and `adapter_drop.png`. With `--threads 1` speeds are from the
processor's time, which a busy machine hardly changes; `--only` keeps the other half that is there.
(Rücklé et al. 2021, arXiv 2010.11918, sections 4 and 5.)
"""

from __future__ import annotations

import json
import tempfile
from functools import partial
from typing import Any

import numpy as np
from report import RESULTS, arguments, clock_for, show, write
from threadpoolctl import threadpool_limits

import minitransformer as mt
from minitransformer.costs.latency import measure_latencies
from minitransformer.plots import BLUE, ORANGE, new_figure, write_png
from minitransformer.runs.classification import train
from minitransformer.runs.multitask import ManyHeads
from minitransformer.runs.options import RunOptions
from minitransformer.training.trainer import TrainingOptions

TASKS = 8


def accuracies(robust: bool, limit: int, epochs: int) -> list[float]:
    """Test accuracy for n = 0, 1, ... blocks without adapters."""
    training = TrainingOptions(epochs=epochs, adapter_drop=5 if robust else 0)
    options = RunOptions(limit=limit, max_length=64, training=training)
    with tempfile.TemporaryDirectory() as folder:
        run = train("rotten-tomatoes", options, f"{folder}/run")
        transformer, found = run.model.transformer, []
        for n in range(len(transformer.blocks) + 1):
            transformer.drop_adapters(n)
            found.append(run.evaluate("rotten-tomatoes").accuracy)
    return found


def speeds(rounds: int, threads: int) -> dict[str, list[float]]:
    """A forward pass of 8 x 32 tokens without dropping over that with n blocks dropped."""
    found: dict[str, list[float]] = {}
    for count, name in ((1, "one task"), (TASKS, f"{TASKS} tasks")):
        base = mt.Transformer.from_pretrained("minilm")
        names = [f"task{i}" for i in range(count)]
        for task in names:
            base.add_adapter(task)
        heads = {task: mt.Classifier(base, 2).eval() for task in names}
        base.freeze()
        model = ManyHeads(base, heads, {task: task for task in names}).eval()
        ids = np.random.default_rng(0).integers(1000, 30000, (8, 32))
        reads = {task: np.arange(len(ids)) for task in names}

        def forward(n: int, model: ManyHeads = model, ids: Any = ids, reads: Any = reads) -> object:
            model.transformer.drop_adapters(n)
            return model.forward(ids, np.ones_like(ids), reads)

        works = {str(n): partial(forward, n) for n in range(len(base.blocks) + 1)}
        latencies = measure_latencies(works, rounds, clock=clock_for(threads))
        found[name] = [latencies["0"].over(latency) for latency in latencies.values()]
    return found


def draw(record: dict[str, Any]) -> Any:
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    for axes, lines, label in (
        (left, record["accuracy"], "test accuracy"),
        (right, record["speed"], "times as fast"),
    ):
        drawn = [(name, values) for name, values in lines.items() if isinstance(values, list)]
        for (name, values), look in zip(drawn, ((BLUE, "o-"), (ORANGE, "s--")), strict=True):
            axes.plot(values, look[1], color=look[0], label=name)
        axes.set_xlabel("blocks without adapters, from the lowest")
        axes.set_ylabel(label)
        axes.legend()
    return figure


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--limit", type=int, default=2000, help="training examples")
    parser.add_argument("--only", choices=["speed", "accuracy"], help="one half of it")
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    threadpool_limits(args.threads, user_api="blas")
    limit, epochs = (64, 1) if args.quick else (args.limit, args.epochs)
    path, record = RESULTS / f"{args.to or 'adapter_drop'}.json", {}
    if args.only and path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        record = {half: record[half] for half in ("accuracy", "speed") if half in record}
    if args.only != "accuracy":
        record["speed"] = speeds(3 if args.quick else 9, args.threads)
    if args.only != "speed":
        training = {"standard training": False, "robust training": True}
        found = {name: accuracies(robust, limit, epochs) for name, robust in training.items()}
        record["accuracy"] = {"examples": limit, "epochs": epochs, **found}
    curves = [
        (name, values, digits)
        for half, digits in (("accuracy", 3), ("speed", 2))
        for name, values in record.get(half, {}).items()
        if isinstance(values, list)
    ]
    show(
        "MiniLM, rotten-tomatoes: test accuracy, and times as fast as without dropping",
        [
            {"blocks without adapters": str(n)}
            | {name: f"{values[n]:.{digits}f}" for name, values, digits in curves}
            for n in range(len(curves[0][1]))
        ],
    )
    write("adapter_drop", args, record)
    if not args.quick and len(record) == 2:
        write_png(draw(record), RESULTS / "adapter_drop.png")


if __name__ == "__main__":
    main()

"""Three tasks on one base: the accuracy of each alone and with all loaded, and the bytes of each.

    python benchmarks/three_tasks.py                            # trains what is not in --out yet
    python benchmarks/three_tasks.py --runs runs/a runs/b       # trained runs, any number
    python benchmarks/three_tasks.py --base tiny --limit 100 --epochs 1 --quick

Each run is an ordinary `minitransformer train`. "Alone": a base of its own, loaded by `load_run`.
"All loaded": one base, `load_runs`, and every test text answered for every task in one pass. The
answers must be the same, every one. Writes `benchmarks/results/three_tasks.json`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from report import arguments, show, write

import minitransformer as mt
from minitransformer.formats.adapter_file import find_adapter

TASKS = ("rotten-tomatoes", "bbc-news", "tweets")
BYTES = 4  # of a float32


def trained(task: str, args: argparse.Namespace) -> Path:
    """The folder of a task's run, which is trained unless it is there."""
    folder: Path = args.out / f"{task}-{args.base}-seed{args.seed}"
    if not (folder / "metrics.json").exists():
        options = mt.RunOptions(
            base=args.base,
            adapter=mt.AdapterConfig(bottleneck=args.bottleneck),
            limit=args.limit,
            threads=args.threads,
            training=mt.TrainingOptions(epochs=args.epochs, seed=args.seed),
        )
        mt.train(task, options, folder)
    return folder


def measure(name: str, folder: Path, tasks: mt.Tasks) -> dict[str, Any]:
    """One task, alone and with the others: accuracy on its test split, and every answer."""
    run = mt.load_run(folder)
    data = mt.load_task(run.metrics["task"])
    labels = run.record.label_names
    alone = run.evaluate(data)
    started = time.perf_counter()
    found = tasks.predict(data.test.texts)[name]
    seconds = time.perf_counter() - started
    together = np.array([labels.index(prediction.label) for prediction in found])
    probabilities = np.array([list(prediction.probabilities.values()) for prediction in found])
    return {
        "task": name,
        "test_examples": len(together),
        "accuracy_alone": alone.accuracy,
        "accuracy_all_loaded": float((together == data.test.labels).mean()),
        "different_answers": int((together != alone.predictions).sum()),
        "largest_difference_of_a_probability": float(
            np.abs(probabilities - alone.probabilities).max()
        ),
        "file_bytes": find_adapter(folder).stat().st_size,
        "seconds_for_all_tasks": seconds,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--runs", nargs="+", type=Path, help="trained runs, instead of training")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--bottleneck", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--limit", type=int, help="training examples of each task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/three-tasks"))
    args = parser.parse_args()

    folders = args.runs or [trained(task, args) for task in args.tasks]
    tasks = mt.load_runs(folders)
    base = tasks.fingerprint
    rows = [measure(name, folder, tasks) for name, folder in zip(tasks, folders, strict=True)]
    full_copy = BYTES * sum(
        p.size for key, p in tasks.transformer.named_parameters() if ".adapters." not in key
    )
    show(
        "accuracy on the test split, alone and with all loaded; bytes of each task",
        [
            {
                "task": row["task"],
                "examples": f"{row['test_examples']:,}",
                "alone": f"{row['accuracy_alone']:.4f}",
                "all loaded": f"{row['accuracy_all_loaded']:.4f}",
                "different answers": str(row["different_answers"]),
                "bytes": f"{row['file_bytes']:,}",
                "of a full copy": f"{100 * row['file_bytes'] / full_copy:.2f} %",
            }
            for row in rows
        ],
    )
    several = sum(row["file_bytes"] for row in rows)
    print(
        f"\na full copy of the base: {full_copy:,} bytes; {len(rows)} of them "
        f"{len(rows) * full_copy:,}; one and {len(rows)} adapter files {full_copy + several:,}"
    )
    same = all(row["different_answers"] == 0 for row in rows)
    print("every answer is the same" if same else "SOME ANSWERS DIFFER")
    bottlenecks = {name: tasks[name].record.adapter for name in tasks}
    record = {
        "base": tasks[rows[0]["task"]].record.base,
        "base_sha256": base,
        "bottleneck": {name: c.bottleneck if c else None for name, c in bottlenecks.items()},
        "limit": args.limit,
        "full_copy_bytes": full_copy,
        "tasks": rows,
    }
    write("three_tasks", args, record)
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

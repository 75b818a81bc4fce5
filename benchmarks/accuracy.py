"""Test accuracy of adapters, head alone and full fine-tuning: several seeds, one fixed split.

    python benchmarks/accuracy.py                      # rotten-tomatoes, 3 seeds, 3 methods
    python benchmarks/accuracy.py --methods adapter --seeds 0 --limit 500

Each run is an ordinary `minitransformer train` with its defaults; its folder stays in --out, and
a folder that is there already is not trained again. Prints a table and writes
`benchmarks/results/accuracy-TASK.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from minitransformer.runs.classification import load_run, train
from minitransformer.runs.options import RunOptions
from minitransformer.training.trainer import TrainingOptions

RESULTS = Path(__file__).parent / "results"


def measure(task: str, method: str, seed: int, limit: int | None, out: Path) -> dict[str, object]:
    folder = out / f"{task}-{method}-seed{seed}"
    if (folder / "metrics.json").exists():
        run = load_run(folder)
    else:
        training = TrainingOptions(seed=seed)
        options = RunOptions(method=method, limit=limit, training=training)
        run = train(task, options, folder)
    metrics = run.metrics
    return {
        "method": method,
        "seed": seed,
        "test_accuracy": metrics["test_accuracy"],
        "test_accuracy_last_epoch": metrics["test_accuracy_last_epoch"],
        "validation_by_epoch": [row.validation_accuracy for row in run.history.evaluations()],
        "trainable_parameters": metrics["trainable_parameters"],
        "file_bytes": metrics["file_bytes"],
        "training_seconds": metrics["training_seconds"],
        "base_unchanged": metrics["base_sha256_before"] == metrics["base_sha256_after"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="rotten-tomatoes")
    parser.add_argument("--methods", nargs="+", default=["adapter", "head", "full"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    args = parser.parse_args()

    rows = [
        measure(args.task, method, seed, args.limit, args.out)
        for method in args.methods
        for seed in args.seeds
    ]
    print(f"\n{args.task}, accuracy on the test split (best epoch by validation; last epoch)")
    print(f"{'method':<10}{'trained':>12}{'MB':>8}{'mean':>8}{'last':>8}  best epoch, each seed")
    for method in args.methods:
        own = [row for row in rows if row["method"] == method]
        accuracies = [float(str(row["test_accuracy"])) for row in own]
        last = np.mean([float(str(row["test_accuracy_last_epoch"])) for row in own])
        each = "  ".join(f"{a:.3f}" for a in accuracies)
        megabytes = int(str(own[0]["file_bytes"])) / 1e6
        trained = own[0]["trainable_parameters"]
        figures = f"{trained:>12,}{megabytes:>8.1f}{np.mean(accuracies):>8.3f}{last:>8.3f}"
        print(f"{method:<10}{figures}  {each}")
        same = "unchanged" if all(row["base_unchanged"] for row in own) else "changed"
        print(f"{'':<10}SHA-256 of the base: {same}")

    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"accuracy-{args.task}.json"
    path.write_text(json.dumps({"task": args.task, "limit": args.limit, "runs": rows}, indent=2))
    print(f"written to {path}")


if __name__ == "__main__":
    main()

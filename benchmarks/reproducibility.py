"""What is the same to the bit, and what only to round-off: one training run in many surroundings.

    python benchmarks/reproducibility.py [--base minilm --limit 96 --epochs 1]

Trains adapters with dropout on the toy reviews, each time in a fresh process, with one thing
changed: the number of threads, BLAS threads, the kernels of the matrix library, NumPy's own
instructions, an interruption by Ctrl-C. Compares losses, weights and files with those of a first
run, and then predicts texts one by one and all at once. Writes results/reproducibility.json.

Kernels for another processor are what `OPENBLAS_CORETYPE` asks for; one that this processor cannot
run is left out by OpenBLAS, which then falls back: the table names what was at work.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from report import arguments, matrix_library, show, write

import minitransformer as mt
from minitransformer.formats.files import read_tensors
from minitransformer.nn.module import Array
from minitransformer.training.trainer import Trainer

FIRST = "one thread"
dispatched = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
# What is changed: options of the run, variables of the process, the step to stop before.
CASES: dict[str, dict[str, Any]] = {
    FIRST: {},
    "the same again": {"PYTHONHASHSEED": "1"},
    "stopped by Ctrl-C, resumed": {"stop": 4},
    "2 threads": {"threads": 2},
    "2 threads again": {"threads": 2},
    "3 threads": {"threads": 3},
    "BLAS threads: 2": {"OPENBLAS_NUM_THREADS": "2"},
    "BLAS kernels: Haswell (AVX2)": {"OPENBLAS_CORETYPE": "Haswell"},
    "BLAS kernels: Sandybridge (AVX)": {"OPENBLAS_CORETYPE": "Sandybridge"},
    "BLAS kernels: Nehalem (SSE)": {"OPENBLAS_CORETYPE": "Nehalem"},
    "NumPy's oldest instructions": {"NPY_DISABLE_CPU_FEATURES": " ".join(dispatched)},
}


def work(folder: str, base: str, limit: int, epochs: int, threads: int = 1, stop: int = 0) -> None:
    """One run; in a process of its own."""
    options = mt.RunOptions(
        base=base,
        dropout=0.1,
        limit=limit,
        threads=threads,
        training=mt.TrainingOptions(epochs=epochs, batch_size=64),  # large enough to be cut
    )
    if stop:
        step = Trainer.train_step

        def interrupted(self: Trainer, *args: Any) -> Any:
            if self.step == stop:
                os.kill(os.getpid(), signal.SIGINT)
            return step(self, *args)

        Trainer.train_step = interrupted  # type: ignore[method-assign, assignment]
        mt.train("toy-reviews", options, folder)
        Trainer.train_step = step  # type: ignore[method-assign]
    mt.train("toy-reviews", None if stop else options, folder, resume=bool(stop))
    print(matrix_library())


def run(folder: Path, args: argparse.Namespace, change: dict[str, Any]) -> dict[str, Any]:
    """What came out of a run in a fresh process."""
    settings = {"base": args.base, "limit": args.limit, "epochs": args.epochs}
    settings |= {name: value for name, value in change.items() if name.islower()}
    variables = {name: value for name, value in change.items() if name.isupper()}
    command = [
        sys.executable,
        __file__,
        "--worker",
        json.dumps({"folder": str(folder), **settings}),
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **variables},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    with (folder / "history.csv").open(encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    path = folder / "adapter.safetensors"
    return {
        "losses": np.array(losses),
        "weights": read_tensors(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "test_accuracy": json.loads((folder / "metrics.json").read_text())["test_accuracy"],
        "library": done.stdout.strip(),
    }


def compared(found: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    def gap(a: Array, b: Array) -> float:
        return float(np.abs(a - b).max())

    weights = first["weights"]
    return {
        "same_file": found["sha256"] == first["sha256"],
        "same_weights": all(np.array_equal(found["weights"][n], weights[n]) for n in weights),
        "first_loss": gap(found["losses"][:1], first["losses"][:1]),
        "loss": gap(found["losses"], first["losses"]),
        "weights": max(gap(found["weights"][n], weights[n]) for n in weights),
        "test_accuracy": found["test_accuracy"],
        "library": found["library"],
    }


def alone_and_together(folder: Path) -> float:
    """The largest difference of a probability when a text is predicted alone or with others."""
    run, texts = mt.load_run(folder), list(mt.load_task("toy-reviews").test.texts[:64])
    together = run.predict(texts)
    alone = [run.predict([text])[0] for text in texts]
    return max(
        abs(a.probabilities[label] - t.probabilities[label])
        for a, t in zip(alone, together, strict=True)
        for label in a.probabilities
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--base", default="tiny")
    parser.add_argument("--limit", type=int, default=640, help="training examples")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(**args.worker)
    if args.quick:
        args.limit, args.epochs = 320, 1
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary) / str(i) for i, name in enumerate(CASES)}
        found = {name: run(folders[name], args, change) for name, change in CASES.items()}
        batch = alone_and_together(folders[FIRST])
    against = {"2 threads again": "2 threads"}
    rows = {name: compared(found[name], found[against.get(name, FIRST)]) for name in CASES}
    cells = [
        {
            "": name,
            "file": "same" if row["same_file"] else "other",
            "weights": "same" if row["same_weights"] else f"{row['weights']:.1e}",
            "first loss": f"{row['first_loss']:.1e}",
            "losses": f"{row['loss']:.1e}",
            "test accuracy": f"{row['test_accuracy']:.4f}",
        }
        for name, row in rows.items()
    ]
    size = max(float(np.abs(w).max()) for w in found[FIRST]["weights"].values())
    show(f"largest differences from {FIRST!r} after {len(found[FIRST]['losses'])} steps", cells)
    print(f"largest weight: {size:.2f}")
    print(f"a text alone or with 63 others: probabilities differ by up to {batch:.1e}")
    about = {"base": args.base, "examples": args.limit, "epochs": args.epochs}
    write(
        "reproducibility",
        args,
        about | {"largest_weight": size, "alone_and_together": batch, "cases": rows},
    )


if __name__ == "__main__":
    main()

"""Hours of train, evaluate, save, remove, load and predict in one process: does anything grow?

    python benchmarks/long_run.py                # two hours

Each round works on one model that lives as long as the process ("tiny", the encoder of this
package): it adds an adapter, trains and evaluates it, saves and removes it, loads it again, and
predicts with it, which must give the same probabilities to the bit. Methods take turns. Every
tenth round is a whole run instead, with folder, figure and `load_run`. After each round the memory
of the process, its open files and threads, and the files that lie in the working folder are noted.

Growth is the median memory of the last tenth of the rounds over that of the tenth after the first
quarter; above 2 % the exit status is 1. Writes results/long_run.json every five
minutes, so that a run that is stopped has told what it saw. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from report import arguments, write

import minitransformer as mt
from minitransformer.adapters.config import AnyConfig
from minitransformer.data.hub import find_checkpoint
from minitransformer.training.evaluation import predict_probabilities
from minitransformer.training.state import delete_state

METHODS: dict[str, AnyConfig] = {
    "adapter": mt.AdapterConfig(bottleneck=8),
    "adapter with dropout": mt.AdapterConfig(bottleneck=16, dropout=0.1),
    "lora": mt.LoRAConfig(rank=4),
    "ia3": mt.IA3Config(),
    "prefix": mt.PrefixConfig(length=4),
}
TEXTS = ["a joy to use", "it broke after a day", "not at all boring"]
ALLOWED = 0.02
EVERY = 300.0  # seconds between two writings of the results


class Rounds:
    """The model, the data and the working folder that all rounds share."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.folder, self.threads = folder, threads
        checkpoint = find_checkpoint("tiny")
        self.tokenizer = mt.Tokenizer.from_folder(checkpoint)
        self.model = mt.Classifier(mt.Transformer.from_pretrained(checkpoint), 2)
        task = mt.load_task("toy-reviews", limit=320)
        self.train, self.validation = (
            mt.encode_split(split, self.tokenizer, 32) for split in (task.train, task.validation)
        )
        texts = self.tokenizer.encode(TEXTS, 32)
        self.texts = mt.Encoded(texts, np.zeros(len(TEXTS), np.int64), self.tokenizer.pad_id)

    def run(self, number: int) -> None:
        if number % 10 == 9:
            self.whole_run(number)
        else:
            self.adapter(number)

    def adapter(self, number: int) -> None:
        """Add, train, evaluate, save, remove, load, predict, remove."""
        transformer, config = self.model.transformer, [*METHODS.values()][number % len(METHODS)]
        transformer.add_method("task", config, np.random.default_rng(number))
        transformer.train_adapter("task")
        options = mt.TrainingOptions(epochs=1, seed=number)
        state, file = self.folder / "state.safetensors", self.folder / "task.safetensors"
        mt.Trainer(
            self.model, self.train, self.validation, options, state, False, self.threads
        ).fit()
        self.model.eval()
        mt.evaluate(self.model, self.validation, threads=self.threads)
        expected = predict_probabilities(self.model, self.texts, threads=self.threads)
        transformer.save_adapter(file, "task")
        transformer.delete_adapter("task")
        transformer.load_adapter(file)
        found = predict_probabilities(self.model.eval(), self.texts, threads=self.threads)
        np.testing.assert_array_equal(found, expected)
        transformer.delete_adapter("task")
        delete_state(state)
        file.unlink()

    def whole_run(self, number: int) -> None:
        """A run from text to folder, loaded again."""
        folder = self.folder / "run"
        training = mt.TrainingOptions(epochs=1, seed=number)
        mt.train(
            "toy-reviews",
            mt.RunOptions(limit=320, max_length=32, threads=self.threads, training=training),
            folder,
        )
        mt.load_run(folder).predict(TEXTS)
        shutil.rmtree(folder)


def observe(folder: Path, seconds: float) -> dict[str, float]:
    """Resident memory in MB, and what else may pile up."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        "seconds": seconds,
        "cpu_seconds": time.process_time(),
        "memory_mb": pages * resource.getpagesize() / 1e6,
        "objects": len(gc.get_objects()),
        "open_files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
    }


def growth(rows: list[dict[str, float]], what: str) -> float:
    """Median of the last tenth of the rounds over that of the tenth after a quarter, minus 1.

    In the first quarter, caches fill and the memory that freed arrays leave behind finds its size.
    """
    n = len(rows)
    before, after = (
        statistics.median(row[what] for row in part)
        for part in (rows[n // 4 : n // 4 + n // 10 + 1], rows[-(n // 10) - 1 :])
    )
    return after / before - 1 if before else float(after)


def record(rows: list[dict[str, float]], asked: float) -> dict[str, Any]:
    kinds = ("memory_mb", "objects", "open_files", "threads", "files", "bytes")
    thinned = rows[:: max(1, len(rows) // 100)]  # about a hundred points
    return {
        "asked_hours": asked,
        "hours": rows[-1]["seconds"] / 3600,
        "cpu_hours": rows[-1]["cpu_seconds"] / 3600,
        "rounds": len(rows),
        "growth": {kind: growth(rows, kind) for kind in kinds},
        "last": rows[-1],
        "memory": [[row["seconds"], row["memory_mb"]] for row in thinned],
    }


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    args: argparse.Namespace = parser.parse_args()
    hours = 1 / 60 if args.quick else args.hours
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        rounds = Rounds(Path(folder), args.threads)
        started = written = time.perf_counter()
        while time.perf_counter() - started < 3600 * hours:
            rounds.run(len(rows))
            rows.append(observe(Path(folder), time.perf_counter() - started))
            if time.perf_counter() - written > EVERY:
                write("long_run", args, record(rows, hours))
                written = time.perf_counter()
    found = record(rows, hours)
    write("long_run", args, found)
    print(json.dumps({k: found[k] for k in ("hours", "cpu_hours", "rounds", "growth", "last")}))
    return int(found["growth"]["memory_mb"] > ALLOWED or found["last"]["files"] > 0)


if __name__ == "__main__":
    sys.exit(main())

"""A file of a million lines through `predict --file`: lines a second, and peak memory.

    python benchmarks/predict_file.py --lines 100000 1000000

The lines are toy reviews with a number before them, so that no two are the same; the run is an
adapter on the base "tiny", which has 0.1 million parameters. Each file is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import minitransformer as mt
from minitransformer.runs.folder import peak_memory_mb
from minitransformer.runs.predict_file import predict_file


def write_lines(path: Path, n: int) -> None:
    texts = mt.load_task("toy-reviews").train.texts
    with path.open("w", encoding="utf-8") as file:
        file.write("id,text\n")
        for i in range(n):
            file.write(f'{i},"{i} {texts[i % len(texts)]}"\n')


def measure(run: Path, file: Path) -> dict[str, float | None]:
    """In a process of its own: how long it takes, and the most memory that it needs."""
    started = time.perf_counter()
    lines = predict_file(mt.load_run(run), file, file.with_suffix(".out.csv"))
    seconds = time.perf_counter() - started
    return {"lines": lines, "lines_per_second": lines / seconds, "peak_mb": peak_memory_mb()}


def main() -> None:
    parser = argparse.ArgumentParser(description="lines a second and memory of predict --file")
    parser.add_argument("--lines", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--measure", type=Path, nargs=2, help="for the processes of its own")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        run, file = Path(folder) / "run", Path(folder) / "lines.csv"
        training = mt.TrainingOptions(epochs=1)
        mt.train("toy-reviews", mt.RunOptions(base="tiny", limit=500, training=training), run)
        for n in options.lines:
            write_lines(file, n)
            command = [sys.executable, __file__, "--measure", str(run), str(file)]
            print(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout, end=""
            )
            file.with_suffix(".out.csv").unlink()


if __name__ == "__main__":
    main()

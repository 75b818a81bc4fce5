"""How long the exercises take: each notebook as it is graded, and each reward cell.

    python scripts/time_exercises.py              # processor time of grading
    python scripts/time_exercises.py --rewards    # processor time and time of the rewards

A notebook runs from end to end with its solutions on one thread. Processor time is that of the
kernel, so that other work on the machine hardly counts. A reward runs as a student's would, after
the solution, in a process of its own; the first time it fetches weights and reviews.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

EXERCISES = Path(__file__).parents[1] / "exercises"
NOTEBOOK = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
for cell in notebook.cells:
    cell.source = cell.source.replace("your-name", "ada")
NotebookClient(notebook, timeout=600).execute()
"""
REWARD = """
import sys
from pathlib import Path
from minitransformer.exercises import reward
path = Path(sys.argv[1])
names = {}
exec(path.read_text("utf-8").replace("your-name", "ada"), names)
reward(int(path.name[:2]), names)
"""


def seconds_of(program: str, path: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Processor time and time of a program that is given a path."""
    before, started = processor_seconds(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, env={**os.environ, **environment}
    )
    return processor_seconds() - before, time.perf_counter() - started


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    environment: dict[str, str] = {}
    if "--rewards" in sys.argv[1:]:
        program, paths = REWARD, EXERCISES.glob("solutions/*.py")
    else:
        program, paths = NOTEBOOK, EXERCISES.glob("source/*/*.ipynb")
        environment = {"NBGRADER_EXECUTION": "autograde", "OPENBLAS_NUM_THREADS": "1"}
    slowest = 0.0
    for path in sorted(paths):
        processor, taken = seconds_of(program, path, environment)
        slowest = max(slowest, processor)
        print(f"{path.stem:28} {processor:5.1f} s of a core, {taken:5.1f} s", flush=True)
    print(json.dumps({"slowest": round(slowest, 1)}))


if __name__ == "__main__":
    main()

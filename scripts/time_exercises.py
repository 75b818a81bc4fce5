"""How long the exercises take: each notebook as it is graded, and each reward cell.

    python scripts/time_exercises.py                # processor time of grading
    python scripts/time_exercises.py 03 --rewards   # processor time and time of the reward cell

A notebook runs from end to end with its solutions on one thread. Processor time is that of the
kernel, so that other work on the machine hardly counts. A reward runs as a student's would, after
the solution, in a process of its own; the first time it fetches weights and reviews.
"""

from __future__ import annotations

import argparse
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", help="such as 03; all when none is given")
    parser.add_argument("--rewards", action="store_true", help="the reward cells, not the grading")
    given = parser.parse_args()
    environment: dict[str, str] = {}
    if given.rewards:
        program, paths = REWARD, sorted(EXERCISES.glob("solutions/*.py"))
    else:
        program, paths = NOTEBOOK, sorted(EXERCISES.glob("source/*/*.ipynb"))
        environment = {"NBGRADER_EXECUTION": "autograde", "OPENBLAS_NUM_THREADS": "1"}
    known = [path.name[:2] for path in paths]
    if unknown := [number for number in given.numbers if number not in known]:
        parser.error(f"no exercise {', '.join(unknown)}: expected some of {', '.join(known)}")
    slowest = 0.0
    for path in paths:
        if given.numbers and path.name[:2] not in given.numbers:
            continue
        processor, taken = seconds_of(program, path, environment)
        slowest = max(slowest, processor)
        print(f"{path.stem:28} {processor:5.1f} s of a core, {taken:5.1f} s", flush=True)
    print(json.dumps({"slowest": round(slowest, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

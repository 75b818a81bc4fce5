"""How long the exercises take to grade: the processor time of each notebook, run from end to end.

    python scripts/time_exercises.py

Processor time of the kernel, single-threaded, so that other work on the machine hardly counts.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "exercises" / "source"
RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
for cell in notebook.cells:
    cell.source = cell.source.replace("your-name", "ada")
NotebookClient(notebook, timeout=600).execute()
"""


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    single = {"NBGRADER_EXECUTION": "autograde", "OPENBLAS_NUM_THREADS": "1"}
    seconds = {}
    for path in sorted(SOURCE.glob("*/*.ipynb")):
        before = processor_seconds()
        subprocess.run(
            [sys.executable, "-c", RUN, str(path)], check=True, env={**os.environ, **single}
        )
        seconds[path.stem] = round(processor_seconds() - before, 1)
        print(f"{path.stem:28} {seconds[path.stem]:5.1f} s", flush=True)
    print(json.dumps({"slowest": max(seconds.values())}))


if __name__ == "__main__":
    main()

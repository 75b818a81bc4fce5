"""The process in which one submission is graded; `grade.py` starts it.

    python -m minitransformer.exercises.grading.child '{"exercise": 3, ...}'

The items are written before each part, so that a part which never ends loses itself alone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from ...errors import DataError, WrongAnswer
from ...formats.files import write_text
from ..catalogue import exercise
from ..checking import checked
from ..report import Item
from ..solution import read_solution
from .limits import Limits


def main(job: dict[str, Any]) -> None:
    """Grade one file and leave its items in a file.

    job: exercise, file, student (or null), seed, out, and limits, the fields of Limits.
    """
    limits = Limits(**job["limits"])
    limits.apply_to_this_process()
    parts = exercise(job["exercise"]).parts()
    items: list[Item] = []

    def save() -> None:
        write_text(Path(job["out"]), json.dumps([asdict(item) for item in items]))

    began = time.perf_counter()

    @contextmanager
    def limited() -> Iterator[None]:
        """For a statement or a part: what is left of the seconds, or LATE if that is more."""
        save()  # the parent sees that something new has begun
        with at_most(limits.left(time.perf_counter() - began)):
            yield

    try:
        solution = read_solution(job["file"], job["student"], limited)
    except (WrongAnswer, DataError) as stop:
        items += [Item(part.name, 0, part.points, False, str(stop)) for part in parts]
        return save()
    for part in parts:
        try:
            with limited():
                item = checked(part, solution, job["seed"])
        except TimeoutError as stop:
            item = Item(part.name, 0, part.points, False, str(stop))
        items.append(item)
    save()


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises TimeoutError inside after so many seconds (Linux and macOS; Python code only).

    C code that never returns to Python, and code that catches every error, are stopped by the
    parent process.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"stopped after {seconds:.0f} s: is there a loop without an end?")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again each second: it may be caught
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # whatever the solution has left running: threads, exit handlers

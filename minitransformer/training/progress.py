"""A progress bar on a screen; in a log a line now and then."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

EVERY = 30.0  # seconds between two lines in a log
LINE = "{n_fmt} of {total_fmt} {unit}s in {elapsed}, {remaining} to go{postfix}"


def progress_bar(total: int | None, unit: str, shown: bool = True, initial: int = 0) -> Any:
    """A tqdm bar on standard error, or in a notebook. A context manager with `update(n)`.

    Where standard error is no screen, a bar that is drawn ten times a second would fill the file
    with thousands of lines in one: there it is a line of its own, once in 30 seconds.
    """
    from tqdm.auto import tqdm

    options = {"total": total, "initial": initial, "unit": unit, "disable": not shown}
    if sys.stderr.isatty() or "ipykernel" in sys.modules:
        return tqdm(**options)
    return log_lines()(**options, mininterval=EVERY, maxinterval=EVERY, bar_format=LINE)


@cache  # tqdm starts a thread for each class that has bars, and never ends it
def log_lines() -> Any:
    """A tqdm class whose bars are lines in a log; made here because tqdm is imported where used."""
    from tqdm.std import tqdm as text_bar

    class LogLines(text_bar):  # type: ignore[misc]
        @staticmethod
        def status_printer(file: Any) -> Any:
            return lambda line: print(line.strip(), file=file, flush=True) if line.strip() else None

    return LogLines

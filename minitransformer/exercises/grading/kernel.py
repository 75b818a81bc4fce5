"""In the kernel of a notebook that nbgrader runs: what a cell prints is cut off at a length."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def limit_output(most: int) -> None:
    """From the next cell on, keep the first `most` characters that a cell prints, and say so.

    An endless print would else fill the kernel's memory, and every cell after it would fail.
    """
    from IPython import get_ipython

    def begin(_: Any) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.write = Cut(stream.write, most)  # type: ignore[method-assign]

    def end(_: Any) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream.write, Cut):
                stream.write = stream.write.write_all  # type: ignore[method-assign]

    events = get_ipython().events
    events.register("pre_run_cell", begin)
    events.register("post_run_cell", end)


class Cut:
    """The `write` of a stream, as far as `most` characters."""

    def __init__(self, write: Callable[[str], Any], most: int) -> None:
        self.write_all, self.most, self.left = write, most, most

    def __call__(self, text: str) -> int:
        if len(text) <= self.left:
            self.write_all(text)
        elif self.left >= 0:
            note = f"\n[... cut off: a cell may print {self.most:,} characters]\n"
            self.write_all(text[: self.left] + note)
            self.left = 0
        self.left -= len(text)
        return len(text)

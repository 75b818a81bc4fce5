"""What a gradient check found: one row for each array, as text and as HTML in a notebook."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np

from ..nn.module import Array

ALIGN = ("<", "<", "<", "<", ">", ">", ">", "<")
STYLES = {"ok": "", "not tested": "color:#8a5a00", "WRONG": "font-weight:bold;color:#b00020"}
FORMULA = (
    "relative error = |analytic - numeric| / max(|analytic|, |numeric|, size), "
    "size = root mean square of the array's gradient"
)


@dataclass(frozen=True)
class GradCheckRow:
    """One input or parameter.

    Attributes:
        name, shape: the array.
        checked: how: "all 12", or "256 of 4,096 + 4 directions".
        worst: the entry (or direction) with the largest relative error.
        analytic, numeric, error: backward's value there, the central difference, their distance.
        skipped: how many entries lie at a kink, where the derivatives from both sides differ.
        advice: what is wrong and what to do; empty if nothing is.
        tested: False if the analytic and the numerical gradient are zero everywhere: a factor
            that is wrong would not show.
    """

    name: str
    shape: tuple[int, ...]
    checked: str = "not compared"
    worst: str = ""
    analytic: float = math.nan
    numeric: float = math.nan
    error: float = math.inf
    skipped: int = 0
    advice: str = ""
    tested: bool = True

    @property
    def wrong(self) -> bool:
        return bool(self.advice)

    @property
    def passed(self) -> bool:
        return self.tested and not self.wrong

    @property
    def status(self) -> str:
        """ "ok", "WRONG" or "not tested"."""
        return "WRONG" if self.wrong else "ok" if self.tested else "not tested"

    @property
    def verdict(self) -> str:
        """The status, and how many entries were skipped."""
        return f"{self.status}, {self.skipped} at kinks skipped" if self.skipped else self.status

    def cells(self) -> tuple[str, ...]:
        numbers = (f"{self.analytic:.6g}", f"{self.numeric:.6g}", f"{self.error:.1e}")
        return (self.name, str(self.shape), self.checked, self.worst, *numbers, self.verdict)


@dataclass(frozen=True, repr=False)
class GradCheckReport:
    """A table, as text where Python shows it, and as HTML in a notebook.

    Attributes:
        title: the kind of module.
        tolerance: the largest relative error that passes.
        rows: one for each array that was checked.
        notes: what was changed before the check.
        problems: what else is wrong. If forward or backward itself failed, there are no rows.
    """

    title: str
    tolerance: float
    rows: tuple[GradCheckRow, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    HEADER = (
        "array", "shape", "checked", "worst at", "analytic", "numeric", "rel. error", "verdict",
    )  # fmt: skip

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong, and at least one array was tested."""
        return not self.problems and not any(row.wrong for row in self.rows)

    @property
    def untested(self) -> tuple[str, ...]:
        """The arrays of which nothing is known."""
        return tuple(row.name for row in self.rows if row.status == "not tested")

    @property
    def max_error(self) -> float:
        """The largest relative error of all rows; infinity if nothing could be checked."""
        errors = (row.error for row in self.rows if row.status != "not tested")
        return max(errors, default=float("inf"))

    @property
    def advice(self) -> tuple[str, ...]:
        """Everything that is wrong, one sentence or two for each."""
        return (*self.problems, *(row.advice for row in self.rows if row.advice))

    def verdict(self) -> str:
        untested = f"; not tested: {', '.join(self.untested)}" if self.untested else ""
        if self.passed:
            error = f"largest relative error {self.max_error:.1e} <= {self.tolerance:g}"
            return f"passed: {error}{untested}"
        if not self.rows:
            return "FAILED before any gradient could be compared"
        wrong = f"{sum(row.wrong for row in self.rows)} of {len(self.rows)} arrays wrong"
        return f"FAILED: {wrong}, at tolerance {self.tolerance:g}{untested}"

    def __str__(self) -> str:
        lines = [f"gradcheck of {self.title}"]
        if self.rows:
            table = [self.HEADER, *(row.cells() for row in self.rows)]
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
            forms = [f"{{:{a}{w}}}" for a, w in zip(ALIGN, widths, strict=True)]
            text = ["  ".join(forms).format(*line).rstrip() for line in table]
            lines += [text[0], rule, *text[1:], rule, FORMULA]
        lines += [self.verdict(), *(f"* {advice}" for advice in self.advice)]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def line(cells: tuple[str, ...], tag: str, style: str = "") -> str:
            sides = {"<": "left", ">": "right"}
            html = "".join(
                f'<{tag} style="text-align:{sides[a]}">{escape(c)}</{tag}>'
                for c, a in zip(cells, ALIGN, strict=True)
            )
            return f'<tr style="{style}">{html}</tr>'

        body = "".join(line(row.cells(), "td", STYLES[row.status]) for row in self.rows)
        advice = "".join(f"<li>{escape(text)}</li>" for text in self.advice)
        caption = escape(
            f"gradcheck of {self.title}. {self.verdict()}. {'. '.join([FORMULA, *self.notes])}"
        )
        return (
            f'<table><caption style="caption-side:bottom;text-align:left">{caption}</caption>'
            f"<thead>{line(self.HEADER, 'th')}</thead><tbody>{body}</tbody></table>"
            + (f"<ul>{advice}</ul>" if advice else "")
        )


# -- words for places --------------------------------------------------------------------


def index_text(index: tuple[Any, ...]) -> str:
    return f"({', '.join(str(int(i)) for i in index)})"


def axis_name(shape: tuple[int, ...], axis: int) -> str:
    names = {1: ("entries",), 2: ("rows", "columns"), 3: ("batch rows", "positions", "columns")}
    return names[len(shape)][axis] if len(shape) in names else f"axis {axis} indices"


def ranges(numbers: Array) -> str:
    """[0, 1, 2, 5] -> "0-2, 5"."""
    cuts = [0, *(np.flatnonzero(np.diff(numbers) > 1) + 1).tolist(), len(numbers)]
    runs = [(numbers[a], numbers[b - 1]) for a, b in pairwise(cuts)]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)

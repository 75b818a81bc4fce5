"""The text that must not reach students: the lines of solutions and of hidden tests."""

from __future__ import annotations

import re
from pathlib import Path

REGION = re.compile(
    r"^[ \t]*### BEGIN (SOLUTION|HIDDEN TESTS)\n(.*?)^[ \t]*### END \1", re.MULTILINE | re.DOTALL
)
PAGES = Path(__file__).parents[3] / "exercises" / "pages"


def secret_lines(page: str) -> set[str]:
    """The lines of a page's solutions and hidden tests that the page shows nowhere else.

    What its text shows as code, between backticks, is shown. A line without a word and an operator
    or a call, as `else:` or `return y`, says nothing.
    """
    rest = REGION.sub("", page)
    text = [line.removeprefix("# ") for line in rest.splitlines()]  # of markdown cells
    shown = {normal(line) for line in [*text, *re.findall(r"`([^`\n]+)`", rest)]}
    found = {normal(line) for _, body in REGION.findall(page) for line in body.splitlines()}
    return {line for line in found - shown if says_something(line)}


def normal(line: str) -> str:
    """A line without its indent, its comment and its spaces."""
    return re.sub(r"\s+", "", re.sub(r"\s#\s.*", "", line))


def says_something(line: str) -> bool:
    return len(line) >= 8 and re.search(r"\w[^\w\s:].*\w", line) is not None


def secrets_in(text: str, secrets: set[str]) -> set[str]:
    """Which of the secret lines a text contains, whatever its indents and spaces."""
    return secrets & {normal(line) for line in text.splitlines()}

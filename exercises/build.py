"""Make notebooks, plain files and solutions from the pages: `python exercises/build.py`.

A page (`pages/NN_title.py`) is the only thing to edit. Its cells begin with `# %% kind`:

    [markdown]            text
    setup                 code that nobody changes (locked)
    student               code that a student may change
    solution              a student writes here: between BEGIN SOLUTION and END SOLUTION
    try                   code to try things out; not part of plain files
    test NAME POINTS      checks the part NAME; hidden tests are taken out of what is released
    answer NAME POINTS    a text that is graded by hand
    reward                trains the real model; not part of plain files

Made from it: `source/NN_title/NN_title.ipynb` (nbgrader's source format), `solutions/NN_title.py`
(the solution as a plain file), and `minitransformer/exercises/start/NN_title.txt` (what students
begin with, without solutions). `--check` writes nothing and fails if one of them is out of date.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
START = HERE.parent / "minitransformer" / "exercises" / "start"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = 'raise NotImplementedError("write this part")'


@dataclass(frozen=True)
class Cell:
    """`kind` and its words, as "test gradients 5", and the source."""

    kind: str
    words: tuple[str, ...]
    source: str


def read_page(path: Path) -> list[Cell]:
    cells = []
    for chunk in re.split(r"^# %% ", path.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        head, _, body = chunk.partition("\n")
        kind, *words = head.split()
        body = body.strip("\n")
        if kind in ("[markdown]", "answer"):
            lines = [re.sub(r"^# ?", "", line) for line in body.splitlines()]
            body = "\n".join(lines)
        cells.append(Cell(kind, tuple(words), body))
    return cells


# -- notebooks -----------------------------------------------------------------------------


def notebook(slug: str, cells: list[Cell]) -> dict[str, Any]:
    return {
        "cells": [notebook_cell(slug, i, cell) for i, cell in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def notebook_cell(slug: str, i: int, cell: Cell) -> dict[str, Any]:
    kind = cell.kind
    name = cell.words[0] if cell.words else f"{kind.strip('[]')}-{i}"
    grade_id = f"{slug[:2]}-{name}"
    flags = {
        "setup": {"grade": False, "solution": False, "locked": True},
        "solution": {"grade": False, "solution": True, "locked": False},
        "test": {"grade": True, "solution": False, "locked": True},
        "answer": {"grade": True, "solution": True, "locked": False},
    }.get(kind)
    markdown = kind in ("[markdown]", "answer")
    metadata: dict[str, Any] = {}
    if flags is not None:
        metadata["nbgrader"] = {
            "grade_id": grade_id, "schema_version": 3, "task": False,
            "cell_type": "markdown" if markdown else "code", **flags,
        }  # fmt: skip
        if flags["grade"]:
            metadata["nbgrader"]["points"] = int(cell.words[1])
    if kind in ("reward", "try"):
        metadata["tags"] = [kind]
    made: dict[str, Any] = {
        "cell_type": "markdown" if markdown else "code",
        "id": hashlib.sha256(f"{slug}/{grade_id}/{i}".encode()).hexdigest()[:8],
        "metadata": metadata,
        "source": cell.source.splitlines(keepends=True),
    }
    if not markdown:
        made |= {"execution_count": None, "outputs": []}
    return made


# -- plain files ---------------------------------------------------------------------------


def solution_file(cells: list[Cell]) -> str:
    """The solution as a plain file: what a student writes, and the imports before it."""
    parts = [c.source for c in cells if c.kind in ("setup", "student", "solution")]
    lines = "\n\n\n".join(parts).splitlines()
    return "\n".join(line for line in lines if line.strip() not in (BEGIN, END)) + "\n"


def start_file(slug: str, cells: list[Cell]) -> str:
    """What a student begins with: the texts as comments, and gaps in place of solutions."""
    n = int(slug[:2])
    parts = [
        f'"""Exercise {n}. To check it: `minitransformer exercise {n}` and this file\'s name."""'
    ]
    for cell in cells:
        if cell.kind in ("[markdown]", "answer"):
            parts.append("\n".join(f"# {line}".rstrip() for line in cell.source.splitlines()))
        elif cell.kind in ("setup", "student"):
            parts.append(cell.source)
        elif cell.kind == "try" and "my_numbers" in cell.source:
            parts.append(f"# Your numbers: print({cell.source})")
        elif cell.kind == "solution":
            parts.append(without_solution(cell.source))
    return "\n\n".join(parts) + "\n"


def without_solution(source: str) -> str:
    """Each solution's place taken by a line that says it is missing."""
    stub = rf"\g<1>{STUB}"
    pattern = rf"^([ \t]*){re.escape(BEGIN)}\n.*?{re.escape(END)}"
    # An answer has `NAME = ...` above it, which is what its check looks for.
    pattern_of_answer = rf"^{re.escape(BEGIN)}\n.*?{re.escape(END)}\n?"
    text = re.sub(pattern_of_answer, "", source, flags=re.MULTILINE | re.DOTALL)
    return re.sub(pattern, stub, text, flags=re.MULTILINE | re.DOTALL).rstrip()


# -- all of it -----------------------------------------------------------------------------


def build() -> dict[Path, str]:
    """Every file that is made, with its content."""
    files = {}
    for page in sorted((HERE / "pages").glob("*.py")):
        slug, cells = page.stem, read_page(page)
        as_json = json.dumps(notebook(slug, cells), indent=1, ensure_ascii=False) + "\n"
        files[HERE / "source" / slug / f"{slug}.ipynb"] = as_json
        files[HERE / "solutions" / f"{slug}.py"] = solution_file(cells)
        files[START / f"{slug}.txt"] = start_file(slug, cells)
    return files


def out_of_date() -> list[Path]:
    return [
        path
        for path, text in build().items()
        if not path.exists() or path.read_text("utf-8") != text
    ]


if __name__ == "__main__":
    stale = out_of_date()
    if "--check" in sys.argv[1:] and stale:
        sys.exit("out of date: " + ", ".join(map(str, stale)) + "; run python exercises/build.py")
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(build()[path], "utf-8")
        print(path.relative_to(HERE.parent))

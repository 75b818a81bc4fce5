"""Write the student edition of the notebooks: without outputs, outcomes and answers.

    python -m scripts.student_notebooks FOLDER [NUMBER ...]    # "01 02"; without numbers: all

What a page folds away (<details>) and its summary are left out, with a place to write in. A
function that a code cell's metadata names under "blanks" keeps its first line, its docstring and
its place; its body is the student's.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path
from typing import Any

import nbformat

from scripts.run_notebooks import FOLDER, notebooks, read

OUTCOME = re.compile(r"<details>.*?</details>\n*", re.DOTALL)
SUMMARY = re.compile(r"^## Summary\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
PLACE = "*What do you see, and what did you expect?* (Write here.)\n\n"
DERIVATION = "*Your derivation:* (Write here.)\n\n"


def student_edition(notebook: Any) -> Any:
    """A copy to hand out: no outputs, no outcomes, and blanks where a student writes."""
    page = nbformat.from_dict(notebook)
    for cell in page.cells:
        if cell.cell_type == "markdown":
            cell.source = SUMMARY.sub("", OUTCOME.sub(place, cell.source)).strip("\n")
        else:
            cell.outputs, cell.execution_count = [], None
            cell.source = blanked(cell.source, cell.metadata.pop("blanks", []))
    page.cells = [cell for cell in page.cells if cell.source]
    return page


def place(outcome: re.Match[str]) -> str:
    """What stands where something was folded away."""
    return DERIVATION if "<b>The derivation</b>" in outcome[0] else PLACE


def blanked(source: str, names: list[str]) -> str:
    """The code with the bodies of these functions replaced by an error that says what to do.

    Raises: ValueError if the code has no function of that name.
    """
    if not names:
        return source
    lines = source.splitlines()
    functions = {n.name: n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}
    missing = [name for name in names if name not in functions]
    if missing:
        raise ValueError(f"no function {', '.join(missing)} in a cell that is to leave it blank")
    for name in sorted(names, key=lambda name: functions[name].lineno, reverse=True):
        body = functions[name].body
        has_docstring = ast.get_docstring(functions[name]) is not None
        start = body[1 if has_docstring else 0].lineno - 1
        message = f"write the body of {name}, then run this cell again"
        lines[start : body[-1].end_lineno] = [f'    raise NotImplementedError("{message}")']
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write; the pages themselves stay")
    parser.add_argument("numbers", nargs="*", help="such as 03; all when none is given")
    given = parser.parse_args()
    if given.folder.resolve() == FOLDER:
        parser.error("this is the folder of the pages themselves: choose another")
    given.folder.mkdir(parents=True, exist_ok=True)
    for path in notebooks():
        if not given.numbers or path.name.partition("_")[0] in given.numbers:
            nbformat.write(student_edition(read(path)), given.folder / path.name)
            print(given.folder / path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())

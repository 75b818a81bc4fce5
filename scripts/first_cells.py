"""Put the cell that installs what is missing on top of each notebook.

    python scripts/first_cells.py

It holds the repository's address, which is `Repository` below `[project.urls]` in pyproject.toml.
Run this after it changes, and for a new notebook. Outputs stay as they are.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NAME = "install"

# Opened alone, in Colab for example, a page fetches the whole repository, because some pages read
# files beside the package. A copy that was unpacked there by hand is used as well.
SOURCE = """\
# What is missing, in Colab for example, is fetched and installed.
from importlib.util import find_spec
from pathlib import Path

REPOSITORY = "{address}"
PACKAGES = {{"minitransformer": "..", "joblib": "joblib"}}  # module: what pip installs
missing = [pip for name, pip in PACKAGES.items() if find_spec(name) is None]
copy, here = Path("minitransformer-main"), Path("../pyproject.toml")
if ".." in missing and not (copy.exists() or here.exists()):
    assert REPOSITORY, "notebooks/README.md says how to install minitransformer"
    !git clone --quiet --depth 1 {{REPOSITORY}} {{copy}}
if copy.exists():
    %cd -q {{copy}}/notebooks
if missing:
    %pip install --quiet {{" ".join(missing)}}"""


def repository() -> str:
    """The repository's address by pyproject.toml, or "" as long as it has none."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    urls = re.search(r"^\[project\.urls\]\n(.*?)(?=^\[|\Z)", text, re.M | re.S)
    found = re.search(r'^Repository *= *"([^"]+)"', urls[1], re.M) if urls else None
    return found[1].rstrip("/") if found else ""


def first_cell() -> str:
    return SOURCE.format(address=repository())


def put_first_cell(notebook: Any) -> bool:
    """After the title. Returns whether the notebook has changed."""
    cells = notebook.cells
    if len(cells) > 1 and cells[1].get("id") == NAME:
        changed = cells[1].source != first_cell()
        cells[1].source = first_cell()
        return bool(changed)
    # The book leaves it out: nothing can be run there.
    metadata = {"tags": ["remove-cell"]}
    cells.insert(1, nbformat.v4.new_code_cell(first_cell(), id=NAME, metadata=metadata))
    code = [cell for cell in cells if cell.cell_type == "code"]
    if all(cell.execution_count for cell in code[1:]):  # it was run: one more comes first
        for count, cell in enumerate(code, start=1):
            cell.execution_count = count
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
    return True


def main() -> int:
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if put_first_cell(notebook):
            nbformat.write(notebook, path)
            print(path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The notebooks' first cell: the same on every page, and it installs what is missing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

import nbclient
import nbformat

from scripts import first_cells

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_page_begins_with_it(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert not first_cells.put_first_cell(notebook), "run `python scripts/first_cells.py`"


def test_it_is_put_after_the_title_once_and_cells_stay_numbered() -> None:
    v4 = nbformat.v4
    result = v4.new_output("execute_result", {"text/plain": "2"}, execution_count=1)
    cells = [v4.new_markdown_cell("# T"), v4.new_code_cell("1 + 1", execution_count=1)]
    cells[1].outputs = [result]
    page = v4.new_notebook(cells=cells)
    assert first_cells.put_first_cell(page)
    assert not first_cells.put_first_cell(page)
    assert [cell.cell_type for cell in page.cells] == ["markdown", "code", "code"]
    assert [cell.execution_count for cell in page.cells[1:]] == [1, 2]
    assert page.cells[2].outputs[0].execution_count == 2
    nbformat.validate(page)


def test_the_address_comes_from_the_project_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(first_cells, "ROOT", tmp_path)
    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\nname = "x"\n', encoding="utf-8")
    assert first_cells.repository() == ""
    urls = '[project.urls]\nHomepage = "https://e.org"\nRepository = "https://github.com/a/b/"\n'
    project.write_text(f'{urls}\n[tool.x]\nRepository = "no"\n', encoding="utf-8")
    assert first_cells.repository() == "https://github.com/a/b"
    assert 'REPOSITORY = "https://github.com/a/b"' in first_cells.first_cell()


# A package that builds itself, so that pip fetches nothing.
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = """
import zipfile

FILES = {
    "absent_here.py": "answer = 42",
    "absent_here-1.dist-info/METADATA": "Metadata-Version: 2.1\\nName: absent_here\\nVersion: 1",
    "absent_here-1.dist-info/WHEEL": "Wheel-Version: 1.0\\nTag: py3-none-any",
    "absent_here-1.dist-info/RECORD": "",
}

def build_wheel(folder, *_):
    name = "absent_here-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        for file, text in FILES.items():
            wheel.writestr(file, text)
    return name
"""


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A package in a folder of its own, which pip installs where the kernel finds it."""
    found, site = tmp_path / "origin", tmp_path / "site"
    (found / "notebooks").mkdir(parents=True)
    (found / "notebooks" / "README.md").write_text("a folder without a file is not fetched")
    (found / "backend.py").write_text(BACKEND)
    (found / "pyproject.toml").write_text(PROJECT)
    inherited = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PIP_TARGET", str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(site), inherited))))
    site.mkdir()
    return found


def run_cells(folder: Path, *sources: str) -> list[Any]:
    """In a kernel in this folder; the cells with their outputs."""
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(page, timeout=300, kernel_name="python3", resources=where).execute()
    return list(page.cells)


@pytest.mark.slow
def test_it_fetches_and_installs_what_is_missing(origin: Path, tmp_path: Path) -> None:
    """In a kernel, in an empty folder, as in Colab; a small package stands for the library."""
    for arguments in ("init -q", "add .", "-c user.name=a -c user.email=a@b.org commit -qm all"):
        subprocess.run(["git", *arguments.split()], cwd=origin, check=True)
    empty = tmp_path / "empty"
    empty.mkdir()

    first = first_cells.SOURCE.format(address=origin.as_uri())
    first = first.replace('"minitransformer": ".."', '"absent_here": ".."')
    assert "absent_here" in first
    then = (
        "import absent_here; print(absent_here.answer, Path.cwd().name, Path('..').resolve().name)"
    )
    for _ in range(2):  # the second time all is there
        cells = run_cells(empty, first, then)
        assert cells[1].outputs[0].text.split() == ["42", "notebooks", "minitransformer-main"]
    assert cells[0].outputs == []


@pytest.mark.slow
def test_where_the_library_is_there_it_installs_what_else_is_missing(
    origin: Path, tmp_path: Path
) -> None:
    """Without an address, and without a copy of the repository."""
    empty = tmp_path / "empty"
    empty.mkdir()
    first = first_cells.SOURCE.format(address="")
    first = first.replace('"joblib": "joblib"', f'"absent_here": {str(origin)!r}')
    assert "absent_here" in first
    cells = run_cells(empty, first, "import absent_here; print(absent_here.answer, missing)")
    assert cells[1].outputs[0].text == f"42 {[str(origin)]}\n"

"""The notebooks: what their pages must hold, and that running them gives what they show.

`pytest` reads the pages. `pytest -m notebook` also runs each one from top to bottom in a fresh
kernel and prints the time it took.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

import nbformat

from scripts import first_cells
from scripts import run_notebooks as pages

pytestmark = pytest.mark.notebook

NOTEBOOKS = pages.notebooks()
MAP = (pages.FOLDER / "README.md").read_text(encoding="utf-8")

PARTS = {
    "goals": r"you will (learn|see|be able)|learning goals",
    "prerequisites": r"prerequisites|you (need|should) know",
    "a prediction": r"\bprediction\b",
    "a question before the run": r"before (you )?run",
    "variations": r"^#+ .*try this",
    "references": r"^#+ .*references",
}
PATHS = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|Users|usr|opt|mnt|content)/|[A-Z]:\\\\")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def notebook(path: Path) -> Any:
    return pages.read(path)


def prose(notebook: Any) -> str:
    return "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


# -- the pages, as they are ---------------------------------------------------------------


def test_file_is_valid_small_and_portable(path: Path, notebook: Any) -> None:
    nbformat.validate(notebook)
    assert path.stat().st_size < 1_000_000
    assert notebook.metadata.kernelspec.name == "python3"
    assert not PATHS.findall(path.read_text(encoding="utf-8"))


def test_every_cell_was_run_in_order(notebook: Any) -> None:
    cells = pages.code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [cell.id for cell in cells if "execution" in cell.metadata]  # when, and how long


def test_nothing_but_results_is_on_the_page(path: Path, notebook: Any) -> None:
    for cell in pages.code_cells(notebook):
        assert complaints(cell) == []
        assert not re.search(r"0x[0-9a-f]{6,}", pages.printed(cell)), "an address in memory"
    assert "FloatProgressModel" not in path.read_text(encoding="utf-8"), "a progress bar"


def complaints(cell: Any) -> list[Any]:
    return [o for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"]


def test_first_cell_asks_the_question(notebook: Any) -> None:
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert re.search(r"\A# .+", first.source)
    assert "?" in first.source


@pytest.mark.parametrize("part", PARTS)
def test_page_has(notebook: Any, part: str) -> None:
    assert re.search(PARTS[part], prose(notebook), re.IGNORECASE | re.MULTILINE)


def test_every_figure_has_a_caption_below(notebook: Any) -> None:
    below = [*notebook.cells[1:], None]
    for cell, after in zip(notebook.cells, below, strict=True):
        if cell.cell_type == "code" and pages.pictures(cell):
            assert after is not None and after.cell_type == "markdown", cell.id
            assert re.search(r"\bFigures? \d|^\*What to see", after.source), cell.id


LINES = 15  # of a cell that a class can take in at once


def test_no_cell_is_long(notebook: Any) -> None:
    lines = {cell.id: len(cell.source.splitlines()) for cell in pages.code_cells(notebook)}
    assert {cell: n for cell, n in lines.items() if n > LINES} == {}


# -- what a page needs --------------------------------------------------------------------


def needed_modules(notebook: Any) -> set[str]:
    """The top-level modules that a page imports and cannot do without, Python's own apart."""
    found: set[str] = set()
    for cell in pages.code_cells(notebook):
        source = re.sub(r"^( *)[%!].*$", r"\1pass", cell.source, flags=re.MULTILINE)
        tree = ast.parse(source)
        tried = [node for node in ast.walk(tree) if isinstance(node, ast.Try)]
        optional = {
            id(node)
            for each in tried
            if any("ImportError" in ast.unparse(h.type) for h in each.handlers if h.type)
            for statement in each.body
            for node in ast.walk(statement)
        }
        for node in ast.walk(tree):
            if id(node) in optional:
                continue
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
    return found - set(sys.stdlib_module_names)


def installed_by_the_first_cell() -> set[str]:
    """Its packages, and what comes with the library: here each module has its package's name."""
    project = (pages.ROOT / "pyproject.toml").read_text("utf-8")
    (dependencies,) = re.findall(r"^dependencies = \[\n(.*?)^\]", project, re.M | re.S)
    (packages,) = re.findall(r"^PACKAGES = (\{.*?\})", first_cells.first_cell(), re.M)
    named = re.findall(r'^ *"([\w-]+)', dependencies, re.M)
    assert "numpy" in named
    return {*named, *ast.literal_eval(packages)}


def test_first_cell_installs_all_that_the_page_imports(notebook: Any) -> None:
    needed = needed_modules(notebook)
    assert "minitransformer" in needed
    assert needed - installed_by_the_first_cell() == set()


def test_what_a_page_needs() -> None:
    sources = (
        "%matplotlib inline\nimport os, numpy.linalg",
        "def f():\n    from joblib.x import y",
        "try:\n    import ipywidgets\nexcept ImportError:\n    import pandas",
        "try:\n    import requests\nexcept ValueError:\n    pass",
    )
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    assert needed_modules(page) == {"numpy", "joblib", "pandas", "requests"}
    assert {"minitransformer", "joblib", "safetensors"} <= installed_by_the_first_cell()
    assert not {"pandas", "requests"} & installed_by_the_first_cell()


# -- the numbers in the text --------------------------------------------------------------

SPACES = dict.fromkeys(map(ord, "\u00a0\u2009\u202f"), " ")


def plain(text: str) -> str:
    """One way of writing numbers: 99,136 as 99136, a minus as a hyphen, one kind of space."""
    text = text.translate(SPACES).replace("{,}", ",").replace("\u2212", "-")
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)


def numerals(text: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?", plain(text))


def bold_numbers(notebook: Any) -> list[str]:
    """The numbers in bold words that begin with one: **2.17 %**, but not **1. A heading**."""
    spans = re.findall(r"\*\*([^*\n]+)\*\*", prose(notebook))
    stated = [s for s in spans if re.match(r"[-+\u2212\u2248~<>]?\s*\d", s)]
    return [n for s in stated if not re.match(r"\d+[.):]\s", s) for n in numerals(s)]


def test_bold_numbers_come_from_a_cell(notebook: Any) -> None:
    shown = {n for c in pages.code_cells(notebook) for n in numerals(pages.printed(c))}
    assert [n for n in bold_numbers(notebook) if n not in shown] == []


def test_what_counts_as_a_stated_number() -> None:
    text = "**99,136** of **2.17 %**, **1. Down**, **m = 8**, **1\u202f000\u202fB** and **3e-7**"
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    assert bold_numbers(page) == ["99136", "2.17", "1", "000", "3e-7"]


# -- the map ------------------------------------------------------------------------------


class Row(NamedTuple):
    number: str
    question: str
    name: str
    time: str
    needs: str


PER_ROW = {
    row.name: row
    for row in map(
        Row._make,
        re.findall(
            r"^\| (\d\d) \| \[([^]]+)\]\(([^)]+)\) \| ([^|]+) \| ([^|]+) \|", MAP, re.MULTILINE
        ),
    )
}


def test_map_has_every_notebook(path: Path, notebook: Any) -> None:
    row = PER_ROW[path.name]
    assert path.name.startswith(f"{row.number}_")
    assert row.question in notebook.cells[0].source
    assert re.search(r"\d (s|min)", row.time)
    assert row.needs.strip()


def test_map_has_no_other() -> None:
    assert [path.name for path in NOTEBOOKS] == sorted(PER_ROW)


def test_numbers_begin_at_one_and_are_unique() -> None:
    numbers = [path.name[:2] for path in NOTEBOOKS]
    assert len(set(numbers)) == len(numbers)
    assert [f"{n:02d}" for n in range(1, len(PER_ROW) + 1)] == [
        row.number for row in PER_ROW.values()
    ]


# -- the comparison -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("99,136 parameters", "99,136 parameters"),
        ("accuracy 0.83", "accuracy 0.84"),  # the last digit
        ("loss  0.4512", "loss  0.4550"),
        ("worst error 3.1e-10", "worst error 1.2e-10"),  # rounding
        ("drift 0.0e+00", "drift 2.2e-16"),
        ("loss   9.98 ----", "loss  10.02 -----"),  # columns are as wide as their numbers
    ],
)
def test_lines_that_agree(line: str, other: str) -> None:
    assert pages.same_line(line, other)
    assert pages.same_line(other, line)


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("99,136 parameters", "99,137 parameters"),
        ("99,136 parameters", "99,136 bytes"),
        ("accuracy 0.83", "accuracy 0.86"),
        ("worst error 3.1e-10", "worst error 3.1e-08"),
        ("drift 1e-03", "drift 1e-02"),
        ("shape (2, 3)", "shape (2, 3, 4)"),
        ("gradient -0.25", "gradient 0.25"),
        ("blocks.0.ffn", "blocks.1.ffn"),
        ("2.50x", "2.80x"),
    ],
)
def test_lines_that_differ(line: str, other: str) -> None:
    assert not pages.same_line(line, other)
    assert not pages.same_line(other, line)


def test_trained_numbers_may_differ_a_little_more() -> None:
    assert pages.same_line("812 of 1000, loss 0.45", "826 of 1000, loss 0.48", trained=True)
    assert not pages.same_line("812 of 1000, loss 0.45", "600 of 1000, loss 0.48", trained=True)


def test_float32_rounding_is_compared_by_its_order_of_magnitude() -> None:
    merged = page_that_prints("merged, differ by 5e-06", tags=("rounding",))
    for now, same in (("6e-06", True), ("2e-05", True), ("8e-05", False), ("3e-03", False)):
        fresh = page_that_prints(f"merged, differ by {now}")
        assert (pages.differences(merged, fresh) == []) is same, now
    assert pages.differences(
        page_that_prints("differ by 5e-06"), page_that_prints("differ by 6e-06")
    )


def page_that_prints(*texts: str, tags: tuple[str, ...] = ()) -> Any:
    page = nbformat.v4.new_notebook()
    for text in texts:
        out = nbformat.v4.new_output("stream", text=text)
        page.cells.append(nbformat.v4.new_code_cell("print()", outputs=[out]))
        page.cells[-1].metadata.tags = list(tags)
    return page


def test_digests_are_compared_by_which_are_equal() -> None:
    a, b, c = "0123456789abcdef", "89abcdef01234567", "fedcba9876543210"
    committed = page_that_prints(f"before {a}\nafter {a}", f"trained {b}")
    assert pages.differences(committed, page_that_prints(f"before {c}\nafter {c}", a)) != []
    same = page_that_prints(f"before {c}\nafter {c}", f"trained {a}")
    assert pages.differences(committed, same) == []
    forgot = page_that_prints(f"before {c}\nafter {b}", f"trained {a}")
    assert len(pages.differences(committed, forgot)) >= 1


@pytest.mark.parametrize("tag", ["timing", "varies"])
def test_cells_that_measure_time_may_differ(tag: str) -> None:
    slow, fast = (page_that_prints(text, tags=(tag,)) for text in ("3.1 s", "0.2 s"))
    assert pages.differences(slow, fast) == []


def test_text_sent_in_pieces_is_one_output() -> None:
    out, err = (
        nbformat.v4.new_output("stream", name=name, text=name) for name in ("stdout", "stderr")
    )
    again = nbformat.v4.new_output("stream", name="stdout", text=" and more")
    assert [o.text for o in pages.joined([out, again, err])] == ["stdout and more", "stderr"]


@pytest.mark.parametrize("change", ["a cell", "a line", "a picture"])
def test_missing_parts_are_noticed(change: str) -> None:
    committed, fresh = page_that_prints("one\ntwo", "three"), page_that_prints("one\ntwo", "three")
    if change == "a cell":
        fresh.cells.pop()
    elif change == "a line":
        fresh.cells[0].outputs[0].text = "one"
    else:
        picture = {"image/png": "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAA"}
        committed.cells[0].outputs.append(nbformat.v4.new_output("display_data", data=picture))
        assert pages.png_size(committed.cells[0].outputs[-1]) == (10, 10)
    assert len(pages.differences(committed, fresh)) == 1


# -- run from top to bottom ---------------------------------------------------------------


class Times:
    """Says after the last test how long each notebook took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("notebooks, each in a fresh kernel")
        for name, seconds in self.seconds.items():
            terminalreporter.write_line(f"{seconds:6.0f} s  {name}")


@pytest.fixture(scope="module")
def times(request: pytest.FixtureRequest) -> Times:
    shown_at_the_end = Times()
    request.config.pluginmanager.register(shown_at_the_end)
    return shown_at_the_end


class Fresh(NamedTuple):
    path: Path
    committed: Any
    notebook: Any
    seconds: float
    left_behind: set[str]


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def fresh(request: pytest.FixtureRequest, times: Times) -> Fresh:
    before = set(listing())
    notebook, seconds = pages.run(request.param)
    times.seconds[request.param.name] = seconds
    left_behind = set(listing()) - before
    return Fresh(request.param, pages.read(request.param), notebook, seconds, left_behind)


def listing() -> Iterator[str]:
    here = pages.FOLDER.rglob("*")
    return (str(p) for p in here if p.suffix != ".ipynb" and ".ipynb_checkpoints" not in p.parts)


@pytest.mark.slow
def test_committed_outputs_are_what_comes_out(fresh: Fresh) -> None:
    found = pages.differences(fresh.committed, fresh.notebook)
    assert not found, "\n".join([f"python scripts/run_notebooks.py {fresh.path.name[:2]}", *found])


@pytest.mark.slow
def test_run_is_quiet_and_leaves_nothing_behind(fresh: Fresh) -> None:
    assert [o for c in pages.code_cells(fresh.notebook) for o in complaints(c)] == []
    assert fresh.left_behind == set()


@pytest.mark.slow
def test_a_stale_notebook_fails(fresh: Fresh, tmp_path: Path) -> None:
    """One number changed in a copy of the page is noticed, whichever number it is."""
    copy = tmp_path / fresh.path.name
    changed = 0
    for cell_number, cell in enumerate(fresh.committed.cells):
        if cell.cell_type != "code" or not pages.is_compared(cell):
            continue
        for output_number, output in enumerate(cell.outputs):
            stale = first_number_changed(output)
            if stale is None:
                continue
            page = json.loads(fresh.path.read_text(encoding="utf-8"))
            page["cells"][cell_number]["outputs"][output_number] = stale
            copy.write_text(json.dumps(page), encoding="utf-8")
            found = pages.differences(pages.read(copy), fresh.notebook)
            assert [cell.id in where for where in found] == [True], pages.text_of(output)
            changed += 1
    assert changed


def first_number_changed(output: Any) -> Any:
    """The output, its first number half as large again and one more; None: it has no number."""
    text = pages.DIGEST.sub(lambda m: " " * len(m[0]), pages.text_of(output))
    number = pages.NUMBER.search(text)
    if number is None:
        return None
    other = f"{1.5 * pages.value(number[0]) + 1:.3f}"
    stale = json.loads(json.dumps(output))
    where = stale if output.output_type == "stream" else stale["data"]
    key = "text" if output.output_type == "stream" else "text/plain"
    where[key] = where[key][: number.start()] + other + where[key][number.end() :]
    return stale

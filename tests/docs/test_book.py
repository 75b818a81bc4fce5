"""The book: it builds without a warning, holds every page, and needs no network to be read."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest
from typer.main import get_command

import minitransformer as mt
from minitransformer.cli import app

ROOT = Path(__file__).parents[2]


def html_files(book: Path) -> list[Path]:
    """The pages; the theme's own files are no pages."""
    return [path for path in sorted(book.rglob("*.html")) if "_static" not in path.parts]


@pytest.mark.slow
def test_every_notebook_is_a_page_that_colab_opens(book: Path) -> None:
    contents = (book / "notebooks" / "index.html").read_text("utf-8")
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        page = (book / "notebooks" / f"{notebook.stem}.html").read_text("utf-8")
        colab = "https://colab.research.google.com/github/someone/minitransformer/blob/main"
        assert f"{colab}/notebooks/{notebook.name}" in page
        assert f'href="{notebook.stem}.html"' in contents
        assert "attachment:" not in page
        assert "pip install --quiet" not in page  # nothing can be run here


@pytest.mark.slow
def test_every_command_has_its_help(book: Path) -> None:
    page = unescape((book / "commands.html").read_text("utf-8"))
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        if not command.hidden:
            assert f'id="{name}"' in page, name
            for parameter in command.params:
                assert parameter.param_type_name == "argument" or parameter.opts[0] in page


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(book: Path) -> None:
    contents = (book / "api" / "index.html").read_text("utf-8")
    pages = "".join(path.read_text("utf-8") for path in (book / "api").glob("*.html"))
    for name in mt.__all__:
        assert f"mt.{name}" in contents
        thing = getattr(mt, name)
        if hasattr(thing, "__qualname__"):
            assert f'id="{thing.__module__}.{thing.__qualname__}"' in pages, name


@pytest.mark.slow
def test_every_link_within_leads_somewhere(book: Path) -> None:
    pages = {path: path.read_text("utf-8") for path in html_files(book)}
    anchors = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    links, broken = 0, []
    for path, text in pages.items():
        for address in re.findall(r'(?:href|src)="([^"]*)"', text):
            name, _, anchor = unescape(address).partition("#")
            if re.match(r"[a-z]+:", name):
                continue
            target = (path.parent / unquote(name.partition("?")[0])).resolve() if name else path
            missing = anchor and target in anchors and unquote(anchor) not in anchors[target]
            links += 1
            if not target.exists() or missing:
                broken.append((path.name, address))
    assert not broken
    print(f"{len(pages)} pages, {links} links within, none broken")


@pytest.mark.slow
def test_links_to_the_repository_lead_to_files_that_exist(book: Path) -> None:
    start = "https://github.com/someone/minitransformer/blob/main/"
    for path in html_files(book):
        for inside in re.findall(rf'href="{re.escape(start)}([^"#]+)', path.read_text("utf-8")):
            assert (ROOT / unquote(inside)).exists(), (path.name, inside)


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(book: Path) -> None:
    for path in html_files(book):
        text = path.read_text("utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\bsrc=\"(https?:[^\"]*)", text)
        loaded += re.findall(
            r"<link[^>]*rel=\"(?:stylesheet|preload)\"[^>]*href=\"(https?:[^\"]*)", text
        )
        assert not loaded, (path.name, loaded)
    assert list((book / "_static").rglob("tex-*.js"))


@pytest.mark.slow
def test_a_number_and_its_sign_stay_on_one_line_of_a_table(book: Path) -> None:
    page = (book / "study" / "report.html").read_text("utf-8")
    cells = [unescape(cell) for cell in re.findall(r"<td[^>]*><p>(.*?)</p></td>", page)]
    numbers = [cell for cell in cells if re.fullmatch(r"[\d.]+\s%( ?.? ?[\d.]+\s%)?", cell)]
    assert len(numbers) > 100
    assert not [cell for cell in numbers if " " in cell]
    assert any("\u00b1" in cell for cell in cells)
    assert {path.name for path in (book / "_images").iterdir()} >= {"accuracy.png", "parts.png"}


@pytest.mark.slow
def test_no_formula_is_left_as_it_was_typed(book: Path) -> None:
    for path in sorted((book / "notebooks").glob("*.html")):
        (article,) = re.findall(r"<article.*?</article>", path.read_text("utf-8"), re.DOTALL)
        text = re.sub(r"<(pre|code|script)\b.*?</\1>", "", article, flags=re.DOTALL)
        text = re.sub(r'<(span|div) class="math[^"]*">.*?</\1>', "", text, flags=re.DOTALL)
        assert "$" not in unescape(re.sub(r"<[^>]+>", "", text)), path.name

"""The book: it builds without a warning, holds every page, and needs no network to be read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest
from typer.main import get_command

from minitransformer.cli import app

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("myst_nb")
    folder = tmp_path_factory.mktemp("book")
    command = [sys.executable, str(ROOT / "docs" / "build.py"), str(folder)]
    environment = os.environ | {"MINITRANSFORMER_REPOSITORY": "someone/minitransformer"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


@pytest.mark.slow
def test_every_notebook_is_a_page_that_colab_opens(book: Path) -> None:
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        page = (book / "notebooks" / f"{notebook.stem}.html").read_text("utf-8")
        assert f"github/someone/minitransformer/blob/main/notebooks/{notebook.name}" in page


@pytest.mark.slow
def test_every_command_has_its_help(book: Path) -> None:
    page = (book / "commands.html").read_text("utf-8")
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        if not command.hidden:
            assert f'id="{name}"' in page, name


@pytest.mark.slow
def test_every_link_within_leads_somewhere(book: Path) -> None:
    pages = {path: path.read_text("utf-8") for path in book.rglob("*.html")}
    anchors = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    broken = []
    for path, text in pages.items():
        for address in re.findall(r'(?:href|src)="([^"]*)"', text):
            name, _, anchor = unescape(address).partition("#")
            if re.match(r"[a-z]+:", name):
                continue
            target = (path.parent / unquote(name.partition("?")[0])).resolve() if name else path
            missing = anchor and target in anchors and unquote(anchor) not in anchors[target]
            if not target.exists() or missing:
                broken.append((path.name, address))
    assert not broken


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(book: Path) -> None:
    for path in book.rglob("*.html"):
        text = path.read_text("utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\bsrc=\"(https?:[^\"]*)", text)
        loaded += re.findall(
            r"<link[^>]*rel=\"(?:stylesheet|preload)\"[^>]*href=\"(https?:[^\"]*)", text
        )
        assert not loaded, (path.name, loaded)
    assert (book / "_static" / "mathjax" / "tex-chtml.js").exists()

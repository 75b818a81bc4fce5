"""The book, built once for the tests that look at it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/someone/minitransformer"


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("myst_nb", reason="the book needs `pip install -e '.[docs]'`")
    folder = tmp_path_factory.mktemp("book")
    command = [sys.executable, str(ROOT / "docs" / "build_book.py"), str(folder)]
    command += ["--repository", REPOSITORY]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"

"""The how-tos' commands and programs run as they are printed, from top to bottom of each page."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in (ROOT / "docs" / "howto").glob("*.md") if path.stem != "index")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_prints_runs(page: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    assert blocks
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    for kind, text in blocks:
        commands = [[sys.executable, "-c", text]]
        if kind == "sh":
            commands = [command_line(line) for line in text.replace("\\\n", "").splitlines()]
        for command in commands:
            done = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def command_line(line: str) -> list[str]:
    program, *arguments = shlex.split(line)
    assert program == "minitransformer", line
    return [sys.executable, "-m", "minitransformer", *arguments]

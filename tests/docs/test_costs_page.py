"""The page on costs shows what its command prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from minitransformer.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "costs.md"


def test_the_page_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.findall(
        r"^```sh\n(.*?)\n```\n+```text\n(.*?)```", PAGE.read_text("utf-8"), re.M | re.S
    )
    assert shown
    for command, output in shown:
        program, *arguments = shlex.split(command)
        assert program == "minitransformer"
        assert main(arguments) == 0
        assert capsys.readouterr().out == output, f"{command} prints something else by now"

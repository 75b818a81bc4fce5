"""The page on costs shows what its command prints."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest

from minitransformer.cli import main
from minitransformer.runs.options import LEARNING_RATES

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


def test_learning_rates_are_those_of_the_rows_of_the_study() -> None:
    found: dict[tuple[str, float], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    rows = (PAGE.parent / "study" / "rows.csv").read_text(encoding="utf-8").splitlines()
    for row in csv.DictReader(rows):
        values = json.loads(row["values"])
        if values["seed"] == 0:
            key = values.get("method", "adapter"), values["lr"]
            found[key][row["task"]].append(float(row["validation_accuracy"]))
    lines = []
    for method, default in LEARNING_RATES.items():
        cells = []
        for rate in sorted(rate for of, rate in found if of == method):
            accuracy = 100 * fmean(map(fmean, found[method, rate].values()))
            marked = " (default)" if rate == default else ""
            cells.append(f"{rate:g}{marked}: {accuracy:.1f}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    assert "\n".join(lines) in PAGE.read_text("utf-8")

"""The page on what survives what shows what the commands left in their files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_tables_are_those_of_the_results() -> None:
    path = ROOT / "benchmarks" / "durability.py"
    spec = importlib.util.spec_from_file_location("durability", path)
    assert spec is not None and spec.loader is not None
    durability = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(durability)
    text = durability.PAGE.read_text(encoding="utf-8")
    for name in durability.TABLES:
        assert f"<!-- table: {name} -->" in text
    assert durability.page(text) == text, f"run python {path.relative_to(ROOT)}"

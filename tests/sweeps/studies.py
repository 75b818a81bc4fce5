"""A small study that several tests run: seconds, no network."""

from __future__ import annotations

from pathlib import Path

TINY = """
name = "tiny"
seeds = [0, 1]

[run]
base = "tiny"
epochs = 1
max_length = 16

[[task]]
name = "toy-reviews"
limit = 64
validation_limit = 32
test_limit = 32

[[part]]
name = "sizes"
bottleneck = [2, 8]
lr = [1e-3, 1e-2]

[[part]]
name = "others"
method = ["head", "full"]
"""
RUNS = 2 * (2 + 1) + 2 * 2  # two sizes with two rates and another seed; two methods, two seeds


def write_study(folder: Path, text: str = TINY) -> Path:
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def row_files(folder: Path) -> dict[str, bytes]:
    """The rows of a sweep as they lie on disk."""
    return {path.name: path.read_bytes() for path in (folder / "rows").glob("*.json")}

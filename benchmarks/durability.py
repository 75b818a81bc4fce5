"""The tables of docs/durability.md, from the files that other commands wrote.

    python benchmarks/durability.py     # writes them into the page again

They come from results/kills.json, kills_minilm.json, long_run.json, edges.json,
wrong_backwards.json, and from fuzz/results.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "durability.md"
FUZZ = ROOT / "fuzz" / "results.json"
RESULTS = ROOT / "benchmarks" / "results"

Rows = list[list[Any]]  # the first is the header


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def kills() -> Rows:
    found = read(RESULTS / "kills.json")
    kinds = [kind for kind, value in found.items() if isinstance(value, dict) and "kills" in value]
    counts = ("kills", "runs", "equal", "stuck")
    rows = [[kind, *(found[kind][count] for count in counts)] for kind in kinds]
    total = [sum(row[i] for row in rows) for i in range(1, len(counts) + 1)]
    header = ["stopped by", "kills", "runs", "same files in the end", "stuck"]
    return [header, *rows, ["all", *total]]


def races() -> Rows:
    found = read(RESULTS / "kills.json")
    rows = [
        [name, outcome, count]
        for name in ("two at once", "two at once, the same --out")
        for outcome, count in found[name].items()
    ]
    return [["started", "what became of them", "times"], *rows]


def lost() -> Rows:
    found = read(RESULTS / "kills_minilm.json")
    return [
        ["run", "watched", "states seen", "size of one", "longest time between two"],
        [
            f"`{found['command']}`", f"{found['minutes']:.1f} min", found["states"],
            f"{found['state_bytes'] / 1e6:.1f} MB",
            f"{found['most_seconds']:.1f} s",
        ],
    ]  # fmt: skip


def fuzzing() -> Rows:
    header = [
        "format",
        "inputs",
        "accepted",
        "refused",
        "by their digest",
        "crashes now",
        "kinds mended",
        "peak memory",
    ]
    rows: Rows = [
        [
            name, f["inputs"], f["accepted"], f["refused"], f["refused_by_digest"],
            sum(f["crashes"].values()),
            len(f.get("mended", ())), f"{f['peak_memory_mb']} MB",
        ]
        for name, f in read(FUZZ).items()
    ]  # fmt: skip
    return [header, *rows, ["all", *(sum(row[i] for row in rows) for i in range(1, 7)), ""]]


def edges() -> Rows:
    """As they were printed; of the many ranges of an activation's left tail the worst alone."""
    rows: dict[str, list[str]] = {}
    for what, *values in read(RESULTS / "edges.json")["rows"]:
        tail = re.fullmatch(r"(\w+), -\d+ to -\d+: error of the (\w+)", what)
        if tail is None and ": error of the" not in what:
            rows[what] = values
        elif tail is not None:
            name = f"{tail[1]}, -80 to -3: largest error of the {tail[2]}"
            pairs = zip(rows.get(name, values), values, strict=True)
            rows[name] = [max(pair, key=float) for pair in pairs]
    return [
        ["what", "before", "now", "PyTorch"],
        *([what, *values] for what, values in rows.items()),
    ]


def wrong_backwards() -> Rows:
    found = read(RESULTS / "wrong_backwards.json")
    names = ("passes", "caught", "cause right", "cause unnamed", "cause wrong")
    return [["wrong backward passes", *names[1:]], [found[name] for name in names]]


def long_run() -> Rows:
    found = read(RESULTS / "long_run.json")
    last = found["last"]
    return [
        ["hours", "rounds", "growth of memory", "memory", "open files", "threads", "files left"],
        [
            f"{found['hours']:.2f} of {found['asked_hours']:.2f}", found["rounds"],
            f"{found['growth']['memory_mb']:.2%}", f"{last['memory_mb']:.0f} MB",
            last["open_files"], last["threads"], last["files"],
        ],
    ]  # fmt: skip


TABLES: dict[str, Callable[[], Rows]] = {
    table.__name__: table
    for table in (kills, races, lost, fuzzing, edges, wrong_backwards, long_run)
}


def markdown(rows: Rows) -> str:
    header, *body = rows
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    shown = ([f"{cell:,}" if isinstance(cell, int) else cell for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in shown)


def page(text: str) -> str:
    """The page with its tables as they are by now; each stands between two comments."""

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}\n{markdown(TABLES[match[2]]())}\n{match[3]}"

    return re.sub(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", table, text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

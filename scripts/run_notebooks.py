"""Run the notebooks from top to bottom, each in a fresh kernel, and store the outputs.

    python scripts/run_notebooks.py [NUMBER ...]     # "03 05"; without numbers: all of them

Prints each one's time and how its outputs differ from what was there. `pytest -m notebook` makes
the same comparison and writes nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import nbclient
import nbformat

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
SECONDS_PER_CELL = 600


def notebooks() -> list[Path]:
    return sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def write(notebook: Any, path: Path) -> None:
    """As `run` leaves it, without what only works while its kernel lives: sliders."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        if "interactive" in cell.metadata.get("tags", []):
            cell.outputs = []
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def run(path: Path) -> tuple[Any, float]:
    """The notebook with its new outputs, and the seconds it took. The file stays as it is."""
    notebook = read(path)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    start = time.perf_counter()
    execute(notebook, path.parent)
    seconds = time.perf_counter() - start
    for cell in code_cells(notebook):
        cell.outputs = joined(cell.outputs)
    return notebook, seconds


def execute(notebook: Any, folder: Path) -> None:
    """Run the cells in a fresh kernel in `folder`, with the package of this repository."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("MPLBACKEND", "PYTHONWARNINGS")}
    found_here = os.pathsep.join(filter(None, (str(ROOT), inherited.get("PYTHONPATH"))))
    client = nbclient.NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env={**inherited, "PYTHONPATH": found_here})


def joined(outputs: list[Any]) -> list[Any]:
    """Text that a busy machine sent in pieces, as one output again."""
    found: list[Any] = []
    for output in outputs:
        last = found[-1] if found else {}
        if output.output_type == "stream" and output.name == last.get("name"):
            last["text"] += output.text
        else:
            found.append(output)
    return found


# -- what a notebook shows ----------------------------------------------------------------


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: Any) -> str:
    """All text that a code cell shows, in order."""
    return "".join(text_of(output) for output in cell.outputs)


def text_of(output: Any) -> str:
    if output.output_type == "stream":
        return str(output.text)
    if output.output_type in ("display_data", "execute_result"):
        return f"{output.data.get('text/plain', '')}\n"
    return ""


def is_compared(cell: Any) -> bool:
    """Whether its text must come out again: not a measured time, nor what varies by processor."""
    return not {"timing", "varies"} & set(cell.metadata.get("tags", []))


def pictures(cell: Any) -> list[Any]:
    return [o for o in cell.outputs if "image/png" in o.get("data", {})]


# -- what counts as the same --------------------------------------------------------------

NUMBER = re.compile(r"(?<![\w.])[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?(?:e[-+]?\d+)?")
DIGEST = re.compile(r"\b(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{8,}\b")
RULE = re.compile(r"([-=\u2500\u2501\u2550])\1{2,}")

# Other processors round differently, and training amplifies it. So a printed fraction may
# differ by RELATIVE or by a little more than its last digit; in a cell tagged "trained" every
# number by TRAINED. Below NOISE a number is the rounding itself: its order of magnitude counts;
# in a cell tagged "rounding", which shows float32 rounding of larger numbers, below ROUNDING.
RELATIVE, TRAINED = 0.02, 0.15
NOISE, ROUNDING, ZERO = 1e-6, 1e-4, 1e-12


def differences(committed: Any, fresh: Any) -> list[str]:
    """What the second notebook shows otherwise than the first, in cells that are compared."""
    found = []
    digests: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for old, new in zip_longest(code_cells(committed), code_cells(fresh)):
        if old is None or new is None:
            found.append("there are more or fewer cells")
            break
        if old.source != new.source:
            found.append(f"{old.get('id', '?')}: the code differs")
        tags = old.metadata.get("tags", [])
        if not is_compared(old):
            continue
        trained, noise = "trained" in tags, ROUNDING if "rounding" in tags else NOISE
        was, is_now = (
            name_digests(printed(c), d) for c, d in zip((old, new), digests, strict=True)
        )
        where = old.get("id", "?")
        for line, other in zip_longest(was.splitlines(), is_now.splitlines()):
            if line is None or other is None or not same_line(line, other, trained, noise):
                found.append(f"{where}:\n  committed: {line}\n  now:       {other}")
        found += [f"{where}: {how}" for how in different_pictures(old, new)]
    return found


def name_digests(text: str, seen: dict[str, str]) -> str:
    """Hexadecimal digests as names in their order of appearance: equal ones stay equal."""
    return DIGEST.sub(lambda m: seen.setdefault(m[0], f"digest-{chr(97 + len(seen))}"), text)


def same_line(line: str, other: str, trained: bool = False, noise: float = NOISE) -> bool:
    if words(line) != words(other):
        return False
    pairs = zip(NUMBER.findall(line), NUMBER.findall(other), strict=True)
    return all(same_number(a, b, trained, noise) for a, b in pairs)


def words(line: str) -> str:
    """A line without its numbers, however wide its columns are."""
    return " ".join(RULE.sub(r"\1", NUMBER.sub(" # ", line)).split())


def same_number(a: str, b: str, trained: bool = False, noise: float = NOISE) -> bool:
    """Integers must be equal (unless they were trained), fractions close to each other."""
    x, y = value(a), value(b)
    size, gap = max(abs(x), abs(y)), abs(x - y)
    if a == b or (is_integer(a) and is_integer(b) and not trained):
        return x == y
    if size < noise:
        return size < ZERO or (x * y > 0 and 0.1 <= x / y <= 10)
    relative = TRAINED if trained else RELATIVE
    return gap <= max(relative * size, 1.5 * max(last_digit(a), last_digit(b)))


def value(number: str) -> float:
    return float(number.replace(",", "").replace("\u2212", "-"))


def is_integer(number: str) -> bool:
    return last_digit(number) == 0 and "e" not in number


def last_digit(number: str) -> float:
    """What one step of the last decimal is worth; 0 for an integer and for 1e-03."""
    mantissa, _, exponent = number.partition("e")
    decimals = mantissa.partition(".")[2]
    return float(10.0 ** (int(exponent or 0) - len(decimals))) if decimals else 0.0


def different_pictures(old: Any, new: Any) -> Iterator[str]:
    was, is_now = pictures(old), pictures(new)
    if len(was) != len(is_now):
        yield f"{len(was)} pictures committed, {len(is_now)} now"
        return
    for before, after in zip(was, is_now, strict=True):
        sizes = png_size(before), png_size(after)
        if any(abs(a - b) > 0.1 * a for a, b in zip(*sizes, strict=True)):
            yield f"a picture of {sizes[0]} pixels is now {sizes[1]}"


def png_size(output: Any) -> tuple[int, int]:
    """Width and height, from the first bytes of the file."""
    from base64 import b64decode

    head = b64decode(output.data["image/png"][:64])
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", help="such as 03; all when none is given")
    chosen = parser.parse_args().numbers
    paths = [p for p in notebooks() if not chosen or p.name.partition("_")[0] in chosen]
    if not paths:
        print("no such notebook", file=sys.stderr)
        return 2
    for path in paths:
        before = read(path)
        after, seconds = run(path)
        changed = differences(before, after)
        write(after, path)
        print(f"{path.name}: {seconds:.0f} s, {len(changed)} differences", *changed, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The exercises as plain Python files: what a student begins with."""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError
from ..formats.files import write_text
from .catalogue import exercise

FOLDER = Path(__file__).parent / "start"  # made by exercises/build.py, without solutions


def start(number: int, path: str | Path) -> Path:
    """Write the file that a student completes for exercise `number`.

    Raises: ConfigError for a number without an exercise; DataError if there is a file already.
    """
    path = Path(path).expanduser()
    text = (FOLDER / f"{exercise(number).slug}.txt").read_text("utf-8")
    if path.exists():
        raise DataError(f"{path} exists already and is left as it is; choose another name")
    write_text(path, text)
    return path

"""Safetensors and text files: read with a clear error, written completely or not at all."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, printable
from ..nn.module import Array

# An entry of the metadata, as other programs may write and read it: SHA-256 of the whole file with
# zeros in place of these 64 digits. It has our name because "sha256" in a file of others may be
# that of something else.
DIGEST = "minitransformer-sha256"
ZEROS = "0" * 64


def tensor_names(path: Path) -> list[str]:
    """The names in a safetensors file, without reading the tensors.

    Raises: CheckpointError if it cannot be read.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="np") as file:
            return list(file.keys())
    except Exception as error:  # the library raises its own kinds, and OSError
        raise CheckpointError(f"cannot read {path}: {error}; is it truncated?") from error


def read_safetensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """All tensors of a safetensors file, and its metadata.

    Raises: CheckpointError if it cannot be read, or carries a digest that is not its own.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="np") as file:  # checks the header, too
            names, tensors = list(file.keys()), {}
            try:
                tensors = {name: file.get_tensor(name) for name in names}
            except TypeError:  # NumPy has no bfloat16
                tensors = bfloat16_tensors(path)
                tensors |= {name: file.get_tensor(name) for name in names if name not in tensors}
            metadata = dict(file.metadata() or {})
            damaged = DIGEST in metadata and _digest_of(path, metadata[DIGEST]) != metadata[DIGEST]
    except Exception as error:  # the library raises its own kinds, and OSError
        raise CheckpointError(f"cannot read {path}: {error}; is it truncated?") from error
    if damaged:
        raise CheckpointError(
            f"{path} is damaged, or another program has changed it: its SHA-256 is not the one "
            f"that it was written with, {metadata[DIGEST]}. Copy it again from where it came, or "
            "make it again"
        )
    return tensors, metadata


def _digest_of(path: Path, digits: str) -> str:
    """SHA-256 of a safetensors file with zeros in place of `digits` in its header."""
    with path.open("rb") as file:
        start = file.read(8)
        header = file.read(int.from_bytes(start, "little"))
        digest = hashlib.sha256(start + header.replace(digits.encode(), ZEROS.encode(), 1))
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def bfloat16_tensors(path: Path) -> dict[str, Array]:
    """The tensors of a safetensors file that are bfloat16, which NumPy does not have, as float32.

    A bfloat16 is the upper half of a float32. (The file: the header's length in 8 bytes, the header
    as JSON with each tensor's dtype, shape and place, the bytes.)
    """
    found = {}
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        for name, entry in header.items():
            if entry.get("dtype") == "BF16":
                begin, end = entry["data_offsets"]
                file.seek(8 + size + begin)
                halves = np.frombuffer(file.read(end - begin), "<u2").astype(np.uint32)
                found[name] = (halves << 16).view(np.float32).reshape(entry["shape"])
    return found


def read_tensors(path: Path) -> dict[str, Array]:
    """All tensors of a safetensors file. Raises: CheckpointError if it cannot be read."""
    return read_safetensors(path)[0]


def write_tensors(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """A safetensors file with a digest of itself, complete or not at all; as `write_bytes`.

    The same content gives the same bytes: the safetensors library leaves the order of the metadata
    to chance, hence the header is written again.
    """
    from safetensors.numpy import save

    content = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
    end = 8 + int.from_bytes(content[:8], "little")
    entries, data = json.loads(content[8:end]), memoryview(content)[end:]

    def start(digest: str) -> bytes:
        every = {"__metadata__": {**metadata, DIGEST: digest}, **entries}
        header = json.dumps(every, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)  # the tensors begin at a multiple of 8
        return len(header).to_bytes(8, "little") + header

    digest = hashlib.sha256(start(ZEROS))
    digest.update(data)
    write_bytes(path, start(digest.hexdigest()), data)


def csv_line(cells: Iterable[Any], delimiter: str = ",") -> str:
    """A line of CSV that ends in a newline."""
    # Some versions of csv.writer quote a carriage return only if lines end in one.
    line = io.StringIO(newline="")
    csv.writer(line, delimiter=delimiter).writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that every program reads and every terminal shows.

    NaN and infinity, which JSON has not, are null; control characters are \\u and four digits.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    text = json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False)
    raw = (mark for mark in set(text) if printable(mark) != mark)
    return text.translate({ord(mark): json.dumps(mark)[1:-1] for mark in raw})


def write_text(path: Path, text: str) -> None:
    """A text file, complete or not at all; as `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """A file of these parts, complete or not at all: written beside its name, then renamed.

    When this returns it is on the disk, and not only in the system's memory. A process that is
    killed may leave `.NAME.PID.tmp` behind.
    Raises: CheckpointError if it cannot be written; what was there before is still there then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = (
            f"; it has {sum(map(len, parts)):,} bytes: make room, and try again" if full else ""
        )
        raise CheckpointError(f"cannot write {path}: {error.strerror}{advice}") from error
    finally:
        temporary.unlink(missing_ok=True)


def delete_leftovers(folder: Path, name: str = "*") -> None:
    """Delete what processes that were killed left of writing files called `name` in a folder.

    Only where no other process is writing such a file.
    """
    for temporary in folder.glob(f".{name}.*.tmp"):
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system offers that (Windows does not)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)

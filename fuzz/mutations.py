"""Ways to damage a file: its bytes, or its structure, so that it can still be parsed."""

from __future__ import annotations

import hashlib
import json
import random
import re
import struct
from typing import Any

ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 3, 0.5, -0.0, 2**31, 2**63, 10**7, 10**30, 1e308, 1e-308,
    float("nan"), float("inf"), -float("inf"), "", "x", "NaN", "\ud800", "\x00", "../../x", "a.b:c",
    "10000000", "x" * 3000, [], {}, [[]], [None], ["a", "a"], [0, -1], {"a": {}}, {"": 0},
    list(range(300)),
]  # fmt: skip
ODD_BYTES = [
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n",
    b'"',
    b",",
    b"{",
    b"]",
    b"-",
    b"9",
]
ODD_TOML = [
    "nan", "inf", "-1", "0", "true", "[]", "[[]]", "{}", '""', '"3-5"', '"1-100000000"', "9" * 30,
    "1e308", "[1, 2, 1]", '["a", 1]', "1979-05-27", '"x" # y', "'''", "[" * 3000, "{a = 1}",
]  # fmt: skip


# what is raised where a file has no such structure any more
UNPARSED = (ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error)


def damaged(name: str, content: bytes, random: random.Random) -> bytes:
    """The content with one to four mistakes; `name` says which kind of file it is."""
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        kind = name.rpartition(".")[2]
        structured = STRUCTURED.get(kind)
        if structured is not None and random.random() < 0.75:
            try:
                content = structured(content, random)
                continue
            except UNPARSED:
                pass
        content = random.choice(BYTES)(content, random)
    # With the old digest few files would get beyond its check.
    return with_own_digest(content) if random.random() < 0.9 else content


def with_own_digest(content: bytes) -> bytes:
    """A safetensors file of this library with the digest that it should carry; others as is."""
    before, name, rest = content.partition(b'"minitransformer-sha256":"')
    if not name:
        return content
    whole = hashlib.sha256(before + name + b"0" * 64 + rest[64:])
    return before + name + whole.hexdigest().encode() + rest[64:]


# -- bytes ---------------------------------------------------------------------------------


def place(content: bytes, random: random.Random) -> int:
    """Often near the beginning, where headers are."""
    n = len(content)
    return random.randrange(min(n, 200) + 1) if random.random() < 0.3 else random.randrange(n + 1)


def flip(content: bytes, random: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice([1, 1, 8])):
        if changed:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def insert(content: bytes, random: random.Random) -> bytes:
    i = place(content, random)
    return content[:i] + random.choice(ODD_BYTES) * random.choice([1, 1, 2, 50]) + content[i:]


def cut_out(content: bytes, random: random.Random) -> bytes:
    i = place(content, random)
    return content[:i] + content[i + random.choice([1, 1, 4, 40, 400]) :]


def cut_off(content: bytes, random: random.Random) -> bytes:
    return content[: place(content, random)]


def repeat(content: bytes, random: random.Random) -> bytes:
    i = place(content, random)
    part = content[i : i + random.choice([1, 8, 100])]
    return content[:i] + part * random.choice([2, 3, 200]) + content[i:]


def number(content: bytes, random: random.Random) -> bytes:
    """Another number in place of one that is written out."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", content[:20_000]))
    if not found:
        return flip(content, random)
    one = random.choice(found)
    new = random.choice(
        [b"-1", b"0", b"1e999", b"NaN", b"9" * 25, b"9" * 5000, b"0.5", b"10000000"]
    )
    return content[: one.start()] + new + content[one.end() :]


def nest(content: bytes, random: random.Random) -> bytes:
    """Brackets, deeper than a parser's stack."""
    i = place(content, random)
    return content[:i] + random.choice([b"[", b'{"a":']) * 50_000 + content[i:]


BYTES = [flip, flip, insert, insert, cut_out, cut_out, cut_off, repeat, number, number, nest]


# -- structure -----------------------------------------------------------------------------


def damaged_json(content: bytes, random: random.Random) -> bytes:
    """A JSON file, or lines of JSON, with an entry changed, gone or renamed."""
    text = content.decode("utf-8")
    lines = text.split("\n") if text.count("\n{") > 2 and "\n  " not in text else [text]
    i = random.randrange(len(lines))
    value = json.loads(lines[i])
    lines[i] = json.dumps(damaged_value(value, random))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def damaged_value(value: Any, random: random.Random) -> Any:
    """The value with an odd one somewhere in it."""
    if isinstance(value, str) and value[:1] in ("{", "[") and random.random() < 0.9:
        return json.dumps(damaged_value(json.loads(value), random))  # JSON in JSON: a record
    if not isinstance(value, dict | list) or not value or random.random() < 0.05:
        return random.choice(ODD_VALUES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = random.choice(keys)
    what = random.random()
    if what < 0.7:
        value[key] = damaged_value(value[key], random)
    elif what < 0.85:
        del value[key]
    elif isinstance(value, dict):
        other = random.choice([*keys, "new", "", "a.b"])
        value[other] = value.pop(key) if random.random() < 0.5 else value[key]
    else:
        value += [value[key]] * random.choice([1, 1, 100])
    return value


def damaged_tensors(content: bytes, random: random.Random) -> bytes:
    """A safetensors file with a changed header, or with odd numbers in a tensor."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    names = [name for name in header if name != "__metadata__"]
    what = random.random()
    if what < 0.35 and "__metadata__" in header:
        header["__metadata__"] = damaged_value(header["__metadata__"], random)
    elif what < 0.6 and names:
        entry = header[random.choice(names)]
        start, end = entry["data_offsets"]
        odd = random.choice([float("nan"), float("inf"), 3e38, -3e38, 1e-45, 0.0])
        for at in range(start, min(end, len(data)) - 3, random.choice([4, 4, 400])):
            data[at : at + 4] = struct.pack("<f", odd)
    elif what < 0.8 and names:
        entry = header[random.choice(names)]
        shape = entry["shape"]
        size = (entry["data_offsets"][1] - entry["data_offsets"][0]) // 4
        shapes = [[size], [1, size], [size, 1], [size, 1, 1], shape[::-1], [0, 10**7], [0], []]
        entry["shape"] = random.choice(shapes)
        if 0 in entry["shape"]:
            entry["data_offsets"][1] = entry["data_offsets"][0]
        entry["dtype"] = random.choice(["F32"] * 6 + ["I32", "U32", "BF16", "F64", "BOOL"])
    elif what < 0.9 and names:
        one, other = random.choice(names), random.choice([*names, "new", "blocks.0.x", ""])
        header[other] = header.pop(one)
    else:
        header = damaged_value(header, random)
    text = json.dumps(header, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + bytes(data)


def damaged_toml(content: bytes, random: random.Random) -> bytes:
    """A TOML file with another value, or a line gone, twice, or elsewhere."""
    lines = content.decode("utf-8").split("\n")
    i, j = (random.randrange(len(lines)) for _ in range(2))
    key, equals, _ = lines[i].partition("=")
    if equals and random.random() < 0.7:
        lines[i] = f"{key}= {random.choice(ODD_TOML)}"
    else:
        lines.insert(j, lines[i] if random.random() < 0.5 else lines.pop(i))
    return "\n".join(lines).encode()


def damaged_table(content: bytes, random: random.Random) -> bytes:
    """A CSV or TSV file with a cell changed, or a line gone, twice, or elsewhere."""
    lines = content.split(b"\n")
    i, j = (random.randrange(len(lines)) for _ in range(2))
    cells = re.split(rb"([,\t])", lines[i])
    what = random.random()
    if what < 0.6:
        odd = random.choice(
            [b"", b"nan", b"inf", b"-1", b"1e999", b'"', b'""', b"\xff", b"9" * 5000]
        )
        cells[random.randrange(len(cells))] = odd
        lines[i] = b"".join(cells)
    else:
        lines.insert(j, lines[i] if what < 0.8 else lines.pop(i))
    return b"\n".join(lines)


STRUCTURED = {
    "json": damaged_json,
    "jsonl": damaged_json,
    "safetensors": damaged_tensors,
    "toml": damaged_toml,
    "csv": damaged_table,
    "tsv": damaged_table,
}

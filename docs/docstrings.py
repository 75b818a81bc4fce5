"""A Sphinx extension: our docstrings are plain text, and Sphinx wants reStructuredText.

A docstring has paragraphs, lists, indented code or tables, `names` in backticks, entries under
"Attributes:" or "Args:", and paragraphs that begin with "Shapes:", "Raises:" or "Warns:".
Everything else in it, such as an asterisk or a bar in a formula, stands for itself.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ENTRIES = re.compile(r"(Attributes|Args):$")
LABEL = re.compile(r"(Shapes|Raises|Warns|Returns): ")
ITEM = re.compile(r"(\d+\.|[-*]) ")


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True}


def process(
    app: Any, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    lines[:] = restructured(lines, class_targets())
    if isinstance(thing, type) and (bases := list(base_names(thing))):
        lines[:0] = [f"Bases: {', '.join(bases)}", ""]


def base_names(thing: type) -> Iterator[str]:
    """As autodoc would show them, without `object`, and without the `tuple` of a named one."""
    for base in thing.__bases__:
        if base.__module__.startswith("minitransformer"):
            yield f":py:class:`{base.__name__} <{base.__module__}.{base.__name__}>`"
        elif base not in (object, tuple):
            yield f"``{base.__name__}``"


ARRAY = re.compile(
    r"~?numpy\.ndarray\[tuple\[~typing\.Any, \.\.\.\], ~?numpy\.dtype\[~typing\.Any\]\]"
)
DTYPE = re.compile(r"type\[~typing\.Any\] \| ~numpy\.dtype\[.*?_DTypeDict \| str")
ARRAY_LIKE = re.compile(r"[~\w.]*_Buffer \| .*?_NestedSequence\[complex \| bytes \| str\]")
FACTORY = re.compile(
    r"~?collections\.abc\.Callable\[\[int, [~\w.]*AdapterConfig, .*?\], ~?typing\.Any\]"
)
SHORT = {
    ARRAY: "Array",
    DTYPE: "DTypeLike",
    ARRAY_LIKE: "ArrayLike",
    FACTORY: "AdapterFactory",
    re.compile(r"\bnpt\."): "",
    re.compile(r"TypeAliasForwardRef\(.Array.\)"): "Array",
    re.compile("<factory>"): "...",  # a default that is made anew; in brackets it is no Python
}


def shorten(
    app: Any, what: str, name: str, thing: object, options: object, *texts: str | None
) -> tuple[str | None, ...]:
    """Signature and return type, with long types by their short names."""
    return tuple(text and shortened(text) for text in texts)


def shortened(text: str) -> str:
    for long, short in SHORT.items():
        text = long.sub(short, text)
    return text


def skip(
    app: Any, what: str, name: str, thing: object, skipped: bool, options: object
) -> bool | None:
    """Fields of a named tuple whose docstring is Python's own say nothing."""
    doc = getattr(thing, "__doc__", None) or ""
    return True if doc.startswith("Alias for field number") else None


# -- the text -----------------------------------------------------------------------------


def restructured(lines: list[str], targets: dict[str, str]) -> list[str]:
    """The same docstring as reStructuredText; classes in `targets` become links."""
    out: list[str] = []
    for kind, block in blocks(lines):
        if kind == "code":
            out += ["::", "", *(f"    {line}" for line in block)]
        elif kind == "entries":
            heading, *entries = block
            out += [f"**{heading.rstrip(':')}**", ""]
            out += markup("\n".join(entry_lines(entries)), targets).split("\n")
        elif kind == "label":
            label, text = "\n".join(block).split(": ", 1)
            text = re.sub(r"\n +", "\n", text)
            out += f"**{label}:** {markup(text, targets)}".split("\n")
        elif kind == "list":
            marks = [ITEM.match(line) for line in block]
            for mark, line in zip(marks, block, strict=True):
                start = mark[0] if mark else ""
                out.append(start + markup(line[len(start) :], targets))
        else:
            out += markup("\n".join(block), targets).split("\n")
        out.append("")
    return out


def blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """The parts of a docstring, each with what it is."""
    kind, block = "text", []  # type: tuple[str, list[str]]
    for line in [*lines, ""]:
        now = begins(line, kind)
        if now is not None:
            if any(block):
                yield kind, trimmed(block)
            kind, block = now, []
        block.append(line)
    if any(block):
        yield kind, trimmed(block)


def begins(line: str, kind: str) -> str | None:
    """What begins at this line, or None if it belongs to the block of this kind before it."""
    indented = line.startswith("  ")
    if not line.strip():
        return None if kind == "code" else "text"
    if ENTRIES.match(line):
        return "entries"
    if LABEL.match(line):
        return "label"
    if ITEM.match(line):
        return None if kind == "list" else "list"
    if indented:
        return None if kind in ("code", "entries", "label", "list") else "code"
    return None if kind in ("text", "label", "list") else "text"


def trimmed(block: list[str]) -> list[str]:
    while block and not block[0].strip():
        block = block[1:]
    while block and not block[-1].strip():
        block = block[:-1]
    depth = min(len(line) - len(line.lstrip()) for line in block if line.strip())
    return [line[depth:] for line in block]


def entry_lines(entries: list[str]) -> Iterator[str]:
    """Of "    name: text" and its continuation, an item of a list."""
    for line in entries:
        if line.startswith("        "):
            yield f"  {line.strip()}"
        else:
            names, colon, text = line.strip().partition(": ")
            yield f"- `{names}`{colon}{text}" if colon else f"- {names}"


def markup(text: str, targets: dict[str, str]) -> str:
    """Backticks as code, or as links to classes; everything else escaped."""
    parts = re.split(r"`([^`]+)`", text)
    for i, part in enumerate(parts):
        if i % 2:
            inside = " ".join(part.split())
            target = targets.get(inside)
            parts[i] = f":py:class:`{inside} <{target}>`" if target else f"``{inside}``"
            if i + 1 < len(parts) and re.match(r"\w", parts[i + 1]):
                parts[i] += "\\"
        else:
            parts[i] = linked_errors(escaped(part), targets)
    return "".join(parts)


def escaped(text: str) -> str:
    text = re.sub(r"([\\*|`])", r"\\\1", text)
    text = re.sub(r"_(?!\w)", r"\\_", text)
    return text.replace("::", ":\\:")


def linked_errors(text: str, targets: dict[str, str]) -> str:
    def link(match: re.Match[str]) -> str:
        target = targets.get(match[0])
        return f":py:class:`{match[0]} <{target}>`" if target else match[0]

    return re.sub(r"(?<![\w.])[A-Z]\w+(?:Error|Warning)\b", link, text)


# -- what can be linked to ----------------------------------------------------------------

_targets: dict[str, str] = {}


def class_targets() -> dict[str, str]:
    """Each class with a docstring that has its name for itself -> where it is defined."""
    if not _targets:
        import minitransformer

        root = Path(minitransformer.__file__).parent
        found: dict[str, list[str]] = {}
        for path in sorted(root.rglob("*.py")):
            module = ".".join((root.name, *path.relative_to(root).with_suffix("").parts))
            if ".cli." in module:
                continue
            for node in ast.parse(path.read_text("utf-8")).body:
                if isinstance(node, ast.ClassDef) and ast.get_docstring(node):
                    found.setdefault(node.name, []).append(f"{module}.{node.name}")
        _targets.update({n: w[0] for n, w in found.items() if len(w) == 1 and n[0].isalpha()})
    return _targets

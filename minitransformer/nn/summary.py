"""What a model consists of: a table of its parameters, and the tree of its modules."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True)
class SummaryRow:
    """One parameter: its name, the class of the module that owns it, its shape, its state."""

    name: str
    kind: str
    shape: tuple[int, ...]
    trainable: bool

    @property
    def count(self) -> int:
        count = 1
        for n in self.shape:
            count *= n
        return count

    def cells(self) -> tuple[str, str, str, str, str]:
        state = "trainable" if self.trainable else "frozen"
        return self.name, self.kind, str(self.shape), f"{self.count:,}", state


@dataclass(frozen=True, repr=False)
class Summary:
    """Every parameter of a model: a table, as text where Python shows it, as HTML in a notebook."""

    rows: tuple[SummaryRow, ...]

    HEADER = ("parameter", "module", "shape", "count", "state")

    @property
    def total(self) -> int:
        """Number of parameters."""
        return sum(row.count for row in self.rows)

    @property
    def trainable(self) -> int:
        """Number of trainable parameters."""
        return sum(row.count for row in self.rows if row.trainable)

    def footer(self) -> str:
        share = 100 * self.trainable / self.total if self.total else 0.0
        return (
            f"{self.total:,} parameters: {self.trainable:,} trainable ({share:.2f} %), "
            f"{self.total - self.trainable:,} frozen"
        )

    def __str__(self) -> str:
        table = [self.HEADER, *(row.cells() for row in self.rows)]
        widths = [max(len(line[i]) for line in table) for i in range(5)]
        lines = []
        for name, kind, shape, count, state in table:
            left = f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {shape:<{widths[2]}}"
            lines.append(f"{left}  {count:>{widths[3]}}  {state}".rstrip())
        rule = "-" * (sum(widths) + 8)
        return "\n".join([lines[0], rule, *lines[1:], rule, self.footer()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def cell(text: str, tag: str, align: str) -> str:
            return f'<{tag} style="text-align:{align}">{escape(text)}</{tag}>'

        align = ("left", "left", "left", "right", "left")
        head = "".join(cell(t, "th", a) for t, a in zip(self.HEADER, align, strict=True))
        body = ""
        for row in self.rows:
            # Bold says "trainable" on a grey print as well as on a screen.
            weight = "bold" if row.trainable else "normal"
            cells = "".join(cell(t, "td", a) for t, a in zip(row.cells(), align, strict=True))
            body += f'<tr style="font-weight:{weight}">{cells}</tr>'
        caption = f'<caption style="caption-side:bottom">{escape(self.footer())}</caption>'
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def tree(module: Any) -> str:
    """A line for each module inside a `Module`: name, class, parameters, whether they train.

    Equal neighbours in a list, such as the blocks of a transformer, are written once.
    """
    parameters = module.parameters()
    trainable = sum(p.size for p in parameters if p.trainable)
    first, *others = _tree_lines(module)
    total = f"{sum(p.size for p in parameters):,} parameters, {trainable:,} trainable"
    return "\n".join([f"{first}: {total}" if others else first, *others])


def _tree_lines(module: Any) -> list[str]:
    own = [f"{name} {p.shape}" for name, p in module.own_parameters()]
    state = "  trainable" if any(p.trainable for _, p in module.own_parameters()) else ""
    lines = [f"{type(module).__name__}  {', '.join(own)}{state}".rstrip()]
    children: list[tuple[str, str, list[str]]] = []  # first name, last name, lines
    for name, child in module.children():
        inner = _tree_lines(child)
        if children and _is_next(children[-1][1], name) and children[-1][2] == inner:
            children[-1] = (children[-1][0], name, inner)
        else:
            children.append((name, name, inner))
    for first, last, inner in children:
        names = first if first == last else f"{first} to {last.rpartition('.')[2]}"
        lines += [f"  {names}: {inner[0]}", *(f"  {line}" for line in inner[1:])]
    return lines


def _is_next(name: str, following: str) -> bool:
    """Whether two children are neighbours in a list: "blocks.0" and "blocks.1"."""
    (held, _, i), (held_too, _, j) = name.rpartition("."), following.rpartition(".")
    return held == held_too and i.isdigit() and j.isdigit() and int(j) == int(i) + 1

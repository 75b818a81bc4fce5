"""The table of a model's parameters, as text and as HTML in a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class SummaryRow:
    """One parameter: where it lives, the kind of module that owns it, its shape, its state."""

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


@dataclass(frozen=True)
class Summary:
    """Every parameter of a model. `print` it, or let a notebook show it as a table."""

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

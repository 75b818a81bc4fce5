"""One HTML page that needs nothing beside it: tables, and pictures inside the file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape as escape_html

from ..errors import printable

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 64rem; margin: 2rem auto;
       padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
img { max-width: 100%; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.75rem; text-align: left; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #767676; }
"""


def escape(text: str) -> str:
    """A text as HTML shows it, control characters too."""
    return escape_html(printable(text))


def html_page(
    title: str,
    summary: str,
    pictures: Iterable[tuple[str, bytes]],
    sections: Iterable[tuple[str, str, tuple[Sequence[str], Sequence[Sequence[str]]] | None]],
) -> str:
    """The page. `pictures`: what each shows, and its PNG. `sections`: heading, text, table."""
    body = [f"<h1>{escape(title)}</h1>", f"<p>{escape(summary)}</p>"]
    for shows, png in pictures:
        data = base64.b64encode(png).decode()
        body.append(f'<p><img alt="{escape(shows)}" src="data:image/png;base64,{data}"></p>')
    for heading, text, table in sections:
        body.append(f"<h2>{escape(heading)}</h2>")
        if text:
            body.append(f"<p>{escape(text)}</p>")
        if table is not None:
            body.append(html_table(*table))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    lines = [line(header, "th"), *(line(row, "td") for row in rows)]
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"

"""Build the book: notebooks with their stored outputs, guides, and the reference.

    pip install -e ".[docs]"
    python docs/build_book.py            # into docs/_build/html; open index.html there
    python docs/build_book.py FOLDER     # ... or elsewhere

Warnings are errors, those about references that lead nowhere among them. Nothing is fetched. Links
to files that are not pages, and to Colab, need the repository's address: `Repository` below
`[project.urls]` in pyproject.toml, or `--repository ADDRESS`.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
PACKAGE = ROOT / "minitransformer"

sys.path[:0] = [str(ROOT)]

from scripts import first_cells  # noqa: E402


def build(target: Path, repository: str) -> int:
    """Lay out the pages, and let Sphinx make them. Returns Sphinx's exit status."""
    from sphinx.cmd.build import build_main

    source = target / "source"
    if target.exists() and any(target.iterdir()) and not (source / "conf.py").exists():
        print(f"{target} is not empty and holds no book: name another folder", file=sys.stderr)
        return 1
    shutil.rmtree(target, ignore_errors=True)
    lay_out(source, repository)
    doctrees = str(target / "doctrees")
    options = ["-W", "--keep-going", "-n", "-q", "-b", "html", "-d", doctrees]
    return build_main([*options, str(source), str(target / "html")])


def lay_out(source: Path, repository: str) -> None:
    """Every page of the book in one folder, as Sphinx wants it."""
    shutil.copytree(
        DOCS, source, ignore=shutil.ignore_patterns("_build", "build_book.py", "__pycache__")
    )
    (source / "pictures").mkdir()
    (source / "notebooks").mkdir()
    notebooks = [
        Path(shutil.copy(path, source / "notebooks"))
        for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
    ]
    for path in notebooks:
        notebook = json.loads(path.read_text("utf-8"))
        prepare_notebook(notebook, path, source, repository)
        path.write_text(json.dumps(notebook), "utf-8")
    shutil.copy(ROOT / "notebooks" / "README.md", source / "notebooks" / "index.md")
    shutil.copy(ROOT / "CHANGELOG.md", source / "changelog.md")
    add_contents(source / "notebooks" / "index.md", [path.stem for path in notebooks])
    study = [path.stem for path in sorted((source / "study").glob("*.md"))]
    add_contents(source / "costs.md", [f"study/{name}" for name in study])
    write_api(source / "api")
    (source / "commands.md").write_text("\n".join(command_pages()) + "\n", "utf-8")

    homes = {"notebooks/index.md": ROOT / "notebooks", "changelog.md": ROOT}
    for page in source.rglob("*.md"):
        inside = page.relative_to(source)
        home = homes.get(inside.as_posix(), DOCS / inside.parent)
        text = links_within(page.read_text("utf-8"), home, page.parent, source, repository)
        page.write_text(unbroken(text), "utf-8")


def unbroken(text: str) -> str:
    """In tables, a number and its percent sign or ± on one line, however narrow the column."""
    return re.sub(
        r"^\|.*",
        lambda row: re.sub(r"(?<=\d) (?=[%±])|(?<=±) (?=\d)", "\u00a0", row[0]),
        text,
        flags=re.M,
    )


def add_contents(page: Path, names: list[str]) -> None:
    """Pages below this one, in the book's table of contents."""
    if names:
        lines = ["", "```{toctree}", ":hidden:", "", *names, "```", ""]
        page.write_text(page.read_text("utf-8") + "\n".join(lines), "utf-8")


# -- notebooks and links ------------------------------------------------------------------


def prepare_notebook(notebook: dict[str, Any], path: Path, source: Path, repository: str) -> None:
    """What Sphinx does not do: attached pictures, words in place of a picture, a link to Colab."""
    home = ROOT / "notebooks"
    cells = notebook["cells"]
    for cell, after in zip(cells, [*cells[1:], {}], strict=True):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            for picture, kinds in cell.pop("attachments", {}).items():
                file = f"{path.stem}-{picture}"
                png = base64.b64decode(next(iter(kinds.values())))
                (source / "pictures" / file).write_bytes(png)
                text = text.replace(f"attachment:{picture}", f"/pictures/{file}")
            cell["source"] = links_within(text, home, path.parent, source, repository)
        elif caption := re.search(r"Figures? \d[^.]*\.?[^.]*\.", "".join(after.get("source", []))):
            words = re.sub(r"[*`$\\]|\n", " ", caption[0])
            cell["metadata"].setdefault("mystnb", {})["image"] = {"alt": words}
    if repository.startswith("https://github.com/"):
        place = repository.removeprefix("https://github.com/")
        colab = f"https://colab.research.google.com/github/{place}/blob/main/notebooks/{path.name}"
        title, rest = cells[0]["source"].split("\n", 1)
        cells[0]["source"] = f"{title}\n\n[Open in Colab]({colab})\n{rest}"


def links_within(text: str, home: Path, folder: Path, source: Path, repository: str) -> str:
    """Links to files that are not in the book lead to the repository, or are plain names.

    `home` is the folder that the page's links start from, `folder` where the page is in the book.
    """

    def link(match: re.Match[str]) -> str:
        bang, words, address = match.groups()
        name = unquote(address.partition("#")[0])
        if re.match(r"[a-z]+:|#|/", address) or (folder / name).exists():
            return match[0]
        file = (home / name).resolve()
        if not (file.exists() and file.is_relative_to(ROOT)):
            return match[0]  # Sphinx says that it leads nowhere
        if bang:  # a picture comes along
            shutil.copy(file, source / "pictures" / file.name)
            return f"![{words}](/pictures/{file.name})"
        page = source / file.relative_to(DOCS) if file.is_relative_to(DOCS) else None
        if page is not None and page.exists():  # from a page that has another place in the book
            return f"[{words}](/{page.relative_to(source).as_posix()}{address[len(name) :]})"
        inside = file.relative_to(ROOT).as_posix()
        if repository:
            return f"[{words}]({repository}/blob/main/{inside})"
        return words if inside in words else f"{words} (`{inside}`)"

    return re.sub(r"(!?)\[([^\]\[]*)\]\(([^()\s]+)\)", link, text)


# -- the reference ------------------------------------------------------------------------


def write_api(folder: Path) -> None:
    """A page for each package, made from its docstrings."""
    folder.mkdir()
    packages = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
    names = [path.name for path in packages if path.name != "cli"]
    for name in names:
        modules = sorted((PACKAGE / name).rglob("*.py"))
        lines = [f"# {name}", ""]
        own = PACKAGE / name / "__init__.py"
        for path in sorted(modules, key=lambda path: path != own):
            if path != own:
                inside = path.relative_to(PACKAGE / name).as_posix()
                lines += [f"## {inside.removesuffix('__init__.py')}", ""]
            parts = path.relative_to(ROOT).with_suffix("").parts
            module = ".".join(p for p in parts if p != "__init__")
            # A package passes on names that are documented where they are defined.
            lines += automodule(module, members=path.name != "__init__.py")
        (folder / f"{name}.md").write_text("\n".join(lines), "utf-8")
    errors = ["# errors", "", *automodule("minitransformer.errors")]
    (folder / "errors.md").write_text("\n".join(errors), "utf-8")
    (folder / "index.md").write_text("\n".join(names_page([*names, "errors"])), "utf-8")


def automodule(module: str, members: bool = True) -> list[str]:
    fence = "```"
    body = [f".. automodule:: {module}"]
    if members:
        body.append("   :members:")
    return [fence + "{eval-rst}", *body, fence, ""]


def names_page(pages: list[str]) -> list[str]:
    """What `import minitransformer as mt` offers, each name with a link and its first line."""
    import minitransformer as mt

    lines = ["# Python reference", "", "From `import minitransformer as mt`:", ""]
    lines += ["| name | what it is or does |", "| --- | --- |"]
    for name in mt.__all__:
        thing = getattr(mt, name)
        doc = (thing.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
        doc = re.sub(r"\s+", " ", doc).replace("|", "\\|")
        if hasattr(thing, "__qualname__"):
            role = "class" if isinstance(thing, type) else "func"
            target = f"{thing.__module__}.{thing.__qualname__}"
        else:
            role, target = "mod", thing.__name__
        lines.append(f"| {{py:{role}}}`mt.{name} <{target}>` | {doc} |")
    return [*lines, "", "```{toctree}", ":hidden:", "", *pages, "```", ""]


def command_pages() -> Iterator[str]:
    """The command line's reference, from the help that it prints itself."""
    import typer.main

    from minitransformer.cli import app

    group = typer.main.get_command(app)
    yield "# Command line\n"
    yield "Made from the commands' own help; `minitransformer COMMAND --help` prints the same.\n"
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if command.hidden:
            continue
        yield f"## {name}\n"
        context = command.make_context(name, [], resilient_parsing=True)
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        yield f"```text\nminitransformer {usage}\n```\n"
        yield (command.help or "").strip() + "\n"
        rows = list(option_rows(command))
        if rows:
            yield "| option | what |\n| --- | --- |"
            yield "\n".join(rows) + "\n"


def option_rows(command: Any) -> Iterator[str]:
    for parameter in command.params:
        flags = [*parameter.opts, *parameter.secondary_opts]
        if parameter.param_type_name == "argument":
            flags = [parameter.name.upper()]
        words = (getattr(parameter, "help", "") or "").replace("|", "\\|").replace("\n", " ")
        parts = words.split("`")  # outside of code, an option's name is code, too
        parts[::2] = [re.sub(r"--[a-z][a-z-]*", r"`\g<0>`", part) for part in parts[::2]]
        words = "`".join(parts)
        yield f"| {', '.join(f'`{flag}`' for flag in flags)} | {words} |"


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the book.")
    parser.add_argument("folder", nargs="?", type=Path, default=DOCS / "_build")
    parser.add_argument("--repository", default=first_cells.repository())
    chosen = parser.parse_args()
    return build(chosen.folder, chosen.repository.rstrip("/"))


if __name__ == "__main__":
    sys.exit(main())

"""Build the book: notebooks with their stored outputs, guides, and the reference.

    pip install -e ".[docs]"
    python docs/build.py            # into docs/_build/html; open index.html there
    python docs/build.py FOLDER     # ... or elsewhere

Warnings are errors, those about references that lead nowhere among them. Nothing is fetched. To
link to the repository, and to open notebooks in Colab, say where it is:

    MINITRANSFORMER_REPOSITORY=OWNER/NAME python docs/build.py
"""

from __future__ import annotations

import json
import os
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

# The repository on GitHub, as OWNER/NAME; without it, its files are named and not linked to.
REPOSITORY = os.environ.get("MINITRANSFORMER_REPOSITORY", "")


def build(target: Path) -> int:
    """Lay out the pages, and let Sphinx make them. Returns Sphinx's exit status."""
    from sphinx.cmd.build import build_main

    source = target / "source"
    if target.exists() and any(target.iterdir()) and not (target / "source" / "conf.py").exists():
        print(f"{target} is not empty and holds no book: name another folder", file=sys.stderr)
        return 1
    shutil.rmtree(target, ignore_errors=True)
    lay_out(source)
    doctrees = str(target / "doctrees")
    options = ["-W", "--keep-going", "-n", "-q", "-b", "html", "-d", doctrees]
    return build_main([*options, str(source), str(target / "html")])


def lay_out(source: Path) -> None:
    """Every page of the book in one folder, as Sphinx wants it."""
    shutil.copytree(
        DOCS, source, ignore=shutil.ignore_patterns("_build", "build.py", "__pycache__")
    )
    (source / "notebooks").mkdir()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        copy_notebook(path, source / "notebooks" / path.name)
    shutil.copy(ROOT / "notebooks" / "README.md", source / "notebooks" / "index.md")
    shutil.copy(ROOT / "CHANGELOG.md", source / "changelog.md")
    with (source / "notebooks" / "index.md").open("a", encoding="utf-8") as file:
        file.write("\n```{toctree}\n:hidden:\n:glob:\n\n0*\n1*\n```\n")
    origins = {"notebooks/index.md": ROOT / "notebooks", "changelog.md": ROOT}
    for page in source.rglob("*.md"):
        name = page.relative_to(source).as_posix()
        home = origins.get(name, DOCS / page.relative_to(source).parent)
        text = page.read_text("utf-8")
        page.write_text(links_within(text, home, page.parent, source), "utf-8")
    write_api(source / "api")
    (source / "commands.md").write_text("\n".join(command_pages()) + "\n", "utf-8")


# -- notebooks and links ------------------------------------------------------------------


def copy_notebook(path: Path, target: Path) -> None:
    """With a link to Colab below the title, if it is known where the repository is."""
    notebook = json.loads(path.read_text("utf-8"))
    if REPOSITORY:
        where = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/notebooks"
        first = notebook["cells"][0]
        title, rest = "".join(first["source"]).split("\n", 1)
        first["source"] = f"{title}\n\n[Open in Colab]({where}/{path.name})\n{rest}"
    target.write_text(json.dumps(notebook), "utf-8")


def links_within(text: str, home: Path, folder: Path, source: Path) -> str:
    """Links to files that are not in the book lead to the repository, or are plain names.

    `home` is the folder that the page's links start from, `folder` where the page is in the book.
    """

    def link(match: re.Match[str]) -> str:
        bang, words, address = match.groups()
        name = unquote(address.partition("#")[0])
        if re.match(r"[a-z]+:|#", address) or (folder / name).exists():
            return match[0]
        file = (home / name).resolve()
        if bang:  # a picture comes along
            pictures = source / "pictures"
            pictures.mkdir(exist_ok=True)
            shutil.copy(file, pictures / file.name)
            return f"![{words}](/pictures/{file.name})"
        if not (file.exists() and file.is_relative_to(ROOT)):
            return match[0]  # Sphinx says that it leads nowhere
        inside = file.relative_to(ROOT).as_posix()
        if REPOSITORY:
            return f"[{words}](https://github.com/{REPOSITORY}/blob/main/{inside})"
        return words if words.startswith("`") else f"{words} (`{inside}`)"

    return re.sub(r"(!?)\[([^\]\[]*)\]\(([^()\s]+)\)", link, text)


# -- the reference ------------------------------------------------------------------------


def write_api(folder: Path) -> None:
    """A page for each package, made from its docstrings."""
    folder.mkdir()
    packages = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
    names = [path.name for path in packages if path.name != "cli"]
    for name in names:
        modules = sorted((PACKAGE / name).rglob("*.py"))
        lines = [f"# minitransformer.{name}", ""]
        for path in sorted(modules, key=lambda path: path.name != "__init__.py"):
            if path.name != "__init__.py":
                lines += [f"## {path.relative_to(PACKAGE).with_suffix('').as_posix()}", ""]
            parts = path.relative_to(ROOT).with_suffix("").parts
            lines += automodule(".".join(p for p in parts if p != "__init__"))
        (folder / f"{name}.md").write_text("\n".join(lines), "utf-8")
    errors = ["# minitransformer.errors", "", *automodule("minitransformer.errors")]
    (folder / "errors.md").write_text("\n".join(errors), "utf-8")
    (folder / "index.md").write_text("\n".join(names_page([*names, "errors"])), "utf-8")


def automodule(module: str) -> list[str]:
    fence = "```"
    body = [f".. automodule:: {module}", "   :members:", "   :show-inheritance:"]
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
    for name, command in sorted(group.commands.items()):  # type: ignore[attr-defined]
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
        yield f"| {', '.join(f'`{flag}`' for flag in flags)} | {words} |"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(build(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "_build"))

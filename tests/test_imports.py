"""Packages import downwards only, no two import each other, and no files import in a circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import minitransformer

PACKAGE = Path(minitransformer.__file__).parent

# From the top down: each level may import those below it, and nothing beside or above it, except
# that `data` reads and writes files with `formats`.
LEVELS = (
    "cli", "runs", "plots", "training", "gradcheck", "costs", "models", "data", "formats",
    "adapters", "nn", "errors",
)  # fmt: skip
MODULES = {
    ".".join(("minitransformer", *file.relative_to(PACKAGE).with_suffix("").parts)): file
    for file in PACKAGE.rglob("*.py")
}


def imported(name: str) -> set[str]:
    """The files of the package that one of them imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: -node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{source}.{alias.name}" for alias in node.names} | {source}
    return {as_file for target in found if (as_file := file_of(target))} - {name}


def file_of(target: str) -> str | None:
    """The module that a dotted name stands for; a package stands for its `__init__`."""
    return next((name for name in (target, f"{target}.__init__") if name in MODULES), None)


def package_of(name: str) -> str:
    return name.split(".")[1]


def test_every_package_has_its_level() -> None:
    packages = {package_of(name) for name in MODULES} - {"__init__", "__main__"}
    assert packages == set(LEVELS)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_packages_import_downwards(name: str) -> None:
    if package_of(name) in ("__init__", "__main__"):
        pytest.skip("the top of the package may import everything")
    level = LEVELS.index(package_of(name))
    root = {"minitransformer.__init__"}  # for the version alone
    upwards = {
        target for target in imported(name) - root if package_of(target) not in LEVELS[level:]
    }
    assert not upwards, f"{name} imports upwards: {sorted(upwards)}"


def test_no_files_import_in_a_circle() -> None:
    # Importing a package runs its __init__, which imports its files: that is no circle of theirs.
    graph = {
        name: {target for target in imported(name) if not target.endswith("__init__")}
        for name in MODULES
        if not name.endswith("__init__")
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    "name", sorted(n for n in MODULES if n.endswith(".__init__") and n.count(".") == 2)
)
def test_every_package_says_what_is_in_it(name: str) -> None:
    docstring = ast.get_docstring(ast.parse(MODULES[name].read_text("utf-8"))) or ""
    assert "Begin with `" in docstring, f"{name} does not say where to begin reading"

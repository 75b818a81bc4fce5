"""Imports go downwards only, no files import in a circle, and the library itself needs NumPy alone.

Every `import` statement counts, also one inside a function or under `TYPE_CHECKING`.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import minitransformer

PACKAGE = Path(minitransformer.__file__).parent

# From the top down: each package may import those below it, and nothing above it. So no two
# packages import each other. (`data` reads and writes files with `formats`.)
LEVELS = (
    "cli", "exercises", "sweeps", "runs", "plots", "training", "gradcheck", "costs", "models",
    "data", "formats", "adapters", "nn", "errors",
)  # fmt: skip
MODULES = {
    ".".join(("minitransformer", *file.relative_to(PACKAGE).with_suffix("").parts)): file
    for file in PACKAGE.rglob("*.py")
}
ROOT = "minitransformer.__init__"


def imported(name: str) -> set[str]:
    """The files that a file of the package imports (a package is its `__init__`)."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {as_file(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: -node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            # `from package import name`: a file of the package, or a name that its __init__ has.
            if (source, [alias.name for alias in node.names]) != (
                "minitransformer",
                ["__version__"],
            ):
                found |= {as_file(f"{source}.{a.name}") or as_file(source) for a in node.names}
    return {file for file in found if file} - {name}


def as_file(target: str) -> str | None:
    """The module that a dotted name stands for."""
    return next((name for name in (target, f"{target}.__init__") if name in MODULES), None)


def package_of(name: str) -> str:
    return name.split(".")[1]


def test_every_package_has_its_level() -> None:
    packages = {package_of(name) for name in MODULES} - {"__init__", "__main__"}
    assert packages <= set(LEVELS)


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {ROOT, "minitransformer.__main__"}))
def test_packages_import_downwards(name: str) -> None:
    allowed = LEVELS[LEVELS.index(package_of(name)) :]
    upwards = {target for target in imported(name) if package_of(target) not in allowed}
    assert not upwards, f"{name} imports upwards: {sorted(upwards)}"


def test_no_files_import_in_a_circle() -> None:
    try:
        TopologicalSorter({name: imported(name) for name in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    "name", sorted(n for n in MODULES if n.endswith(".__init__") and n.count(".") == 2)
)
def test_every_package_says_what_is_in_it(name: str) -> None:
    docstring = ast.get_docstring(ast.parse(MODULES[name].read_text("utf-8"))) or ""
    assert "Begin with `" in docstring, f"{name} does not say where to begin reading"


def test_the_library_takes_numpy_alone() -> None:
    """What a command or a figure needs is imported where it is used."""
    program = """if True:
        import json, sys
        before = set(sys.modules)
        import minitransformer
        new = [sys.modules[name] for name in set(sys.modules) - before]
        files = [module.__name__ for module in new if getattr(module, "__file__", None)]
        print(json.dumps(sorted({name.partition(".")[0] for name in files})))
    """
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )  # fmt: skip
    outside = set(json.loads(run.stdout)) - sys.stdlib_module_names
    assert outside == {"minitransformer", "numpy"}
    assert run.stderr == ""

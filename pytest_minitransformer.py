"""pytest plug-in: `pytest --exercise 3 my_adapter.py` checks a solution, each part a test.

Without `--exercise` it does nothing, and it imports the library only with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("minitransformer")
    group.addoption(
        "--exercise",
        type=int,
        metavar="NUMBER",
        help="check the given files as solutions of this exercise of minitransformer",
    )
    group.addoption("--student", help="whose solution it is, if not what STUDENT in it says")


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> Any:
    """A Python file is a solution, not a file of tests."""
    if parent.config.getoption("exercise") is None:
        return None
    return SolutionFile.from_parent(parent, path=module_path)


def pytest_collect_file(file_path: Path, parent: Any) -> Any:
    if parent.config.getoption("exercise") is None or file_path.suffix != ".ipynb":
        return None
    return SolutionFile.from_parent(parent, path=file_path)


class SolutionFile(pytest.File):
    """The parts of an exercise, checked on one file."""

    def collect(self) -> Iterator[pytest.Item]:
        from minitransformer.exercises import check

        config = self.config
        report = check(config.getoption("exercise"), self.path, config.getoption("student"))
        for item in report.items:
            yield PartItem.from_parent(self, name=item.name, item=item)


class PartItem(pytest.Item):
    """One part: it passes, or fails with its hint."""

    def __init__(self, *, item: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.item = item

    def runtest(self) -> None:
        self.user_properties.append(("points", self.item.points))
        self.user_properties.append(("max_points", self.item.max_points))
        if not self.item.passed:
            pytest.fail(self.item.hint, pytrace=False)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.name} ({self.item.max_points:g} points)"

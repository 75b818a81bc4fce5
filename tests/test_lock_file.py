"""The lock file of CI fits pyproject.toml, and the oldest versions are all there."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def requirements(*left_out: str) -> list[Requirement]:
    project: dict[str, Any] = tomllib.loads(TEXT)["project"]
    extras = project["optional-dependencies"]
    listed = (r for extra, inside in extras.items() if extra not in left_out for r in inside)
    return [Requirement(r) for r in [*project["dependencies"], *listed]]


def name_of(requirement: Requirement) -> str:
    return requirement.name.lower().replace("_", "-")


@pytest.mark.parametrize("requirement", requirements("grade"), ids=str)  # has an environment alone
def test_every_dependency_is_locked_at_a_version_that_is_allowed(requirement: Requirement) -> None:
    lines = (ROOT / ".ci" / "lock.txt").read_text(encoding="utf-8").splitlines()
    locked = [Requirement(line) for line in lines if line and not line.startswith(("#", " "))]
    versions = [next(iter(r.specifier)) for r in locked if name_of(r) == name_of(requirement)]
    assert versions, "not in .ci/lock.txt; CONTRIBUTING.md says how to bring it up to date"
    assert all(requirement.specifier.contains(pin.version) for pin in versions)


@pytest.mark.skipif(sys.version_info < (3, 11), reason=".ci/oldest.py needs tomllib")
def test_the_oldest_versions_are_the_lower_bounds() -> None:
    oldest = runpy.run_path(str(ROOT / ".ci" / "oldest.py"))["oldest"](TEXT)
    bounds = {r.name: s.version for r in requirements() for s in r.specifier if s.operator == ">="}
    assert oldest == {n: v for n, v in bounds.items() if n not in ("ruff", "mypy")}
    assert {"numpy", "tokenizers", "distributed"} <= oldest.keys()

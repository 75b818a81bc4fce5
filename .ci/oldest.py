"""Constraints for pip that ask for the oldest version of every dependency in pyproject.toml.

    python .ci/oldest.py > oldest.txt
    pip install -c oldest.txt .[sweep,cluster] pytest hypothesis

What the dependencies depend on stays as new as they allow. Python 3.11 or newer.
"""

import re
from pathlib import Path

import tomllib

TOOLS = {"ruff", "mypy"}  # another version says other things; they are not there when tests run


def oldest(text: str) -> dict[str, str]:
    """name -> the version after ">=", of every requirement that has one."""
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"].values()
    found = {}
    for requirement in [*project["dependencies"], *(line for extra in extras for line in extra)]:
        bound = re.match(r"([\w.-]+)>=([\w.]+)", requirement)
        if bound and bound[1] not in TOOLS:
            found[bound[1]] = bound[2]
    return found


if __name__ == "__main__":
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    for name, version in oldest(pyproject.read_text(encoding="utf-8")).items():
        print(f"{name}=={version}")

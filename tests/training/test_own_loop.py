"""The README's training loop of one's own, as it stands there: it runs, and it learns."""

import re
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SECTION = README.split("## A training loop of your own\n")[1].split("\n## ")[0]
CODE = re.search(r"```python\n(.*?)```", SECTION, re.DOTALL)[1]


def test_the_loop_learns(capsys) -> None:
    names: dict = {}
    exec(compile(CODE, "README.md", "exec"), names)
    accuracies = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(accuracies) == names["epochs"]
    assert accuracies[-1] > 0.8


def test_it_is_short_and_uses_public_names_alone() -> None:
    lines = [line for line in CODE.splitlines() if line.strip()]
    assert len(lines) <= 26  # about twenty, after the imports
    assert re.findall(r"^(?:import|from) .*$", CODE, re.MULTILINE) == [
        "import numpy as np",
        "import minitransformer as mt",
    ]

"""The README's Python runs as it stands, and what it names exists."""

import re
from pathlib import Path

import pytest

import minitransformer as mt

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_first_snippet_runs_without_a_network(capsys) -> None:
    exec(compile(SNIPPETS[0], "README.md", "exec"), {})
    assert "trainable" in capsys.readouterr().out


@pytest.mark.slow
def test_second_snippet_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = "mt.RunOptions(limit=64, training=mt.TrainingOptions(epochs=1), adapter="
    code = SNIPPETS[1].replace("mt.RunOptions(adapter=", quick)
    assert quick in code
    exec(compile("import minitransformer as mt\n" + code, "README.md", "exec"), {})


def test_fourth_snippet_runs_on_small_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = mt.RunOptions("tiny", limit=32, training=mt.TrainingOptions(epochs=1))
    folders = [f"runs/{task}-adapter-seed0" for task in ("rotten-tomatoes", "bbc-news")]
    assert all(f'"{folder}"' in SNIPPETS[3] for folder in folders)
    for folder in folders:
        mt.train("toy-reviews", options, folder, progress=False)
    # Two runs of one task are called after their folders.
    code = SNIPPETS[3].replace('tasks["bbc-news"]', 'tasks["bbc-news-adapter-seed0"]')
    code = code.replace('evaluate("bbc-news")', 'evaluate("toy-reviews")')
    code = code.replace('"minilm"', '"tiny"')
    exec(compile("import minitransformer as mt\n" + code, "README.md", "exec"), {})


def test_the_map_has_one_line_for_each_package() -> None:
    listing = re.search(r"```\n(minitransformer/\n.*?)```", README, re.DOTALL)[1]
    named = re.findall(r"^  (\w+)/ ", listing.split("benchmarks/")[0], re.MULTILINE)
    there = [p.parent.name for p in (ROOT / "minitransformer").glob("*/__init__.py")]
    assert sorted(named) == sorted(there)

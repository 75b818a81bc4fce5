"""The README's Python runs as it stands, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import minitransformer as mt

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def snippets(heading: str) -> list[str]:
    """The Python blocks of a section."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def run(code: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run a block; returns its names, for the next block of the section."""
    names = {"mt": mt} if names is None else names
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_a_model_with_an_adapter_without_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    run(snippets("What it looks like in Python")[0])
    assert "trainable" in capsys.readouterr().out


def test_lora_is_merged_and_unmerged() -> None:
    (code,) = snippets("LoRA and its kin")
    names = run(code)
    assert names["model"].active_adapters == ("low-rank",)
    names["model"].set_active("bottleneck")
    with pytest.raises(mt.errors.ConfigError, match="activation"):
        names["model"].merge("bottleneck")


def test_an_adapter_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = snippets("An adapter of your own")
    names = run(code)
    assert names["other"].active_adapters == ("gate",)
    gates = [site.adapters["gate"] for site in names["other"].sites()]
    assert all(isinstance(gate, names["Gate"]) for gate in gates)


@pytest.mark.slow
def test_train_and_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = "mt.RunOptions(limit=64, training=mt.TrainingOptions(epochs=1), adapter="
    code = snippets("What it looks like in Python")[1].replace("mt.RunOptions(adapter=", quick)
    assert quick in code
    run(code)


def test_many_tasks_on_small_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    combine, save = snippets("Many tasks, one base")
    options = mt.RunOptions("tiny", limit=32, training=mt.TrainingOptions(epochs=1))
    folders = [f"runs/{task}-adapter-seed0" for task in ("rotten-tomatoes", "bbc-news")]
    assert all(f'"{folder}"' in combine for folder in folders)
    for folder in folders:
        mt.train("toy-reviews", options, folder, progress=False)
    # Two runs of one task are called after their folders.
    code = combine.replace('tasks["bbc-news"]', 'tasks["bbc-news-adapter-seed0"]')
    code = code.replace('evaluate("bbc-news")', 'evaluate("toy-reviews")')
    names = run(code.replace('"minilm"', '"tiny"'))
    run(save.replace('"minilm"', '"tiny"'), names)
    assert names["other"].active_adapters == ("a",)


def test_the_map_has_one_line_for_each_package() -> None:
    listing = re.search(r"```\n(minitransformer/\n.*?)```", README, re.DOTALL)
    assert listing
    named = re.findall(r"^  (\w+)/ ", listing[1].split("notebooks/")[0], re.MULTILINE)
    there = [p.parent.name for p in (ROOT / "minitransformer").glob("*/__init__.py")]
    assert sorted(named) == sorted(there)


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md", "benchmarks/README.md"])
def test_commands_and_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    scripts = re.findall(r"python ((?:benchmarks|scripts|tests)/\S+\.py)", text)
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert scripts
    assert [name for name in scripts if not (ROOT / name).is_file()] == []
    assert [name for name in links if not (ROOT / page).parent.joinpath(name).exists()] == []

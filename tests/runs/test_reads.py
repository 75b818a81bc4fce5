"""Each command opens a task's file, a checkpoint's files and an adapter file once."""

from __future__ import annotations

import builtins
import io
import os
from collections import Counter
from pathlib import Path

import pytest
import safetensors

import minitransformer as mt
from minitransformer.cli import main
from minitransformer.data.hub import find_checkpoint

QUICK = ["--epochs", "1", "--batch-size", "8"]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a file was opened to be read, by its name; to hash safetensors does not count."""
    count: Counter[str] = Counter()

    def counting(real):
        def open_(path, mode="r", *args, **options):
            reads = isinstance(path, str | os.PathLike) and not set("wax+") & set(mode)
            if reads and Path(path).suffix != ".safetensors":
                count[Path(path).name] += 1
            return real(path, mode, *args, **options)

        return open_

    def counted_safetensors(path, *args, real=safetensors.safe_open, **options):
        count[Path(path).name] += 1
        return real(path, *args, **options)

    monkeypatch.setattr(builtins, "open", counting(builtins.open))
    monkeypatch.setattr(io, "open", counting(io.open))  # what pathlib calls
    monkeypatch.setattr(safetensors, "safe_open", counted_safetensors)
    return count


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task's file, a text, and a copy of the tiny base; they are where the commands run."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{'good' if i % 2 else 'bad'} number {i},{i % 2}" for i in range(80)]
    (tmp_path / "own.csv").write_text("text,label\n" + "\n".join(rows))
    (tmp_path / "own.txt").write_text("the sea is wide and the ship is gone.\n\n" * 80)
    (tmp_path / "base").mkdir()
    for path in find_checkpoint("tiny").iterdir():
        (tmp_path / "base" / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_commands_of_a_task(task: Path, opened: Counter[str]) -> None:
    checkpoint = {"config.json": 1, "model.safetensors": 1}

    def run(*arguments: str) -> dict[str, int]:
        opened.clear()
        assert main(list(arguments)) == 0
        ours = ("config.json", "model.safetensors", "adapter.safetensors", "own.csv")
        return {name: opened[name] for name in ours if opened[name]}

    assert run("train", "own.csv", "--base", "base", *QUICK) == {**checkpoint, "own.csv": 1}
    folder = "runs/own-adapter-seed0"
    adapter = {**checkpoint, "adapter.safetensors": 1}
    assert run("predict", folder, "good") == adapter
    assert run("evaluate", folder, "own.csv") == {**adapter, "own.csv": 1}
    assert run("export", folder, "there")["model.safetensors"] == 1
    assert run("import", "there", "--base", "base", "--out", "back")["model.safetensors"] == 1
    found = run("predict", folder, "--also", "back", "good")
    assert found == {**checkpoint, "adapter.safetensors": 2}  # there are two


def test_commands_of_a_text(task: Path, opened: Counter[str]) -> None:
    small = "--d-model 16 --n-layers 1 --n-heads 2 --vocab-size 280 --block-size 16".split()
    assert main(["pretrain", "own.txt", *small, *QUICK, "--out", "decoder"]) == 0
    assert opened["own.txt"] == 1
    for command in (
        ["train", "--lm", "own.txt", "--base", "decoder", *QUICK, "--out", "run"],
        ["generate", "run", "the", "--tokens", "3"],
    ):
        opened.clear()
        assert main(command) == 0
        assert opened["model.safetensors"] == 1 and opened["config.json"] == 1
        assert opened["own.txt"] == (command[0] == "train")
        assert opened["adapter.safetensors"] == (command[0] == "generate")


def test_several_runs(task: Path, opened: Counter[str]) -> None:
    options = mt.RunOptions("base", training=mt.TrainingOptions(epochs=1))
    for name in ("one", "two", "three"):
        mt.train("own.csv", options, name)
    opened.clear()
    mt.load_runs(["one", "two", "three"])
    assert opened["adapter.safetensors"] == 3
    assert opened["model.safetensors"] == 1

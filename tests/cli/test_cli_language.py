"""pretrain, train --lm and generate, as somebody at a shell sees them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import minitransformer
from minitransformer.cli import main

ROOT = Path(minitransformer.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
PROGRAM = [sys.executable, "-m", "minitransformer"]
SMALL = "--d-model 16 --n-layers 2 --n-heads 2 --vocab-size 280 --block-size 16 --lr 0.01".split()
QUICK = ["--epochs", "2", "--batch-size", "8", "--threads", "2"]


def write_text(path: Path, words: str, lines: int = 200) -> Path:
    rng = np.random.default_rng(0)
    path.write_text("\n\n".join(" ".join(rng.choice(words.split(), 8)) for _ in range(lines)))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds two texts, a base trained on the first and an adapter for the second."""
    folder = tmp_path_factory.mktemp("language")
    sea = write_text(folder / "sea.txt", "the sea is wide and the ship is gone")
    war = write_text(folder / "war.txt", "the king rides to war with men")
    assert main(["pretrain", str(sea), *SMALL, *QUICK, "--out", str(folder / "base")]) == 0
    arguments = ["--base", str(folder / "base"), "--bottleneck", "4", *QUICK]
    assert main(["train", "--lm", str(war), *arguments, "--out", str(folder / "run")]) == 0
    return folder


def test_pretrain_says_what_came_out(folder, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", str(folder / "sea.txt"), *SMALL, *QUICK]) == 0
    said = capsys.readouterr()
    place = os.path.join("runs", "sea-base-seed0")
    assert f"the run goes to {place}" in said.err
    metrics = json.loads(Path(place, "metrics.json").read_text())
    assert f"perplexity     {metrics['held_out_perplexity']:.2f} on " in said.out
    assert f"minitransformer generate {place}" in said.out


def test_json_is_all_that_train_lm_prints(folder, tmp_path, capsys) -> None:
    arguments = [str(folder / "war.txt"), "--base", str(folder / "base"), *QUICK]
    out = str(tmp_path / "run")
    assert main(["train", "--lm", *arguments, "--out", out, "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["folder"] == out
    assert metrics["perplexity_adapter_on"] < metrics["perplexity_adapter_off"]
    assert metrics["base_perplexity_before"] == metrics["base_perplexity_after"]


def test_train_lm_says_what_came_out(folder, tmp_path, capsys) -> None:
    arguments = [str(folder / "war.txt"), "--base", str(folder / "base"), *QUICK]
    assert main(["train", "--lm", *arguments, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert f"{metrics['perplexity_adapter_off']:.2f} without the adapter" in said
    assert f"{metrics['perplexity_adapter_on']:.2f} with it" in said
    assert f"{metrics['base_perplexity_before']!r}; the same to the last bit" in said


def generated(capsys, *arguments: object) -> str:
    assert main(["generate", *map(str, arguments), "--tokens", "30"]) == 0
    return capsys.readouterr().out


def test_generate_with_the_adapter_and_without(folder, capsys) -> None:
    base, run = folder / "base", folder / "run"
    on, off = generated(capsys, run, "the"), generated(capsys, run, "the", "--no-adapter")
    assert on.startswith("the") and on != off
    assert off == generated(capsys, base, "the")
    assert on == generated(capsys, base, "the", "--adapter", run)
    assert on != generated(capsys, run, "the", "--seed", "1")
    found = json.loads(generated(capsys, run, "the", "--json"))
    assert found == {"prompt": "the", "text": on[:-1], "adapter": "war"}
    assert json.loads(generated(capsys, run, "--no-adapter", "--json"))["adapter"] is None
    greedy = [generated(capsys, run, "--temperature", "0", "--seed", s) for s in "12"]
    assert greedy[0] == greedy[1]
    assert generated(capsys, run, "--top-k", "1") == greedy[0]  # one token to draw from


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("train --lm war.txt", 2, "no decoder in runs/shakespeare-comedies-base-seed0"),
        (
            "train --lm war.txt --base base --method full",
            2,
            "method='full': expected one of",
        ),
        ("train --lm war.txt --base base --prefix-cache", 2, "--prefix-cache goes with a task"),
        ("train --lm war.txt --base base --limit 9", 2, "--limit goes with a task that has"),
        ("train --lm war.txt --base base --layer-norm", 2, "--layer-norm goes with a task that"),
        ("train --lm war.txt --base base --max-length 0", 2, "max_length=0: expected a whole"),
        ("train --lm war.txt --base base --threads -3", 2, "threads=-3: expected a whole"),
        ("train --lm war.txt --base tiny", 2, "'tiny' is an encoder, which cannot generate"),
        ("train --lm war.txt --base base --pooling mean", 2, "--pooling goes with a task that has"),
        ("train --lm gone.txt --base base", 1, "there is no text 'gone.txt'"),
        ("train --lm war.txt --base base --resume", 2, "say which run with --out"),
        ("pretrain gone.txt", 1, "there is no text 'gone.txt'"),
        ("pretrain sea.txt --out base", 2, "base holds a run already"),
        ("pretrain sea.txt --d-model 30 --n-heads 4", 2, "n_heads=4 does not divide d_model=30"),
        ("pretrain sea.txt --resume --out base", 2, "finished: nothing to resume"),
        ("pretrain sea.txt --resume --out base --lr 1", 2, "--lr: leave it out with --resume"),
        ("generate nowhere", 1, "unknown checkpoint 'nowhere'"),
        ("generate tiny", 2, "'tiny' is an encoder"),
        ("generate run --top-p 2", 2, "top_p=2.0: expected 0 < top_p <= 1"),
        ("generate base --adapter base", 1, "base is not a run"),
        ("generate base --no-adapter", 2, "without an adapter to leave out"),
        ("generate base --base base", 2, "give one of the two"),
        ("generate run --adapter run", 2, "is a run with an adapter of its own"),
        ("generate run --temperature 0 --top-k 3", 2, "nothing is drawn"),
        ("predict run text", 1, "it continues texts: minitransformer generate"),
    ],
)
def test_errors_are_one_line(folder, capsys, monkeypatch, command, status, message) -> None:
    monkeypatch.chdir(folder)
    assert main(command.split()) == status
    said = capsys.readouterr()
    assert message in said.err.splitlines()[-1]
    assert said.out == "" and "Traceback" not in said.err


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_it_does(folder, tmp_path) -> None:
    out = tmp_path / "base"
    command = ["pretrain", str(folder / "sea.txt"), *SMALL, *QUICK, "--out", str(out)]
    command[command.index("--epochs") + 1] = "40"
    child = subprocess.Popen(
        [*PROGRAM, *command], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (out / "state.safetensors").exists():
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    said = child.communicate(timeout=60)[1]
    assert child.returncode == 130
    assert "To go on from there:" in said
    again = shlex.split(said.splitlines()[-1])
    assert again == ["minitransformer", "pretrain", command[1], "--resume", "--out", str(out)]
    assert main(again[1:]) == 0
    assert json.loads((out / "metrics.json").read_text())["finished"]

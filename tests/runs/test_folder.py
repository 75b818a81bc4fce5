"""The folder of a run is its own: nothing of another's is overwritten, nobody else writes there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minitransformer as mt
from minitransformer.errors import ConfigError
from minitransformer.formats.folders import new_folder
from minitransformer.runs.folder import open_run

TEXT = "the sea is wide and the ship is gone.\n\n" * 80
TRAINING = mt.TrainingOptions(epochs=1, batch_size=16)
OPTIONS = mt.RunOptions(base="tiny", limit=32, training=TRAINING)
SMALL = mt.PretrainOptions(
    d_model=16, n_layers=1, n_heads=2, vocab_size=280, block_size=16, training=TRAINING
)
FOREIGN = ("config.json", "model.safetensors", "tokenizer.json", "history.csv", "notes.txt")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sea.txt").write_text(TEXT)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> mt.Run:
    return mt.train("toy-reviews", OPTIONS, tmp_path_factory.mktemp("run") / "r")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


COMMANDS = {
    "train": lambda: mt.train("toy-reviews", OPTIONS, "theirs"),
    "pretrain": lambda: mt.pretrain("sea.txt", SMALL, "theirs"),
    "train --lm": lambda: mt.train_language("sea.txt", mt.LanguageOptions(base="tiny"), "theirs"),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_with_anything_of_anothers_is_refused(name: str, command: str) -> None:
    Path("theirs").mkdir()
    Path("theirs", name).write_text("theirs")
    before = files(Path("theirs"))
    with pytest.raises(ConfigError, match=rf"holds files that are no run's \({name}\)"):
        COMMANDS[command]()
    assert files(Path("theirs")) == before


def test_a_run_of_ones_own_is_refused_with_what_to_do(run: mt.Run) -> None:
    before = files(run.folder)
    with pytest.raises(ConfigError, match="holds a run already; choose another folder"):
        mt.train("toy-reviews", OPTIONS, run.folder)
    assert files(run.folder) == before
    Path("begun").mkdir()
    shutil.copy(run.folder / "options.json", "begun")
    with pytest.raises(ConfigError, match="an unfinished run: choose another folder, or resume it"):
        mt.train("toy-reviews", OPTIONS, "begun")


def test_an_empty_folder_will_do_and_a_file_will_not() -> None:
    Path("empty").mkdir()
    assert mt.train("toy-reviews", OPTIONS, "empty").metrics["finished"]
    with pytest.raises(ConfigError, match=r"sea\.txt is a file"):
        mt.train("toy-reviews", OPTIONS, "sea.txt")


def test_two_at_once_get_two_folders() -> None:
    def opened():
        return open_run("toy-reviews", OPTIONS, mt.RunOptions, None, resume=False)

    with opened() as (first, _), opened() as (second, _):
        assert (first.name, second.name) == (
            "toy-reviews-adapter-seed0",
            "toy-reviews-adapter-seed0-2",
        )
    assert not Path("runs").exists()  # nothing was written, so nothing is left


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_in_which_a_run_is_going_on_is_refused(run: mt.Run, resume: bool) -> None:
    Path("begun").mkdir()
    shutil.copy(run.folder / "options.json", "begun")
    with open_run("toy-reviews", None, mt.RunOptions, "begun", resume=True):
        before = files(Path("begun"))
        with pytest.raises(ConfigError, match="a run is going on in begun: wait until it ends"):
            mt.train("toy-reviews", None, "begun", resume=resume)
        assert files(Path("begun")) == before
    assert mt.train("toy-reviews", None, "begun", resume=True).metrics["finished"]


def test_stopped_before_its_first_file_a_run_can_be_started_again() -> None:
    Path("early").mkdir()
    Path("early/run.lock").touch()
    Path("early/.options.json.4711.tmp").write_text('{"ta')
    run = mt.train("toy-reviews", OPTIONS, "early")
    assert not [name for name in files(run.folder) if name.startswith(".") or "lock" in name]


def test_a_run_that_cannot_begin_leaves_nothing_but_what_was_there() -> None:
    Path("mine").mkdir()
    for out in ("new", "mine", None):
        with pytest.raises(mt.errors.HubError):
            mt.train("toy-reviews", mt.RunOptions(base="./nowhere"), out)
    assert {path.name for path in Path().iterdir()} == {"mine", "sea.txt"}
    assert not files(Path("mine"))


PROGRAM = """
import sys
import minitransformer as mt
options = mt.RunOptions(base="tiny", limit=32, training=mt.TrainingOptions(epochs=1))
try:
    print(mt.train("toy-reviews", options, sys.argv[1] if sys.argv[1:] else None).folder.name)
except mt.errors.ConfigError as error:
    print("refused:", error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("out", [None, "same"])
def test_processes_at_once(out: str | None) -> None:
    arguments = [] if out is None else [out]
    command = [sys.executable, "-c", PROGRAM, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(mt.__file__).parents[1])}
    children = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = sorted(child.communicate()[0].strip() for child in children)
    assert all(child.returncode == 0 for child in children)
    if out is None:
        name = "toy-reviews-adapter-seed0"
        assert said == [name, *(f"{name}-{number}" for number in (2, 3, 4))]
    else:
        assert said[-1] == "same" or said[0] == "same"
        assert sum(line.startswith("refused:") for line in said) == 3


def test_two_processes_that_export_to_one_folder_do_not_destroy_each_others_work() -> None:
    """The second begins while the first is in the middle; the name goes to whoever is first."""
    program = "from pathlib import Path; from minitransformer.formats.folders import new_folder\n"
    program += "with new_folder(Path('out')) as new: (new / 'file').write_text('second')"
    with new_folder(Path("out")) as temporary:
        (temporary / "file").write_text("first")
        subprocess.run([sys.executable, "-c", program], check=True)
        assert (temporary / "file").read_text() == "first"
        Path("out").rename("of the second")
    assert Path("out/file").read_text() == "first"
    assert Path("of the second/file").read_text() == "second"

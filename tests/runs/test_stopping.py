"""However a run is stopped, it goes on to the same bytes; with other data or another base, not."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.data.hub import find_checkpoint
from minitransformer.errors import CheckpointError
from minitransformer.formats.files import read_tensors, write_tensors
from minitransformer.training import trainer as trainer_module
from minitransformer.training.optim import AdamW
from minitransformer.training.trainer import Trainer

TIMES = ("training_seconds", "peak_memory_mb")  # what may differ between two equal runs
SIGNALS = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
TRAINING = mt.TrainingOptions(epochs=2, batch_size=8)
OPTIONS = mt.RunOptions(base="base", dropout=0.1, threads=2, training=TRAINING)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of 60 texts and a copy of the tiny base, where the runs are started."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{'good' if i % 2 else 'bad'} film number {i},{i % 2}" for i in range(60)]
    Path("own.csv").write_text("text,label\n" + "\n".join(rows))
    shutil.copytree(find_checkpoint("tiny"), "base")


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """All signals are heard, even if the tests run under nohup."""
    heard = dict.fromkeys(SIGNALS, signal.SIG_DFL) | {"SIGINT": signal.default_int_handler}
    before = {name: signal.signal(getattr(signal, name), how) for name, how in heard.items()}
    yield
    for name, how in before.items():
        signal.signal(getattr(signal, name), how)


def results(folder: str | Path) -> dict[str, object]:
    """Every file of a run: its bytes, without the times that a run took."""
    found: dict[str, object] = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    metrics = json.loads(found["metrics.json"])
    found["metrics.json"] = {name: v for name, v in metrics.items() if name not in TIMES}
    rows = [line.split(",") for line in found["history.csv"].decode().splitlines()]
    seconds = rows[0].index("seconds")
    found["history.csv"] = [row[:seconds] + row[seconds + 1 :] for row in rows]
    return found


def stop_in_step(patch: pytest.MonkeyPatch, step: int, stop: Callable[[], None]) -> None:
    """Call `stop` in the middle of a step, when the first parameter has moved."""
    real = AdamW.step

    def halfway(self: AdamW) -> None:
        if self.t + 1 == step:
            parameter = next(iter(self.parameters.values()))
            before = parameter.value.copy()
            parameter.value += 1.0
            stop()
            parameter.value[...] = before
        real(self)

    patch.setattr(AdamW, "step", halfway)


def send(*names: str) -> Callable[[], None]:
    def stop() -> None:
        for name in names:
            os.kill(os.getpid(), getattr(signal, name))

    return stop


def interrupted(patch: pytest.MonkeyPatch, options: mt.RunOptions = OPTIONS) -> Path:
    """The folder of a run that was stopped at step 8 of 12."""
    with patch.context() as inside:
        stop_in_step(inside, 8, send("SIGINT"))
        run = mt.train("own.csv", options, "stopped")
    assert not run.metrics["finished"]
    return run.folder


def resume() -> mt.Run:
    return mt.train("own.csv", None, "stopped", resume=True)


def test_the_same_run_has_the_same_bytes() -> None:
    for out in ("one", "two"):
        mt.train("own.csv", OPTIONS, out)
    assert results("one") == results("two")


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_stops_between_two_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: signal.getsignal(getattr(signal, name)) for name in SIGNALS}
    mt.train("own.csv", OPTIONS, "whole")
    with monkeypatch.context() as patch:
        stop_in_step(patch, 8, send(name))
        run = mt.train("own.csv", OPTIONS, "stopped")
    assert run.metrics["steps"] == 8
    assert {name: signal.getsignal(getattr(signal, name)) for name in SIGNALS} == before
    assert resume().metrics["finished"]
    assert results("stopped") == results("whole")


def test_a_second_ctrl_c_saves_no_half_done_step(monkeypatch: pytest.MonkeyPatch) -> None:
    mt.train("own.csv", OPTIONS, "whole")
    with monkeypatch.context() as patch:
        stop_in_step(patch, 8, send("SIGINT", "SIGINT"))
        with pytest.raises(KeyboardInterrupt):
            mt.train("own.csv", OPTIONS, "stopped")
    assert resume().metrics["finished"]
    assert results("stopped") == results("whole")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_nohup_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop_in_step(monkeypatch, 8, send("SIGHUP"))
        assert mt.train("own.csv", OPTIONS, "whole").metrics["finished"]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_killed_before_the_first_state_a_run_goes_on() -> None:
    whole = mt.train("own.csv", OPTIONS, "whole")
    Path("stopped").mkdir()
    shutil.copy(whole.folder / "options.json", "stopped")
    resume()
    assert results("stopped") == results("whole")


def test_a_state_is_written_as_time_goes_by_and_the_last_two_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What SIGKILL leaves: no handler has run, and the last state is not of the last step."""
    mt.train("own.csv", OPTIONS, "whole")

    class Killed(BaseException):
        pass

    def killed() -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "STATE_EVERY", 0.0)
        stop_in_step(patch, 5, killed)
        with pytest.raises(Killed):
            mt.train("own.csv", OPTIONS, "stopped")
    steps = {
        name: int(read_tensors(Path("stopped", name))["optimizer/t"][0])
        for name in ("state.safetensors", "state-previous.safetensors")
    }
    assert steps == {"state.safetensors": 4, "state-previous.safetensors": 3}
    Path("stopped/.state.safetensors.4711.tmp").write_bytes(b"half a state")
    state = Path("stopped/state.safetensors")
    whole = state.read_bytes()
    state.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])  # the one before counts
    resume()
    assert results("stopped") == results("whole")


def test_with_a_prefix_cache_too(monkeypatch: pytest.MonkeyPatch) -> None:
    top = mt.AdapterConfig(bottleneck=4, layers=(1,))
    options = mt.RunOptions("base", adapter=top, prefix_cache=True, training=TRAINING)
    mt.train("own.csv", options, "whole")
    interrupted(monkeypatch, options)
    resume()
    assert results("stopped") == results("whole")


# -- other inputs -------------------------------------------------------------------------

EXAMPLES = "the training examples, the validation examples, the test examples"


def swap_labels() -> None:
    lines = Path("own.csv").read_text().splitlines()
    swapped = [f"{line[:-1]}{1 - int(line[-1])}" for line in lines[1:]]
    Path("own.csv").write_text("\n".join([lines[0], *swapped]))


def other_texts() -> None:
    Path("own.csv").write_text(Path("own.csv").read_text().replace("film", "meal"))


def other_weights() -> None:
    tensors = read_tensors(Path("base/model.safetensors"))
    name = next(name for name in tensors if name.endswith("query.weight"))
    tensors[name] = tensors[name] + np.float32(1e-3)
    write_tensors(Path("base/model.safetensors"), tensors, {"format": "pt"})


def other_heads() -> None:
    words = json.loads(Path("base/config.json").read_text())
    words["num_attention_heads"] //= 2
    Path("base/config.json").write_text(json.dumps(words))


def swap_tokens() -> None:
    words = json.loads(Path("base/tokenizer.json").read_text())
    vocab = words["model"]["vocab"]
    vocab["wonderful"], vocab["terrible"] = vocab["terrible"], vocab["wonderful"]
    Path("base/tokenizer.json").write_text(json.dumps(words))


def other_activation() -> None:
    options = json.loads(Path("stopped/options.json").read_text())
    options["adapter"]["activation"] = "gelu"
    Path("stopped/options.json").write_text(json.dumps(options))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_activation, "the options in options.json"),
        (swap_labels, EXAMPLES),
        (other_texts, EXAMPLES),
        (other_weights, "the base's weights or configuration"),
        (other_heads, "the base's weights or configuration"),
        (swap_tokens, "the base's tokenizer.json"),
    ],
)
def test_other_data_or_another_base_is_refused(
    change: Callable[[], None], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(monkeypatch)
    change()
    before = results("stopped")
    with pytest.raises(CheckpointError, match=rf"not what it was started with: {named}\."):
        resume()
    assert results("stopped") == before


# -- no space, no reader ------------------------------------------------------------------


def test_a_full_disk_is_said_and_the_run_goes_on_afterwards(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A limit on the size of files fails as a full disk does, with another number."""
    resource = pytest.importorskip("resource")
    mt.train("own.csv", OPTIONS, "whole")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))

    try:
        with monkeypatch.context() as patch:
            stop_in_step(patch, 8, fill)
            with pytest.raises(CheckpointError, match=r"cannot write .*make room, and try again"):
                mt.train("own.csv", OPTIONS, "stopped")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "goes on from its last state with --resume --out stopped" in caplog.text
    resume()
    assert results("stopped") == results("whole")


def test_a_progress_bar_that_nobody_reads_ends_a_run_that_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mt.train("own.csv", OPTIONS, "whole")

    def closed(self: Trainer, *_: object) -> float:
        raise BrokenPipeError(32, "Broken pipe")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "recent", closed)  # called for the bar
        with pytest.raises(BrokenPipeError):
            mt.train("own.csv", OPTIONS, "stopped")
    resume()
    assert results("stopped") == results("whole")

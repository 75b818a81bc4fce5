"""A process that hangs, crashes, floods its output or takes memory is stopped, and says why."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from threading import Event, Timer

import pytest

from minitransformer.errors import ConfigError
from minitransformer.exercises.grading.limits import KEPT, Ended, Limits, run_limited

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has this limit")
HERE = str(Path(__file__).parents[3])


def run(program: str, seconds: float = 20.0, cancel: Event | None = None) -> Ended:
    environment = {**os.environ, "PYTHONPATH": HERE}
    return run_limited([sys.executable, "-c", program], seconds, environment, cancel or Event())


def limited(program: str, **limits: int) -> Ended:
    """A program that sets its own limits first, as the grader's child process does."""
    values = ", ".join(f"{name}={value}" for name, value in limits.items())
    lines = [
        "from minitransformer.exercises.grading.limits import Limits",
        f"Limits({values}).apply_to_this_process()",
        program,
    ]
    return run("\n".join(lines))


def test_output_and_status_are_kept() -> None:
    ended = run("import sys; print('hello'); print('oops', file=sys.stderr); sys.exit(3)")
    assert ended.status == 3 and ended.reason == "ended with exit status 3"
    assert sorted(ended.output.split()) == ["hello", "oops"]


def test_a_loop_without_end_is_stopped() -> None:
    ended = run("print('begin', flush=True)\nwhile True: pass", seconds=1.0)
    assert ended.status is None and ended.reason == "stopped after 1 s"
    assert ended.output.strip() == "begin"


@POSIX
def test_a_crash_names_its_signal() -> None:
    assert run("import os; os.abort()").reason == "ended by SIGABRT"


def test_a_hundred_megabytes_of_output_are_read_and_dropped() -> None:
    """The grader keeps the beginning and the end: neither its memory nor the disk fills up."""
    million = "sys.stdout.write('x' * 1_000_000)"
    ended = run(f"import sys\nprint('first')\nfor _ in range(100): {million}\nprint('last')")
    assert ended.status == 0 and ended.printed > 100_000_000
    assert ended.output.startswith("first") and ended.output.rstrip().endswith("last")
    assert len(ended.output) < 2 * KEPT + 100 and "bytes left out" in ended.output


@LINUX
@pytest.mark.parametrize("detached", [False, True])
def test_what_it_started_is_stopped_as_well(tmp_path: Path, detached: bool) -> None:
    """Also a process that has left the group, and holds the output open."""
    file = tmp_path / "beats"
    loop = f"import time\nwhile True: open({str(file)!r}, 'a').write('.'); time.sleep(0.01)"
    ended = run(
        f"""import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {loop!r}], start_new_session={detached})
while not os.path.exists({str(file)!r}):
    time.sleep(0.01)
"""
    )
    assert ended.status == 0
    before = file.stat().st_size
    time.sleep(0.1)
    assert file.stat().st_size == before


@LINUX
def test_memory_is_limited() -> None:
    ended = limited("x = bytearray(3_000_000_000)", memory=2_000)
    assert ended.status == 1 and "MemoryError" in ended.output


@POSIX
def test_a_file_is_limited() -> None:
    ended = limited("open('big', 'wb').write(bytes(3_000_000))", file_size=2)
    assert ended.status != 0 and "File too large" in ended.output


def test_it_runs_in_an_empty_folder_that_is_deleted() -> None:
    ended = run("import os; print(os.listdir()); open('left', 'w'); print(os.getcwd())")
    listing, folder = ended.output.splitlines()
    assert listing == "[]" and not Path(folder).exists()


def test_cancelling_stops_it_at_once() -> None:
    cancel = Event()
    Timer(0.2, cancel.set).start()
    assert run("import time; time.sleep(600)", seconds=600, cancel=cancel).seconds < 60


def test_after_its_time_a_submission_has_little() -> None:
    limits = Limits(seconds=60)
    assert [limits.left(spent) for spent in (0, 20, 54, 60, 300)] == [60, 40, 6, 6, 6]
    assert Limits(seconds=2).left(100) == 2


@pytest.mark.parametrize("limit", ["seconds", "memory", "file_size"])
def test_a_limit_must_be_positive(limit: str) -> None:
    with pytest.raises(ConfigError, match=f"{limit}=0: expected a positive number"):
        Limits(**{limit: 0})  # type: ignore[arg-type]

"""Runs a command in a process of its own, with limits on time, memory, output and file size.

This protects the grader from mistakes: an endless loop, an endless print, memory that grows without
end. It is no sandbox: the code may read what the user may read, and may use the network. For
submissions that nobody has looked at, grade in a container without a network.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import IO

from ...errors import ConfigError

KEPT = 8_000  # bytes of output that are kept, of its beginning and of its end
MEGABYTE = 1 << 20
STEPS = 100  # more statements and parts than a submission has
LATE = 6.0  # seconds that each of them has when the submission's time is used up
GRACE = 5.0  # seconds in which a process may stop itself before it is stopped
MARK = "MINITRANSFORMER_GRADING"  # in the environment of a submission's processes: which run it is


@dataclass(frozen=True)
class Limits:
    """What one submission may use. Raises: ConfigError if a limit is not positive.

    Attributes:
        seconds: for the whole of it. What reaches their end is stopped; after that, each further
            statement of the solution, and each part, has LATE seconds.
        memory: megabytes of address space, for each of its processes (Linux).
        file_size: megabytes of the largest file it may write (Linux, macOS).
    """

    seconds: float = 60.0
    memory: int = 4_000
    file_size: int = 100

    def __post_init__(self) -> None:
        for name in ("seconds", "memory", "file_size"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"{name}={value}: expected a positive number")

    def left(self, spent: float) -> float:
        """The seconds that the next statement or part may take."""
        return max(self.seconds - spent, min(LATE, self.seconds))

    def apply_to_this_process(self) -> None:
        """Called by the process itself, before it reads any code that it does not know."""
        with suppress(ImportError):  # Windows has none: time and output are limited from outside
            import resource

            lower(resource.RLIMIT_CORE, 0)
            lower(resource.RLIMIT_FSIZE, self.file_size * MEGABYTE)
            # A process that has left its group cannot be found on every system, but it ends.
            lower(resource.RLIMIT_CPU, int(self.seconds + LATE * STEPS) + 5)
            if sys.platform == "linux":
                lower(resource.RLIMIT_AS, self.memory * MEGABYTE)


def lower(what: int, value: int) -> None:
    import resource

    hard = resource.getrlimit(what)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (value, value))


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: its exit status; negative: the signal that ended it; None: stopped at the limit.
        output: what it printed, standard error included, without the middle if it was long.
        printed: how many bytes it printed.
        seconds: from its start to its end.
    """

    status: int | None
    output: str
    printed: int
    seconds: float

    @property
    def reason(self) -> str:
        """Why it did not end by itself, or with status 0; empty if it did."""
        if self.status is None:
            return f"stopped after {self.seconds:.0f} s"
        if self.status < 0:
            return f"ended by {signal.Signals(-self.status).name}"
        return f"ended with exit status {self.status}" if self.status else ""


@dataclass
class Output:
    """The beginning and the end of a stream, and its length; the rest is read and dropped."""

    head: bytes = b""
    tail: bytes = b""
    length: int = field(default=0)

    def read(self, stream: IO[bytes]) -> None:
        with suppress(OSError, ValueError):  # closed while we read
            while chunk := os.read(stream.fileno(), 1 << 16):
                self.length += len(chunk)
                missing = KEPT - len(self.head)
                self.head, chunk = self.head + chunk[:missing], chunk[missing:]
                self.tail = (self.tail + chunk)[-KEPT:]

    @property
    def text(self) -> str:
        dropped = self.length - len(self.head) - len(self.tail)
        middle = f"\n[... {dropped:,} bytes left out ...]\n".encode() if dropped else b""
        return (self.head + middle + self.tail).decode("utf-8", errors="replace")


def run_limited(
    command: Sequence[str],
    seconds: float,
    environment: Mapping[str, str],
    cancel: Event,
    steps: Path | None = None,
) -> Ended:
    """Run a command in an empty folder that is deleted afterwards, until its end or the limit.

    Whatever it has started and left running is stopped as well. When the file `steps` changes, its
    time begins anew, but it never has more than STEPS steps need. Setting `cancel` from another
    thread stops it before its time.
    """
    mark = secrets.token_hex(16)
    output = Output()
    with tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True) as folder:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**environment, "TMPDIR": folder, MARK: mark},
            start_new_session=True,
        )
        assert process.stdout is not None
        reader = Thread(target=output.read, args=(process.stdout,), daemon=True)
        reader.start()
        status: int | None = None
        try:
            limit, seen = start + seconds, 0.0
            last = limit + LATE * STEPS
            while status is None and time.perf_counter() < min(limit, last) and not cancel.is_set():
                if steps is not None and (changed := last_change(steps)) != seen:
                    limit, seen = time.perf_counter() + seconds, changed
                with suppress(subprocess.TimeoutExpired):
                    status = process.wait(0.1)
        finally:
            taken = time.perf_counter() - start
            stop(process, mark)
            reader.join(timeout=5)  # at once, unless somebody still holds the other end
            if not reader.is_alive():
                process.stdout.close()
    return Ended(status, output.text, output.length, taken)


def last_change(path: Path) -> float:
    """When a file was written; 0 if there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def stop(process: subprocess.Popen[bytes], mark: str) -> None:
    """Kill a process, its group, and (Linux) its descendants that have left the group."""
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)  # start_new_session: its group has its number
        else:
            process.kill()
    process.wait()
    while left := marked(mark):
        for number in left:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.01)


def marked(mark: str) -> list[int]:
    """The living processes (Linux) whose environment carries a mark."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or belongs to somebody else
            if mark.encode() in file.read_bytes():
                found.append(int(file.parent.name))
    return found

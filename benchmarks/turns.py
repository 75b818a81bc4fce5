"""The sides of a comparison take turns, each in a process of its own.

A library's worker threads spin for a while after their work, waiting for more. In one process,
or at one time, the sides would take the cores from each other. Here a side sleeps on a pipe until
the parent requests one piece of work, and that happens only while the others sleep.
"""

from __future__ import annotations

import importlib
import multiprocessing
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

PAUSE = 0.05  # seconds between turns: longer than idle threads spin


class WorkerError(RuntimeError):
    """What went wrong in a worker, in one line."""


class Worker:
    """An object of a class "module:Class" in a fresh process; its methods are called by name."""

    def __init__(self, kind: str, **settings: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other_end = context.Pipe()
        self.process = context.Process(target=serve, args=(other_end, kind, settings), daemon=True)
        self.process.start()  # several of them start side by side
        other_end.close()

    def call(self, method: str, *args: Any) -> Any:
        """Run a method to its end. Raises: WorkerError if it failed."""
        return self.start(method, *args)[1]

    def start(self, method: str, *args: Any) -> tuple[bool, Any]:
        """Run a method up to its first pause: (False, None), or to its end: (True, result)."""
        self.connection.send((method, args))
        return self.wait()

    def go_on(self) -> tuple[bool, Any]:
        """Run on from a pause."""
        self.connection.send("go on")
        return self.wait()

    def wait(self) -> tuple[bool, Any]:
        try:
            status, value = self.connection.recv()
        except (EOFError, OSError):
            raise WorkerError("the process ended without an answer") from None
        if status == "failed":
            raise WorkerError(value)
        return status == "done", value

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *problem: object) -> None:
        self.connection.close()  # the process reads this as the end of its work
        self.process.join(10)
        if self.process.is_alive():
            self.process.terminate()


# -- inside a worker ----------------------------------------------------------------------

_parent: Connection | None = None


def serve(connection: Connection, kind: str, settings: dict[str, Any]) -> None:
    """The life of a worker: one request after another, until the parent closes the pipe."""
    global _parent
    _parent = connection
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then leaves
    module, _, name = kind.partition(":")
    side: Any = None
    while True:
        try:
            method, args = connection.recv()
        except (EOFError, OSError):
            return
        try:
            if side is None:
                side = getattr(importlib.import_module(module), name)(**settings)
            answer = ("done", getattr(side, method)(*args))
        except Exception as error:
            first_line = (str(error).strip().splitlines() or [""])[0]
            answer = ("failed", f"{type(error).__name__}: {first_line}")
        try:
            connection.send(answer)
        except OSError:
            return


def pause() -> None:
    """Called in the middle of a method: sleep until the parent says "go on"."""
    assert _parent is not None, "pause() is for workers"
    _parent.send(("paused", None))
    _parent.recv()


# -- in the parent ------------------------------------------------------------------------

Turns = dict[str, list[float]]


def take_turns(
    sides: Mapping[str, Callable[[int], float]], rounds: int, pause: float = PAUSE
) -> Turns:
    """A B C A B C ...: what each side returned in each round."""
    found: Turns = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            time.sleep(pause)
            found[name].append(side(number))
    return found


def run_in_parts(workers: Mapping[str, Worker], method: str, *args: Any) -> dict[str, Any]:
    """The results of a long method that pauses on its way, the workers taking turns."""
    results: dict[str, Any] = {}
    running = False
    while len(results) < len(workers):
        for name, worker in workers.items():
            if name not in results:
                time.sleep(PAUSE)
                done, value = worker.go_on() if running else worker.start(method, *args)
                if done:
                    results[name] = value
        running = True
    return results


def paired(numerator: list[float], denominator: list[float]) -> dict[str, float]:
    """The ratios of paired rounds: median and quartiles."""
    ratios = np.divide(numerator, denominator)
    low, median, high = np.percentile(ratios, [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high)}


def forget_peak_memory() -> None:
    """Let the peak begin anew: what loading took for a moment is not what training takes."""
    with suppress(OSError):  # Linux only
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """The most memory that this process has held, MB.

    Linux: from its own status; `ru_maxrss` would start from what its parent held.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1e3
    from minitransformer.runs.folder import peak_memory_mb as from_resource_usage

    return from_resource_usage() or float("nan")


def thread_pools() -> list[str]:
    """The thread pools of this process, and OpenBLAS's kernels, as threadpoolctl sees them."""
    from threadpoolctl import threadpool_info

    return [
        f"{pool['internal_api']}: {pool['num_threads']}"
        + (f" ({pool['architecture']} kernels)" if "architecture" in pool else "")
        for pool in threadpool_info()
    ]


class Side:
    """What every side of a comparison reports about its own process."""

    def forget_peak_memory(self) -> None:
        forget_peak_memory()

    def peak_memory_mb(self) -> float:
        """Of this process so far."""
        return peak_memory_mb()

"""Sweeps on a real Dask cluster of several worker processes: workers and driver are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import minitransformer
from minitransformer.errors import ConfigError
from minitransformer.sweeps.cluster import run_on_cluster
from minitransformer.sweeps.study import read_study
from minitransformer.sweeps.sweep import sweep
from minitransformer.sweeps.table import Row, read_rows, write_row
from sweeps.studies import RUNS, TINY, row_files, write_study

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::UserWarning"),
]


@contextmanager
def cluster_of(workers: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Counter[str]]]:
    """A scheduler in this process, workers in others; counts how often each run was completed."""
    completed: Counter[str] = Counter()

    class Count(distributed.SchedulerPlugin):
        def transition(self, key: str, start: str, finish: str, *_: Any, **__: Any) -> None:
            if start == "processing" and finish == "memory":
                completed[str(key).removeprefix("minitransformer-")] += 1

    monkeypatch.setenv("PYTHONPATH", str(Path(minitransformer.__file__).parents[1]))
    with distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        cluster.scheduler.add_plugin(Count())
        yield cluster, completed


def wait_for_rows(out: Path, wanted: int, process: subprocess.Popen[bytes]) -> dict[str, bytes]:
    """The rows, as soon as there are so many (or the process has ended)."""
    while len(row_files(out)) < wanted and process.poll() is None:
        time.sleep(0.02)
    return row_files(out)


def wait_until_released(cluster: Any, rows: dict[str, bytes]) -> None:
    """Until the scheduler has forgotten the runs that have these rows."""
    keys = {f"minitransformer-{name.removesuffix('.json')}" for name in rows}
    deadline = time.monotonic() + 60
    while keys & set(map(str, list(cluster.scheduler.tasks))) and time.monotonic() < deadline:
        time.sleep(0.02)


def driver(folder: Path, address: str) -> subprocess.Popen[bytes]:
    """A process of its own that runs the sweep in `folder`."""
    program = f"""if True:
        from minitransformer.sweeps.sweep import sweep
        sweep("study.toml", "out", scheduler={address!r})
    """
    return subprocess.Popen([sys.executable, "-c", program], cwd=folder)


def test_a_worker_is_killed_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of a worker that dies are done by another; what has a row is not done again."""
    write_study(tmp_path)
    out = tmp_path / "out"
    with cluster_of(2, monkeypatch) as (cluster, completed):
        process = driver(tmp_path, cluster.scheduler_address)
        before = wait_for_rows(out, 3, process)
        assert 3 <= len(before) < RUNS
        wait_until_released(cluster, before)
        os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
        assert process.wait(timeout=120) == 0
    rows = row_files(out)
    assert {name: rows[name] for name in before} == before
    assert len(rows) == RUNS
    found = read_rows(out)
    assert all(row.finished for row in found.values())
    assert len({row.pid for row in found.values()}) > 1  # several processes took part
    assert set(completed) == set(found)
    assert all(completed[name.removesuffix(".json")] == 1 for name in before)


def test_the_driver_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the workers do meanwhile is not lost, and nothing is done twice."""
    write_study(tmp_path, TINY.replace("limit = 64", "limit = 640"))
    out = tmp_path / "out"
    with cluster_of(2, monkeypatch) as (cluster, completed):
        killed = driver(tmp_path, cluster.scheduler_address)
        wait_for_rows(out, 1, killed)
        killed.kill()
        killed.wait()
        before = row_files(out)
        due = 2 * 2  # the runs that it had submitted: two sizes at two rates
        assert 1 <= len(before) < due
        deadline = time.monotonic() + 60
        while len(completed) < due and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(completed) == due  # the workers went on
        assert row_files(out) == before
        assert driver(tmp_path, cluster.scheduler_address).wait(timeout=120) == 0
        with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
            assert not client.list_datasets()  # nothing is left on the scheduler
    rows = row_files(out)
    assert len(rows) == RUNS
    assert {name: rows[name] for name in before} == before
    assert completed == Counter(name.removesuffix(".json") for name in rows)


def test_the_driver_was_killed_between_a_row_and_its_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had left on the scheduler is cleared by the next call."""
    first, second = read_study(write_study(tmp_path)).parts[0].cells[0].first_phase()
    with cluster_of(1, monkeypatch) as (cluster, _):
        list(run_on_cluster([first], tmp_path, cluster.scheduler_address))
        with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
            left = client.submit(int, key=f"minitransformer-{first.key}")
            client.publish_dataset(left, name=left.key)
            list(run_on_cluster([second], tmp_path, cluster.scheduler_address))
            assert not client.list_datasets()
    assert row_files(tmp_path).keys() == {f"{first.key}.json", f"{second.key}.json"}


def test_a_worker_dies_with_a_row_that_has_not_arrived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run is done again."""
    runs = read_study(write_study(tmp_path)).parts[0].cells[0].first_phase()
    lost: list[str] = []
    with cluster_of(2, monkeypatch) as (cluster, completed):

        def write_slowly(folder: Path, row: Row) -> None:
            if not lost:  # while the first row is written, the other run ends, and all workers die
                while len(completed) < 2:
                    time.sleep(0.02)
                lost.extend(set(completed) - {row.key})
                task = cluster.scheduler.tasks[f"minitransformer-{lost[0]}"]
                for nanny in cluster.workers.values():
                    os.kill(nanny.pid, signal.SIGKILL)
                while task.state == "memory":
                    time.sleep(0.02)
                time.sleep(0.2)  # for the client to hear of it; new workers take longer to start
            write_row(folder, row)

        monkeypatch.setattr("minitransformer.sweeps.cluster.write_row", write_slowly)
        rows = list(run_on_cluster(runs, tmp_path, cluster.scheduler_address))
    assert len(rows) == 2 and all(row.finished for row in rows)
    assert completed[lost[0]] == 2


def test_a_run_that_kills_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask gives it up in the end, and its row says so."""
    run = read_study(write_study(tmp_path)).parts[0].cells[0].first_phase()[0]

    def deadly(run: object) -> None:
        os._exit(1)

    monkeypatch.setattr("minitransformer.sweeps.cluster.run_to_row", deadly)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        cluster_of(1, monkeypatch) as (cluster, _),
    ):
        (row,) = run_on_cluster([run], tmp_path, cluster.scheduler_address)
    assert "KilledWorker" in row.error
    assert row_files(tmp_path).keys() == {f"{run.key}.json"}


def test_no_scheduler_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitransformer.sweeps.cluster.TIMEOUT", 1)
    with pytest.raises(ConfigError, match="no Dask scheduler answers"):
        sweep(write_study(tmp_path), tmp_path / "out", scheduler="tcp://127.0.0.1:9")
    with pytest.raises(ConfigError, match="jobs=2"):
        sweep(tmp_path / "study.toml", tmp_path / "out", scheduler="tcp://127.0.0.1:9", jobs=2)


def test_without_dask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"pip install 'minitransformer\[cluster\]'"):
        sweep(write_study(tmp_path), tmp_path / "out", scheduler="tcp://127.0.0.1:9")

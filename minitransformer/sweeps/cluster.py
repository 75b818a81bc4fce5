"""Runs on a Dask cluster, by the address of its scheduler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import ConfigError, TrainingError
from .runner import run_to_row
from .study import RunSpec
from .table import Row, row_file, write_row

TIMEOUT = 10  # seconds for a scheduler to answer
PREFIX = "minitransformer-"  # of our names on the scheduler


def run_on_cluster(runs: Sequence[RunSpec], folder: Path, address: str) -> Iterator[Row]:
    """Do the runs on the workers of a cluster; each row as it arrives, then on disk already.

    A run on a worker that dies is done again on another one; Dask gives a run up after several such
    deaths, and then its row says so. Each run is published on the scheduler until its row has
    arrived: if this process dies, the workers go on, and the same call later finds what they did.
    Raises: ConfigError if no scheduler answers, or without the package distributed; TrainingError
    if the scheduler is lost.
    """
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise ConfigError(
            f"scheduler={address!r}: needs Dask: pip install 'minitransformer[cluster]'"
        ) from None
    try:
        client = Client(address, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"scheduler={address!r}: no Dask scheduler answers there ({error}); "
            "expected an address such as tcp://10.0.0.1:8786"
        ) from error
    with client:
        for name in client.list_datasets():  # of a process that died after it had written the row
            if name.startswith(PREFIX) and row_file(folder, name.removeprefix(PREFIX)).exists():
                client.unpublish_dataset(name)
        by_key = {PREFIX + run.key: run for run in runs}
        futures = {key: client.submit(run_to_row, run, key=key) for key, run in by_key.items()}
        for key, future in futures.items():
            client.publish_dataset(future, name=key, override=True)
        ended = as_completed(list(futures.values()), loop=client.loop)
        for future in ended:
            if future.status == "finished":
                row = future.result()
            elif future.status in ("lost", "pending"):
                ended.add(future)  # its worker died before the row arrived: it is done again
                continue
            elif future.status == "error":
                problem, run = future.exception(), by_key[future.key]
                row = Row(
                    run.key,
                    run.task.name,
                    dict(run.values),
                    error=f"{type(problem).__name__}: {problem}",
                )
            else:
                raise TrainingError(
                    f"the Dask scheduler {address} is lost. Every run that had ended has its row; "
                    "the same command goes on"
                )
            write_row(folder, row)
            client.unpublish_dataset(future.key)
            futures.pop(future.key).release()
            yield row

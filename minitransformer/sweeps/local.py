"""Runs on this machine, several at a time, each on its share of the cores."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import ConfigError, TrainingError
from ..training.process import cores
from .runner import run_into
from .study import RunSpec
from .table import Row


def run_here(runs: Sequence[RunSpec], folder: Path, jobs: int | None = None) -> Iterator[Row]:
    """Do the runs in `jobs` processes (joblib); each row as it ends, then on disk already.

    Never more threads than cores: each process uses cores // jobs. `jobs=1` needs no joblib.
    Raises: ConfigError if there are not so many cores, or without joblib; TrainingError if a worker
    process was killed.
    """
    most = cores()
    jobs = jobs if jobs is not None else most
    if type(jobs) is not int or not 1 <= jobs <= most:
        raise ConfigError(f"jobs={jobs!r}: expected 1 to {most}, as many as there are cores")
    threads, jobs = most // jobs, min(jobs, len(runs))
    if jobs == 1:
        for run in runs:
            yield run_into(folder, run, threads)
        return
    try:
        from joblib import Parallel, delayed, parallel_config
        from joblib.externals.loky.process_executor import TerminatedWorkerError
    except ImportError:
        raise ConfigError(
            f"jobs={jobs}: several runs at a time need joblib: "
            "pip install 'minitransformer[sweep]', or take jobs=1"
        ) from None
    try:
        with (
            warnings.catch_warnings(),
            parallel_config("loky", inner_max_num_threads=threads),
        ):
            # joblib replaces a worker that has grown between two runs, and warns of it.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
            ended = Parallel(jobs, return_as="generator_unordered", batch_size=1)(
                delayed(run_in_worker)(folder, run, threads, os.getpid()) for run in runs
            )
            yield from ended
    except TerminatedWorkerError as error:
        raise TrainingError(
            "a worker process was killed (too little memory?). Every run that had ended has its "
            f"row in {folder}; the same command goes on, perhaps with fewer jobs"
        ) from error


def run_in_worker(folder: Path, run: RunSpec, threads: int, parent: int) -> Row:
    """As `run_into`, for as long as the sweep is alive: a worker without it ends."""
    if os.getppid() != parent:
        os._exit(1)
    return run_into(folder, run, threads)

"""What training asks of the process: cores, threads of matrix products, freed memory."""

from __future__ import annotations

import ctypes
import os
from threading import Lock
from typing import Any


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class SingleThreadedProducts:
    """A context manager: inside, matrix products use one BLAS thread each.

    Otherwise the threads of BLAS would compete with ours. The setting belongs to the process and
    not to a Python thread, so users are counted: the first one in sets the limit, the last one out
    restores what was there before.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.users = 0
        self.limits: Any = None

    def __enter__(self) -> None:
        from threadpoolctl import threadpool_limits

        with self.lock:
            if self.users == 0:
                self.limits = threadpool_limits(limits=1, user_api="blas")
            self.users += 1

    def __exit__(self, *problem: object) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.limits.restore_original_limits()


single_threaded_products = SingleThreadedProducts()  # one for the process


def keep_freed_memory() -> None:
    """Ask the C library (glibc) to reuse freed arrays; lasts for the life of the process.

    By default it hands large arrays back to the system at once, and the next step pays a page fault
    for every 4 kB of every array: as much time as the element-wise arithmetic itself. The price is
    memory that stays with the process. The Trainer asks for it; prediction and evaluation do not.
    """
    mmap_threshold, trim_threshold, arena_max = -3, -1, -8  # mallopt's names for its parameters
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return  # another C library: only slower
    mallopt(mmap_threshold, 1 << 25)
    mallopt(trim_threshold, (1 << 31) - 1)
    mallopt(arena_max, 1)

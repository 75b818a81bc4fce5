"""What training asks of the process: cores, threads of matrix products, freed memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class SingleThreadedProducts:
    """A context manager: inside, matrix products use one BLAS thread each.

    Otherwise the threads of BLAS would compete with ours. The setting belongs to the process and
    not to a Python thread, so users are counted: the first one in sets the limit, the last one out
    restores what was there before. A limit of the caller's own, set by threadpoolctl, takes
    precedence.
    """

    def __init__(self) -> None:
        self.forget_users()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget_users)

    def forget_users(self) -> None:
        """As at the start. In a forked child there are no other threads: not ours, not theirs."""
        self.lock = Lock()
        self.users = 0

    def __enter__(self) -> None:
        with self.lock:
            if self.users == 0:
                # All from one thread: threadpoolctl lets nobody restore what another thread set.
                self.thread = ThreadPoolExecutor(1)
                self.thread.submit(self.limit).result()
            self.users += 1

    def __exit__(self, *problem: object) -> None:
        with self.lock:
            if self.users == 0:  # it entered before this process was forked
                return
            self.users -= 1
            if self.users == 0:
                self.thread.submit(self.limits.__exit__, None, None, None).result()
                self.thread.shutdown()

    def limit(self) -> None:
        """One BLAS thread; `self.limits.__exit__` restores what was there before."""
        from threadpoolctl import ThreadpoolController

        self.blas = ThreadpoolController().select(user_api="blas")
        self.threads_before = min((pool["num_threads"] for pool in self.blas.info()), default=1)
        self.limits = self.blas.limit(limits=1).__enter__()

    @contextmanager
    def lifted(self, threads: int) -> Iterator[None]:
        """Inside, products use so many BLAS threads, but no more than before the limit was set.

        For one who keeps fewer cores busy. Without effect while there is another user, or none.
        """
        with self.lock:
            alone = self.users == 1 and min(threads, self.threads_before) > 1
            if alone:
                more = min(threads, self.threads_before)
                inner = self.thread.submit(self.blas.limit, limits=more).result()
        try:
            yield
        finally:
            if alone:
                self.thread.submit(inner.restore_original_limits).result()


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

"""Ctrl-C, SIGTERM and SIGHUP, noticed between two training steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Stop(KeyboardInterrupt):
    """The run was asked to stop, and is between two steps."""


class Interrupt:
    """Whether the run was asked to stop."""

    pressed = False

    def check(self) -> None:
        """Raises: Stop if it was."""
        if self.pressed:
            raise Stop


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a flag, so that no step stops halfway.

    The second one raises KeyboardInterrupt at once, wherever the step is. Signals that are ignored
    stay so (`nohup`), except for Ctrl-C. Outside the main thread, where Python receives no signals,
    nothing is changed.
    """
    interrupt = Interrupt()

    def on_signal(number: int, frame: Any) -> None:
        if interrupt.pressed:
            raise KeyboardInterrupt
        interrupt.pressed = True

    before: dict[int, Any] = {}
    try:
        for number in received() if current_thread() is main_thread() else ():
            before[number] = signal.getsignal(number)
            signal.signal(number, on_signal)
        yield interrupt
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)


def received() -> list[signal.Signals]:
    """Ctrl-C, and of the other two those that the system has and that are not ignored."""
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    unheard = (signal.SIG_IGN, None)
    return [n for n in numbers if n == signal.SIGINT or signal.getsignal(n) not in unheard]

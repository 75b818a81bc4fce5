"""Ctrl-C, SIGTERM and SIGHUP, noticed between two training steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
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
        for name in SIGNALS:
            number = getattr(signal, name, None)
            if number is None:
                continue
            handler = signal.getsignal(number)
            if name == "SIGINT" or handler not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, on_signal)
    except ValueError:
        pass  # not the main thread
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

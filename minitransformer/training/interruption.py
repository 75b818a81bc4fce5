"""Ctrl-C, noticed between two training steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupt:
    """Whether Ctrl-C was pressed."""

    pressed = False

    def check(self) -> None:
        """Raises: KeyboardInterrupt if it was."""
        if self.pressed:
            raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Turn the first Ctrl-C into a flag, so that no step stops halfway; the second one acts.

    Outside the main thread, where Python receives no signals, nothing is changed.
    """
    interrupt = Interrupt()

    def on_signal(number: int, frame: Any) -> None:
        interrupt.check()
        interrupt.pressed = True

    try:
        before = signal.signal(signal.SIGINT, on_signal)
    except ValueError:
        yield interrupt
        return
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)

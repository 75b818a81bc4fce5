"""Errors that a user can act on: each message names the value, what was expected, what to do."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

CONTROL = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # categories of Unicode
JOINERS = "\u200c\u200d"  # of category Cf too; Persian, Hindi and emoji need them


class MiniTransformerError(Exception):
    """Base of every error that this library raises on purpose; its message is printable."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ShapeError(MiniTransformerError, ValueError):
    """An array has the wrong shape or dtype."""


class ConfigError(MiniTransformerError, ValueError):
    """A configuration contradicts itself or names something unknown."""


class BackwardError(MiniTransformerError, RuntimeError):
    """backward() was called out of turn: without a forward, twice, or on something never saved."""


class GradientError(MiniTransformerError, AssertionError):
    """An analytic gradient disagrees with the numerical one."""


class UntestedGradientWarning(UserWarning):
    """A gradient check says nothing about an array, because its gradient is zero everywhere."""


class CheckpointError(MiniTransformerError, ValueError):
    """A weights or adapter file is unreadable, incomplete, or belongs to another model."""


class DataError(MiniTransformerError, ValueError):
    """A dataset file, a label or a text cannot be used."""


class HubError(MiniTransformerError, RuntimeError):
    """Pretrained files or data could not be fetched."""


class TrainingError(MiniTransformerError, RuntimeError):
    """Training cannot go on, or its result is of no use (for instance: NaN)."""


class WrongAnswer(MiniTransformerError, AssertionError):
    """A solution of an exercise is not right, or not written yet: the message is the hint."""


# -- text in messages ---------------------------------------------------------------------


def printable(text: object, keep: str = "\n\t") -> str:
    """A text as a terminal and a page may show it, whoever wrote it.

    What can move the cursor, colour, hide or turn what is around it (escape sequences, carriage
    returns, marks of the direction of writing) is shown as Python writes it, as \\x1b. `keep`: what
    stays as it is all the same.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        repr(mark)[1:-1]
        if unicodedata.category(mark) in CONTROL and mark not in JOINERS + keep
        else mark
        for mark in text
    )


def listed(names: Iterable[object], most: int = 10) -> str:
    """Names for an error, at most so many: "a, b, ... and 8 more"; "none" without any."""
    texts = [text if len(text) < 100 else f"{text[:100]}..." for text in map(str, names)]
    rest = [f"... and {len(texts) - most:,} more"] if len(texts) > most else []
    return ", ".join([*texts[:most], *rest]) or "none"

"""Errors that a user can act on: each message names the value, what was expected, what to do."""

from __future__ import annotations


class MiniTransformerError(Exception):
    """Base of every error that this library raises on purpose."""


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

"""The last cell of each page: the real encoder, trained with the student's part inside."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


def grading() -> bool:
    """Whether a notebook is run to be graded, where training would only cost time."""
    return bool(os.environ.get("NBGRADER_EXECUTION"))


def reward(number: int, names: Mapping[str, Any]) -> None:
    """Train the real model with what `names` (`globals()`) defines for exercise `number`."""
    raise NotImplementedError

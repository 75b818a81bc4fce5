"""The nine exercises: titles, files, times, parts and points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np

from ..errors import ConfigError
from .solution import Solution, variant


@dataclass(frozen=True)
class Part:
    """What earns points: `run(solution, seed)` returns if it is right, else raises WrongAnswer.

    `library`: the functions of the library that do what is to be written; a student's must not.
    """

    name: str
    points: int
    run: Callable[[Solution, int], None]
    library: tuple[Callable[..., Any], ...] = ()


@dataclass(frozen=True)
class Exercise:
    """One page.

    Attributes:
        number, title, minutes: the time it takes.
        slug: the name of its files, as "03_bottleneck_adapter".
    """

    number: int
    title: str
    minutes: int
    slug: str

    def parts(self) -> tuple[Part, ...]:
        """In the order of the page; the module that checks them is imported now."""
        module = import_module(f".{self.slug[3:]}", __package__)
        return tuple(replace(part, library=module.LIBRARY) for part in module.PARTS)

    def numbers(self, rng: np.random.Generator) -> dict[str, Any]:
        """A student's own numbers for the questions of this exercise, if it has such questions."""
        module = import_module(f".{self.slug[3:]}", __package__)
        return module.numbers(rng) if hasattr(module, "numbers") else {}

    def part(self, name: str) -> Part:
        """Raises: ConfigError if there is no part of that name."""
        for part in self.parts():
            if part.name == name:
                return part
        known = ", ".join(part.name for part in self.parts())
        raise ConfigError(f"exercise {self.number} has no part {name!r}; it has {known}")


EXERCISES = (
    Exercise(1, "Linear and layer norm, backward", 45, "01_linear_and_layer_norm"),
    Exercise(2, "Softmax and attention, backward", 60, "02_attention"),
    Exercise(3, "The bottleneck adapter", 45, "03_bottleneck_adapter"),
    Exercise(4, "A start near the identity, and why", 40, "04_near_identity"),
    Exercise(5, "Freezing: what to compute and where to stop", 45, "05_freezing"),
    Exercise(6, "The training step with AdamW", 50, "06_training_step"),
    Exercise(7, "LoRA, and merging it", 50, "07_lora"),
    Exercise(8, "Count before you run", 40, "08_count_before_you_run"),
    Exercise(9, "A small research question", 60, "09_research_question"),
)


def exercise(number: int) -> Exercise:
    """Raises: ConfigError if there is none of that number."""
    for found in EXERCISES:
        if found.number == number:
            return found
    raise ConfigError(f"exercise {number!r}: expected a number from 1 to {len(EXERCISES)}")


def my_numbers(number: int, student: str) -> dict[str, Any]:
    """The numbers for which this student answers the questions of an exercise."""
    return exercise(number).numbers(variant(student, number))

"""What a check found: points for each part, and a hint for each that is wrong."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Item:
    """One part of an exercise: `points` of `max_points`, and a hint if it did not pass."""

    name: str
    points: float
    max_points: float
    passed: bool
    hint: str = ""


@dataclass(frozen=True)
class Report:
    """The parts of one solution. `print` it, or take `to_dict()` as JSON."""

    exercise: int
    title: str
    items: tuple[Item, ...]
    student: str = ""

    @property
    def points(self) -> float:
        return sum(item.points for item in self.items)

    @property
    def max_points(self) -> float:
        return sum(item.max_points for item in self.items)

    @property
    def passed(self) -> bool:
        return all(item.passed for item in self.items)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: exercise, title, student, points, max_points and the items."""
        totals = {"points": self.points, "max_points": self.max_points}
        return {**asdict(self), "items": [asdict(item) for item in self.items], **totals}

    def __str__(self) -> str:
        lines = [f"Exercise {self.exercise}: {self.title}"]
        for item in self.items:
            verdict = "ok" if item.passed else "not yet"
            lines.append(f"  {item.points:g} of {item.max_points:g}  {item.name}: {verdict}")
            lines += [f"      {line}" for line in item.hint.splitlines()]
        return "\n".join([*lines, f"{self.points:g} of {self.max_points:g} points"])

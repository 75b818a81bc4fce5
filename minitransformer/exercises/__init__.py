"""Exercises for classrooms: a student's part is checked, and runs inside the real model.

Begin with `catalogue.py`, which lists the nine exercises; `checking.py` awards the points.
"""

from .catalogue import EXERCISES, Exercise, my_numbers
from .checking import check, check_part
from .hooks import use
from .plain_files import start
from .report import Item, Report
from .rewards import reward
from .solution import Solution, variant

__all__ = [
    "EXERCISES",
    "Exercise",
    "Item",
    "Report",
    "Solution",
    "check",
    "check_part",
    "my_numbers",
    "reward",
    "start",
    "use",
    "variant",
]

"""Exercises for classrooms: a student's part is checked, and runs inside the real model.

Begin with `catalogue.py`, which lists the nine exercises; `checking.py` awards the points.
"""

from .catalogue import EXERCISES, Exercise, my_numbers
from .checking import check, check_part
from .hooks import use
from .plain_files import start
from .report import Item, Report
from .research_question import run_study
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
    "run_study",
    "start",
    "use",
    "variant",
]

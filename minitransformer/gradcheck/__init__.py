"""Gradient checking: numerical gradients, a report to read, and advice on what went wrong.

Begin with `check.py`; `cases.py` lists every module of the library in a tiny size.
"""

from .cases import Case, cases
from .check import check_library, gradcheck
from .report import GradCheckReport, GradCheckRow

__all__ = ["Case", "GradCheckReport", "GradCheckRow", "cases", "check_library", "gradcheck"]

"""A solution that runs the library's own code of what is to be written earns nothing."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from ..errors import WrongAnswer
from .solution import is_students, library_owns


def refuse_library(library: tuple[Callable[..., Any], ...], run: Callable[[], None]) -> None:
    """`run()`, in which a student's code must do without these functions of the library.

    Seen are a call from the student's code, directly or through other functions of the library, and
    a method that the student's class inherits. Not seen are a copy of the text, a call in another
    thread, and code that takes `sys.setprofile` for itself and gives it back.
    Raises: WrongAnswer that names the first of these functions that ran, or if another profiler is
        set than before.
    """
    names = {inspect.unwrap(function).__code__: function.__qualname__ for function in library}
    used: list[str] = []
    here = sys._getframe()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code in names and for_student(frame, here.f_code):
            used.append(names[frame.f_code])

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run()
        if sys.getprofile() is not note:
            raise WrongAnswer("your code sets a profiler (sys.setprofile): leave it as it is")
    finally:
        sys.setprofile(before)
        if used:
            raise WrongAnswer(f"this is the library's own {used[0]}: write it yourself")


def for_student(frame: FrameType, top: CodeType) -> bool:
    """Whether a function runs for an object of a student's class, or was called by their code."""
    if "self" in frame.f_locals:
        *classes, _ = type(frame.f_locals["self"]).__mro__  # without `object`
        if not all(map(library_owns, classes)):
            return True
    caller = frame.f_back
    while caller is not None and caller.f_code is not top:
        if is_students(caller.f_code.co_filename):
            return True
        caller = caller.f_back
    return False

"""A student's solution: the names that it defines, in a namespace, a file or a notebook."""

from __future__ import annotations

import ast
import hashlib
import json
import linecache
import os
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, MiniTransformerError, WrongAnswer

NOBODY = "your-name"  # what STUDENT is in a page that nobody has begun
PACKAGE = str(Path(__file__).parents[1]) + os.sep


class Solution:
    """What a student wrote, by name.

    `student`: whose it is, by default the variable STUDENT; `stopped`: the first statement that
    failed when it was run, in words.
    """

    def __init__(
        self, names: Mapping[str, Any], student: str | None = None, stopped: str = ""
    ) -> None:
        self.stopped = f"; one statement of it failed: {stopped}" if stopped else ""
        self.names = names
        own = names.get("STUDENT", NOBODY)
        self.student = str(own if student is None else student)
        self.named = str(own)  # in the file itself

    def get(self, name: str) -> Any:
        """The class, function or answer called `name`.

        Raises: WrongAnswer if there is none, or it is still the `...` of the page.
        """
        if name not in self.names:
            raise WrongAnswer(
                f"there is no `{name}`: is it defined, under its name on the page?{self.stopped}"
            )
        value = self.names[name]
        if value is ... or value is None:
            raise WrongAnswer(f"`{name}` is not written yet{self.stopped}")
        if callable(value) and library_owns(value):
            raise WrongAnswer(
                f"`{name}` is the library's own {value.__qualname__}: write it yourself"
            )
        if name.startswith("My") and not isinstance(value, type):
            raise WrongAnswer(f"`{name}` is a {type(value).__name__}; expected a class")
        return value

    def named_student(self) -> str:
        """Whose numbers these are.

        Raises: WrongAnswer without a name, or if the file says another name than the student's.
        """
        if NOBODY in (self.student, self.named) or not self.student.strip():
            raise WrongAnswer('put your name into `STUDENT = "..."`: your numbers depend on it')
        if same_id(self.named) != same_id(self.student):
            raise WrongAnswer(
                f"these are the numbers of {self.named!r}, but this is the solution of "
                f"{self.student!r}: put that name into STUDENT and answer for its numbers"
            )
        return self.student


def same_id(student: str) -> str:
    """An id without what people write differently: spaces around it, capitals."""
    return student.strip().lower()


def variant(student: str, exercise: int) -> np.random.Generator:
    """A generator that depends on the student's name and the exercise: everybody's own numbers."""
    text = f"{same_id(student)}/{exercise}"
    return np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest()[:16], 16))


def read_solution(
    path: str | Path,
    student: str | None = None,
    limited: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Solution:
    """Run a Python file, or the cells that a student writes in a notebook.

    A statement that fails does not keep those after it from running. Each runs inside `limited()`.
    Raises: DataError if there is no such file; WrongAnswer if it is not Python.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if path.suffix == ".ipynb":
        text = notebook_code(text, path)
    module = types.ModuleType("solution")
    module.__file__ = str(path)
    name = str(path)
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    sys.modules["solution"] = module  # pickling and dataclasses look their module up
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)  # a solution may be more than one file
    stopped = ""
    try:
        for statement in ast.parse(text, name).body:
            try:
                with limited(), warnings.catch_warnings():
                    warnings.simplefilter("default")  # shown, and an error for nobody
                    exec(compile(ast.Module([statement], []), name, "exec"), module.__dict__)
            except (Exception, SystemExit) as error:  # go on, as a notebook does
                stopped = stopped or in_words(error)
    except SyntaxError as error:
        raise WrongAnswer(f"{path.name} does not run: {in_words(error)}") from error
    finally:
        sys.path.remove(folder)
    return Solution(module.__dict__, student, stopped)


def notebook_code(text: str, path: Path) -> str:
    """The code of a notebook without its test and reward cells, which are the instructor's."""
    try:
        cells = json.loads(text)["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a notebook: {error!r}") from error
    code = []
    for cell in cells:
        metadata = cell.get("metadata", {})
        graded = metadata.get("nbgrader", {}).get("grade", False)
        if cell["cell_type"] == "code" and not graded and "reward" not in metadata.get("tags", ()):
            lines = "".join(cell["source"]).splitlines()
            code.append("\n".join(line for line in lines if not line.startswith(("%", "!"))))
    return "\n\n".join(code) + "\n"


def in_words(error: BaseException) -> str:
    """What went wrong and in which line of the student's own code."""
    if isinstance(error, NotImplementedError):
        return f"not written yet{where(error)}"
    message = str(error) or "no message"
    kind = "" if isinstance(error, MiniTransformerError) else f"{type(error).__name__}: "
    if isinstance(error, TypeError | AttributeError) and "'Parameter'" in message:
        message += "; the array of a Parameter is its `.value`"
    return f"{kind}{message}{where(error)}"


def where(error: BaseException) -> str:
    """`, in line 12 (forward): 'y = x @ w'`: the last line that is the student's own."""
    if isinstance(error, SyntaxError):
        return f", in line {error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_students(frame.filename):
            return f", in line {frame.lineno} ({frame.name}): {frame.line!r}"
    return ""


def is_students(filename: str) -> bool:
    """Whether code in this file is a student's own: not the library's, nor installed."""
    installed = f"{os.sep}site-packages{os.sep}" in filename
    ours = filename.startswith((PACKAGE, "<frozen", sys.base_prefix))
    return not (ours or installed or filename.endswith(".pyx"))


def library_owns(thing: Any) -> bool:
    """Whether a class or a function is defined in this library."""
    package = __name__.partition(".")[0]
    return str(getattr(thing, "__module__", "")).partition(".")[0] == package

"""A study: which runs answer a question, read from a TOML file.

    name = "sizes"
    seeds = [0, 1, 2]          # the first one chooses the learning rate

    [run]                      # of every run; the names are those of `minitransformer train`
    base = "minilm"
    epochs = 3

    [[task]]
    name = "rotten-tomatoes"   # or a data file; a relative path counts from the study's folder
    limit = 1000
    test_limit = 1000

    [[part]]
    name = "sizes"
    placement = ["houlsby", "parallel"]     # a list: each of them is tried
    bottleneck = [2, 8, 32, 128]
    lr = [3e-4, 1e-3, 3e-3]                 # the best one on validation is chosen, cell by cell

A part is the cross product of its lists. One task with one choice of everything but learning rate
and seed is a *cell*. A cell is run in two phases: with the first seed at each learning rate, then
with the other seeds at the rate that was best on the validation split. The test split takes no part
in the choice. A value that is itself a list is written as on the command line: "attention,ffn",
"3-5".
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from ..data.datasets import TASKS
from ..errors import ConfigError
from ..formats.kinds import check_kinds
from ..runs.options import RunOptions
from .values import DECIDED_ELSEWHERE, run_options

MOST_CELLS = 10_000  # of a part
TASK_KEYS = ("limit", "validation_limit", "test_limit")


@dataclass(frozen=True)
class TaskSpec:
    """A task and how much of it is used.

    Attributes:
        name: of a built-in task, or as the study names its data file.
        path, sha256: of the data file; None for a built-in task.
        limit, validation_limit, test_limit: at most so many examples of each split; None: all.
    """

    name: str
    path: str | None = None
    sha256: str | None = None
    limit: int | None = None
    validation_limit: int | None = None
    test_limit: int | None = None

    def __post_init__(self) -> None:
        for key in TASK_KEYS:
            value = getattr(self, key)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{key}={value!r}: expected a whole number above 0")
        if self.path is None and self.name not in TASKS:
            raise ConfigError(
                f"name={self.name!r}: expected one of {', '.join(TASKS)}, or a file that exists"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What decides which examples these are: of a file its content, wherever it lies."""
        return {name: value for name, value in asdict(self).items() if name != "path"}


@dataclass(frozen=True)
class RunSpec:
    """One run: a task, and everything that decides its outcome, flat.

    Attributes:
        task: what it is trained on.
        values: options by the names of `minitransformer train`, learning rate and seed included.
        options: the same as `RunOptions`.
    """

    task: TaskSpec
    values: Mapping[str, Any]

    @cached_property
    def options(self) -> RunOptions:
        return run_options(self.values)

    @cached_property
    def key(self) -> str:
        """Names the run and its row on disk: the same outcome, the same key."""
        identity = {"task": self.task.identity, "values": dict(sorted(self.values.items()))}
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        return f"{Path(self.task.name).stem}-{self.options.method}-{digest[:12]}"


@dataclass(frozen=True)
class Cell:
    """A task with one choice of everything but learning rate and seed.

    Attributes:
        task, values: as in `RunSpec`, without "lr" and "seed".
        rates: learning rates to choose from; (None,) for the usual one of the method.
        seeds: the first one chooses the rate.
    """

    task: TaskSpec
    values: Mapping[str, Any]
    rates: tuple[float | None, ...]
    seeds: tuple[int, ...]

    def run(self, rate: float | None, seed: int) -> RunSpec:
        lr = {} if rate is None else {"lr": rate}
        return RunSpec(self.task, {**self.values, **lr, "seed": seed})

    def first_phase(self) -> list[RunSpec]:
        """Each learning rate with the first seed."""
        return [self.run(rate, self.seeds[0]) for rate in self.rates]

    def second_phase(self, rate: float | None) -> list[RunSpec]:
        """The other seeds at the chosen rate."""
        return [self.run(rate, seed) for seed in self.seeds[1:]]


@dataclass(frozen=True)
class Part:
    """Cells that answer one question together."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Study:
    """Parts in the order in which they are run. Made by `read_study`.

    A cell that stands in several parts is run once.
    """

    name: str
    seeds: tuple[int, ...]
    parts: tuple[Part, ...]

    def cells(self) -> Iterator[Cell]:
        """Each cell once."""
        seen: list[Cell] = []
        for part in self.parts:
            for cell in part.cells:
                if cell not in seen:
                    seen.append(cell)
                    yield cell

    def run_count(self) -> int:
        """How many runs there are, both phases, each once."""
        first = {run.key for cell in self.cells() for run in cell.first_phase()}
        return len(first) + sum(len(cell.seeds) - 1 for cell in self.cells())


# -- in the folder of a sweep --------------------------------------------------------------


def to_dict(study: Study) -> dict[str, Any]:
    """Plain values, as `study.json` holds them."""
    return asdict(study)


def from_dict(values: dict[str, Any]) -> Study:
    """The inverse of `to_dict`. Raises: ConfigError, KeyError or TypeError for anything else."""
    parts = tuple(
        Part(part["name"], tuple(map(cell_from_dict, part["cells"]))) for part in values["parts"]
    )
    check_kinds(Study, {"name": values["name"], "seeds": values["seeds"]})
    return Study(values["name"], tuple(values["seeds"]), parts)


def cell_from_dict(values: dict[str, Any]) -> Cell:
    check_kinds(TaskSpec, values["task"])
    check_kinds(Cell, {name: value for name, value in values.items() if name != "task"})
    task, rates, seeds = TaskSpec(**values["task"]), tuple(values["rates"]), tuple(values["seeds"])
    cell = Cell(task, values["values"], rates, seeds)
    for run in (*cell.first_phase(), *cell.second_phase(rates[0] if rates else None)):
        run_options(run.values)
    if not rates or not seeds:
        raise ConfigError(f"rates={rates}, seeds={seeds}: expected one or more")
    return cell


# -- reading -------------------------------------------------------------------------------


def read_study(path: str | Path) -> Study:
    """A study from its TOML file.

    Raises: ConfigError for a file that cannot be read or whatever is wrong in it; the message names
    the key.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the study {path}: {error}") from error
    try:
        return parse_study(parse_toml(text), path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Raises: ConfigError for what is no TOML."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # RecursionError: deeply nested
        raise ConfigError(f"not a TOML file: {error}") from error


def parse_study(values: dict[str, Any], folder: Path = Path()) -> Study:
    """A study from the values of its file, which lies in `folder`. Raises: ConfigError."""
    check_keys(values, ("name", "seeds", "run", "task", "part"))
    name = values.get("name")
    if not isinstance(name, str) or re.fullmatch(r"\w[\w.-]*", name) is None:
        raise ConfigError(f"name={name!r}: expected a name of letters, digits, . _ -")
    seeds = values.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or len(set(map(repr, seeds))) < len(seeds):
        raise ConfigError(f"seeds={seeds!r}: expected a list of different whole numbers")
    common = table_of(values, "run")
    tasks = [parse_task(task, folder) for task in tables_of(values, "task")]
    known = [task.name for task, _ in tasks]
    if len(set(known)) < len(known):
        raise ConfigError(f"[[task]]: {', '.join(known)}: expected each name once")
    parts = [
        parse_part(number, part, common, tasks, tuple(seeds))
        for number, part in enumerate(tables_of(values, "part"), 1)
    ]
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise ConfigError(f"[[part]]: {', '.join(names)}: expected each name once")
    return Study(name, tuple(seeds), tuple(parts))


def parse_task(values: dict[str, Any], folder: Path) -> tuple[TaskSpec, dict[str, Any]]:
    """A [[task]], and the options that its runs take."""
    name = values.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"[[task]]: name={name!r}: expected a task's name, or a data file")
    rest = {key: value for key, value in values.items() if key not in ("name", *TASK_KEYS)}
    limits = {key: values[key] for key in TASK_KEYS if key in values}
    try:
        path = folder / Path(name).expanduser()
        if name not in TASKS and path.is_file():
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            task = TaskSpec(name, str(path.resolve()), sha256, **limits)
        else:
            task = TaskSpec(name, **limits)
    except (ConfigError, OSError, RuntimeError) as error:  # RuntimeError: no home for ~name
        raise ConfigError(f"[[task]] {name!r}: {error}") from error
    return task, rest


def parse_part(
    number: int,
    values: dict[str, Any],
    common: dict[str, Any],
    tasks: list[tuple[TaskSpec, dict[str, Any]]],
    seeds: tuple[int, ...],
) -> Part:
    """A [[part]]: the cross product of its lists, for each task."""
    name = values.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"[[part]] number {number}: name={name!r}: expected a name")
    chosen = values.get("tasks", [task.name for task, _ in tasks])
    if not isinstance(chosen, list) or not chosen:
        raise ConfigError(f"part {name!r}: tasks={chosen!r}: expected a list of names")
    for task_name in chosen:
        if task_name not in [task.name for task, _ in tasks]:
            raise ConfigError(f"part {name!r}: tasks: no [[task]] has the name {task_name!r}")
    own = {key: value for key, value in values.items() if key not in ("name", "tasks")}
    cells: list[Cell] = []
    for task, of_task in tasks:
        if task.name not in chosen:
            continue
        merged = {**common, **of_task, **own}
        for key, value in merged.items():
            if key in DECIDED_ELSEWHERE:
                raise ConfigError(f"part {name!r}: {key}={value!r}: {DECIDED_ELSEWHERE[key]}")
            if value == []:
                raise ConfigError(f"part {name!r}: {key}=[]: expected at least one value")
        rates = tuple(several(merged.pop("lr", None)))
        lists = [[(key, value) for value in several(merged[key])] for key in merged]
        if (n := len(cells) + prod(map(len, lists))) > MOST_CELLS:
            raise ConfigError(f"part {name!r}: {n:,} cells; expected at most {MOST_CELLS:,}")
        cells += [Cell(task, dict(choice), rates, seeds) for choice in product(*lists)]
    for cell in cells:
        try:
            for run in (*cell.first_phase(), *cell.second_phase(cell.rates[0])):
                run_options(run.values)
        except ConfigError as error:
            raise ConfigError(f"part {name!r}: {error}") from error
    return Part(name, tuple(cells))


def several(value: Any) -> list[Any]:
    """A list's values, each once; anything else is a list of one."""
    if not isinstance(value, list):
        return [value]
    return [one for i, one in enumerate(value) if one not in value[:i]]


def check_keys(values: Iterable[str], known: Iterable[str]) -> None:
    for key in values:
        if key not in known:
            raise ConfigError(f"{key}: unknown key; expected {', '.join(known)}")


def table_of(values: dict[str, Any], key: str) -> dict[str, Any]:
    table = values.get(key, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{key}: expected a table, [{key}]")
    return table


def tables_of(values: dict[str, Any], key: str) -> list[dict[str, Any]]:
    tables = values.get(key, [])
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise ConfigError(f"{key}: expected at least one table [[{key}]]")
    return tables

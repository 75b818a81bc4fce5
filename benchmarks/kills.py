"""Runs stopped at random instants, each resumed, and its files compared with those of a whole run.

Five commands (train, the same with a prefix cache, pretrain, train --lm, sweep) are stopped by
SIGKILL, SIGTERM, SIGHUP, Ctrl-C once and twice; half of the resumed runs are stopped once more.
Some kill themselves inside a write: before or after a file is synchronized or renamed, or when half
of it is written. Then pairs of runs are started at the same time. States are written five times a
second, so that many kills find one in the middle of an epoch.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import report

KINDS = ("SIGKILL", "SIGTERM", "SIGHUP", "Ctrl-C", "Ctrl-C twice")
TIMES = ("training_seconds", "peak_memory_mb", "seconds", "started", "pid")
PATIENCE = 900  # seconds after which a process is stuck; a busy machine may hold it up
STATE_EVERY = 0.2

TRAIN = "train toy-reviews --base tiny --limit 400 --epochs 3 --dropout 0.1 --threads 2"
PRETRAIN = (
    "pretrain sea.txt --d-model 32 --n-layers 2 --n-heads 2 --vocab-size 300 --block-size 16 "
    "--epochs 3 --threads 2 --dropout 0.1"
)
COMMANDS = {
    "train": TRAIN,
    "train --prefix-cache": f"{TRAIN} --layers 1 --prefix-cache",
    "pretrain": PRETRAIN,
    "train --lm": "train --lm war.txt --base base --epochs 4 --threads 2",
    "sweep": "sweep study.toml --jobs 1",
}
STUDY = """
name = "kills"
seeds = [0, 1]
[run]
base = "tiny"
epochs = 2
dropout = 0.1
[[task]]
name = "toy-reviews"
limit = 200
[[part]]
name = "sizes"
bottleneck = [4]
"""


# -- the process that is stopped ----------------------------------------------------------


class DyingOs:
    """The module os, but at the n-th instant of a write the process is gone."""

    def __init__(self, n: int | None) -> None:
        self.n, self.count = n, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def instant(self, descriptor: int | None = None) -> None:
        self.count += 1
        if self.count == self.n:
            if descriptor is not None:
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def fsync(self, descriptor: int) -> None:
        self.instant(descriptor)
        os.fsync(descriptor)
        self.instant()

    def replace(self, source: Path, target: Path) -> None:
        self.instant()
        os.replace(source, target)
        self.instant()


def child(instant: int | None, words: list[str]) -> int:
    """The command line in this process, with frequent states; prints how many instants it had."""
    from minitransformer.cli import main
    from minitransformer.formats import files
    from minitransformer.training import state, trainer

    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    trainer.STATE_EVERY = STATE_EVERY
    files.os = state.os = dying = DyingOs(instant)  # type: ignore[attr-defined, assignment]
    status = main(words)
    print(f"instants: {dying.count}")
    return status


def start(folder: Path, command: str, instant: int | None = None) -> subprocess.Popen[str]:
    words = [sys.executable, __file__, "--child", str(instant or 0), "--", *shlex.split(command)]
    root = str(Path(__file__).resolve().parents[1])
    return subprocess.Popen(
        words,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int | None, str, str]:
    """Status, output and errors; status None: stuck, and killed."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err
    except subprocess.TimeoutExpired:
        process.kill()
        return None, *process.communicate()


# -- what is compared ---------------------------------------------------------------------


def results(folder: Path) -> dict[str, str]:
    """File -> SHA-256; of the files that hold times, of everything else in them."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name, content = str(path.relative_to(folder)), path.read_bytes() if path.is_file() else b""
        if not path.is_file() or name.startswith("locks") or name in ("report.md", "report.html"):
            continue
        if path.suffix == ".json":
            values = {k: v for k, v in json.loads(content).items() if k not in TIMES}
            content = json.dumps(values).encode()
        if path.suffix == ".csv":
            rows = [line.split(",") for line in content.decode().splitlines()]
            kept = [i for i, column in enumerate(rows[0]) if column not in TIMES]
            content = json.dumps([[row[i] for i in kept] for row in rows]).encode()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


@dataclass
class Whole:
    """A command, and what it gives when nobody stops it."""

    name: str
    seconds: float
    instants: int
    results: dict[str, str]

    @property
    def command(self) -> str:
        return COMMANDS[self.name]


def run_whole(work: Path, name: str) -> Whole:
    started, folder = time.monotonic(), f"whole-{list(COMMANDS).index(name)}"
    status, out, err = finish(start(work, f"{COMMANDS[name]} --out {folder}"))
    if status != 0:
        raise SystemExit(f"{COMMANDS[name]}: {err}")
    instants = int(out.rsplit("instants: ", 1)[1])
    return Whole(name, time.monotonic() - started, instants, results(work / folder))


# -- one run, stopped once or twice -------------------------------------------------------


@dataclass
class Trial:
    command: str
    kind: str
    kills: list[str] = field(default_factory=list)  # how far the run was, at each
    slowest_exit: float = 0.0
    equal: bool = False
    problem: str = ""


def how_far(folder: Path) -> str:
    """What a run that was stopped had on disk."""
    tensors = list(folder.rglob("*.safetensors"))
    state = any(p.name.startswith("state") or p.parent.name == "states" for p in tensors)
    names = {path.name for path in folder.rglob("*")}
    if "metrics.json" in names and not state:
        return "after its end"
    if {"adapter-last.safetensors", "adapter.safetensors", "model.safetensors"} & names:
        return "with results and a state"
    if state:
        return "with a state"
    return "before its first state" if names & {"options.json", "study.json"} else "before a file"


def again(whole: Whole, folder: Path) -> str:
    """The command that goes on, as a user would type it."""
    resume = whole.name != "sweep" and (folder / "options.json").is_file()
    if not resume:
        return f"{whole.command} --out {folder.name}"
    words = whole.command.split()
    return " ".join([*words[: 3 if words[1] == "--lm" else 2], "--resume", "--out", folder.name])


def stop(process: subprocess.Popen[str], kind: str, rng: random.Random) -> None:
    if kind.startswith("Ctrl-C"):
        process.send_signal(signal.SIGINT)
        if kind == "Ctrl-C twice":
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(signal.SIGINT)
    else:
        process.send_signal(getattr(signal, kind))


def trial(work: Path, number: int, whole: Whole, kind: str, rng: random.Random) -> Trial:
    """Stop a run, go on with it, perhaps stop it again, go on to its end, and compare."""
    folder, found = work / f"run-{number}", Trial(whole.name, kind)
    for _ in range(rng.choice((1, 2))):
        inside = kind == "inside a write"
        instant = rng.randint(1, whole.instants) if inside else None
        process = start(work, again(whole, folder), instant)
        if not inside:
            try:
                process.wait(rng.uniform(0, whole.seconds))
            except subprocess.TimeoutExpired:
                stop(process, kind, rng)
        stopped = time.monotonic()
        status, _, err = finish(process)
        if not inside:
            found.slowest_exit = max(found.slowest_exit, time.monotonic() - stopped)
        if status is None:
            found.problem = "stuck"
            return found
        if status == 0:
            break
        if status not in (130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT):
            found.problem = f"status {status}: {err[-300:]}"
            return found
        found.kills.append(how_far(folder))
        if found.kills[-1] == "after its end":
            break
    else:
        status, _, err = finish(start(work, again(whole, folder)))
        if status != 0:
            found.problem = f"resumed: status {status}: {err[-300:]}"
            return found
    after = results(folder)
    found.equal = after == whole.results
    if not found.equal:
        names = {*after, *whole.results}
        differ = sorted(n for n in names if after.get(n) != whole.results.get(n))
        found.problem = f"differ: {', '.join(differ)}"
    return found


# -- two at once --------------------------------------------------------------------------


def race(work: Path, out: str) -> str:
    """What became of two runs that were started at the same time."""
    command = f"train toy-reviews --base tiny --limit 60 --epochs 1 {out}"
    both = [start(work, command), start(work, command)]
    ended = [finish(process) for process in both]
    folders = sorted(path.parent for path in work.rglob("metrics.json"))
    statuses = sorted(str(status) for status, _, _ in ended)
    whole = all((folder / "adapter.safetensors").is_file() for folder in folders)
    if statuses == ["0", "0"] and len(folders) == 2 and whole:
        return "two folders"
    if statuses == ["0", "2"] and len(folders) == 1 and whole:
        return "one refused"
    return f"statuses {statuses}, {len(folders)} folders"


# -- all of them --------------------------------------------------------------------------


def prepare(work: Path) -> None:
    """The texts and the study of the commands, and the base of `train --lm`."""
    for name, words in (("sea", "the sea is wide and the ship is gone"), ("war", "no war is won")):
        lines = (f"{words}, said {i} of {i * 7 % 31}.\n\n" for i in range(150))
        (work / f"{name}.txt").write_text("".join(lines))
    (work / "study.toml").write_text(STUDY)
    status, _, err = finish(start(work, f"{PRETRAIN} --out base"))
    if status != 0:
        raise SystemExit(err)


def summary(trials: list[Trial]) -> dict[str, Any]:
    kills = [kill for one in trials for kill in one.kills]
    return {
        "kills": len(kills),
        "runs": len(trials),
        "equal": sum(one.equal for one in trials),
        "stuck": sum(one.problem == "stuck" for one in trials),
        "problems": [f"{one.command}: {one.problem}" for one in trials if one.problem],
        "how_far": dict(sorted(Counter(kills).items())),
        "slowest_exit_seconds": max(one.slowest_exit for one in trials),
    }


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each kind; default: 20")
    parser.add_argument("--races", type=int, default=20, help="of each kind; default: 20")
    args = parser.parse_args()
    kills, races = (1, 1) if args.quick else (args.kills, args.races)
    record: dict[str, Any] = {"seed": 0, "state_every_seconds": STATE_EVERY}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        prepare(work)
        wholes = [run_whole(work, name) for name in COMMANDS]
        rng, number = random.Random(0), 0
        for kind in (*KINDS, "inside a write"):
            trials: list[Trial] = []
            while sum(len(one.kills) for one in trials) < kills:
                one = trial(work, number, wholes[number % len(wholes)], kind, rng)
                number += 1
                trials.append(one)
                print(
                    f"{number:4} {kind:14} {one.command:20} {one.kills} {one.problem}", flush=True
                )
            record[kind] = summary(trials)
    for name, out in (("two at once", ""), ("two at once, the same --out", "--out same")):
        found: Counter[str] = Counter()
        for _ in range(races):
            with tempfile.TemporaryDirectory() as temporary:
                found[race(Path(temporary), out)] += 1
        record[name] = dict(found)
        print(name, dict(found), flush=True)
    columns = ("kills", "runs", "equal", "stuck")
    report.show(
        "stopped, and resumed to the end",
        [
            {"how": kind, **{column: str(record[kind][column]) for column in columns}}
            for kind in (*KINDS, "inside a write")
        ],
    )
    report.write("kills", args, record)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        sys.exit(child(int(sys.argv[2]) or None, sys.argv[4:]))
    main()

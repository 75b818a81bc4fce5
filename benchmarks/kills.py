"""Runs stopped at random instants, each resumed, and its files compared with those of a whole run.

Five commands (train, the same with a prefix cache, pretrain, train --lm, sweep) are stopped by
SIGKILL, SIGTERM, SIGHUP, Ctrl-C once and twice; half of the resumed runs are stopped once more.
Some kill themselves inside a write: before or after a file is synchronized or renamed, or when half
of it is written. Then pairs of runs are started at the same time. States are written twenty times
a second, so that many kills find one in the middle of an epoch.
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
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# In this process once, not in every fork.
import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401
import report
import safetensors.numpy  # noqa: F401
import tokenizers  # noqa: F401
import tqdm.auto  # noqa: F401

import minitransformer.cli

SIGNALS = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT")
KINDS = ("SIGKILL", "SIGTERM", "SIGHUP", "Ctrl-C", "Ctrl-C twice")
TIMES = ("training_seconds", "peak_memory_mb", "seconds", "started", "pid")
PATIENCE = 900  # seconds after which a process is stuck; a busy machine may hold it up
STATE_EVERY = 0.05

TRAIN = "train toy-reviews --base tiny --limit 160 --epochs 3 --dropout 0.1 --threads 2"
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
    from minitransformer.formats import files
    from minitransformer.training import state, trainer

    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    trainer.STATE_EVERY = STATE_EVERY
    files.os = state.os = dying = DyingOs(instant)  # type: ignore[attr-defined, assignment]
    status = minitransformer.cli.main(words)
    print(f"instants: {dying.count}")
    return status


class Process:
    """The command line in a fork of this process, which has all imports done."""

    def __init__(self, folder: Path, command: str, instant: int | None = None) -> None:
        self.output = tempfile.TemporaryFile("w+")  # noqa: SIM115 (read when it has ended)
        self.pid = os.fork()
        if self.pid == 0:
            os.chdir(folder)
            for descriptor in (1, 2):
                os.dup2(self.output.fileno(), descriptor)
            sys.stdout = sys.stderr = os.fdopen(1, "w", closefd=False)
            status = 1
            try:
                status = child(instant, shlex.split(command))
            finally:
                sys.stdout.flush()
                os._exit(status)

    def cpu_seconds(self) -> float | None:
        """How long it has computed; None if it has ended."""
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return None
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def finish(self) -> tuple[int | None, float, str]:
        """Status (None: stuck, and killed), seconds of computing, and what it said."""
        end = time.monotonic() + PATIENCE
        while self.cpu_seconds() is not None and time.monotonic() < end:
            time.sleep(0.01)
        stuck = self.cpu_seconds() is not None
        if stuck:
            self.send(signal.SIGKILL)
        _, status, used = os.wait4(self.pid, 0)
        self.output.seek(0)
        said = self.output.read()
        code = None if stuck else os.waitstatus_to_exitcode(status)
        return code, used.ru_utime + used.ru_stime, said


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
    folder = f"whole-{list(COMMANDS).index(name)}"
    status, seconds, said = Process(work, f"{COMMANDS[name]} --out {folder}").finish()
    if status != 0:
        raise SystemExit(f"{COMMANDS[name]}: {said}")
    instants = int(said.rsplit("instants: ", 1)[1])
    return Whole(name, seconds, instants, results(work / folder))


# -- one run, stopped once or twice -------------------------------------------------------


@dataclass
class Trial:
    command: str
    kind: str
    kills: list[str] = field(default_factory=list)  # how far the run was, at each
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


def stop(process: Process, kind: str, rng: random.Random) -> None:
    if kind.startswith("Ctrl-C"):
        process.send(signal.SIGINT)
        if kind == "Ctrl-C twice":
            time.sleep(rng.uniform(0, 0.1))
            process.send(signal.SIGINT)
    else:
        process.send(getattr(signal, kind))


def trial(work: Path, name: str, whole: Whole, kind: str) -> Trial:
    """Stop a run, go on with it, perhaps stop it again, go on to its end, and compare."""
    rng = random.Random(name)
    folder, found = work / f"run-{name}", Trial(whole.name, kind)
    for _ in range(rng.choice((1, 2))):
        inside = kind == "inside a write"
        process = Process(
            work, again(whole, folder), rng.randint(1, whole.instants) if inside else None
        )
        if not inside:
            when = rng.uniform(0, whole.seconds)
            while (used := process.cpu_seconds()) is not None and used < when:
                time.sleep(rng.uniform(0, 0.02))
            if used is not None:
                stop(process, kind, rng)
        status, _, said = process.finish()
        if status is None:
            found.problem = "stuck"
            return found
        if status not in (0, 130, *(-getattr(signal, name) for name in SIGNALS)):
            found.problem = f"status {status}: {said[-300:]}"
            return found
        if status != 0:
            found.kills.append(how_far(folder))
        if status == 0 or found.kills[-1] == "after its end":
            break
    else:
        status, _, said = Process(work, again(whole, folder)).finish()
        if status != 0:
            found.problem = f"resumed: status {status}: {said[-300:]}"
            return found
    after = results(folder)
    names = {*after, *whole.results}
    differ = sorted(n for n in names if after.get(n) != whole.results.get(n))
    found.equal, found.problem = not differ, f"differ: {', '.join(differ)}" if differ else ""
    return found


# -- two at once --------------------------------------------------------------------------


def race(work: Path, out: str) -> str:
    """What became of two runs that were started at the same time."""
    command = f"train toy-reviews --base tiny --limit 60 --epochs 1 {out}"
    both = [Process(work, command), Process(work, command)]
    ended = [process.finish() for process in both]
    folders = sorted(path.parent for path in work.rglob("metrics.json"))
    statuses = sorted(str(status) for status, _, _ in ended)
    whole = all((folder / "adapter.safetensors").is_file() for folder in folders)
    if statuses == ["0", "0"] and len(folders) == 2 and whole:
        return "two folders"
    if statuses == ["0", "2"] and len(folders) == 1 and whole:
        return "one refused"
    return f"statuses {statuses}, {len(folders)} folders"


# -- how much is lost ---------------------------------------------------------------------


def most_lost(work: Path, minutes: float) -> dict[str, Any]:
    """Seconds between the states of a run on MiniLM, which a SIGKILL just before one would cost."""
    command = "train rotten-tomatoes --base minilm --out run"
    root = str(Path(__file__).resolve().parents[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "minitransformer", *command.split()],
        cwd=work,
        env={**os.environ, "PYTHONPATH": root},
        stderr=subprocess.DEVNULL,
    )
    state, written, size = work / "run" / "state.safetensors", [], 0
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end and process.poll() is None:
        with suppress(FileNotFoundError):  # it is being replaced
            found = state.stat()
            if found.st_mtime not in written:
                written.append(found.st_mtime)
                size = found.st_size
        time.sleep(0.02)
    watched = minutes - max(0, end - time.monotonic()) / 60
    process.kill()
    process.wait()
    gaps = [after - before for before, after in pairwise([*written, time.time()])]
    return {
        "command": command, "minutes": watched, "states": len(written), "state_bytes": size,
        "gaps_seconds": gaps,
    }  # fmt: skip


# -- all of them --------------------------------------------------------------------------


def prepare(work: Path) -> None:
    """The texts and the study of the commands, and the base of `train --lm`."""
    for name, words in (("sea", "the sea is wide and the ship is gone"), ("war", "no war is won")):
        lines = (f"{words}, said {i} of {i * 7 % 31}.\n\n" for i in range(60))
        (work / f"{name}.txt").write_text("".join(lines))
    (work / "study.toml").write_text(STUDY)
    status, _, said = Process(work, f"{PRETRAIN} --out base").finish()
    if status != 0:
        raise SystemExit(said)


def summary(trials: list[Trial]) -> dict[str, Any]:
    kills = [kill for one in trials for kill in one.kills]
    return {
        "kills": len(kills),
        "runs": len(trials),
        "equal": sum(one.equal for one in trials),
        "stuck": sum(one.problem == "stuck" for one in trials),
        "problems": [f"{one.command}: {one.problem}" for one in trials if one.problem],
        "how_far": dict(sorted(Counter(kills).items())),
    }


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each kind; default: 20")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time; default: 2")
    parser.add_argument("--races", type=int, default=20, help="of each kind; default: 20")
    parser.add_argument("--minilm", type=float, metavar="MINUTES", help="only what a kill loses")
    args = parser.parse_args()
    if args.minilm:
        with tempfile.TemporaryDirectory() as temporary:
            lost = most_lost(Path(temporary), args.minilm)
        print(lost)
        args.to = args.to or "kills_minilm"
        report.write("kills", args, {"most_seconds": max(lost["gaps_seconds"]), **lost})
        return
    kills, races = (1, 1) if args.quick else (args.kills, args.races)
    record: dict[str, Any] = {"state_every_seconds": STATE_EVERY}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        prepare(work)
        wholes = [run_whole(work, name) for name in COMMANDS]
        with ProcessPoolExecutor(args.jobs, mp_context=get_context("fork")) as pool:
            for kind in (*KINDS, "inside a write"):
                trials: list[Trial] = []
                while (missing := kills - sum(len(one.kills) for one in trials)) > 0:
                    plan = [
                        (work, f"{kind} {i}".replace(" ", "-"), wholes[i % len(wholes)], kind)
                        for i in range(len(trials), len(trials) + missing)
                    ]
                    for one in pool.map(trial, *zip(*plan, strict=True)):
                        trials.append(one)
                        print(f"{kind:14} {one.command:20} {one.kills} {one.problem}", flush=True)
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
    unequal = [k for k in (*KINDS, "inside a write") if record[k]["equal"] < record[k]["runs"]]
    raced = {*record["two at once"], *record["two at once, the same --out"]}
    if unequal or not raced <= {"two folders", "one refused"}:
        sys.exit("not every run came to the same files, or two runs shared a folder")


if __name__ == "__main__":
    main()

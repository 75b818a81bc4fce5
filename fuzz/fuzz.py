"""Read damaged files for some minutes: only this library's errors may come out, in 1 GB of memory.

    python fuzz/fuzz.py --minutes 10                      # of each format, one after the other
    python fuzz/fuzz.py --minutes 1 --format peft study   # of these
    python fuzz/fuzz.py --minutes 10 --json fuzz/results.json --keep FOLDER

Each input is a small valid example with a few mistakes in it. Nine of ten damaged files get the
SHA-256 that they should then carry, so that what is behind its check is reached;
"refused_by_digest" counts the inputs that went no further. Whatever is raised beside
MiniTransformerError, takes more than 20 seconds of the processor or asks for more than 1 GB is a
crash; `--keep` stores the first input of each kind. The exit status is 1 if there was any.

`results.json` is of ten minutes a format, with `--jobs 2` on two AMD EPYC cores that had much other
work. "mended" there are the kinds of crashes that this found before; their tests are in
`tests/test_hostile_files.py`.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "fuzz")]

from mutations import damaged  # noqa: E402

from minitransformer.errors import MiniTransformerError  # noqa: E402

MEMORY = 1 << 30  # bytes of address space beside what is there before the first input
SECONDS = 20  # of processor time for one input: a busy machine is no crash


class TooSlow(BaseException):
    """An input took more than SECONDS."""


def alarm(*_: object) -> None:
    raise TooSlow


def fuzz(name: str, seconds: float, seed: int, keep: Path | None) -> dict[str, Any]:
    """Try damaged examples of one format for so long; what came of it as plain values."""
    from formats import FORMATS

    warnings.simplefilter("ignore")
    logging.disable()
    chosen = random.Random(seed)
    found: dict[str, int] = {}
    known, accepted, refused, by_digest = FORMATS[name], 0, 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        whole = [
            {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
            for folder in known.examples(Path(temporary))
        ]
        for example in whole:  # undamaged, each must be accepted
            known.read(written(example, Path(temporary) / "input"))
        before = peak_mb()
        most = address_space() + MEMORY
        signal.signal(signal.SIGPROF, alarm)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            example = dict(chosen.choice(whole))
            for file in chosen.sample(sorted(example), min(len(example), chosen.choice([1, 1, 2]))):
                example[file] = damaged(file, example[file], chosen)
            folder = written(example, Path(temporary) / "input")
            try:
                with limited(most):
                    known.read(folder)
                accepted += 1
            except MiniTransformerError as error:
                refused += 1
                by_digest += "its SHA-256 is not the one" in str(error)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # pyo3's PanicException is no Exception
                kind = described(error)
                if kind not in found and keep is not None:
                    shutil.copytree(folder, keep / name / f"{len(found):03d}", dirs_exist_ok=True)
                    (keep / name / f"{len(found):03d}.txt").write_text(traceback.format_exc())
                found[kind] = found.get(kind, 0) + 1
        os.chdir(ROOT)
    return {
        "inputs": accepted + refused + sum(found.values()),
        "accepted": accepted,
        "refused": refused,
        "refused_by_digest": by_digest,
        "crashes": found,
        "minutes": seconds / 60,
        "peak_memory_mb": round(peak_mb()),
        "memory_before_mb": round(before),
    }


def written(example: dict[str, bytes], folder: Path) -> Path:
    """The files of an example in a folder that holds nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in example.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def described(error: BaseException) -> str:
    """The kind of an error, and the line of this library that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "minitransformer" in frame.filename] or frames
    return f"{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].lineno}"


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000  # Linux counts in kB


def address_space() -> int:
    """Bytes that this process has asked for."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@contextmanager
def limited(memory: int) -> Iterator[None]:
    """Inside, asking for more than `memory` is a MemoryError, and SECONDS end in TooSlow."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def main() -> int:
    from formats import FORMATS

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1, help="for each format")
    parser.add_argument("--format", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="add the counts to this file")
    parser.add_argument("--keep", type=Path, help="store the first input of each kind of crash")
    parser.add_argument("--jobs", type=int, default=1, help="formats at the same time")
    given = parser.parse_args()
    tries = [
        (name, 60 * given.minutes, given.seed, given.keep and given.keep.resolve())
        for name in given.format
    ]
    results: dict[str, Any] = {}
    if given.json is not None and given.json.is_file():
        results = json.loads(given.json.read_text())
    spawn = multiprocessing.get_context("spawn")  # each format with a peak of its own
    with spawn.Pool(given.jobs, maxtasksperchild=1) as pool:
        waiting = [(name, pool.apply_async(fuzz, (name, *rest))) for name, *rest in tries]
        for name, result in ((name, found.get()) for name, found in waiting):
            crashes = sum(result["crashes"].values())
            print(
                f"{name}: {result['inputs']:,} inputs, {result['accepted']:,} accepted, "
                f"{crashes:,} crashes, peak {result['peak_memory_mb']} MB",
                flush=True,
            )
            for kind, count in sorted(result["crashes"].items()):
                print(f"    {count:6,} x {kind}")
            mended = results.get(name, {}).get("mended", [])
            results[name] = {**result, "seed": given.seed, "mended": mended}
            if given.json is not None:
                given.json.write_text(json.dumps(results, indent=1) + "\n")
    return int(any(results[name]["crashes"] for name in given.format))


if __name__ == "__main__":
    sys.exit(main())

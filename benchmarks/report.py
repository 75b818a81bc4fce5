"""What all benchmarks share: tables, JSON, versions, and the arguments they have in common."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

import minitransformer as mt
from minitransformer.training.process import cores

OVERRULES = (  # variables that hold a library back from what the processor can do
    "OPENBLAS_CORETYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
)
RESULTS = Path(__file__).resolve().parent / "results"


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser with --quick, --threads and --to."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a minute's trial; writes no results")
    parser.add_argument("--threads", type=int, default=cores(), help="of each side; default: cores")
    parser.add_argument("--to", help="write results/TO.json, not that of the benchmark's own name")
    return parser


def clock_for(threads: int) -> Callable[[], float]:
    """Of one thread the processor's time, because other processes hardly change it."""
    return time.process_time if threads == 1 else time.perf_counter


def show(title: str, rows: Sequence[dict[str, str]]) -> None:
    """A table of rows {column: cell}: the first column to the left, figures to the right."""
    table = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print(f"\n{title}")
    for number, row in enumerate(table):
        first, *others = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())
        if number == 0:
            print("-" * (sum(widths) + 2 * len(widths) - 2))
    sys.stdout.flush()


def write(name: str, args: argparse.Namespace, record: dict[str, Any]) -> None:
    """results/NAME.json, or where --to says, unless this was only a trial."""
    if args.quick:
        print("\na quick trial: nothing written")
        return
    RESULTS.mkdir(exist_ok=True)
    library = matrix_library()
    head = {
        "command": " ".join(["python", f"benchmarks/{name}.py", *map(portable, sys.argv[1:])]),
        "threads": args.threads,
        "matrix_library": library,
        "versions": versions(),
    }
    path = RESULTS / f"{args.to or name}.json"
    path.write_text(json.dumps(rounded(head | record), indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten: results/{path.name} ({library})")


def portable(word: str) -> str:
    """A word of a command line, of an absolute path the last part alone."""
    return Path(word).name if Path(word).is_absolute() else word


def matrix_library() -> str:
    """NumPy's, and the kernels that it chose for this processor or was told to take."""
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    named = [
        f"{pool['internal_api']} {pool['version']}, {pool.get('architecture', 'unnamed')} kernels"
        for pool in pools
    ]
    told = [f"{name}={os.environ[name]}" for name in OVERRULES if os.environ.get(name)]
    return "; ".join([*named, *told])


def versions() -> dict[str, str]:
    """Of everything that takes part."""
    found = {"python": platform.python_version(), "minitransformer": mt.__version__}
    for name in ("numpy", "torch", "transformers", "adapters", "tokenizers", "jax", "onnxruntime"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def rounded(value: Any) -> Any:
    """To four digits: more than a timing is exact to."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list | tuple) else value

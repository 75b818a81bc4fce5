"""The commands `sweep` and `report`: many runs, and what they come to."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ..sweeps.report import Report, smallest_table
from ..sweeps.report import report as make_report
from ..sweeps.study import read_study
from ..sweeps.sweep import default_folder
from ..sweeps.sweep import sweep as run_sweep
from ..sweeps.table import read_rows
from . import options as opt
from .app import INTERRUPTED, STUDY, app, failed, print_json, say, show
from .text import table

StudyFile = Annotated[
    Path, typer.Argument(metavar="STUDY", help="A TOML file; studies/ has examples.")
]
SweepFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a sweep.")]
SweepOut = Annotated[Path | None, opt.option("Folder of the sweep.", "sweeps/NAME")]
ReportTo = Annotated[Path | None, opt.option("Folder for the report.", "DIR")]
Jobs = Annotated[int | None, opt.option("Runs at the same time.", "one for each core")]
Scheduler = Annotated[
    str | None,
    opt.option("Address of a Dask scheduler, as tcp://10.0.0.1:8786.", "this machine"),
]
Retry = Annotated[bool, opt.option("Run those again that failed.", flag="--retry")]


@app.command(rich_help_panel=STUDY)
def sweep(
    study: StudyFile,
    out: SweepOut = None,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    retry: Retry = False,
) -> int:
    """Run a study: tasks x methods x sizes x placements x learning rates x seeds.

    Each run that ends is a row on disk at once. Ctrl-C, or whatever else stops it, loses nothing:
    the same command goes on where it was. A run that fails is a row with its error.

    Example: `minitransformer sweep studies/small.toml --jobs 2`

    Example: `minitransformer sweep study.toml --scheduler tcp://10.0.0.1:8786`
    """
    folder = out if out is not None else default_folder(read_study(study))
    try:
        run_sweep(study, folder, jobs, scheduler, retry, progress=True)
    except KeyboardInterrupt:
        say(f"stopped. {len(read_rows(folder))} rows are in {folder}; the same command goes on")
        return INTERRUPTED
    made = make_report(folder)
    show(summary(made))
    if made.progress.failed:
        return failed(f"{len(made.progress.failed)} runs failed: {folder / 'report.md'}", 1)
    return 0


@app.command(rich_help_panel=STUDY)
def report(folder: SweepFolder, to: ReportTo = None, as_json: opt.AsJson = False) -> None:
    """Write the report on a sweep, finished or not: tables, pictures, one HTML page.

    The files go into the sweep's folder, or where --to says: report.md, report.html, cells.csv,
    rows.csv, accuracy.png, parts.png.

    Example: `minitransformer report sweeps/small`
    """
    made = make_report(folder, to)
    if as_json:
        print_json(made.as_dict())
    else:
        show(summary(made))


def summary(made: Report) -> str:
    """How far the sweep is, the smallest size that is enough, and where the report is."""
    lines = [made.summary()]
    header, rows = smallest_table(made)
    if rows:
        lines += ["", table(header, rows, left=4), ""]
    lines.append(f"report  {shlex.quote(str(made.folder / 'report.html'))}, and beside it")
    lines.append("        report.md, cells.csv, rows.csv" + (", accuracy.png" if rows else ""))
    return "\n".join(lines)

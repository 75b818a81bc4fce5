"""The command that answers: texts on the command line, from standard input, or from a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..data.splits import on_one_line
from ..errors import ConfigError, DataError
from ..formats.files import json_text
from ..runs.classification import Prediction, Run, load_run
from ..runs.multitask import load_runs
from ..runs.predict_file import predict_file
from . import options as opt
from .app import USE, app, say, show

AT_ONCE = 64  # texts from standard input in a batch

# Texts -> for each what names its task (where there are several), and the prediction.
Predictions = Callable[[Sequence[str]], Iterable[tuple[dict[str, str], Prediction]]]


@app.command(rich_help_panel=USE)
def predict(
    run: opt.RunFolder,
    texts: opt.Texts = None,
    file: opt.InputFile = None,
    out: opt.OutputFile = None,
    top_k: opt.TopK = None,
    text_column: opt.TextColumn = None,
    pair_column: opt.PairColumn = None,
    also: opt.Also = None,
    drop_lowest: opt.DropLowest = 0,
    base: opt.BaseNow = None,
    quiet: opt.Quiet = False,
    as_json: opt.AsJsonLines = False,
) -> None:
    """Print a label and its probability for each text, one line each, in order.

    Tabs and line breaks inside a text are shown as \\t and \\n; --json keeps them.

    With --file, the rows of a .csv, .tsv, .jsonl or .parquet file are labelled; --out receives
    all its columns and, for each row, the label and the probability of every label, or the
    --top-k most probable ones. The file may be of any size.

    With --also, several runs on one base predict together, in one forward pass through what they
    share: for each text a line for each task, the task's name first (in JSON: "task").

    Example: `minitransformer predict runs/rotten-tomatoes-adapter-seed0 "a gem"`

    Example: `cat reviews.txt | minitransformer predict RUN --json`

    Example: `minitransformer predict RUN --file reviews.csv --out labelled.csv --top-k 3`

    Example: `minitransformer predict runs/tweets --also runs/bbc-news "the match was a joy"`
    """
    if file is not None or out is not None:
        if file is None or out is None or texts or also:
            raise ConfigError("--file and --out go together, without TEXT and --also")
        columns = opt.data_options(text_column=text_column, pair_column=pair_column)
        trained = load_run(run, base)
        drop_adapters(trained, drop_lowest)
        rows = predict_file(trained, file, out, columns, top_k, progress=not quiet)
        if not quiet:
            say(f"{rows:,} rows are in {out}")
        return
    if texts and len(texts) == 1 and Path(texts[0]).is_file():
        raise ConfigError(
            f"{texts[0]} is a file: --file {texts[0]} --out FILE labels its rows (as a text of "
            f"its own, it goes through standard input: echo {texts[0]} | ...)"
        )
    if top_k is not None or text_column is not None or pair_column is not None:
        raise ConfigError("--top-k, --text-column and --pair-column go with --file")
    if also:
        predictions = predictions_of_all([run, *also], base, drop_lowest)
    else:
        predictions = predictions_of_one(run, base, drop_lowest)
    lines = iter(texts) if texts else lines_of_input()
    at_once = 1 if not texts and sys.stdin.isatty() else AT_ONCE
    while some := list(islice(lines, at_once)):
        for task, found in predictions(some):
            if as_json:
                answer: dict[str, Any] = {"number": found.number}
                if found.number is None:
                    answer = {"label": found.label, "probabilities": found.probabilities}
                show(json_text({**task, "text": found.text, **answer}))
            else:
                p = [] if found.number is not None else [found.probabilities[found.label]]
                cells = (*task.values(), found.label, *(f"{x:.3f}" for x in p), found.text)
                show("\t".join(map(on_one_line, cells)))
        sys.stdout.flush()


def drop_adapters(trained: Run, n: int) -> None:
    """Raises: ConfigError if there are not so many blocks, or nothing is inserted in them."""
    if n and trained.adapter is None:
        raise ConfigError(f"--drop-lowest {n}: nothing is inserted in {trained.folder}'s blocks")
    trained.model.transformer.drop_adapters(n)


def predictions_of_one(run: Path, base: str | None, drop_lowest: int) -> Predictions:
    trained = load_run(run, base)
    drop_adapters(trained, drop_lowest)
    return lambda texts: (({}, found) for found in trained.predict(texts))


def predictions_of_all(runs: Sequence[Path], base: str | None, drop_lowest: int) -> Predictions:
    """Text by text, for each the tasks in the order of the runs."""
    tasks = load_runs(runs, base)
    for name in tasks:
        drop_adapters(tasks[name], drop_lowest)

    def predictions(texts: Sequence[str]) -> Iterator[tuple[dict[str, str], Prediction]]:
        found = tasks.predict(texts)
        for i in range(len(texts)):
            yield from (({"task": name}, found[name][i]) for name in found)

    return predictions


def lines_of_input() -> Iterator[str]:
    """Standard input, line by line. Raises: DataError for what is not UTF-8."""
    if sys.stdin.isatty():
        say("type texts, one a line; Ctrl-D ends")
    try:
        for line in sys.stdin:
            yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"standard input is not UTF-8: {error}") from error

"""The commands that measure: evaluate, and compare."""

from __future__ import annotations

from dataclasses import asdict, replace

from ..data.datasets import TASKS, load_task
from ..errors import ConfigError
from ..runs.classification import load_run, measured
from ..runs.results import classification_results, correlations, report_text
from ..runs.results import compare as compare_runs
from ..training.evaluation import Evaluation
from . import options as opt
from .app import USE, app, print_json, say, show
from .predict import drop_adapters
from .text import classification_lines, comparison_text, number_lines


@app.command(rich_help_panel=USE)
def evaluate(
    run: opt.RunFolder,
    task: opt.OtherTask,
    split: opt.Split = "test",
    all_rows: opt.AllRows = False,
    text_column: opt.TextColumn = None,
    label_column: opt.LabelColumn = None,
    pair_column: opt.PairColumn = None,
    drop_unusable: opt.DropUnusable = None,
    drop_lowest: opt.DropLowest = 0,
    base: opt.BaseNow = None,
    as_json: opt.AsJson = False,
) -> None:
    """Measure a trained run on a task's held-out examples, or on all rows of a file.

    The task may be another one than it was trained on, if its labels have the same names: a
    sentiment adapter for films, tried on your own reviews. Of your own file, --all measures every
    row; without it, the test split that a training on this file would have.

    Example: `minitransformer evaluate runs/rotten-tomatoes-adapter-seed0 imdb`

    Example: `minitransformer evaluate RUN my-reviews.csv --all`
    """
    trained = load_run(run, base)
    drop_adapters(trained, drop_lowest)
    if all_rows and task in TASKS:
        raise ConfigError("--all is for your own file: built-in tasks have their test split")
    columns = opt.data_options(
        text_column=text_column,
        label_column=label_column,
        pair_column=pair_column,
        number=trained.is_number or None,
        drop_unusable=drop_unusable,
    )
    if task in TASKS:
        data = load_task(task)
    else:
        data = load_task(task, options=columns, all_for_test=all_rows)
    encoded = trained.encoded(data, split)
    if task not in TASKS and not all_rows:
        rows = len(data.train) + len(data.validation) + len(data.test) + data.duplicates
        say(f"{len(encoded):,} of {rows:,} rows of {task}: its {split} split; --all measures all")
    found = measured(trained.classifier(), encoded)
    names = trained.record.label_names
    if isinstance(found, Evaluation):
        values, lines = classification_results(found, names), classification_lines
    else:
        values, lines = correlations(found), number_lines
    if as_json:
        said = {"task": task, "split": "all" if all_rows else split, "drop_lowest": drop_lowest}
        print_json({**said, **values})
        return
    part = replace(getattr(data, split), labels=encoded.labels)  # as the run counts them
    report = report_text(found, part, names)
    show("\n".join([*lines(values, "all" if all_rows else split), "", report]))


@app.command(rich_help_panel=USE)
def compare(
    first: opt.RunFolder,
    second: opt.SecondRun,
    as_json: opt.AsJson = False,
) -> None:
    """Compare two finished runs on the same test examples: is the difference more than chance?

    McNemar's exact test: of the examples that one run alone has right, how many are each one's?

    Example: `minitransformer compare runs/tweets-adapter-seed0 runs/tweets-lora-seed0`
    """
    found = compare_runs(first, second)
    if as_json:
        print_json(asdict(found))
    else:
        show(comparison_text(first, second, found))

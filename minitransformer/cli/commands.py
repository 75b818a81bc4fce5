"""The commands of a classification task: train, evaluate, predict; and what there is to look at."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

from ..data.datasets import TASKS, load_task
from ..errors import ConfigError, DataError
from ..runs.classification import Prediction, load_run, measured
from ..runs.classification import train as train_run
from ..runs.folder import new_folder
from ..runs.language_modeling import HISTORIES
from ..runs.multitask import load_runs
from ..runs.options import RunOptions
from ..runs.results import classification_results, correlations, report_text
from ..runs.results import compare as compare_runs
from ..training.evaluation import Evaluation
from . import options as opt
from .app import INTERRUPTED, app, failed, print_json, say
from .language_adaptation import adapt
from .text import (
    classification_lines,
    comparison_text,
    gradcheck_record,
    gradcheck_text,
    interruption_report,
    number_lines,
    on_one_line,
    table,
    training_report,
)

AT_ONCE = 64  # texts from standard input in a batch

# Texts -> for each what names its task (where there are several), and the prediction.
Predictions = Callable[[Sequence[str]], Iterable[tuple[dict[str, str], Prediction]]]


@app.command()
def train(
    task: opt.Task = None,
    lm: opt.Lm = False,
    base: opt.Base = None,
    method: opt.Method = None,
    bottleneck: opt.Bottleneck = None,
    activation: opt.Activation = None,
    placement: opt.Placement = None,
    sites: opt.Sites = None,
    layers: opt.Layers = None,
    scaling: opt.Scaling = None,
    rank: opt.Rank = None,
    alpha: opt.Alpha = None,
    targets: opt.Targets = None,
    lora_dropout: opt.LoraDropout = None,
    prefix_length: opt.PrefixLength = None,
    layer_norm: opt.LayerNorm = None,
    pooling: opt.Pooling = None,
    dropout: opt.DropoutInBase = None,
    epochs: opt.Epochs = None,
    batch_size: opt.BatchSize = None,
    lr: opt.Lr = None,
    max_length: opt.MaxLength = None,
    limit: opt.Limit = None,
    select_by: opt.SelectBy = None,
    class_weights: opt.ClassWeights = None,
    patience: opt.Patience = None,
    prefix_cache: opt.UsePrefixCache = None,
    threads: opt.Threads = None,
    seed: opt.Seed = None,
    out: opt.Out = None,
    resume: opt.Resume = False,
    quiet: opt.Quiet = False,
    as_json: opt.AsJson = False,
) -> int:
    """Train a task, measure it on held-out examples, and leave a run folder.

    The base is frozen and its weights stay as they are; adapters and a classification head learn.
    After each epoch the validation split is measured; the best epoch is saved and, at the end,
    tested, beside the majority's label and a bag of words. Ctrl-C saves what was learnt and says
    how to go on (exit status 130).

    Example: `minitransformer train rotten-tomatoes --bottleneck 16 --epochs 2`

    Example: `minitransformer train --lm my-novel.txt --base runs/shakespeare-comedies-base-seed0`
    """
    typed = {
        "base": base,
        "method": method,
        "bottleneck": bottleneck,
        "activation": activation,
        "placement": placement,
        "sites": tuple(sites.split(",")) if sites is not None else None,
        "layers": opt.whole_numbers("layers", layers) if layers is not None else None,
        "scaling": opt.number_or_learned("scaling", scaling) if scaling is not None else None,
        "rank": rank,
        "alpha": alpha,
        "targets": tuple(targets.split(",")) if targets is not None else None,
        "lora_dropout": lora_dropout,
        "prefix_length": prefix_length,
        "layer_norm": layer_norm,
        "pooling": pooling,
        "dropout": dropout,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "max_length": max_length,
        "limit": limit,
        "select_by": select_by,
        "class_weights": opt.class_weights(class_weights) if class_weights is not None else None,
        "patience": patience,
        "prefix_cache": prefix_cache,
        "threads": threads,
        "seed": seed,
    }
    given = {name: value for name, value in typed.items() if value is not None}
    if lm:
        return adapt(task or HISTORIES, given, out, resume, as_json)
    if task is None:
        raise ConfigError("Missing argument 'TASK'; see minitransformer train --help")
    options = None
    if resume:
        out = out.expanduser() if out is not None else the_interrupted_run()
        opt.check_resumed(out, task, given, RunOptions)
    else:
        options = opt.new_options(given)
    run = train_run(task, options, out, resume, progress=not quiet)
    metrics = run.metrics
    if as_json:
        print_json({"folder": str(run.folder), **metrics})
    if not metrics["finished"]:
        say(interruption_report(task, run.folder, metrics))
        return INTERRUPTED
    if not as_json and not quiet:
        print(training_report(run.folder, metrics))
    for warning in metrics["warnings"]:
        say(f"warning: {warning}")
    return 0


def the_interrupted_run() -> Path:
    """The only one below runs/. Raises: ConfigError if there is none, or a choice."""
    found = sorted(path.parent for path in Path("runs").glob("*/state.safetensors"))
    if len(found) == 1:
        return found[0]
    seen = ", ".join(map(str, found)) or "none in runs/"
    raise ConfigError(f"--resume: say which run with --out FOLDER (interrupted: {seen})")


@app.command()
def evaluate(
    run: opt.RunFolder,
    task: opt.OtherTask,
    split: opt.Split = "test",
    base: opt.BaseNow = None,
    as_json: opt.AsJson = False,
) -> None:
    """Measure a trained run on a task's held-out examples.

    The task may be another one than it was trained on, if its labels have the same names: a
    sentiment adapter for films, tried on your own reviews.

    Example: `minitransformer evaluate runs/rotten-tomatoes-adapter-seed0 imdb`
    """
    trained = load_run(run, base)
    data = load_task(task)
    names = trained.record.label_names
    encoded = trained.encoded(data, split)
    found = measured(trained.classifier(), encoded)
    if isinstance(found, Evaluation):
        values, lines = classification_results(found, names), classification_lines
    else:
        values, lines = correlations(found), number_lines
    if as_json:
        print_json({"task": task, "split": split, **values})
        return
    part = getattr(data, split)
    part = replace(part, labels=encoded.labels)  # counted as the run counts them
    print("\n".join([*lines(values, split), "", report_text(found, part, names)]))


@app.command()
def compare(first: opt.RunFolder, second: opt.RunFolder, as_json: opt.AsJson = False) -> None:
    """Compare two finished runs on the same test examples: is the difference more than chance?

    McNemar's exact test: of the examples that one run alone has right, how many are each one's?

    Example: `minitransformer compare runs/tweets-adapter-seed0 runs/tweets-lora-seed0`
    """
    found = compare_runs(first, second)
    if as_json:
        print_json(asdict(found))
    else:
        print(comparison_text(first, second, found))


@app.command()
def predict(
    run: opt.RunFolder,
    texts: opt.Texts = None,
    also: opt.Also = None,
    base: opt.BaseNow = None,
    as_json: opt.AsJsonLines = False,
) -> None:
    """Print a label and its probability for each text, one line each, in order.

    Tabs and line breaks inside a text are shown as \\t and \\n; --json keeps them.

    With --also, several runs on one base predict together, in one forward pass through what they
    share: for each text a line for each task, the task's name first (in JSON: "task").

    Example: `minitransformer predict runs/rotten-tomatoes-adapter-seed0 "a gem"`

    Example: `cat reviews.txt | minitransformer predict RUN --json`

    Example: `minitransformer predict runs/tweets --also runs/bbc-news "the match was a joy"`
    """
    predictions = predictions_of_all([run, *also], base) if also else predictions_of_one(run, base)
    lines = iter(texts) if texts else lines_of_input()
    at_once = 1 if not texts and sys.stdin.isatty() else AT_ONCE
    while some := list(islice(lines, at_once)):
        for task, found in predictions(some):
            if as_json:
                record = {
                    **task,
                    "text": found.text,
                    "label": found.label,
                    "probabilities": found.probabilities,
                }
                print(json.dumps(record, ensure_ascii=False))
            else:
                probability = f"{found.probabilities[found.label]:.3f}"
                cells = (*task.values(), found.label, probability, found.text)
                print(*map(on_one_line, cells), sep="\t")
        sys.stdout.flush()


def predictions_of_one(run: Path, base: str | None) -> Predictions:
    trained = load_run(run, base)
    return lambda texts: (({}, found) for found in trained.predict(texts))


def predictions_of_all(runs: Sequence[Path], base: str | None) -> Predictions:
    """Text by text, for each the tasks in the order of the runs."""
    tasks = load_runs(runs, base)

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


@app.command()
def tasks(as_json: opt.AsJson = False) -> None:
    """List the built-in tasks.

    All but toy-reviews are fetched once, when first used, through your own pip.

    Example: `minitransformer tasks --json`
    """
    if as_json:
        print_json(
            [
                {"name": name, "description": known.description, "labels": known.label_names}
                for name, known in TASKS.items()
            ]
        )
        return
    rows = [(name, known.description) for name, known in TASKS.items()]
    print(table(("task", "what it is"), rows, left=2))
    print("\nOr your own .csv, .tsv or .jsonl file with the columns text and label.")


@app.command()
def gradcheck(
    tolerance: opt.Tolerance = 1e-6,
    as_json: opt.AsJson = False,
) -> int:
    """Check every hand-written gradient of the library against central differences.

    Each module runs its forward and backward pass in float64 in a tiny size, with and without
    frozen parts. Exit status 1 if a gradient is wrong. In Python, `gradcheck(module, x)` does the
    same for a module of your own.

    Example: `minitransformer gradcheck`
    """
    from ..gradcheck import check_library

    results = check_library(tolerance)
    wrong = [name for name, report in results if not report.passed]
    if as_json:
        print_json([{"case": name, **gradcheck_record(report)} for name, report in results])
    else:
        print(gradcheck_text(results))
    if wrong:
        return failed(f"wrong gradients in {len(wrong)} of {len(results)}: {', '.join(wrong)}", 1)
    return 0


@app.command()
def demo(out: opt.DemoOut = None) -> int:
    """Train an adapter in 20 seconds, without a network, and show what it learnt.

    A tiny pretrained encoder that comes with the library is frozen; an adapter learns to tell
    positive opinions from negative ones; you see the accuracy before and after, some predictions,
    and where the picture of the training curves is.

    Example: `minitransformer demo --out my-first-run`
    """
    from . import demo as the_demo

    folder = new_folder("demo", the_demo.OPTIONS, out)
    print(the_demo.INTRODUCTION + "\n", flush=True)
    run = the_demo.run_demo(folder)
    if not run.metrics["finished"]:
        say(interruption_report(the_demo.TASK, folder, run.metrics))
        return INTERRUPTED
    print("\n" + the_demo.demo_report(run))
    return 0

"""The commands to begin with: demo, tasks, train, gradcheck."""

from __future__ import annotations

from pathlib import Path

from ..data.datasets import TASKS
from ..errors import ConfigError
from ..runs.classification import train as train_run
from ..runs.folder import default_folders, unfinished
from ..runs.language_modeling import HISTORIES
from ..runs.options import RunOptions
from . import options as opt
from .app import BEGIN, INTERRUPTED, STUDY, USE, app, failed, print_json, say, show
from .language_adaptation import adapt
from .text import (
    gradcheck_record,
    gradcheck_text,
    interruption_report,
    table,
    training_report,
)


@app.command(rich_help_panel=BEGIN)
def demo(out: opt.DemoOut = None) -> int:
    """Train an adapter in 20 seconds, without a network, and show what it learnt.

    A tiny pretrained encoder that comes with the library is frozen; an adapter learns to tell
    positive opinions from negative ones; you see the accuracy before and after, some predictions,
    and where the picture of the training curves is.

    Example: `minitransformer demo --out my-first-run`
    """
    from . import demo as the_demo

    free = (folder for folder in default_folders("demo", the_demo.OPTIONS) if not folder.exists())
    folder = out if out is not None else next(free)
    print(the_demo.INTRODUCTION + "\n", flush=True)
    run = the_demo.run_demo(folder)
    if not run.metrics["finished"]:
        say(interruption_report(the_demo.TASK, folder, run.metrics))
        return INTERRUPTED
    show("\n" + the_demo.demo_report(run))
    return 0


@app.command(rich_help_panel=BEGIN)
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
    show(table(("task", "what it is"), rows, left=2))
    show("\nOr your own .csv, .tsv, .jsonl or .parquet file: see minitransformer train --help.")


@app.command(rich_help_panel=USE)
def train(
    task: opt.Task = None,
    text_column: opt.TextColumn = None,
    label_column: opt.LabelColumn = None,
    pair_column: opt.PairColumn = None,
    number: opt.Number = None,
    drop_unusable: opt.DropUnusable = None,
    validation: opt.ValidationFile = None,
    test: opt.TestFile = None,
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
    adapter_drop: opt.AdapterDrop = None,
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

    Example: `minitransformer train train.csv --test test.csv --text-column review`

    Example: `minitransformer train --lm my-novel.txt --base runs/shakespeare-comedies-base-seed0`
    """
    typed = {
        "text_column": text_column,
        "label_column": label_column,
        "pair_column": pair_column,
        "number": number,
        "drop_unusable": drop_unusable,
        "validation": validation,
        "test": test,
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
        "adapter_drop": adapter_drop,
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
        show(training_report(run.folder, metrics))
    for warning in metrics["warnings"]:
        say(f"warning: {warning}")
    return 0


def the_interrupted_run() -> Path:
    """The only one below runs/. Raises: ConfigError if there is none, or a choice."""
    found = sorted(folder for folder in Path("runs").glob("*") if unfinished(folder))
    if len(found) == 1:
        return found[0]
    seen = ", ".join(map(str, found)) or "none in runs/"
    raise ConfigError(f"--resume: say which run with --out FOLDER (interrupted: {seen})")


@app.command(rich_help_panel=STUDY)
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
        show(gradcheck_text(results))
    if wrong:
        return failed(f"wrong gradients in {len(wrong)} of {len(results)}: {', '.join(wrong)}", 1)
    return 0

"""AdapterFusion on a small target: beside a single adapter, the sources' average, and a head alone.

    python benchmarks/fusion.py                     # sources and target as below, 3 seeds
    python benchmarks/fusion.py --target toy-reviews --max-length 32
    python benchmarks/fusion.py --base tiny --limit 100 --source-limit 100 --epochs 1 --quick

Sources are adapters trained on other tasks (the runs of `three_tasks.py`, trained if they are not
in --out yet, or those given with --runs). The target has few training examples; as many of its
validation split choose the epoch, its whole test split measures. All methods see the same
examples, their base is frozen, and each gets a new head:

    head      the plain base
    adapter   one new adapter
    average   the mean of the sources' weights, frozen
    fusion    attention over the sources, which are frozen
    sources   each source as it is, frozen: what a single one is good for

Writes `benchmarks/results/fusion.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from report import arguments, show, write
from three_tasks import TASKS, trained

import minitransformer as mt
from minitransformer.data.batches import Encoded, encode_split
from minitransformer.training.evaluation import evaluate

METHODS = ("head", "adapter", "average", "fusion", "sources")
# What trains decides the learning rate; where it is a head alone, that of the method "head".
# Fusion has nine times an adapter's parameters here: at 1e-3 one of three seeds learned nothing.
LEARNING_RATES = {"head": 5e-3, "adapter": 1e-3, "fusion": 2e-4}


def build(method: str, tasks: mt.Tasks, n_classes: int, args: argparse.Namespace, seed: int) -> Any:
    """A classifier on the sources' base, with what the method trains. The sources stay."""
    transformer = tasks.transformer
    names = [run.adapter for run in tasks.runs.values() if run.adapter is not None]
    rng = np.random.default_rng([seed, 1])
    transformer.freeze().set_active(None)
    if method == "adapter":
        config = mt.AdapterConfig(bottleneck=args.bottleneck)
        transformer.add_adapter(method, config, np.random.default_rng([seed, 2]))
    elif method == "average":
        mt.average_adapters(transformer, method, {name: 1 / len(names) for name in names})
        transformer.freeze()
    elif method == "fusion":
        transformer.add_fusion(method, names, np.random.default_rng([seed, 2]))
    elif method != "head":
        transformer.set_active(tasks[method].adapter)
    return mt.Classifier(transformer, n_classes, dropout=0.1, rng=rng)


def measure(
    method: str,
    tasks: mt.Tasks,
    splits: tuple[Encoded, Encoded, Encoded],
    n_classes: int,
    args: argparse.Namespace,
    seed: int,
) -> dict[str, Any]:
    """Train one method with one seed; accuracy of its best epoch on the test split."""
    model = build(method, tasks, n_classes, args, seed)
    lr = LEARNING_RATES.get(method, LEARNING_RATES["head"])
    options = mt.TrainingOptions(epochs=args.epochs, batch_size=args.batch_size, lr=lr, seed=seed)
    trainer = mt.Trainer(model, *splits[:2], options, threads=args.threads)
    trainer.fit()
    trainer.restore_best()
    best = trainer.history.best()
    found = evaluate(model, splits[2], threads=args.threads)
    row = {
        "method": method,
        "seed": seed,
        "lr": lr,
        "test_accuracy": found.accuracy,
        "validation_accuracy": best.validation_accuracy if best else None,
        "best_epoch": best.epoch if best else None,
        "trainable_parameters": model.summary().trainable,
        "training_seconds": trainer.seconds,
    }
    if method in tasks.transformer.adapter_names and method not in tasks:
        if method == "fusion":
            row["weights"] = mean_attention_weights(tasks, splits[2])
        tasks.transformer.delete_adapter(method)
    return row


def mean_attention_weights(tasks: mt.Tasks, encoded: Encoded) -> dict[str, list[float]]:
    """Mean attention weight of each source at each site, over the tokens of some test texts."""
    ids, mask = mt.pad(encoded.sequences[:64], encoded.pad_id)
    found = mt.fusion_weights(tasks.transformer, "fusion", ids, mask)
    return {site: p[mask == 1].mean(axis=0).tolist() for site, p in found.items()}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--runs", nargs="+", type=Path, help="trained sources")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="the sources' tasks")
    parser.add_argument("--target", default="imdb")
    parser.add_argument("--limit", type=int, default=500, help="training examples of the target")
    parser.add_argument("--max-length", type=int, default=64, help="tokens of a text")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--bottleneck", type=int, default=64)
    parser.add_argument("--source-epochs", type=int, default=3)
    parser.add_argument("--source-limit", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/three-tasks"))
    args = parser.parse_args()
    of_a_source = argparse.Namespace(
        **vars(args) | {"limit": args.source_limit, "epochs": args.source_epochs, "seed": 0}
    )

    folders = args.runs or [trained(task, of_a_source) for task in args.tasks]
    tasks = mt.load_runs(folders)
    data = mt.load_task(args.target, limit=args.limit)
    if args.target in tasks:
        raise SystemExit(f"{args.target} is a source: choose another target")
    train, validation, test = (
        encode_split(split, tasks.tokenizer, args.max_length)
        for split in (data.train, data.validation, data.test)
    )
    validation = Encoded(
        validation.sequences[: args.limit], validation.labels[: args.limit], validation.pad_id
    )
    before = mt.load_runs(folders).transformer.state_dict()

    methods = [m for method in args.methods for m in (tasks if method == "sources" else [method])]
    rows = [
        measure(method, tasks, (train, validation, test), len(data.label_names), args, seed)
        for method in methods
        for seed in args.seeds
    ]
    after = tasks.transformer.state_dict()
    unchanged = all(np.array_equal(after[name], value) for name, value in before.items())

    table = []
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        accuracies = [row["test_accuracy"] for row in own]
        table.append(
            {
                "method": f"source {method}" if method in tasks else method,
                "trained": f"{own[0]['trainable_parameters']:,}",
                "mean": f"{np.mean(accuracies):.4f}",
                "sd": f"{np.std(accuracies, ddof=1):.4f}" if len(own) > 1 else "",
                "each seed": "  ".join(f"{a:.4f}" for a in accuracies),
                "s": f"{np.mean([row['training_seconds'] for row in own]):.0f}",
            }
        )
    show(
        f"{args.target}, {len(train)} training examples, {len(test)} test examples: accuracy",
        table,
    )
    print(f"\nbase and sources: {'unchanged, bit for bit' if unchanged else 'CHANGED'}")
    record = {
        "base": args.base,
        "target": args.target,
        "sources": list(tasks),
        "training_examples": len(train),
        "validation_examples": len(validation),
        "test_examples": len(test),
        "max_length": args.max_length,
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "sources_unchanged": unchanged,
        "runs": rows,
    }
    write("fusion", args, record)


if __name__ == "__main__":
    main()

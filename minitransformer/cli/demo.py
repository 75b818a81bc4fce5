"""`minitransformer demo`: the idea of the library in twenty seconds, without a network."""

from __future__ import annotations

import re
from pathlib import Path

from ..adapters.config import AdapterConfig
from ..data.datasets import load_task
from ..data.splits import Task
from ..data.toy_reviews import mirror
from ..runs.classification import Run, train
from ..runs.options import RunOptions
from ..training.trainer import TrainingOptions
from .text import percent, table

TASK = "toy-reviews"
ADAPTER = AdapterConfig(bottleneck=32)
OPTIONS = RunOptions(
    base="tiny",
    pooling="mean",
    dropout=0.0,  # the sooner it learns
    adapter=ADAPTER,
    training=TrainingOptions(epochs=20, lr=5e-3),
)
TURNS = re.compile(r"\b(not|never|far from|but|although|however)\b")  # what makes it hard
INTRODUCTION = f"""\
"tiny", a small transformer encoder that has only ever filled gaps in sentences, is frozen.
An adapter (m = {ADAPTER.bottleneck}) after every sub-layer, and a classifier on top, \
learn whether an opinion
is positive: from sentences in which negation and contrast turn words of praise into blame."""


def run_demo(folder: Path) -> Run:
    """Train the adapters of the demo into `folder`."""
    return train(TASK, OPTIONS, folder, progress=True)


def demo_report(run: Run) -> str:
    """What the training changed, what it left alone, and what the trained model predicts."""
    metrics, evaluations = run.metrics, run.history.evaluations()
    before, after = evaluations[0].validation_accuracy, metrics["validation_accuracy"]
    trained, total = metrics["trainable_parameters"], metrics["parameters"]
    same = metrics["base_sha256_before"] == metrics["base_sha256_after"]
    lines = [
        f"accuracy before  {before:.3f} (validation sentences; two classes, so 0.5 is guessing)",
        f"accuracy after   {after:.3f} (the same), {metrics['test_accuracy']:.3f} on "
        f"{metrics['test_examples']} test sentences",
        f"trained          {trained:,} of {total:,} parameters ({percent(trained, total)}); the "
        f"base's weights are {'unchanged, bit for bit' if same else 'NOT the same any more'}",
        f"the curves       {run.folder / 'curves.png'}",
        "",
        "Pairs of opposite sentences with negation or contrast, none of them trained on:",
        "",
        predictions(run, load_task(TASK)),
        "",
        f'Next: minitransformer predict {run.folder} "your own sentence in these words"',
        "  or: minitransformer train rotten-tomatoes (real reviews, a real pretrained encoder)",
    ]
    return "\n".join(lines)


def predictions(run: Run, task: Task, pairs: int = 4) -> str:
    """A table of predictions for test sentences and their mirror images."""
    seen = set(task.train.texts)
    labelled = [
        pair
        for text, label in zip(task.test.texts, task.test.labels, strict=True)
        if mirror(text) not in seen and TURNS.search(text)
        for pair in ((text, label), (mirror(text), 1 - label))
    ][: 2 * pairs]
    rows = [
        (
            found.label,
            f"{found.probabilities[found.label]:.2f}",
            "right" if found.label == task.label_names[label] else "WRONG",
            found.text,
        )
        for found, (_, label) in zip(
            run.predict([text for text, _ in labelled]), labelled, strict=True
        )
    ]
    return table(("predicted", "p", "", "sentence"), rows, left=4)

"""What a run reports: how good it is, whether that is better than nothing, and where it errs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.splits import Split, Task, on_one_line
from ..errors import CheckpointError, DataError
from ..formats.files import csv_line, write_text
from ..nn.module import Array
from ..plots.confusion import plot_confusion
from ..training import metrics
from ..training.baseline import Baseline
from ..training.evaluation import Evaluation, NumberEvaluation
from .folder import read_text

BETTER = 0.95  # of a paired bootstrap's samples: in so many, better is better
ERRORS = 10  # confident ones, in report.txt
PREDICTIONS = "predictions.csv"

# -- of one run ---------------------------------------------------------------------------


def results(found: Evaluation | NumberEvaluation, task: Task) -> dict[str, Any]:
    """What is measured on the test split, as plain values, beside answers that cost nothing.

    Those are the majority's label, or the mean of the training numbers, and a bag of words. The
    warnings say where the run is no better: where its macro-F1 (of a number: its squared error) is
    better in fewer than 95 % of the samples of a paired bootstrap.
    """
    if isinstance(found, NumberEvaluation):
        return number_results(found, task)
    labels, names = found.labels, task.label_names
    majority = np.bincount(labels).argmax()
    rivals = {
        f"always answering {names[majority]!r}": np.full_like(labels, majority),
        "a bag-of-words logistic regression": bag_of_words(task),
    }
    scores = {
        what: metrics.macro_f1(metrics.confusion_matrix(labels, answers, len(names)))
        for what, answers in rivals.items()
    }
    warnings = []
    for what, answers in rivals.items():
        share = metrics.better_share(labels, found.predictions, answers, len(names))
        if share < BETTER:
            warnings.append(
                f"no better than {what}: macro-F1 {found.macro_f1:.3f} against {scores[what]:.3f}, "
                f"higher in {share:.1%} of the bootstrap samples of {len(labels):,} examples"
            )
    (_, by_majority), (baseline, by_words) = scores.items()
    return {
        **classification_results(found, names),
        "majority_macro_f1": by_majority,
        "baseline_accuracy": float((rivals[baseline] == labels).mean()),
        "baseline_macro_f1": by_words,
        "warnings": warnings,
    }


def classification_results(found: Evaluation, label_names: Sequence[str]) -> dict[str, Any]:
    """Shares, intervals, and precision, recall, F1 and support of each class, as plain values."""
    confusion, n = found.confusion, len(found.labels)
    of_class = metrics.per_class(confusion)
    right, n_classes = int(confusion.trace()), len(label_names)
    return {
        "accuracy": found.accuracy,
        "accuracy_interval": metrics.wilson_interval(right, n),
        "macro_f1": found.macro_f1,
        "macro_f1_interval": metrics.macro_f1_interval(found.labels, found.predictions, n_classes),
        "majority_share": float(confusion.sum(axis=1).max() / n),
        "majority_label": label_names[int(confusion.sum(axis=1).argmax())],
        "loss": found.loss,
        "examples": n,
        "classes": {
            name: {measure: values[k].item() for measure, values in of_class.items()}
            for k, name in enumerate(label_names)
        },
        "confusion": confusion.tolist(),
    }


def number_results(found: NumberEvaluation, task: Task) -> dict[str, Any]:
    labels, mean = found.labels, float(task.train.labels.mean())
    rivals = {
        "the mean of the training numbers": np.full_like(labels, mean),
        "a bag-of-words ridge regression": bag_of_words(task),
    }
    of_rival = {what: NumberEvaluation(answers, labels) for what, answers in rivals.items()}
    warnings = []
    for what, rival in of_rival.items():
        share = metrics.nearer_share(labels, found.predictions, rival.predictions)
        if share < BETTER:
            warnings.append(
                f"no better than {what}: squared error {found.loss:.4g} against {rival.loss:.4g}, "
                f"lower in {share:.1%} of the bootstrap samples of {len(labels):,} examples"
            )
    by_mean, by_words = of_rival.values()
    return {
        **correlations(found),
        "mean_loss": by_mean.loss,
        "baseline_pearson": by_words.pearson,
        "baseline_spearman": by_words.spearman,
        "baseline_loss": by_words.loss,
        "warnings": warnings,
    }


def correlations(found: NumberEvaluation) -> dict[str, Any]:
    """Pearson's and Spearman's correlation and the squared error, as plain values."""
    return {
        "pearson": found.pearson,
        "pearson_interval": metrics.pearson_interval(found.pearson, len(found.labels)),
        "spearman": found.spearman,
        "loss": found.loss,
        "examples": len(found.labels),
    }


def bag_of_words(task: Task) -> Array:
    """(n,) what the baseline, fitted to the training split, answers on the test split."""
    return Baseline(task.train, len(task.label_names)).predict(task.test)


# -- as text ------------------------------------------------------------------------------


def report_text(
    found: Evaluation | NumberEvaluation, split: Split, label_names: Sequence[str]
) -> str:
    """Everything about the answers on a split: each class, the confusion matrix, the errors."""
    if isinstance(found, NumberEvaluation):
        worst = np.argsort(-np.abs(found.predictions - found.labels), kind="stable")[:ERRORS]
        lines = [
            f"{found.labels[i]:.4g}, predicted {found.predictions[i]:.4g}: {shown(split, i)}"
            for i in worst
        ]
        return "\n".join(["the largest errors", *lines])
    lines = [
        metrics.classification_report(found.confusion, label_names),
        "",
        metrics.confusion_table(found.confusion, label_names),
        "",
        *errors_text(found, split, label_names, ERRORS),
    ]
    return "\n".join(lines)


def errors_text(
    found: Evaluation, split: Split, label_names: Sequence[str], n: int, width: int | None = None
) -> list[str]:
    """The n most confident errors with their texts, cut to `width` characters; a line each."""
    errors = found.confident_errors(n)
    lines = ["the most confident errors"] if len(errors) else ["no errors"]
    for i in errors:
        predicted, label = (
            on_one_line(label_names[k]) for k in (found.predictions[i], found.labels[i])
        )
        text = shown(split, int(i))
        text = text if width is None or len(text) <= width else text[: width - 3] + "..."
        lines.append(f"{predicted} {found.probabilities[i].max():.3f}, but {label}: {text}")
    return lines


def shown(split: Split, i: int) -> str:
    """The text of an example, or both, on one line."""
    both = split.texts[i] if split.pairs is None else f"{split.texts[i]} | {split.pairs[i]}"
    return on_one_line(both)


def write_report(
    folder: Path,
    found: Evaluation | NumberEvaluation,
    split: Split,
    label_names: Sequence[str],
    title: str,
) -> None:
    """`report.txt`, `predictions.csv` and, of classes, `confusion.png`, into a run's folder."""
    write_text(folder / "report.txt", report_text(found, split, label_names) + "\n")
    write_predictions(folder / PREDICTIONS, found, split, label_names)
    if isinstance(found, Evaluation):
        plot_confusion(found.confusion, label_names, title, folder / "confusion.png")


# -- predictions on disk ------------------------------------------------------------------


@dataclass(frozen=True)
class Predictions:
    """What a run answered on its test split, from `predictions.csv`."""

    texts: list[tuple[str, ...]]  # one, or two of a pair
    labels: list[str]
    answers: list[str]
    number: bool


def write_predictions(
    path: Path, found: Evaluation | NumberEvaluation, split: Split, label_names: Sequence[str]
) -> None:
    """One row an example, as CSV: the text, its label, the answer and its probability."""
    number = isinstance(found, NumberEvaluation)
    header = ["text", *(["pair"] if split.pairs is not None else []), "label", "prediction"]
    rows = [header + ([] if number else ["probability"])]
    for i, texts in enumerate(texts_of(split)):
        if isinstance(found, NumberEvaluation):
            rows.append([*texts, repr(float(found.labels[i])), f"{found.predictions[i]:.6g}"])
            continue
        k = found.predictions[i]
        answer = [label_names[found.labels[i]], label_names[k], f"{found.probabilities[i, k]:.6f}"]
        rows.append([*texts, *answer])
    write_text(path, "".join(map(csv_line, rows)))


def texts_of(split: Split) -> list[tuple[str, ...]]:
    """The texts of each example, one, or two of a pair, as `read_predictions` gives them."""
    pairs = split.pairs if split.pairs is not None else [None] * len(split)
    return [
        (first,) if second is None else (first, second)
        for first, second in zip(split.texts, pairs, strict=True)
    ]


def read_predictions(folder: str | Path) -> Predictions:
    """What `write_predictions` left in a run's folder. Raises: CheckpointError if that is not."""
    path = Path(folder).expanduser() / PREDICTIONS
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no {PREDICTIONS}: expected the folder of a finished run on a task"
        )
    header, *rows = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        label, answer = header.index("label"), header.index("prediction")
        return Predictions(
            [tuple(row[:label]) for row in rows],
            [row[label] for row in rows],
            [row[answer] for row in rows],
            "probability" not in header,
        )
    except (ValueError, IndexError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


# -- of two runs --------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same examples.

    Attributes:
        n: examples.
        score: the accuracy of each run; of a number, the mean squared error.
        macro_f1: of each run; None of a number.
        wins: on how many examples each run alone is right; of a number, nearer.
        p: two-sided p-value of the sign test on those, for classes McNemar's exact test.
    """

    n: int
    score: tuple[float, float]
    macro_f1: tuple[float, float] | None
    wins: tuple[int, int]
    p: float


def compare(a: str | Path, b: str | Path) -> Comparison:
    """A paired test of two finished runs on the examples of their test split.

    Raises: CheckpointError for a folder without predictions; DataError if the examples differ.
    """
    first, second = read_predictions(a), read_predictions(b)
    if (first.texts, first.labels) != (second.texts, second.labels):
        raise DataError(
            f"{a} and {b} were tested on different examples ({len(first.labels):,} and "
            f"{len(second.labels):,}): a paired test needs the same task and the same split"
        )
    columns = (first.labels, first.answers, second.answers)
    n = len(first.labels)
    if first.number:
        labels, x, y = (np.array(column, np.float64) for column in columns)
        error_x, error_y = (x - labels) ** 2, (y - labels) ** 2
        wins = int((error_x < error_y).sum()), int((error_y < error_x).sum())
        score = float(error_x.mean()), float(error_y.mean())
        return Comparison(n, score, None, wins, metrics.sign_test(*wins))
    code = {name: k for k, name in enumerate(sorted({*columns[0], *columns[1], *columns[2]}))}
    labels, x, y = (np.array([code[name] for name in column]) for column in columns)
    right_x, right_y = x == labels, y == labels
    wins = int((right_x & ~right_y).sum()), int((right_y & ~right_x).sum())
    f1 = [
        metrics.macro_f1(metrics.confusion_matrix(labels, answers, len(code))) for answers in (x, y)
    ]
    score = float(right_x.mean()), float(right_y.mean())
    return Comparison(n, score, (f1[0], f1[1]), wins, metrics.sign_test(*wins))

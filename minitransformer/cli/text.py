"""What the command line prints: tables, and the words around them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.splits import on_one_line
from ..gradcheck.report import GradCheckReport
from ..runs.results import Comparison


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns side by side, the first `left` of them flush left, the others flush right."""
    header, *rows = ([on_one_line(cell) for cell in cells] for cells in (header, *rows))
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            f"{cell:{'<' if i < left else '>'}{width}}"
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([line(header), rule, *map(line, rows)])


def size(count: float) -> str:
    """Bytes in a unit of a fitting size."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} bytes"


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f} %"


# -- train --------------------------------------------------------------------------------


BEST_IN = {  # as `History.best` chooses
    "accuracy": "the last within one standard error of the highest accuracy",
    "macro-f1": "the highest macro-F1",
    "loss": "the lowest loss",
}


def training_report(folder: Path, metrics: dict[str, Any]) -> str:
    """What came out of a training that reached its end."""
    method, trained = metrics["method"], metrics["trainable_parameters"]
    of_test = {k.removeprefix("test_"): v for k, v in metrics.items() if k.startswith("test_")}
    is_class = "accuracy" in of_test
    first_lines = classification_lines if is_class else number_lines
    epochs = metrics["training"]["epochs"]
    chosen_by = BEST_IN[metrics["select_by"] or ("accuracy" if is_class else "loss")]
    lines = [
        *first_lines(of_test, "test"),
        f"best epoch     {metrics['best_epoch']} of {epochs}, on the validation split: {chosen_by}",
        f"trained        {trained:,} of {metrics['parameters']:,} parameters "
        f"({percent(trained, metrics['parameters'])}) in {metrics['training_seconds']:.1f} s",
    ]
    if metrics["base_sha256_before"] == metrics["base_sha256_after"]:
        short = metrics["base_sha256_before"][:12]
        lines.append(f"base           unchanged: SHA-256 {short}... before and after")
    lines += [
        f"files          {folder / f'{method}.safetensors'} ({size(metrics['file_bytes'])}): "
        "what was learnt, for use with the base",
        f"               {folder / 'report.txt'}: "
        + ("each class, the confusion matrix, the errors" if is_class else "the largest errors"),
        f"               {folder / 'curves.png'}, and beside it {method}-last.safetensors, "
        "predictions.csv, history.csv, metrics.json, options.json",
        f'next           minitransformer predict {shlex.quote(str(folder))} "your own text"',
    ]
    return "\n".join(lines)


def classification_lines(found: dict[str, Any], split: str) -> list[str]:
    """Accuracy and macro-F1 with their intervals, beside what costs nothing."""
    low, high = found["accuracy_interval"]
    low_f1, high_f1 = found["macro_f1_interval"]
    words, n = f"{split} accuracy", found["examples"]
    lines = [
        f"{words:<14} {found['accuracy']:.4f} on {n:,} examples (95 % interval {low:.4f} to "
        f"{high:.4f}; always {found['majority_label']!r}: {found['majority_share']:.4f})",
        f"macro-F1       {found['macro_f1']:.4f} (95 % interval {low_f1:.4f} to {high_f1:.4f})",
    ]
    if "baseline_accuracy" in found:
        lines.append(
            f"bag of words   accuracy {found['baseline_accuracy']:.4f}, macro-F1 "
            f"{found['baseline_macro_f1']:.4f}: the baseline, trained on the same examples"
        )
    return lines


def number_lines(found: dict[str, Any], split: str) -> list[str]:
    """Correlations and squared error, beside what costs nothing."""
    low, high = found["pearson_interval"]
    lines = [
        f"{split:<14} Pearson {found['pearson']:.4f} (95 % interval {low:.4f} to {high:.4f}), "
        f"Spearman {found['spearman']:.4f}, squared error {found['loss']:.4g} on "
        f"{found['examples']:,} examples"
    ]
    if "baseline_loss" in found:
        lines += [
            f"bag of words   Pearson {found['baseline_pearson']:.4f}, Spearman "
            f"{found['baseline_spearman']:.4f}, squared error {found['baseline_loss']:.4g}",
            f"the mean       squared error {found['mean_loss']:.4g}",
        ]
    return lines


def comparison_text(first: Path, second: Path, found: Comparison) -> str:
    """The scores of two runs, on how many examples each is ahead, and whether that is chance."""
    better, test = ("right", "McNemar's exact test")
    header, columns = ["run", "accuracy", "macro-F1"], [found.score, found.macro_f1]
    if found.macro_f1 is None:
        better, test = ("nearer", "sign test")
        header, columns = ["run", "squared error"], [found.score]
    rows = [
        [str(run), *(f"{column[i]:.4f}" for column in columns if column is not None)]
        for i, run in enumerate((first, second))
    ]
    verdict = "more than chance explains" if found.p < 0.05 else "no more than chance explains"
    return "\n".join(
        [
            table(header, rows),
            f"the first alone is {better} on {found.wins[0]:,} of {found.n:,} examples, the second "
            f"alone on {found.wins[1]:,}",
            f"{test}: p = {found.p:.2g}; the difference is {verdict} (at 5 %)",
        ]
    )


def interruption_report(task: str, folder: Path, metrics: dict[str, Any]) -> str:
    """What is there after Ctrl-C, and how to go on."""
    method, best = metrics["method"], metrics["best_epoch"]
    if best is None:
        saved = f"{method}.safetensors, as it was when you stopped"
    else:
        by = "accuracy" if metrics["validation_accuracy"] is not None else "loss"
        saved = f"{method}.safetensors (best epoch so far: {best}, validation {by} "
        saved += f"{metrics[f'validation_{by}']:.4f}) and {method}-last.safetensors"
    return (
        f"interrupted after {metrics['steps']} steps. Saved in {folder}: {saved}.\n"
        f"To go on from there:\n  {resume_command(task, folder)}"
    )


def resume_command(task: str, folder: Path) -> str:
    return shlex.join(["minitransformer", "train", task, "--resume", "--out", str(folder)])


# -- gradcheck ----------------------------------------------------------------------------


def gradcheck_text(results: Sequence[tuple[str, GradCheckReport]]) -> str:
    """One line for each case; for those that fail, the whole report below."""
    rows = [
        (name, str(len(report.rows)), f"{report.max_error:.1e}", "ok" if report.passed else "WRONG")
        for name, report in results
    ]
    failures = [f"\n{name}\n{report}" for name, report in results if not report.passed]
    passed = f"{len(results) - len(failures)} of {len(results)} passed"
    header = ("module", "arrays", "largest relative error", "verdict")
    return "\n".join([table(header, rows), passed, *failures])


def gradcheck_record(report: GradCheckReport) -> dict[str, Any]:
    """A report as plain values."""
    return {
        "module": report.title,
        "passed": report.passed,
        "max_error": report.max_error if math.isfinite(report.max_error) else None,
        "tolerance": report.tolerance,
        "arrays": [row.name for row in report.rows],
        "not_tested": list(report.untested),
        "advice": list(report.advice),
    }

"""Figures: what is drawn is what was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

from minitransformer.plots import plot_history, plot_parts, plot_study, write_png
from minitransformer.plots.confusion import plot_confusion
from minitransformer.plots.history import running_mean
from minitransformer.training.history import History, HistoryRow


def made_up(epochs: int, steps: int = 40) -> History:
    rng = np.random.default_rng(0)
    rows = [HistoryRow(0, 0, validation_loss=0.7, validation_accuracy=0.9)]
    for step in range(1, epochs * steps + 1):
        last = step % steps == 0
        accuracy = [0.6, 0.8, 0.8, 0.7][step // steps - 1] if last else None
        loss = 0.7 / (1 + step / 40) + 0.05 * rng.random()
        rows.append(
            HistoryRow(
                step, -(-step // steps), loss, 1 - loss, 1e-3, 1.0, step / 10,
                validation_loss=0.5 if last else None, validation_accuracy=accuracy,
            )
        )  # fmt: skip
    return History(rows)


def test_validation_points_and_the_best_epoch() -> None:
    figure = plot_history(made_up(4), "title")
    for axis, measured in zip(
        figure.axes, ([0.7, 0.5, 0.5, 0.5, 0.5], [0.9, 0.6, 0.8, 0.8, 0.7]), strict=True
    ):
        training, validation, best = axis.get_lines()
        assert list(validation.get_xdata()) == [0, 40, 80, 120, 160]
        assert list(validation.get_ydata()) == measured
        # Not step 0, where nothing was trained; of two equal epochs the later.
        assert best.get_label() == "best epoch: 3"
        assert (best.get_xdata()[0], best.get_ydata()[0]) == (120, measured[3])
        assert len(training.get_xdata()) == 160 - 8 + 1


def test_a_best_epoch_below_the_highest_says_why() -> None:
    history = History(
        replace(row, validation_examples=10.0 if row.validation_loss else None)
        for row in made_up(4)
    )
    *_, best = plot_history(history, "title").axes[1].get_lines()
    assert best.get_label() == "best epoch: 4, within one standard error of the highest"
    assert best.get_ydata()[0] == 0.7


def test_a_title_is_no_mathematics(tmp_path: Path) -> None:
    name = "$$"  # of a data file, and so of a task; drawing would raise
    plot_history(made_up(1), f"{name}: adapters", tmp_path / "curves.png")
    points = [("lora", [(10, [0.5, 0.6])])]
    write_png(plot_study({name: (points, None)}), tmp_path / "study.png")
    write_png(plot_parts({name: [(name, [0.5, 0.6])]}), tmp_path / "parts.png")
    plot_confusion(np.eye(2), [name, "other"], f"{name}: adapters", tmp_path / "confusion.png")


@pytest.mark.parametrize("history", [History(), made_up(0), made_up(1, steps=1), made_up(1)])
def test_a_run_that_has_hardly_begun_has_a_figure(history: History, tmp_path: Path) -> None:
    plot_history(history, "title", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_running_mean_is_the_mean_of_the_last_values() -> None:
    x, y = running_mean(np.arange(1, 6), np.array([1.0, 2, 3, 4, 5]), 3)
    np.testing.assert_array_equal(x, [3, 4, 5])
    np.testing.assert_allclose(y, [2, 3, 4])


LABELS = {
    "two": ["negative", "positive"],
    "three": ["negative", "neutral", "positive"],
    "five": ["business", "entertainment", "politics", "sports", "tech"],
    "long": ["a label that is as long as a sentence may be", "another one, which is no shorter"],
    "twenty": [f"label number {i}" for i in range(20)],
    "one letter": ["a", "b"],
}


@pytest.mark.parametrize("names", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("title", ["short", "a-long-file-name-of-reviews.csv: full fine-tuning"])
def test_nothing_of_a_confusion_matrix_is_cut(names: list[str], title: str) -> None:
    figure = plot_confusion(np.eye(len(names), dtype=int), names, title)
    figure.draw_without_rendering()
    shown = {text.get_text(): text for text in figure.findobj(Text) if text.get_text()}
    assert title in " ".join(shown).replace("\n", " ")
    for word, text in shown.items():
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, word
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, word

"""Figures: what is drawn is what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from minitransformer.adapters.config import PLACEMENTS
from minitransformer.errors import ConfigError
from minitransformer.nn.config import NORMS
from minitransformer.plots import plot_history, plot_placement, plot_placements
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


@pytest.mark.parametrize("history", [History(), made_up(0), made_up(1, steps=1), made_up(1)])
def test_a_run_that_has_hardly_begun_has_a_figure(history: History, tmp_path: Path) -> None:
    plot_history(history, "title", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_running_mean_is_the_mean_of_the_last_values() -> None:
    x, y = running_mean(np.arange(1, 6), np.array([1.0, 2, 3, 4, 5]), 3)
    np.testing.assert_array_equal(x, [3, 4, 5])
    np.testing.assert_allclose(y, [2, 3, 4])


# -- placements ------------------------------------------------------------------------------

each_placement = pytest.mark.parametrize("placement", PLACEMENTS)
each_norm = pytest.mark.parametrize("norm", NORMS)


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@each_norm
@each_placement
def test_a_placement_names_everything_that_stands_there(
    placement: str, norm: str, tmp_path: Path
) -> None:
    path = tmp_path / "figure.png"
    found = words(plot_placement(placement, norm, path))
    assert path.read_bytes().startswith(b"\x89PNG") and list(tmp_path.iterdir()) == [path]
    once = [
        f"{placement}, {norm}-norm", "$x$", "$s$", "$y$", "residual", "layer norm",
        "attention or\nfeed-forward", "down", "act", "up", "adapter $f$",
        "trained: the adapter $f$", "frozen: the base",
    ]  # fmt: skip
    assert [found.count(word) for word in once] == [1] * len(once)
    twice_normed = placement == "pfeiffer" and norm == "post"
    at_the_end = placement == "after_norm" or (placement == "pfeiffer" and norm == "pre")
    assert found.count("+") == (3 if twice_normed else 2)
    assert ("same layer norm" in found) == twice_normed
    assert ("$h$" in found) == ("$f(h)$" in found) == at_the_end
    assert ("skip" in found) == (placement != "parallel")
    reads = {"houlsby": "$f(s)$", "parallel": "$f(x)$"}
    assert placement not in reads or reads[placement] in found


@each_norm
def test_all_placements_side_by_side_without_overlaps(norm: str) -> None:
    figure = plot_placements(norm)
    assert [f"{p}, {norm}-norm" in words(figure) for p in PLACEMENTS] == [True] * 4
    figure.draw_without_rendering()
    page = figure.bbox
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_text()
    ]
    for i, (word, box) in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and box.y1 <= page.y1, word
        assert not [other for other, rest in boxes[i + 1 :] if box.overlaps(rest)], word
        core = [patch for patch in figure.findobj(Rectangle) if patch.get_width() > 2]
        for patch in core:  # words stand inside a box or outside it
            frame = patch.get_window_extent()
            inside = frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1)
            assert inside or not frame.overlaps(box), word


def test_an_unknown_placement_or_norm_is_refused() -> None:
    with pytest.raises(ConfigError, match="placement='before': expected one of after_norm"):
        plot_placement("before")
    with pytest.raises(ConfigError, match="norm='none': expected one of post, pre"):
        plot_placements("none")

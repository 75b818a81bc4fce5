"""The panels and diagrams of the notebooks: what is drawn is what was given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from minitransformer.errors import ConfigError
from minitransformer.plots import (
    heat_table,
    legend_below,
    log_ticks,
    panels,
    plot_block,
    plot_block_to_scale,
    plot_passes,
    plot_series,
    smooth,
    stacked_bars,
)
from minitransformer.plots.passes import Observed


def test_a_series_of_several_runs_has_its_mean_and_its_extremes() -> None:
    _, (axis,) = panels()
    plot_series(axis, [1, 2], {"three": [[1, 4], [2, 4], [6, 4]], "one": [5, 5]})
    line, bar = axis.containers[0][0], axis.containers[0][2][0]
    assert line.get_ydata().tolist() == [3, 4]
    assert [segment[:, 1].tolist() for segment in bar.get_segments()] == [[1, 6], [4, 4]]
    assert not axis.containers[1].has_yerr
    assert axis.get_legend_handles_labels()[1] == ["three", "one"]


def test_error_bars_and_points_that_were_not_measured() -> None:
    _, (axis,) = panels()
    y = {"given": [3, np.nan, 5], "counted": [1, 2, 3]}
    plot_series(axis, [[1, 2, 4], [3, 6, 12]], y, {"given": [[0.5, 9, 1], [1, 9, 2]]})
    line, bar = axis.containers[0][0], axis.containers[0][2][0]
    assert list(zip(*line.get_data(), strict=True)) == [(1, 3), (4, 5)]
    assert [segment[:, 1].tolist() for segment in bar.get_segments()] == [[2.5, 4], [4, 7]]
    assert not axis.containers[1].has_yerr
    assert list(axis.containers[1][0].get_xdata()) == [3, 6, 12]


def test_more_lines_than_can_be_told_apart_are_refused() -> None:
    _, (axis,) = panels()
    plot_series(axis, [1], {str(i): [i] for i in range(7)})
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axis.lines}
    assert len(looks) == 7
    with pytest.raises(ConfigError, match="8 lines in one panel: expected at most 7"):
        plot_series(axis, [1], {str(i): [i] for i in range(8)})


def test_one_legend_names_the_lines_of_all_panels_once() -> None:
    figure, (left, right) = panels(2)
    plot_series(left, [2, 8], {"a": [1, 2], "b": [1, 2]})
    plot_series(right, [2, 8], {"a": [1, 2], "c": [1, 2]})
    log_ticks(right, [2, 8])
    legend_below(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
    assert right.get_xscale() == "log"
    assert [label.get_text() for label in right.get_xticklabels()] == ["2", "8"]
    assert list(right.get_xticks(minor=True)) == []


def test_geometric_mean_has_no_plateau_after_a_large_step() -> None:
    values = np.array([1.0, 1, 1, 1000, 1, 1, 1])
    steps, plain = smooth(values, 3)
    assert steps.tolist() == [3, 4, 5, 6, 7]
    np.testing.assert_allclose(plain, [1, 334, 334, 334, 1])
    _, geometric = smooth(values, 3, geometric=True)
    np.testing.assert_allclose(geometric, [1, 10, 10, 10, 1])


def test_bars_are_stacked_and_their_sum_is_written() -> None:
    _, (axis,) = panels()
    stacked_bars(axis, {"a": {"x": 1, "y": 2}, "b": {"y": 3}})
    bars = [(patch.get_x(), patch.get_width()) for patch in axis.patches]
    assert bars == [(0, 1), (0, 0), (1, 2), (0, 3)]
    assert [text.get_text() for text in axis.texts] == [" 3.00", " 3.00"]
    assert axis.yaxis.get_inverted()  # the first on top


def test_a_table_writes_its_numbers() -> None:
    _, (axis,) = panels()
    image = heat_table(axis, np.array([[0.5, np.nan, 1.0]]), ["r"], ["c", "d", "e"], vmin=0)
    assert [(*text.get_position(), text.get_text()) for text in axis.texts] == [
        (0, 0, "0.50"), (2, 0, "1.00"),
    ]  # fmt: skip
    assert [label.get_text() for label in axis.get_xticklabels()] == ["c", "d", "e"]
    assert image.get_clim()[0] == 0


@pytest.mark.parametrize("adapter", [False, True])
def test_block_names_what_flows_forward_and_back(adapter: bool) -> None:
    figure = plot_block(adapter)
    figure.draw_without_rendering()
    shown = [text for text in figure.findobj(Text) if text.get_text()]
    words = [text.get_text() for text in shown]
    assert {"$x$", "$dx$", "$h$", "$dh$", "$s$", "$ds$", "attention", "feed-\nforward"} <= {*words}
    assert words.count("layer\nnorm") == 2
    assert words.count("+") == (8 if adapter else 4)  # a sum forward is a copy back
    assert ("adapter\n$f$" in words) == adapter
    boxes = [text.get_window_extent() for text in shown]
    pairs = [(i, j) for i in range(len(boxes)) for j in range(i) if boxes[i].overlaps(boxes[j])]
    assert [(words[i], words[j]) for i, j in pairs] == []


def test_matrices_are_to_scale() -> None:
    figure = plot_block_to_scale(d=8, d_ff=32, m=2)
    shapes = [(r.get_height(), r.get_width()) for r in figure.axes[0].patches]
    assert shapes == [(8, 8)] * 4 + [(8, 32)] * 2 + [(8, 2), (2, 8)] * 2


def test_passes_draw_what_was_observed() -> None:
    seen = [
        Observed("embeddings", 0, saved=0, visited=False, dx=False, dW=False),
        Observed("adapter", 1, saved=8, visited=True, dx=False, dW=True),
        Observed("head", 2, saved=8, visited=True, dx=True, dW=True),
    ]
    (axis,) = plot_passes({"model": seen}).axes
    boxes = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    assert [bool(box.get_hatch()) for box in boxes] == [False, True, True]
    markers = [line.get_marker() for line in axis.lines]
    assert markers.count("o") == 2  # saved
    assert markers.count("v") == 1  # a dx for what comes before
    end = axis.lines[-1].get_ydata()
    assert list(end) == [1, 1]  # the backward pass ends at the adapter

"""The panels and diagrams of the notebooks: what is drawn is what was given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from minitransformer.plots import (
    heat_table,
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
    image = heat_table(axis, np.array([[0.5, 1.0]]), ["r"], ["c", "d"], vmin=0)
    assert [text.get_text() for text in axis.texts] == ["0.50", "1.00"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["c", "d"]
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

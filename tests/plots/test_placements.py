"""The pictures of the placements: everything is named, and nothing overlaps."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from minitransformer.adapters.config import PLACEMENTS
from minitransformer.errors import ConfigError
from minitransformer.nn.config import NORMS
from minitransformer.plots.placements import plot_placement, plot_placements

each_placement = pytest.mark.parametrize("placement", PLACEMENTS)
each_norm = pytest.mark.parametrize("norm", NORMS)


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@each_norm
@each_placement
def test_a_placement_names_everything_in_it(placement: str, norm: str, tmp_path: Path) -> None:
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
        wide = [patch for patch in figure.findobj(Rectangle) if patch.get_width() > 2]
        for patch in wide:  # words are inside a box or outside it
            frame = patch.get_window_extent()
            inside = frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1)
            assert inside or not frame.overlaps(box), word


def test_an_unknown_placement_or_norm_is_refused() -> None:
    with pytest.raises(ConfigError, match="placement='before': expected one of after_norm"):
        plot_placement("before")
    with pytest.raises(ConfigError, match="norm='none': expected one of post, pre"):
        plot_placements("none")

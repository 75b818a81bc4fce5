"""Progress bars leave nothing behind."""

import io
import sys
import threading

import pytest

from minitransformer.training.progress import progress_bar


@pytest.mark.parametrize("screen", [True, False])
def test_many_bars_leave_no_more_threads_than_one(screen, monkeypatch) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: screen
    monkeypatch.setattr(sys, "stderr", stream)

    def use() -> int:
        with progress_bar(3, "step") as bar:
            bar.update(3)
        return threading.active_count()

    first = use()
    assert [use() for _ in range(5)] == [first] * 5
    assert "3" in stream.getvalue()

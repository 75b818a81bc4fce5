"""What a notebook shows: tables as tables, progress as a bar, and nothing else."""

from __future__ import annotations

import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.nn.layers import Linear

ROOT = Path(mt.__file__).parents[1]


def test_summary_as_html_says_what_the_text_says() -> None:
    model = mt.Transformer(mt.TransformerConfig(20, d_model=8, n_layers=1, n_heads=2, d_ff=16))
    model.freeze()
    model.add_adapter("one", mt.AdapterConfig(bottleneck=2))
    summary = model.summary()
    html = summary._repr_html_()
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", html)
    assert cells == [cell for row in summary.rows for cell in row.cells()]
    assert html.count("font-weight:bold") == sum(row.trainable for row in summary.rows) == 8
    assert summary.footer() in html
    assert summary.footer() in str(summary)
    assert repr(summary) == str(summary)  # where Python shows a value without print


def test_gradient_check_is_a_table_in_a_notebook() -> None:
    rng = np.random.default_rng(0)
    report = mt.gradcheck(Linear(3, 2, rng), rng.standard_normal((4, 3)))
    assert "<table>" in report._repr_html_()
    assert "weight" in report._repr_html_()
    assert repr(report) == str(report)


# -- in a real kernel ---------------------------------------------------------------------

CELLS = (
    "import minitransformer as mt",
    'model = mt.Transformer.from_pretrained("tiny")\nmodel.freeze()\n'
    'model.add_adapter("sentiment", mt.AdapterConfig(bottleneck=8))\nmodel.summary()',
    'options = mt.RunOptions(base="tiny", limit=200, training=mt.TrainingOptions(epochs=2))\n'
    'run = mt.train("toy-reviews", options, out="run", progress=True)',
    'run.predict(["the plot was gripping"])[0].label',
    "from minitransformer.plots import plot_history\nplot_history(run.history, 'toy-reviews')",
)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The cells above, run by Jupyter."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipywidgets")

    notebook = nbformat.v4.new_notebook()
    first = f"import sys; sys.path.insert(0, {str(ROOT)!r})"
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in (first, *CELLS)]
    client = nbclient.NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}},
    )
    client.execute()
    return notebook


def outputs(notebook: Any, cell: int) -> list[dict[str, Any]]:
    return list(notebook.cells[cell]["outputs"])


@pytest.mark.slow
def test_summary_is_shown_as_a_table(executed: Any) -> None:
    (shown,) = outputs(executed, 2)
    assert "<table>" in shown["data"]["text/html"]
    assert "trainable" in shown["data"]["text/plain"]


@pytest.mark.slow
def test_training_shows_one_progress_bar_and_no_warnings(executed: Any) -> None:
    (shown,) = outputs(executed, 3)
    assert "application/vnd.jupyter.widget-view+json" in shown["data"]
    widgets = executed.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    (bar,) = [w["state"] for w in widgets.values() if w["model_name"] == "FloatProgressModel"]
    assert bar["value"] == bar["max"] == 14  # 2 epochs of 200 / 32 steps
    assert bar["bar_style"] == "success"


@pytest.mark.slow
def test_curves_are_shown_as_a_picture(executed: Any) -> None:
    (shown,) = outputs(executed, 5)
    assert b64decode(shown["data"]["image/png"]).startswith(b"\x89PNG")


@pytest.mark.slow
def test_nothing_is_written_to_standard_error(executed: Any) -> None:
    written = [o for cell in executed.cells for o in cell["outputs"] if o.get("name") == "stderr"]
    assert written == []


@pytest.mark.slow
def test_the_trained_run_answers(executed: Any) -> None:
    (answer,) = outputs(executed, 4)
    assert answer["data"]["text/plain"] in ("'positive'", "'negative'")

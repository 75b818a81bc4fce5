"""The table of all methods, against models that really run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from minitransformer import Transformer
from minitransformer.costs.comparison import compare_methods
from minitransformer.costs.counting import count_multiply_adds
from minitransformer.costs.parameters import SHAPES
from minitransformer.nn.module import Array
from minitransformer.runs.model import build_classifier
from minitransformer.runs.options import RunOptions


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_an_answer_of_a_trained_model_costs_what_the_table_says(pooling: str) -> None:
    """What was trained stays trainable in a run that is loaded; in eval mode that costs nothing."""
    config = replace(SHAPES["minilm"], vocab_size=10, max_positions=16)
    ids = np.ones((2, 16), np.int64)

    def forward(method: str) -> int:
        options = RunOptions(method=method, pooling=pooling)
        model = build_classifier(Transformer(config, np.random.default_rng(0)), 2, options).eval()
        with count_multiply_adds(model) as counter:
            model(ids, np.ones_like(ids))
        return counter.multiply_adds

    plain = forward("head")
    rows = compare_methods("minilm", 2, 16, pooling=pooling)["methods"]
    added = {row["method"]: row["inference"] for row in rows}
    assert added == {method: forward(method) / plain for method in added}
    assert (added["ia3"] > 1) == (pooling == "cls")  # of the last block; it has no products itself
    assert added["bitfit"] == added["full"] == 1


def test_in_eval_mode_it_makes_no_difference_what_trains(
    small_transformer: type[Transformer], token_batch: tuple[Array, Array]
) -> None:
    model = small_transformer()
    frozen = model.freeze().eval()(*token_batch, first_only=True)
    assert np.array_equal(model.unfreeze().eval()(*token_batch, first_only=True), frozen)

"""RoBERTa's positions: tokens count from the padding token's id + 1 on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.errors import ConfigError, ShapeError

Make = Callable[..., mt.Transformer]
ROBERTA = {"token_types": 1, "pad_id": 1, "max_positions": 10}


def test_the_first_positions_are_not_for_tokens(small_transformer: Make) -> None:
    model = small_transformer(**ROBERTA)
    assert model.config.max_length == 8
    longest = np.full((1, 8), 7)
    hidden = model(longest)
    model.embeddings.position.weight.value[:2] += 1.0  # those of padding, and of nothing
    assert np.array_equal(model(longest), hidden)
    model.embeddings.position.weight.value[9] += 1.0  # of the last token
    assert not np.allclose(model(longest), hidden)
    with pytest.raises(ShapeError, match="9 tokens is too long: this model has 8 positions"):
        model(np.full((1, 9), 7))


def test_padding_moves_no_token(small_transformer: Make) -> None:
    model = small_transformer(**ROBERTA).astype(np.float64)
    ids = np.array([[5, 9, 3, 1, 1], [8, 4, 2, 7, 6], [1, 1, 5, 9, 3]])
    hidden = model(ids, (ids != 1).astype(int))
    alone = model(ids[:1, :3])
    np.testing.assert_allclose(hidden[0, :3], alone[0], rtol=1e-12)
    np.testing.assert_allclose(hidden[2, 2:], alone[0], rtol=1e-12)  # padding on the left


def test_what_pad_id_cannot_be(small_transformer: Make) -> None:
    for wrong in ({"pad_id": 50}, {"pad_id": -1}, {"causal": True}, {"pad_id": 9}):
        with pytest.raises(ConfigError, match="pad_id="):
            small_transformer(**{**ROBERTA, **wrong})

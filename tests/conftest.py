"""Small models that many tests share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import minitransformer as mt

# A busy machine draws examples slowly; that says nothing about the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

SMALL = {"vocab_size": 50, "d_model": 16, "n_layers": 3, "n_heads": 2, "d_ff": 32}


@pytest.fixture
def small_transformer() -> Callable[..., mt.Transformer]:
    """Makes a small random transformer, BERT-like unless told otherwise."""

    def make(seed: int = 0, **options: object) -> mt.Transformer:
        config = {**SMALL, "max_positions": 24, "token_types": 2, **options}
        return mt.Transformer(mt.TransformerConfig(**config), np.random.default_rng(seed))

    return make


@pytest.fixture
def token_batch() -> tuple[np.ndarray, np.ndarray]:
    """ids and attention_mask (4, 7), the last rows padded."""
    ids = np.random.default_rng(7).integers(0, SMALL["vocab_size"], (4, 7))
    mask = np.ones_like(ids)
    mask[2, 5:] = 0
    mask[3, 2:] = 0
    return ids, mask

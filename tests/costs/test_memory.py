"""Bytes that forward saves for backward, measured."""

from __future__ import annotations

import numpy as np

from minitransformer import AdapterConfig, Transformer, TransformerConfig
from minitransformer.costs.memory import saved_bytes
from minitransformer.nn.layers import Linear
from minitransformer.runs.model import build_classifier
from minitransformer.runs.options import RunOptions


def test_saved_bytes_of_a_single_product() -> None:
    layer = Linear(5, 3, np.random.default_rng(0))
    x = np.ones((4, 5), np.float32)
    layer(x)
    assert saved_bytes(layer) == x.nbytes
    layer.freeze()
    layer(x)
    assert saved_bytes(layer) == 0  # a frozen weight needs no input


def test_frozen_models_save_less_and_evaluation_nothing() -> None:
    config = TransformerConfig(30, d_model=16, n_layers=4, n_heads=2, d_ff=64)
    ids = np.random.default_rng(0).integers(0, 30, (3, 8))
    saved = {}
    cases = {
        "full": RunOptions(method="full"),
        "adapter": RunOptions(adapter=AdapterConfig(bottleneck=2)),
        "top": RunOptions(adapter=AdapterConfig(bottleneck=2, layers=(3,))),
        "head": RunOptions(method="head"),
    }
    for name, options in cases.items():
        model = build_classifier(Transformer(config, np.random.default_rng(0)), 2, options)
        model(ids)
        saved[name] = saved_bytes(model)
        model.eval()
        model(ids)
        assert saved_bytes(model) == 0
    assert saved["full"] > saved["adapter"] > 2 * saved["top"] > 2 * saved["head"] > 0

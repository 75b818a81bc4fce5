"""Reading golden arrays, and what it means to agree with them; the tiny models they belong to."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.nn.module import Array, Module

GOLDEN = Path(__file__).parent
RTOL = {"float64": 1e-10, "float32": 1e-5}
WORST: dict[str, float] = {}  # relative error, by "what dtype": what the comparisons have seen
both_precisions = pytest.mark.parametrize("dtype", RTOL)


@cache
def stored(part: str) -> dict[str, Array]:
    """One file's arrays, as they are."""
    with np.load(GOLDEN / f"{part}.npz") as file:
        return {name: file[name] for name in file.files}


def golden(part: str, dtype: str) -> dict[str, Array]:
    """One file's arrays, the floating-point ones in `dtype`."""
    return {k: v.astype(dtype) if v.dtype.kind == "f" else v for k, v in stored(part).items()}


def under(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    """The arrays whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def assert_close(actual: Array | float | None, expected: Array, what: str = "") -> None:
    """Equal within the precision of `expected`, relative to its largest entry."""
    assert actual is not None and np.shape(actual) == expected.shape, what
    error, size = np.abs(actual - expected).max(), np.abs(expected).max()
    note(what, str(expected.dtype), error / size)
    assert error <= RTOL[str(expected.dtype)] * size, f"{what}: off by {error} at size {size}"


def note(what: str, dtype: str, error: float) -> None:
    """Remember the worst relative error of its kind; names of parameters are gradients."""
    kind = f"{'gradients' if '.' in what else what}, {dtype}"
    WORST[kind] = max(WORST.get(kind, 0.0), float(error))


def load(module: Module, values: dict[str, Array], dtype: str) -> Module:
    module.astype(dtype)
    module.load_state_dict(values)
    return module


def gradients(module: Module) -> dict[str, Array]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def assert_gradients(module: Module, expected: dict[str, Array]) -> None:
    """Every expected gradient is there, and right."""
    found = gradients(module)
    assert expected and expected.keys() <= found.keys()
    for name, gradient in expected.items():
        assert_close(found[name], gradient, name)


def tiny_bert(dtype: str) -> mt.Transformer:
    return mt.Transformer.from_pretrained(GOLDEN / "tiny_bert").astype(dtype).train()


def tiny_gpt2(dtype: str) -> mt.Transformer:
    config = mt.TransformerConfig(
        vocab_size=60, d_model=32, n_layers=2, n_heads=4, d_ff=48, max_positions=24,
        norm="pre", causal=True, activation="gelu_tanh", layer_norm_eps=1e-5,
    )  # fmt: skip
    return load(mt.Transformer(config), under("w:", golden("tiny_gpt2", dtype)), dtype)


def classifier(model: mt.Transformer, g: dict[str, Array], pooling: str) -> mt.Classifier:
    """A classifier with the golden head, for as many classes as that has."""
    whole = mt.Classifier(model, n_classes=len(g["head.bias"]), pooling=pooling)
    load(whole.head.linear, under("head.", g), str(model.dtype))
    return whole


def logits_and_loss(
    model: mt.Classifier | mt.LanguageModel, labels: Array, *inputs: Array
) -> tuple[Array, float]:
    """One step: forward, loss, and the backward pass."""
    criterion = mt.CrossEntropy()
    logits = model(*inputs)
    loss = criterion(logits, labels)
    model.backward(criterion.backward())
    return logits, loss

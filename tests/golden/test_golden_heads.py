"""Heads and losses against transformers' own: a class for a pair of texts, and a number."""

from __future__ import annotations

import pytest
from golden_arrays import (
    RTOL,
    assert_close,
    both_precisions,
    golden,
    gradients,
    load,
    tiny_bert,
    under,
)
from test_golden_placements import assert_condensed

import minitransformer as mt
from minitransformer.models.heads import Regressor
from minitransformer.nn.losses import SquaredError


@both_precisions
@pytest.mark.parametrize("key", ["pair", "weighted", "number"])
def test_loss_and_every_gradient_are_those_of_transformers(key: str, dtype: str) -> None:
    g = golden("heads_bert", dtype)
    base = tiny_bert(dtype)
    if key == "number":
        model, labels, head = Regressor(base, "pooler"), g["numbers"], "number."
        loss_function: mt.CrossEntropy | SquaredError = SquaredError()
    else:
        model, labels, head = mt.Classifier(base, 3, "pooler"), g["labels"], "head."
        weights = g["class_weights"] if key == "weighted" else None
        loss_function = mt.CrossEntropy(class_weights=weights)
    load(model.head.linear, under(head, g), dtype)
    logits = model.train()(g["ids"], g["mask"], g["types"])
    loss = loss_function(logits, labels)
    model.backward(loss_function.backward())
    expected = under(f"{key}/", g)
    assert_close(logits, expected["logits"], "logits")
    assert_close(loss, expected["loss"], "loss")
    found = {k.removeprefix("transformer."): g for k, g in gradients(model).items()}
    assert_condensed(found, expected, RTOL[dtype])

"""Adapters in every placement, with every option, on both families, against the library `adapters`.

    python tests/golden/test_golden_placements.py    # prints the worst errors

What each case means stands in reference/cases.py; the expected arrays were written by
golden/make_golden.py. Adapter weights are far from the identity.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from golden_arrays import (
    RTOL,
    WORST,
    assert_close,
    both_precisions,
    classifier,
    golden,
    gradients,
    logits_and_loss,
    note,
    tiny_bert,
    tiny_gpt2,
    under,
)

import minitransformer as mt
from minitransformer.nn.module import Array
from reference import cases
from reference.cases import Case
from reference.summaries import condense, products

TINY_CASES = cases.activation_cases() | cases.variant_cases()


def insert(model: mt.Transformer, case: Case, bottleneck: int) -> None:
    """The adapters of a case, with the weights that the reference had; frozen base."""
    config = mt.AdapterConfig(
        bottleneck, activation=case.activation, placement=case.placement, sites=case.sites,
        layers=case.layers, scaling=case.scaling, norm=case.norm,
    )  # fmt: skip
    model.freeze()
    for name in case.adapters:
        model.add_adapter(name, config)
    model.set_active(*case.adapters)
    for name, p in model.named_parameters():
        if ".adapters." in name:
            p.value[...] = cases.drawn(name, p.shape)


def assert_condensed(found: dict[str, Array], expected: dict[str, Array], rtol: float) -> None:
    """The same gradients are there; norm and two products of each agree, relative to the norm."""
    summaries = condense(found)
    assert summaries["names"].tolist() == expected["names"].tolist()
    error = np.abs(summaries["summaries"] - expected["summaries"]).max(axis=1)
    for name, off, norm in zip(expected["names"], error, expected["summaries"][:, 0], strict=True):
        note("gradients.condensed", str(expected["summaries"].dtype), off / norm)
        assert off <= rtol * norm, f"{name}: off by {off} at norm {norm}"


def adapters_only(expected: dict[str, Array]) -> dict[str, Array]:
    """What a frozen base leaves of the condensed gradients."""
    ours = np.array([".adapters." in name for name in expected["names"]])
    return {key: expected[key][ours] for key in ("names", "summaries")}


@both_precisions
@pytest.mark.parametrize("name", TINY_CASES)
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_adapters(family: str, name: str, dtype: str) -> None:
    g = under(f"{name}/", golden(f"placements_{family}", dtype))
    batch = golden(f"tiny_{family}", dtype)
    real = batch["mask"] == 1
    model: mt.Classifier | mt.LanguageModel
    if family == "bert":
        base = tiny_bert(dtype)
        model = classifier(base, batch, "cls")
        inputs, labels = (batch["ids"], batch["mask"], batch["types"]), batch["labels"]
    else:
        base = tiny_gpt2(dtype)
        model, inputs, labels = (
            mt.LanguageModel(base),
            (batch["ids"], batch["mask"]),
            batch["targets"],
        )
    insert(base, TINY_CASES[name], bottleneck=5)

    for frozen in (True, False):
        if not frozen:
            base.unfreeze()
        base.zero_grad()
        logits, loss = logits_and_loss(model, labels, *inputs)
        assert_close(logits if family == "bert" else products(logits[real]), g["logits"], "logits")
        assert_close(loss, g["loss"], "loss")
        found = gradients(base)
        assert_condensed(found, adapters_only(g) if frozen else g, RTOL[dtype])
        for key, gradient in under("d:", g).items():
            assert_close(found[key], gradient, key)
    assert_close(products(base.eval()(*inputs)[real]), g["last"], "last hidden states")


@pytest.mark.slow
@both_precisions
@pytest.mark.parametrize("name", cases.minilm_cases())
def test_minilm(name: str, dtype: str) -> None:
    everything = golden("placements_minilm", dtype)
    g = under(f"{name}/", everything)
    base = mt.Transformer.from_pretrained("minilm").astype(dtype).train()
    insert(base, cases.minilm_cases()[name], bottleneck=16)
    if dtype == "float64":
        base.unfreeze()  # the base's gradients too
    model = classifier(base, everything, "cls")
    ids, mask = everything["ids"], everything["mask"]
    logits, loss = logits_and_loss(model, everything["labels"], ids, mask)
    assert_close(logits, g["logits"], "logits")
    assert_close(loss, g["loss"], "loss")
    assert_condensed(gradients(base), g if dtype == "float64" else adapters_only(g), RTOL[dtype])
    assert_close(products(base.eval()(ids, mask)[mask == 1]), g["last"], "last hidden states")


def main() -> None:
    """Compare everything, and print the worst relative error of each kind."""
    for title, run, names in (
        ("post-norm BERT", partial(test_adapters, "bert"), TINY_CASES),
        ("pre-norm GPT-2", partial(test_adapters, "gpt2"), TINY_CASES),
        ("MiniLM", test_minilm, cases.minilm_cases()),
    ):
        WORST.clear()
        for name in names:
            for dtype in RTOL:
                run(name, dtype)
        print(f"{title}: {len(names)} cases in float64 and float32, worst relative error")
        for kind, error in sorted(WORST.items()):
            print(f"    {kind:30} {error:.1e}")


if __name__ == "__main__":
    main()

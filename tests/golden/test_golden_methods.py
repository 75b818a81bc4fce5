"""LoRA, (IA)^3, prefix tuning, BitFit and layer-norm tuning against PEFT, on both families.

    python tests/golden/test_golden_methods.py    # prints the worst errors

What each case means stands in reference/method_cases.py; the expected arrays were written by
golden/make_golden.py. What is added is far from doing nothing.
"""

from __future__ import annotations

import re

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
    tiny_bert,
    tiny_gpt2,
    under,
)
from test_golden_placements import assert_condensed

import minitransformer as mt
from minitransformer.adapters.select import select_trainable
from minitransformer.nn.module import Array, backward_through
from reference.method_cases import IA3, LoRA, MethodCase, Prefix, drawn, method_cases
from reference.summaries import products

CASES = method_cases()
PARAMETER = re.compile(
    r"blocks\.(\d)\.(?:attention|ffn)\.module\.(\w+)\.adapters\.(\w+)\.(a|b|factors|keys|values)"
)
QKV = ("query", "key", "value")


def insert(model: mt.Transformer, case: MethodCase) -> None:
    """What the case says, with the weights that the reference had; frozen base."""
    model.freeze()
    for name in case.adapters:
        if isinstance(case, LoRA):
            config = mt.LoRAConfig(case.rank, case.alpha, targets=case.targets, layers=case.layers)
            model.add_lora(name, config)
        elif isinstance(case, IA3):
            model.add_ia3(name)
        else:
            model.add_prefix(name, mt.PrefixConfig(case.length))
    model.set_active(*case.adapters)
    for key, parameter in model.named_parameters():
        if ".adapters." in key:
            for name, part in parts(key, parameter.value, case).items():
                part[...] = drawn(name, part.shape)


def parts(key: str, array: Array, case: MethodCase) -> dict[str, Array]:
    """An added parameter, or its gradient, under the names of the cases; the values are views."""
    match = PARAMETER.fullmatch(key)
    assert match, key
    block, linear, adapter, part = match.groups()
    if isinstance(case, Prefix):
        return {f"blocks.{block}.prefix.{adapter}.{part.removesuffix('s')}": array}
    if isinstance(case, IA3):
        kinds = {"qkv": ("key", "value"), "down": ("ffn",)}[linear]
        part = "factor"
    else:
        targets = {"qkv": QKV, "out": ("output",)}.get(linear, (linear,))
        kinds = tuple(target for target in targets if target in case.targets)
        part = part.upper()
    assert len(array) == len(kinds)
    return {f"blocks.{block}.{k}.{adapter}.{part}": a for k, a in zip(kinds, array, strict=True)}


def found_gradients(base: mt.Transformer, case: MethodCase) -> dict[str, Array]:
    """Every gradient, those of what was added under the names of the cases."""
    found = {}
    for key, gradient in gradients(base).items():
        found |= parts(key, gradient, case) if ".adapters." in key else {key: gradient}
    return found


def model_on(
    base: mt.Transformer, batch: dict[str, Array]
) -> tuple[mt.Classifier | mt.LanguageModel, Array]:
    """The golden head on the base, and what it is to predict."""
    if base.config.causal:
        return mt.LanguageModel(base), batch["targets"]
    return classifier(base, batch, "cls"), batch["labels"]


def step_at_positions(
    base: mt.Transformer, batch: dict[str, Array], positions: Array
) -> tuple[Array, float]:
    """Forward, loss and backward with positions for the tokens, which only the base takes."""
    model, labels = model_on(base, batch)
    criterion = mt.CrossEntropy()
    last = base(batch["ids"], batch["mask"], positions=positions)
    logits = model.logits(last) if isinstance(model, mt.Classifier) else model.head(last)
    loss, d = criterion(logits, labels), criterion.backward()
    pooling = [model.pooling] if isinstance(model, mt.Classifier) else []
    base.backward(backward_through(d, model.head, *pooling))
    return logits, loss


@both_precisions
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_methods(family: str, name: str, dtype: str) -> None:
    g, case = under(f"{name}/", golden(f"methods_{family}", dtype)), CASES[name]
    batch = golden(f"tiny_{family}", dtype)
    base = tiny_bert(dtype) if family == "bert" else tiny_gpt2(dtype)
    insert(base, case)
    ids, mask, real = batch["ids"], batch["mask"], batch["mask"] == 1
    first = case.length if isinstance(case, Prefix) and case.shifted else 0
    positions = first + np.arange(ids.shape[1])
    inputs: tuple[Array, ...] = (ids, mask)
    if family == "bert" and not isinstance(case, Prefix):  # there PEFT leaves token types out
        inputs = (ids, mask, batch["types"])

    added = np.array([".one." in key or ".two." in key for key in g["names"]])
    own = {key: g[key][added] for key in ("names", "summaries")}
    for frozen in (True, False):
        if not frozen:
            base.unfreeze()
        base.zero_grad()
        if first:
            logits, loss = step_at_positions(base, batch, positions)
        else:
            model, labels = model_on(base, batch)
            logits, loss = logits_and_loss(model, labels, *inputs)
        assert_close(logits if family == "bert" else products(logits[real]), g["logits"], "logits")
        assert_close(loss, g["loss"], "loss")
        found = found_gradients(base, case)
        assert_condensed(found, own if frozen else g, RTOL[dtype])
        for key, gradient in under("d:", g).items():
            assert_close(found[key], gradient, key)
    base.eval()
    last = products(base(*inputs, positions=positions)[real])
    assert_close(last, g["last"], "last hidden states")
    base.set_active(None)  # without what was added the answer is another
    assert np.abs(products(base(*inputs, positions=positions)[real]) - last).max() > 0.01


@both_precisions
@pytest.mark.parametrize("method", ["bitfit", "layer-norm"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_parts_of_the_base(family: str, method: str, dtype: str) -> None:
    """The reference trains all biases, or all layer norms; here it is those of the blocks."""
    g, batch = (
        under(f"{method}/", golden(f"methods_{family}", dtype)),
        golden(f"tiny_{family}", dtype),
    )
    base = tiny_bert(dtype) if family == "bert" else tiny_gpt2(dtype)
    model, labels = model_on(base, batch)
    select_trainable(model, method)
    inputs = (batch["ids"], batch["mask"], *([batch["types"]] if family == "bert" else []))
    logits, loss = logits_and_loss(model, labels, *inputs)
    shown = logits if family == "bert" else products(logits[batch["mask"] == 1])
    assert_close(shown, g["logits"], "logits")
    assert_close(loss, g["loss"], "loss")
    in_blocks = np.array([key.startswith("blocks.") for key in g["names"]])
    assert len(g["names"]) - in_blocks.sum() <= 2  # the embeddings' norm, or the final one
    own = {key: g[key][in_blocks] for key in ("names", "summaries")}
    assert_condensed(gradients(base), own, RTOL[dtype])


def main() -> None:
    """Compare everything, and print the worst relative error of each kind."""
    for title, family in (("post-norm BERT", "bert"), ("pre-norm GPT-2", "gpt2")):
        WORST.clear()
        for dtype in RTOL:
            for name in CASES:
                test_methods(family, name, dtype)
            for method in ("bitfit", "layer-norm"):
                test_parts_of_the_base(family, method, dtype)
        print(f"{title}: {len(CASES) + 2} cases in float64 and float32, worst relative error")
        for kind, error in sorted(WORST.items()):
            print(f"    {kind:30} {error:.1e}")


if __name__ == "__main__":
    main()

"""The library against independent references: PyTorch, transformers and adapters.

The expected arrays in golden/ were written by golden/make_golden.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from golden_arrays import (
    GOLDEN,
    RTOL,
    assert_close,
    assert_gradients,
    both_precisions,
    classifier,
    golden,
    gradients,
    load,
    logits_and_loss,
    tiny_bert,
    tiny_gpt2,
    under,
)

import minitransformer as mt
from minitransformer.data.datasets import TASKS
from minitransformer.data.hub import find_checkpoint
from minitransformer.data.tokenization import Tokenizer, pad
from minitransformer.nn import functional
from minitransformer.nn.attention import MultiHeadAttention
from minitransformer.nn.layers import Embedding, LayerNorm, Linear
from minitransformer.nn.module import Array
from reference.summaries import products, summarize


def assert_elementwise(actual: Array, expected: Array) -> None:
    """Every entry by itself, down to where 1 + tanh(-5) or 1 + erf(-5) is rounding alone."""
    atol = 30 * np.finfo(expected.dtype).eps
    np.testing.assert_allclose(actual, expected, rtol=RTOL[str(expected.dtype)], atol=atol)


# ------------------------------------------------------------------------------ functions, layers


@both_precisions
@pytest.mark.parametrize("name", ["relu", "gelu", "gelu_tanh", "tanh", "silu"])
def test_activation(name: str, dtype: str) -> None:
    g = under(f"{name}/", golden("functional", dtype))
    y, derivative = functional.ACTIVATIONS[name](g["x"])
    assert y.dtype == dtype
    assert_elementwise(y, g["y"])
    assert_elementwise(g["dy"] * derivative, g["dx"])


@both_precisions
def test_softmax(dtype: str) -> None:
    g = under("softmax/", golden("functional", dtype))
    p = functional.softmax(g["x"])
    assert_close(p, g["y"])
    assert_close(functional.softmax_backward(g["dy"], p), g["dx"])


@both_precisions
@pytest.mark.parametrize("name", ["layer_norm", "layer_norm_tiny_eps"])
def test_layer_norm_function(name: str, dtype: str) -> None:
    g = under(f"{name}/", golden("functional", dtype))
    y, x_hat, rstd = functional.layer_norm(g["x"], g["weight"], g["bias"], float(g["eps"]))
    assert_close(y, g["y"])
    assert_close(functional.layer_norm_backward(g["dy"], x_hat, rstd, g["weight"]), g["dx"])


@both_precisions
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(smoothing: float, dtype: str) -> None:
    g = under(f"cross_entropy_{smoothing}/", golden("functional", dtype))
    loss, p = functional.cross_entropy(g["logits"], g["targets"], smoothing)
    assert_close(loss, g["loss"])
    assert_close(functional.cross_entropy_backward(p, g["targets"], smoothing), g["dlogits"])


@both_precisions
def test_linear(dtype: str) -> None:
    g = under("linear/", golden("layers", dtype))
    layer = load(Linear(7, 9), {"weight": g["weight"], "bias": g["bias"]}, dtype)
    assert_close(layer(g["x"]), g["y"])
    assert_close(layer.backward(g["dy"]), g["dx"])
    for name, gradient in gradients(layer).items():
        assert_close(gradient, g[f"d{name}"], name)


@both_precisions
def test_embedding(dtype: str) -> None:
    g = under("embedding/", golden("layers", dtype))
    layer = load(Embedding(11, 5), {"weight": g["weight"]}, dtype)
    assert_close(layer(g["ids"]), g["y"])
    layer.backward(g["dy"])
    assert_close(gradients(layer)["weight"], g["dweight"])


@both_precisions
def test_layer_norm(dtype: str) -> None:
    g = under("layer_norm/", golden("layers", dtype))
    layer = load(LayerNorm(13, 1e-12), {"weight": g["weight"], "bias": g["bias"]}, dtype)
    assert_close(layer(g["x"]), g["y"])
    assert_close(layer.backward(g["dy"]), g["dx"])
    for name, gradient in gradients(layer).items():
        assert_close(gradient, g[f"d{name}"], name)


@both_precisions
@pytest.mark.parametrize("masks", ["plain", "padding", "causal", "both"])
def test_attention(masks: str, dtype: str) -> None:
    g = under("attention/", golden("layers", dtype))
    module = MultiHeadAttention(15, 3, causal=masks in ("causal", "both"))
    parameters = {name: g[name] for name in dict(module.named_parameters())}
    load(module, parameters, dtype)
    y = module(g["x"], g["mask"] if masks in ("padding", "both") else None)
    assert_close(y, g[f"{masks}/y"])
    assert_close(module.backward(g["dy"]), g[f"{masks}/dx"])
    assert len(gradients(module)) == 4
    for name, gradient in gradients(module).items():
        layer, _, kind = name.partition(".")
        assert_close(gradient, g[f"{masks}/{layer}.d{kind}"], name)


# ------------------------------------------------------------------------------------ whole models


def add_adapter(model: mt.Transformer, activation: str, g: dict[str, Array]) -> None:
    """The golden adapter, with the weights that the reference had."""
    config = mt.AdapterConfig(bottleneck=5, activation=activation, scaling=float(g["scaling"]))
    model.add_adapter("golden", config)
    model.load_state_dict(model.state_dict() | under("w:", g))


def assert_states(model: mt.Transformer, g: dict[str, Array], mask: Array, embedded: Array) -> None:
    """The state behind each block, at every real position; the last one normalized if pre-norm."""
    real, h = mask == 1, embedded
    assert_close(h[real], g["hidden.0"][real], "embeddings")
    for i, block in enumerate(model.blocks, start=1):
        h = block(h, mask)
        if i == len(model.blocks) and model.final_norm is not None:
            h = model.final_norm(h)
        assert_close(h[real], g[f"hidden.{i}"][real], f"block {i}")


@both_precisions
def test_bert_states(dtype: str) -> None:
    g, model = golden("tiny_bert", dtype), tiny_bert(dtype).eval()
    assert_states(model, g, g["mask"], model.embeddings(g["ids"], g["types"]))
    h = model(g["ids"], g["mask"], g["types"])
    assert_close(h[g["mask"] == 1], g["hidden.2"][g["mask"] == 1])
    assert_close(model.pooler(h[:, 0]), g["pooled"])


@both_precisions
@pytest.mark.parametrize("pooling", ["cls", "mean", "pooler"])
def test_bert_classifier(pooling: str, dtype: str) -> None:
    g = golden("tiny_bert", dtype)
    model = classifier(tiny_bert(dtype), g, pooling)
    logits, loss = logits_and_loss(model, g["labels"], g["ids"], g["mask"], g["types"])
    assert_close(logits, g[f"{pooling}/logits"])
    assert_close(loss, g[f"{pooling}/loss"])
    assert_gradients(model.head.linear, under(f"{pooling}/head.d:", g))
    expected = under(f"{pooling}/d:", g)
    assert_gradients(model.transformer, expected)
    if pooling == "cls":  # the reference has a gradient for exactly the same parameters
        assert expected.keys() == gradients(model.transformer).keys()


@both_precisions
def test_bert_masked_language_model(dtype: str) -> None:
    g, base = golden("tiny_bert", dtype), tiny_bert(dtype)
    model = mt.LanguageModel(base)
    model.head.bias.value[...] = g["mlm.bias"]
    logits, loss = logits_and_loss(model, g["mlm.targets"], g["ids"], g["mask"], g["types"])
    real = g["mask"] == 1
    assert_close(logits[real], g["mlm/logits"][real])
    assert_close(loss, g["mlm/loss"])
    expected = under("mlm/d:", g)
    assert_close(model.head.bias.grad, expected.pop("mlm.bias"), "bias of the head")
    assert_gradients(base, expected)
    assert expected.keys() == gradients(base).keys()


@both_precisions
def test_gpt2(dtype: str) -> None:
    g, base = golden("tiny_gpt2", dtype), tiny_gpt2(dtype)
    model = mt.LanguageModel(base)
    logits, loss = logits_and_loss(model, g["targets"], g["ids"], g["mask"])
    real = g["mask"] == 1
    assert_close(logits[real], g["lm/logits"][real])
    assert_close(loss, g["lm/loss"])
    assert_gradients(base, under("lm/d:", g))
    assert under("lm/d:", g).keys() == gradients(base).keys()
    base.eval()
    assert_states(base, g, g["mask"], base.embeddings(g["ids"]))


@both_precisions
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "unfrozen"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_adapters(family: str, activation: str, frozen: bool, dtype: str) -> None:
    everything = golden(f"tiny_{family}", dtype)
    g = under(f"adapter_{activation}/", everything)
    base = tiny_bert(dtype) if family == "bert" else tiny_gpt2(dtype)
    if frozen:
        base.freeze()
    add_adapter(base, activation, g)
    ids, mask, real = everything["ids"], everything["mask"], everything["mask"] == 1
    model: mt.Classifier | mt.LanguageModel
    inputs: tuple[Array, ...]
    if family == "bert":
        model = classifier(base, everything, "cls")
        inputs = (everything["labels"], ids, mask, everything["types"])
        shown = np.ones(len(ids), dtype=bool)
    else:
        model, inputs, shown = mt.LanguageModel(base), (everything["targets"], ids, mask), real
    logits, loss = logits_and_loss(model, *inputs)
    assert_close(logits[shown], g["logits"][shown])
    assert_close(loss, g["loss"])
    expected = under("d:", g)
    if frozen:
        expected = {name: d for name, d in expected.items() if ".adapters." in name}
        assert expected.keys() == gradients(base).keys()
    assert_gradients(base, expected)
    assert_close(base.eval()(*inputs[1:])[real], g["last"][real])


# -------------------------------------------------------------------- real weights, real sentences


@pytest.mark.slow
def test_minilm_tokens() -> None:
    g = golden("minilm", "float32")
    snippets = TASKS["rotten-tomatoes"].read()
    tokenizer = Tokenizer.from_folder(find_checkpoint("minilm"))
    ids, mask = pad(tokenizer.encode([snippets[row][0] for row in g["rows"]], max_length=512))
    assert np.array_equal(ids, g["ids"]) and np.array_equal(mask, g["mask"])
    assert [snippets[row][1] for row in g["rows"]] == g["labels"].tolist()


@pytest.mark.slow
def test_minilm_states() -> None:
    g, model = golden("minilm", "float32"), mt.Transformer.from_pretrained("minilm").eval()
    h = model(g["ids"], g["mask"])[g["mask"] == 1]  # (real positions, d)
    assert h.dtype == np.float32
    assert np.abs(h[:, g["dimensions"]] - g["hidden"]).max() < 2e-5
    # 384 numbers, each off by 2e-5 at random
    assert np.abs(products(h) - g["hidden.products"]).max() < 1e-4


@pytest.mark.slow
def test_minilm_gradients() -> None:
    g = golden("minilm", "float32")
    model = mt.Classifier(
        mt.Transformer.from_pretrained("minilm").train(), n_classes=2, pooling="cls"
    )
    model.head.linear.load_state_dict({"weight": g["head.weight"], "bias": g["head.bias"]})
    few = slice(len(g["logits"]))
    logits, loss = logits_and_loss(model, g["labels"][few], g["ids"][few], g["mask"][few])
    assert np.abs(logits - g["logits"]).max() < 2e-5 and abs(loss - g["loss"]) < 1e-6
    found = gradients(model.transformer)
    found |= {f"head.{name}": d for name, d in gradients(model.head.linear).items()}
    assert found.keys() == {name.removesuffix("/summary") for name in g if "/summary" in name}
    for name, gradient in found.items():
        expected = g[f"{name}/summary"]
        error = np.abs(summarize(gradient, g[f"{name}/entries"]) - expected).max()
        assert error <= 1e-4 * expected[0], name  # the first entry is the gradient's norm


# ----------------------------------------------------------------- the references themselves, anew


@pytest.mark.slow
@pytest.mark.reference
def test_references_still_compute_the_golden_arrays(tmp_path: Path) -> None:
    for library in ("torch", "transformers", "adapters", "peft"):
        pytest.importorskip(library, reason=f"needs {library}: see tests/golden/requirements.txt")
    command = [sys.executable, str(GOLDEN / "make_golden.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    weights = "tiny_bert/model.safetensors"
    assert (tmp_path / weights).read_bytes() == (GOLDEN / weights).read_bytes()
    committed = sorted(path.name for path in GOLDEN.glob("*.npz"))
    assert committed == sorted(path.name for path in tmp_path.glob("*.npz"))
    for name in committed:
        with np.load(GOLDEN / name) as old, np.load(tmp_path / name) as new:
            assert old.files == new.files
            for key in old.files:
                assert new[key].dtype == old[key].dtype and new[key].shape == old[key].shape, key
                if old[key].dtype.kind == "f":  # another machine may round differently
                    rtol = 1e-12 if old[key].dtype == np.float64 else 1e-6
                    atol = rtol * np.abs(old[key]).max()
                    np.testing.assert_allclose(new[key], old[key], rtol=0, atol=atol, err_msg=key)
                else:
                    assert np.array_equal(new[key], old[key]), key

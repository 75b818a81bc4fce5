"""The four placements: what they compute, where they stand by default, the backward pass."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer.models.transformer import FeedForward
from minitransformer.nn.functional import ACTIVATIONS, layer_norm
from minitransformer.nn.layers import LayerNorm
from minitransformer.nn.module import Array, Module
from minitransformer.nn.sublayer import SubLayer

PLACEMENTS = ("after_norm", "houlsby", "pfeiffer", "parallel")
FAMILIES = {
    "post": {"norm": "post", "token_types": 2},
    "pre": {"norm": "pre", "causal": True, "activation": "gelu_tanh"},
}
each_placement = pytest.mark.parametrize("placement", PLACEMENTS)
each_family = pytest.mark.parametrize("family", FAMILIES)
shapes = {
    "batch": st.integers(1, 3), "tokens": st.integers(1, 6), "heads": st.integers(1, 3),
    "bottleneck": st.integers(1, 9), "seed": st.integers(0, 2**31),
}  # fmt: skip
quick = settings(max_examples=12, deadline=None)


def base(family: str, rng: np.random.Generator, heads: int = 2) -> mt.Transformer:
    """A small frozen model in float64, all of whose numbers are random."""
    config = mt.TransformerConfig(
        vocab_size=13, d_model=4 * heads, n_layers=2, n_heads=heads, d_ff=10, max_positions=8,
        **FAMILIES[family],
    )  # fmt: skip
    model = mt.Transformer(config, rng).astype(np.float64)
    shake(model, rng)
    return model.freeze()


def shake(module: Module, rng: np.random.Generator) -> None:
    for p in module.parameters():
        p.value += 0.3 * rng.standard_normal(p.shape)


def batch_of(batch: int, tokens: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """ids and attention_mask (B, T), rows of all lengths."""
    lengths = rng.integers(1, tokens + 1, (batch, 1))
    return rng.integers(0, 13, (batch, tokens)), (np.arange(tokens) < lengths).astype(np.int64)


def with_adapter(
    family: str, placement: str, rng: np.random.Generator, **options: object
) -> mt.Transformer:
    """A frozen base with trainable adapters at both sites, far from the identity."""
    model = base(family, rng)
    config = mt.AdapterConfig(
        **{"bottleneck": 3, "placement": placement, "activation": "gelu",
           "sites": ("attention", "ffn"), **options}
    )  # fmt: skip
    model.add_adapter("task", config, rng)
    for site in model.sites():
        for adapter in site.adapters.values():
            shake(adapter, rng)
    return model


# -- forward ---------------------------------------------------------------------------------


@each_placement
@each_family
@quick
@given(**shapes)
def test_zero_up_is_the_plain_base_to_the_last_bit(
    family: str, placement: str, batch: int, tokens: int, heads: int, bottleneck: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    model = base(family, rng, heads)
    inputs = batch_of(batch, tokens, rng)
    plain = model(*inputs)
    config = mt.AdapterConfig(
        bottleneck, placement=placement, init="zero_up", sites=("attention", "ffn")
    )
    model.add_adapter("task", config, rng)
    np.testing.assert_array_equal(model(*inputs), plain)
    model.astype(np.float32)
    with_adapter = model(*inputs)
    model.set_active(None)
    np.testing.assert_array_equal(with_adapter, model(*inputs))


def formula(placement: str, norm: str) -> Callable[..., Array]:
    """y from x, s, f and LN, as `SubLayer`'s table has it."""

    def after(h: Array, f: Callable[[Array], Array]) -> Array:
        return h + f(h)

    return {
        ("after_norm", "post"): lambda x, s, f, ln: after(ln(x + s), f),
        ("houlsby", "post"): lambda x, s, f, ln: ln(x + s + f(s)),
        ("pfeiffer", "post"): lambda x, s, f, ln: ln(x + s + f(ln(x + s))),
        ("parallel", "post"): lambda x, s, f, ln: ln(x + s + f(x)),
        ("after_norm", "pre"): lambda x, s, f, ln: after(x + s, f),
        ("houlsby", "pre"): lambda x, s, f, ln: x + s + f(s),
        ("pfeiffer", "pre"): lambda x, s, f, ln: after(x + s, f),
        ("parallel", "pre"): lambda x, s, f, ln: x + s + f(x),
    }[placement, norm]


@each_placement
@each_family
@quick
@given(
    **shapes,
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    scaling=st.sampled_from([1.0, 0.3, "learned"]),
    norm=st.sampled_from([None, "before", "after"]),
)
def test_a_sub_layer_computes_its_formula(
    family: str, placement: str, batch: int, tokens: int, heads: int, bottleneck: int, seed: int,
    activation: str, scaling: float | str, norm: str | None,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    d = 4 * heads
    module = FeedForward(d, 7, "tanh", rng)
    site = SubLayer(module, LayerNorm(d, 1e-5), family == "pre", dropout=0.0)
    config = mt.AdapterConfig(
        bottleneck, activation=activation, placement=placement, scaling=scaling, norm=norm
    )
    adapter = mt.Adapter(d, config, rng)
    site.insert("task", adapter)
    site.active = ("task",)
    site.astype(np.float64)
    shake(site, rng)
    x = rng.standard_normal((batch, tokens, d))

    def normalized(h: Array, norm: LayerNorm | None) -> Array:
        if norm is None:
            return h
        return layer_norm(h, norm.weight.value, norm.bias.value, norm.eps)[0]

    def f(h: Array) -> Array:
        z = normalized(h, adapter.norm_before) @ adapter.down.weight.value + adapter.down.bias.value
        u = ACTIVATIONS[activation](z)[0] @ adapter.up.weight.value + adapter.up.bias.value
        s = adapter.scale.value if scaling == "learned" else scaling
        return normalized(s * u, adapter.norm_after)

    def ln(h: Array) -> Array:
        return normalized(h, site.norm)

    a = np.tanh((ln(x) if family == "pre" else x) @ module.up.weight.value + module.up.bias.value)
    s = a @ module.down.weight.value + module.down.bias.value
    expected = formula(placement, family)(x, s, f, ln)
    np.testing.assert_allclose(site(x), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@each_placement
def test_default_sites_are_those_of_the_papers(placement: str) -> None:
    model = base("post", np.random.default_rng(0))
    model.add_adapter("task", mt.AdapterConfig(3, placement=placement))
    attention = placement in ("after_norm", "houlsby")
    for block in model.blocks:
        assert ("task" in block.attention.adapters) == attention
        assert "task" in block.ffn.adapters


@each_placement
@each_family
def test_nothing_is_saved_in_eval_mode_or_left_behind(family: str, placement: str) -> None:
    rng = np.random.default_rng(1)
    model = with_adapter(family, placement, rng, norm="before", scaling="learned")
    ids, mask = batch_of(3, 5, rng)

    def saved() -> list[str]:
        return [name for name, module in model.named_modules() if module._saved is not None]

    y = model(ids, mask)
    assert saved()
    model.backward(np.ones_like(y))
    assert saved() == []
    model.eval()
    model(ids, mask)
    assert saved() == []


# -- the backward pass -----------------------------------------------------------------------


def gradients(model: Module, dy: Callable[[Array], Array], *inputs: object) -> dict[str, Array]:
    model.zero_grad()
    model.backward(dy(model(*inputs)))
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def weighted(y: Array) -> Array:
    return np.random.default_rng(0).standard_normal(y.shape)


OPTIONS = {
    "plain": {},
    "ffn": {"sites": ("ffn",)},
    "attention": {"sites": ("attention",)},
    "upper block": {"layers": (1,)},
    "scaled": {"scaling": 0.3},
    "learned": {"scaling": "learned"},
    "norm before": {"norm": "before"},
    "norm after": {"norm": "after", "scaling": "learned"},
    "dropout": {"dropout": 0.3},
}


@each_placement
@each_family
@pytest.mark.parametrize("norms", [False, True], ids=["norms frozen", "norms trained"])
@pytest.mark.parametrize("options", OPTIONS)
def test_adapter_gradients_are_a_part_of_the_full_gradients(
    family: str, placement: str, options: str, norms: bool
) -> None:
    rng = np.random.default_rng(2)
    model = with_adapter(family, placement, rng, **OPTIONS[options])
    if norms:
        model.train_layer_norms()
    full = copy.deepcopy(model).unfreeze()  # with the same dropout masks
    inputs = batch_of(3, 5, rng)
    partial, whole = gradients(model, weighted, *inputs), gradients(full, weighted, *inputs)
    assert partial.keys() == model.trainable_parameters().keys()
    assert len(whole) == len(full.parameters())
    for name, grad in partial.items():
        error = np.abs(grad - whole[name]).max() / np.abs(whole[name]).max()
        assert error <= 1e-12, f"{name}: {error}"


@each_placement
@each_family
@quick
@given(batch=st.integers(1, 3), tokens=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_the_first_position_alone_is_the_first_of_all(
    family: str, placement: str, batch: int, tokens: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    model = with_adapter(family, placement, rng)
    ids, mask = batch_of(batch, tokens, rng)

    def first_of_all(y: Array) -> Array:
        dy = np.zeros_like(y)
        dy[:, :1] = weighted(y[:, :1])
        return dy

    whole = gradients(model, first_of_all, ids, mask)
    y = model(ids, mask)[:, :1]
    alone = gradients(model, weighted, ids, mask, None, True)
    np.testing.assert_allclose(model(ids, mask, first_only=True), y, rtol=0, atol=1e-12)
    assert alone.keys() == whole.keys() == model.trainable_parameters().keys()
    for name, grad in alone.items():
        atol = 1e-12 * max(1.0, np.abs(whole[name]).max())
        np.testing.assert_allclose(grad, whole[name], rtol=0, atol=atol, err_msg=name)


@each_placement
@each_family
def test_a_learned_scale_may_train_alone(family: str, placement: str) -> None:
    rng = np.random.default_rng(3)
    model = with_adapter(family, placement, rng, scaling="learned")
    inputs = batch_of(3, 5, rng)
    whole = gradients(model, weighted, *inputs)
    for name, p in model.named_parameters():
        p.trainable = name.endswith("scale")
    alone = gradients(model, weighted, *inputs)
    assert alone.keys() == {name for name in whole if name.endswith("scale")}
    for name, grad in alone.items():
        np.testing.assert_allclose(grad, whole[name], rtol=1e-12)

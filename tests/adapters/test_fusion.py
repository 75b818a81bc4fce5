"""AdapterFusion: what it computes, what of it trains, and that the reference library agrees."""

from __future__ import annotations

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.adapters.fusion import Fusion
from minitransformer.data.batches import Encoded
from minitransformer.errors import ConfigError
from minitransformer.formats.adapter_file import fingerprint

NAMES = ("a", "b", "c")


def with_sources(model: mt.Transformer, placement: str = "pfeiffer") -> mt.Transformer:
    """Three different adapters in a frozen base."""
    model.freeze()
    config = mt.AdapterConfig(bottleneck=4, activation="gelu", placement=placement)
    for seed, name in enumerate(NAMES, start=1):
        rng = np.random.default_rng(seed)
        model.add_adapter(name, config, rng)
        for key, parameter in model.named_parameters():
            if f".adapters.{name}." in key:
                parameter.value += 0.3 * rng.standard_normal(parameter.shape).astype(np.float32)
    return model


def fusions(model: mt.Transformer) -> list[Fusion]:
    return [module for _, module in model.named_modules() if isinstance(module, Fusion)]


def test_fusion_is_softmax_attention_over_the_branches(small_transformer) -> None:
    rng = np.random.default_rng(0)
    model = with_sources(small_transformer()).astype(np.float64)
    model.add_fusion("mix", NAMES, rng)
    fusion = fusions(model)[0]
    h = rng.standard_normal((2, 5, 16))
    q = h @ fusion.query.weight.value + fusion.query.bias.value
    o = [source.f(h) for source in fusion.sources.values()]
    scores = np.stack([(q * (each @ fusion.key.value)).sum(-1) for each in o])  # (N, B, T)
    p = np.exp(scores) / np.exp(scores).sum(axis=0)
    expected = sum(p[n][..., None] * (o[n] @ fusion.value.value) for n in range(3))
    np.testing.assert_allclose(fusion(h), h + expected, atol=1e-13)


def test_a_new_fusion_lies_between_its_sources(small_transformer, token_batch) -> None:
    model = with_sources(small_transformer())
    model.add_fusion("mix", NAMES)
    assert model.active_adapters == ("mix",)
    with_query_at_zero = fusions(model)
    for fusion in with_query_at_zero:
        fusion.query.weight.value[...] = 0
    for p in mt.fusion_weights(model, "mix", *token_batch).values():
        np.testing.assert_allclose(p, 1 / 3, rtol=1e-6)
    # with equal weights and one source's branch in all three places, it is that source
    for fusion in with_query_at_zero:
        fusion.sources = {str(i): fusion.sources["b"] for i in range(3)}
    fused = model.eval()(*token_batch)
    with model.use("b"):
        np.testing.assert_allclose(fused, model(*token_batch), atol=1e-4)


def test_only_query_key_and_value_train(small_transformer) -> None:
    model = with_sources(small_transformer())
    model.unfreeze()
    model.add_fusion("mix", NAMES)
    model.train_adapter("mix")
    own = ("query.weight", "query.bias", "key", "value")
    trained = list(model.trainable_parameters())
    expected = {f"blocks.{i}.ffn.adapters.mix.{part}" for i in range(3) for part in own}
    assert set(trained) == expected
    before = {key: value.copy() for key, value in model.state_dict().items()}
    base = fingerprint(model)
    rng = np.random.default_rng(0)
    data = Encoded([list(rng.integers(1, 50, 6)) for _ in range(32)], rng.integers(0, 2, 32))
    classifier = mt.Classifier(model, 2, rng=rng)
    options = mt.TrainingOptions(epochs=2, batch_size=8, lr=1e-2, weight_decay=0.5)
    mt.Trainer(classifier, data, data, options, progress=False, threads=2).fit()
    assert fingerprint(model) == base
    after = model.state_dict()
    changed = [key for key in before if not np.array_equal(before[key], after[key])]
    assert changed == trained


def test_weights_tell_whom_each_token_listens_to(small_transformer, token_batch) -> None:
    ids, mask = token_batch
    model = with_sources(small_transformer())
    model.add_fusion("mix", NAMES)
    model.set_active("a")
    found = mt.fusion_weights(model, "mix", ids, mask)
    assert list(found) == ["blocks.0.ffn", "blocks.1.ffn", "blocks.2.ffn"]
    for p in found.values():
        assert p.shape == (*ids.shape, 3)
        np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-5)
    assert model.active_adapters == ("a",)
    assert model.training
    assert all(fusion.weights is None for fusion in fusions(model))
    with pytest.raises(ConfigError, match="'a' is a single adapter"):
        mt.fusion_weights(model, "a", ids, mask)


def test_a_source_may_work_on_its_own_beside_the_fusion(small_transformer, token_batch) -> None:
    model = with_sources(small_transformer()).astype(np.float64)
    model.add_fusion("mix", ("a", "b"))
    model.train_adapter("mix", "c")
    model.set_active("a", "mix", "c")
    model.backward(np.ones_like(model(*token_batch)))
    with_rows = model.replica()
    with_rows.set_adapter_per_row(["a", "mix", "c", None])
    together = with_rows(*token_batch)
    for i, name in enumerate(["a", "mix", "c", None]):
        model.set_active(name)
        np.testing.assert_allclose(together[i], model(*token_batch)[i], atol=1e-12)


def test_sources_that_stand_in_some_blocks_only(small_transformer, token_batch) -> None:
    model = small_transformer()
    for name, layers in (("a", (0, 1)), ("b", (1,))):
        model.add_adapter(name, mt.AdapterConfig(bottleneck=4, sites="ffn", layers=layers))
    model.add_fusion("mix", ["a", "b"])
    found = mt.fusion_weights(model, "mix", *token_batch)
    assert {site: p.shape[-1] for site, p in found.items()} == {
        "blocks.0.ffn": 1,
        "blocks.1.ffn": 2,
    }


def test_bad_sources_are_refused(small_transformer) -> None:
    model = with_sources(small_transformer())
    model.add_adapter("other", mt.AdapterConfig(bottleneck=4, placement="houlsby"))
    for sources, message in (
        (["a", "x"], "no adapter 'x'"),
        (["a"], "two or more"),
        (["a", "a"], "each once"),
        (["a", "other"], "one placement; got 'a': pfeiffer, 'other': houlsby"),
    ):
        with pytest.raises(ConfigError, match=message):
            model.add_fusion("mix", sources)
    with pytest.raises(ConfigError, match="'a' is there already"):
        model.add_fusion("a", ["a", "b"])
    assert "mix" not in model.adapter_names
    assert model.active_adapters == ("other",)


# -- the `adapters` library ---------------------------------------------------------------


@pytest.mark.reference
@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby", "after_norm"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_the_reference_library_computes_the_same(family, placement, tmp_path) -> None:
    import torch
    from adapters.composition import Fuse

    from reference import cases, models, names

    rng = np.random.default_rng(0)
    if family == "bert":
        models.save_tiny_bert(tmp_path, rng)
        theirs, rename = models.bert(tmp_path, torch.float64), names.bert
    else:
        theirs, rename = models.tiny_gpt2(rng, torch.float64), names.gpt2
        theirs.save_pretrained(tmp_path)
    models.insert(theirs, cases.Case(placement, adapters=NAMES), 5)
    theirs.add_adapter_fusion(list(NAMES))
    theirs.set_active_adapters(Fuse(*NAMES))
    theirs.to(torch.float64).eval()
    added = {k: p for k, p in theirs.named_parameters() if "adapter" in k}
    for parameter in added.values():
        parameter.requires_grad_(True)
        with torch.no_grad():  # far from the identity, and a bias of the key, which does nothing
            parameter.copy_(torch.from_numpy(0.3 * rng.standard_normal(tuple(parameter.shape))))

    ours = mt.Transformer.from_pretrained(tmp_path).astype(np.float64).train()
    config = mt.AdapterConfig(5, activation="gelu", placement=placement, sites=("attention", "ffn"))
    for name in NAMES:
        ours.add_adapter(name, config)
    ours.add_fusion("mix", NAMES)
    ours.astype(np.float64).unfreeze()  # the sources too: their gradients are compared as well

    def converted(tensors: names.Arrays) -> names.Arrays:
        return rename(tensors) | names.adapters(tensors) | fusion_names(tensors)

    values = converted(models.weights(theirs))
    for key, parameter in ours.named_parameters():
        parameter.value[...] = values[key]

    ids = rng.integers(1, 60, (3, 7))  # BERT's embedding there has no gradient for padding, 0
    mask = np.arange(7) < np.array([[7], [5], [2]])
    answer = theirs(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask * 1))
    last = answer.last_hidden_state
    dy = rng.standard_normal(last.shape) * mask[..., None]
    expected = converted(models.gradients((last * torch.from_numpy(dy)).sum(), theirs))

    found = ours(ids, mask)
    ours.backward(dy)
    assert np.abs(found - last.detach().numpy())[mask].max() < 1e-10
    compared = 0
    for key, parameter in ours.named_parameters():
        if not key.startswith("pooler") and parameter.grad is not None:
            scale = np.abs(expected[key]).max()
            assert np.abs(parameter.grad - expected[key]).max() <= 1e-10 * scale, key
            compared += ".mix." in key
    assert compared == 2 * 2 * 4  # blocks, sites, parameters of a fusion


def fusion_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The library's fusion parameters, as they are called here."""
    found = {}
    parts = {"query.weight": "query.weight", "query.bias": "query.bias"}
    parts |= {"key.weight": "key", "value.weight": "value"}
    for name, value in tensors.items():
        if ".adapter_fusion_layer." in name:
            place, rest = name.split(".adapter_fusion_layer.")
            part = rest.partition(".")[2]
            block = place.split("layer." if "layer." in place else "h.")[1].split(".")[0]
            site = "attention" if ".attention" in place else "ffn"
            if part in parts:
                key = f"blocks.{block}.{site}.adapters.mix.{parts[part]}"
                found[key] = value.T if value.ndim == 2 else value
    return found

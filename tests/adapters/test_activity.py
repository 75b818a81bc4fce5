"""adapter_activity: what each adapter reads, has inside, and adds."""

from __future__ import annotations

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.errors import ConfigError

CONFIG = mt.TransformerConfig(30, d_model=12, n_layers=2, n_heads=2, d_ff=16)
IDS = np.random.default_rng(0).integers(0, 30, (3, 8))


def adapted(**options: object) -> mt.Transformer:
    model = mt.Transformer(CONFIG, np.random.default_rng(0)).freeze()
    config = mt.AdapterConfig(bottleneck=3, **options)  # type: ignore[arg-type]
    model.add_adapter("a", config)
    model.add_adapter("b", config)
    rng = np.random.default_rng(1)
    for parameter in model.trainable_parameters().values():
        parameter.value += rng.standard_normal(parameter.shape).astype(np.float32)
    return model


@pytest.mark.parametrize("placement", ["after_norm", "houlsby", "pfeiffer", "parallel"])
@pytest.mark.parametrize("norm", [None, "before", "after"])
def test_it_is_what_the_adapters_do(placement: str, norm: str | None) -> None:
    model = adapted(placement=placement, norm=norm, dropout=0.5)
    found = mt.adapter_activity(model, "a", IDS)
    sites = dict(model.named_places())
    assert list(found) == [path for path, site in sites.items() if "a" in site.adapters]
    for path, seen in found.items():
        adapter = sites[path].adapters["a"].eval()
        np.testing.assert_array_equal(adapter.f(seen.h), seen.f)
        x = seen.h if adapter.norm_before is None else adapter.norm_before(seen.h)
        np.testing.assert_array_equal(adapter.activation(adapter.down(x)), seen.inner)
        assert seen.h.shape == seen.f.shape == (3, 8, 12)
        assert seen.inner.shape == (3, 8, 3)


def test_last_adapter_adds_to_the_output() -> None:
    model = adapted()
    last = mt.adapter_activity(model, "a", IDS)["blocks.1.ffn"]
    with model.eval().use("a"):
        np.testing.assert_array_equal(model(IDS), last.h + last.f)


def test_the_model_is_as_before() -> None:
    model = adapted().train()
    model.set_active("b")
    before = model(IDS)
    mt.adapter_activity(model, "a", IDS)
    assert model.training
    assert model.active_adapters == ("b",)
    np.testing.assert_array_equal(model(IDS), before)
    with pytest.raises(mt.errors.ShapeError):
        mt.adapter_activity(model, "a", IDS + 30)
    assert model.training
    np.testing.assert_array_equal(model(IDS), before)


def test_dropped_adapters_are_not_there() -> None:
    model = adapted()
    model.drop_adapters((0,))
    assert list(mt.adapter_activity(model, "a", IDS)) == ["blocks.1.attention", "blocks.1.ffn"]


def test_only_of_bottleneck_adapters() -> None:
    model = adapted()
    with pytest.raises(ConfigError, match="no adapter 'c'"):
        mt.adapter_activity(model, "c", IDS)
    model.add_lora("c")
    with pytest.raises(ConfigError, match="no bottleneck adapter"):
        mt.adapter_activity(model, "c", IDS)

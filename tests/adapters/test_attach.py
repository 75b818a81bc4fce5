"""Adapters in a model: inserted, named, activated, removed; the base stays what it was."""

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.errors import ConfigError
from minitransformer.formats.adapter_file import fingerprint


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_zero_up_projection_changes_no_bit(small_transformer, token_batch, norm) -> None:
    model = small_transformer(norm=norm)
    plain = model(*token_batch)
    model.add_adapter("a", mt.AdapterConfig(bottleneck=4, init="zero_up"))
    np.testing.assert_array_equal(model(*token_batch), plain)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_near_identity_start_changes_little_but_something(
    small_transformer, token_batch, norm
) -> None:
    model = small_transformer(norm=norm)
    plain = model(*token_batch)
    model.add_adapter("a", mt.AdapterConfig(bottleneck=4))
    drift = np.abs(model(*token_batch) - plain).max()
    assert 0 < drift < 0.02


def test_deactivated_and_removed_adapters_leave_the_plain_base(
    small_transformer, token_batch
) -> None:
    model = small_transformer()
    plain, digest = model(*token_batch), fingerprint(model)
    model.add_adapter("a", mt.AdapterConfig(bottleneck=4))
    with_a = model(*token_batch)
    model.set_active(None)
    np.testing.assert_array_equal(model(*token_batch), plain)
    model.set_active("a")
    np.testing.assert_array_equal(model(*token_batch), with_a)
    assert fingerprint(model) == digest
    model.delete_adapter("a")
    np.testing.assert_array_equal(model(*token_batch), plain)
    assert model.adapter_names == []
    assert model.active_adapters == ()


def test_adapters_stand_where_the_configuration_says(small_transformer) -> None:
    model = small_transformer()
    model.add_adapter("a", mt.AdapterConfig(bottleneck=4, sites=("ffn",), layers=(0, 2)))
    names = {name.rsplit(".", 2)[0] for name, _ in model.named_parameters() if ".adapters." in name}
    assert names == {"blocks.0.ffn.adapters.a", "blocks.2.ffn.adapters.a"}


def test_count_per_site_is_2dm_plus_d_plus_m(small_transformer) -> None:
    model = small_transformer()
    model.freeze()
    model.add_adapter("a", mt.AdapterConfig(bottleneck=5))
    d, m, sites = 16, 5, 2 * 3
    assert model.summary().trainable == sites * (2 * d * m + d + m)


def test_reduction_factor_gives_the_bottleneck(small_transformer) -> None:
    model = small_transformer()
    config = mt.AdapterConfig(reduction_factor=8)
    model.add_adapter("a", config)
    assert model.adapter_config("a") == config
    assert model.state_dict()["blocks.0.attention.adapters.a.down.weight"].shape == (16, 2)


def test_start_values_are_a_truncated_normal_of_sigma_1e_2() -> None:
    adapter = mt.Adapter(256, mt.AdapterConfig(bottleneck=64), np.random.default_rng(0))
    for linear in (adapter.down, adapter.up):
        w = linear.weight.value
        assert np.abs(w).max() <= 0.02
        # cutting a normal at two standard deviations leaves 0.8796 of its deviation
        assert w.std() == pytest.approx(0.8796e-2, rel=0.02)
        assert not linear.bias.value.any()


def test_layer_norms_train_only_when_asked(small_transformer) -> None:
    model = small_transformer()
    model.freeze()
    model.add_adapter("a", mt.AdapterConfig(bottleneck=4))
    model.train_layer_norms()
    norms = [n for n in model.trainable_parameters() if ".norm." in n]
    assert len(norms) == 3 * 2 * 2  # blocks, sub-layers, gain and bias; not the embeddings' norm
    model.train_layer_norms(False)
    assert not [n for n in model.trainable_parameters() if ".norm." in n]


def test_an_adapters_own_norms_are_not_the_blocks(small_transformer) -> None:
    model = small_transformer()
    model.freeze()
    model.add_adapter("a", mt.AdapterConfig(bottleneck=4, norm="before"))
    trained = list(model.trainable_parameters())
    model.train_layer_norms()
    model.train_layer_norms(False)
    assert list(model.trainable_parameters()) == trained
    assert any("norm_before" in name for name in trained)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bottleneck": 0}, "bottleneck=0: expected a whole number above 0"),
        ({"bottleneck": 4, "reduction_factor": 2}, "give one of the two"),
        ({"reduction_factor": -1}, "reduction_factor=-1"),
        ({"activation": "swish"}, "activation 'swish' is unknown"),
        ({"placement": "somewhere"}, "placement='somewhere': expected one of after_norm"),
        ({"sites": ("head",)}, "sites=.*attention, ffn"),
        ({"sites": ()}, "sites="),
        ({"layers": ()}, "layers="),
        ({"layers": (1, 1)}, "each once"),
        ({"init": "ones"}, "near_identity, zero_up"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"scaling": float("nan")}, "scaling=nan"),
    ],
)
def test_configuration_checks_itself(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        mt.AdapterConfig(**options)


def test_bad_names_and_layers_are_refused(small_transformer) -> None:
    model = small_transformer()
    model.add_adapter("a", mt.AdapterConfig(bottleneck=4))
    with pytest.raises(ConfigError, match="'a' is there already"):
        model.add_adapter("a")
    with pytest.raises(ConfigError, match="without dots"):
        model.add_adapter("b.c")
    with pytest.raises(ConfigError, match="there is no block 3; this model has blocks 0 to 2"):
        model.add_adapter("b", mt.AdapterConfig(layers=(3,)))
    with pytest.raises(ConfigError, match="no adapter 'b'; this model has: a"):
        model.set_active("b")
    with pytest.raises(ConfigError, match="no adapter 'b'"):
        model.delete_adapter("b")
    assert model.adapter_names == ["a"]


def test_adapters_draw_different_dropout_masks(small_transformer) -> None:
    model = small_transformer()
    for name in ("a", "b"):
        model.add_adapter(name, mt.AdapterConfig(4, dropout=0.5))
    dropouts = [site.adapters[name].dropout for site in model.sites() for name in ("a", "b")]
    masks = {dropout.draw((5, 16), np.dtype(np.float32)).tobytes() for dropout in dropouts}
    assert len(masks) == len(dropouts)


def test_the_order_of_a_stack_is_kept_where_its_adapters_share_no_site(
    small_transformer, token_batch
) -> None:
    model = small_transformer()
    model.add_adapter("low", mt.AdapterConfig(4, layers=(0, 1)))
    model.add_adapter("high", mt.AdapterConfig(4, layers=(1, 2)))
    for order in (("low", "high"), ("high", "low")):
        model.set_active(*order)
        expected = model(*token_batch)
        assert model.active_adapters == order
        model.set_active(*model.active_adapters)
        np.testing.assert_array_equal(model(*token_batch), expected)


def test_an_adapter_is_active_once(small_transformer) -> None:
    model = small_transformer()
    model.add_adapter("a", mt.AdapterConfig(4))
    with pytest.raises(ConfigError, match="each name once"):
        model.set_active("a", "a")

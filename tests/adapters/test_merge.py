"""Merging: equal to the adapter beside the weights; taken out again to the last bit."""

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.adapters.config import PLACEMENTS, TARGETS
from minitransformer.adapters.select import select_trainable
from minitransformer.errors import ConfigError
from minitransformer.formats.adapter_file import fingerprint

LINEAR = mt.AdapterConfig(4, activation="linear", placement="houlsby", scaling=0.7)
MERGEABLE = {
    "lora": mt.LoRAConfig(4, targets=TARGETS),
    "ia3": mt.IA3Config(),
    "houlsby": LINEAR,
}


@pytest.fixture
def model(small_transformer):
    model = small_transformer(norm="post")
    for name, config in MERGEABLE.items():
        model.add_method(name, config)
    model.add_adapter("bottleneck", mt.AdapterConfig(4))
    rng = np.random.default_rng(1)
    for key, parameter in model.named_parameters():
        if ".adapters." in key:
            parameter.value += 0.1 * rng.standard_normal(parameter.shape).astype(np.float32)
    model.set_active(None)
    return model.eval()


@pytest.mark.parametrize("names", [["lora"], ["ia3"], ["houlsby"], list(MERGEABLE)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_merged_equals_unmerged_and_comes_out_again(model, token_batch, names, dtype) -> None:
    model.astype(dtype)
    plain, digest = model(*token_batch), fingerprint(model)
    model.set_active(*names)
    y = model(*token_batch)
    assert np.abs(y - plain).max() > 1e-4
    model.merge(*names)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(model(*token_batch), y, atol=tolerance)
    assert model.active_adapters == tuple(names)
    assert all(place.active == () for place in model.places())  # nothing is computed beside
    model.unmerge()
    np.testing.assert_array_equal(model(*token_batch), y)
    model.set_active(None)
    np.testing.assert_array_equal(model(*token_batch), plain)
    assert fingerprint(model) == digest


def test_merging_many_times_adds_up_no_rounding(model, token_batch) -> None:
    digest = fingerprint(model)
    for _ in range(20):
        model.merge("ia3")
        model.merge("lora")
        model.unmerge("ia3")
        model.unmerge("lora")
        model.set_active(None)
    assert fingerprint(model) == digest


def test_lora_is_merged_below_an_adapter_that_is_not(model, token_batch) -> None:
    model.set_active("lora", "bottleneck")
    y = model(*token_batch)
    model.merge("lora")
    np.testing.assert_allclose(model(*token_batch), y, atol=1e-5)


def test_a_replica_made_while_merged_is_merged(model, token_batch) -> None:
    model.merge("lora")
    replica = model.replica()
    np.testing.assert_array_equal(replica(*token_batch), model(*token_batch))
    replica.unmerge()
    np.testing.assert_allclose(replica(*token_batch), model(*token_batch), atol=1e-5)


def test_a_merged_base_can_be_saved_as_a_checkpoint(model, token_batch, tmp_path) -> None:
    model.merge("lora")
    model.save_pretrained(tmp_path / "merged")
    plain = mt.Transformer.from_pretrained(tmp_path / "merged")
    np.testing.assert_array_equal(plain(*token_batch), model(*token_batch))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (mt.AdapterConfig(4), "activation 'relu' stands between"),
        (mt.AdapterConfig(4, activation="linear", placement="houlsby", norm="before"), "deviation"),
        (mt.PrefixConfig(2), "further positions"),
        *[
            (mt.AdapterConfig(4, activation="linear", placement=p), f"placement {p!r} cannot")
            for p in PLACEMENTS
            if p != "houlsby"
        ],
    ],
)
def test_what_cannot_be_merged_says_why_and_changes_nothing(model, config, reason) -> None:
    digest = fingerprint(model)
    model.add_method("new", config)
    with pytest.raises(ConfigError, match=reason):
        model.merge("lora", "new")
    model.unmerge()
    assert model.active_adapters == ("new",)
    assert fingerprint(model) == digest


def test_a_fusion_cannot_be_merged(model) -> None:
    model.add_adapter("second", mt.AdapterConfig(4))
    model.add_fusion("both", ["bottleneck", "second"])
    with pytest.raises(ConfigError, match="a fusion cannot be merged"):
        model.merge("both")


@pytest.mark.parametrize(
    "act",
    [
        lambda m, path: m.set_active(None),
        lambda m, path: m.set_active("bottleneck"),
        lambda m, path: m.add_lora("new"),
        lambda m, path: m.delete_adapter("lora"),
        lambda m, path: m.train_adapter("lora"),
        lambda m, path: m.set_adapter_per_row(["lora", None]),
        lambda m, path: m.save_adapter(path, "lora"),
        lambda m, path: m.merge("lora"),
    ],
)
def test_while_merged_what_would_be_wrong_is_an_error(model, token_batch, tmp_path, act) -> None:
    model.merge("lora")
    y = model(*token_batch)
    with pytest.raises(ConfigError, match="merged"):
        act(model, tmp_path / "file.safetensors")
    np.testing.assert_array_equal(model(*token_batch), y)


@pytest.mark.parametrize("method", ["full", "bitfit"])
def test_training_what_unmerge_would_undo_is_an_error(model, token_batch, method) -> None:
    classifier = mt.Classifier(model, 2)
    select_trainable(classifier, method)
    model.merge("lora")
    classifier(*token_batch)  # in eval mode
    with pytest.raises(ConfigError, match="'lora' is merged into weights that train"):
        classifier.train()(*token_batch)
    select_trainable(classifier, "layer-norm")  # what nothing was merged into
    classifier.backward(np.ones_like(classifier(*token_batch)))


def test_converted_while_merged(model, token_batch) -> None:
    model.set_active("lora", "ia3")
    y = model.astype("float64")(*token_batch)
    model.astype("float32").merge("lora", "ia3")
    model.astype("float64").unmerge()
    assert {parameter.value.dtype for parameter in model.parameters()} == {np.dtype("float64")}
    np.testing.assert_allclose(model(*token_batch), y, atol=1e-12)


def test_where_the_order_counts_all_or_none_are_merged(model) -> None:
    model.set_active("ia3", "lora")
    with pytest.raises(ConfigError, match="'ia3' is merged and 'lora' is not"):
        model.merge("ia3")
    model.set_active("ia3")
    model.merge("ia3")
    with pytest.raises(ConfigError, match="'ia3' is merged and 'lora' is not"):
        model.set_active("ia3", "lora")

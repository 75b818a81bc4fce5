"""Many adapters in one base: which work, which train, averages, and rows of a batch."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer.adapters.config import PLACEMENTS
from minitransformer.data.batches import Encoded
from minitransformer.errors import ConfigError, ShapeError
from minitransformer.formats.adapter_file import fingerprint
from minitransformer.nn.module import Parameter
from minitransformer.training.optim import AdamW

NAMES = ("a", "b", "c")


def with_adapters(model: mt.Transformer, *placements: str) -> mt.Transformer:
    """Adapters a, b, c in a frozen base, far enough from the identity to be told apart."""
    model.freeze()
    for seed, (name, placement) in enumerate(zip(NAMES, placements, strict=False), start=1):
        rng = np.random.default_rng(seed)
        config = mt.AdapterConfig(bottleneck=4, activation="gelu", placement=placement)
        model.add_adapter(name, config, rng)
        for parameter in parts(model, name).values():
            parameter.value += 0.3 * rng.standard_normal(parameter.shape).astype(np.float32)
    return model


def parts(model: mt.Transformer, name: str) -> dict[str, Parameter]:
    return {key: p for key, p in model.named_parameters() if f".adapters.{name}." in key}


def digest(model: mt.Transformer, name: str) -> str:
    """SHA-256 over all that belongs to an adapter."""
    values = [p.value.tobytes() for p in parts(model, name).values()]
    assert values
    return hashlib.sha256(b"".join(values)).hexdigest()


# -- which of them work -------------------------------------------------------------------


def test_use_restores_what_was_active_also_after_an_error(small_transformer, token_batch) -> None:
    model = with_adapters(small_transformer(), "after_norm", "houlsby", "pfeiffer")
    model.set_active("b", "a")
    stacked = model(*token_batch)
    with model.use("c") as same:
        assert same is model
        assert model.active_adapters == ("c",)
        with model.use(None):
            assert model.active_adapters == ()
        assert model.active_adapters == ("c",)
    assert model.active_adapters == ("b", "a")
    with pytest.raises(RuntimeError, match="stop"), model.use("c"):
        raise RuntimeError("stop")
    np.testing.assert_array_equal(model(*token_batch), stacked)
    with pytest.raises(ConfigError, match="no adapter 'd'"), model.use("d"):
        pass
    np.testing.assert_array_equal(model(*token_batch), stacked)


def test_use_restores_rows_and_forgets_what_was_removed(small_transformer, token_batch) -> None:
    model = with_adapters(small_transformer(), "after_norm", "houlsby", "pfeiffer")
    model.set_adapter_per_row(["a", "b", None, "c"])
    mixed = model(*token_batch)
    with model.use("a"):
        model.set_active(None)
    np.testing.assert_array_equal(model(*token_batch), mixed)
    with model.use("a"):
        model.delete_adapter("c")
    assert model.rows == ("a", "b", None, None)
    model.delete_adapter("b")
    assert model.rows == ("a", None, None, None)
    with model.use(None):
        plain = model(*token_batch)
    np.testing.assert_allclose(model(*token_batch)[1:], plain[1:], atol=1e-5)


# -- which of them train ------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "left trainable"])
def test_training_one_adapter_changes_no_bit_of_any_other(small_transformer, frozen) -> None:
    model = with_adapters(small_transformer(), "after_norm", "pfeiffer", "after_norm")
    classifier = mt.Classifier(model, 2, rng=np.random.default_rng(0))
    if frozen:
        model.train_adapter("b")
        trained = [key for key in model.trainable_parameters() if ".adapters.b." not in key]
        assert trained == []
    else:
        model.set_active("b")  # a and c would train, but do not take part
        assert any(".adapters.a." in key for key in classifier.trainable_parameters())
    before = {name: digest(model, name) for name in NAMES}
    base = fingerprint(model)
    rng = np.random.default_rng(0)
    data = Encoded([list(rng.integers(1, 50, 6)) for _ in range(24)], rng.integers(0, 2, 24))
    options = mt.TrainingOptions(epochs=2, batch_size=8, lr=1e-2, weight_decay=0.5)
    mt.Trainer(classifier, data, data, options, progress=False, threads=2).fit()
    assert fingerprint(model) == base
    assert {name for name in NAMES if digest(model, name) != before[name]} == {"b"}


def test_an_optimizer_that_knows_an_adapter_leaves_it_alone_while_it_rests(
    small_transformer, token_batch
) -> None:
    model = with_adapters(small_transformer(), "houlsby", "houlsby")
    optimizer = AdamW(model.trainable_parameters(), lr=0.1, weight_decay=0.5)
    for names in (("a", "b"), ("b",)):  # in the second step a has moments, but no gradient
        resting = digest(model, "a")
        model.set_active(*names)
        model.zero_grad()
        model.backward(np.ones_like(model(*token_batch)))
        optimizer.step()
        assert (digest(model, "a") == resting) == ("a" not in names)


def test_train_adapter_trains_a_stack_or_the_upper_part_of_one(
    small_transformer, token_batch
) -> None:
    model = with_adapters(small_transformer(), "after_norm", "houlsby", "pfeiffer")
    model.unfreeze()
    model.train_adapter("a", "b")
    assert model.active_adapters == ("a", "b")
    trained = {key.split(".adapters.")[1][0] for key in model.trainable_parameters()}
    assert trained == {"a", "b"}
    model.train_adapter("b")
    model.set_active("a", "b")
    model.backward(np.ones_like(model(*token_batch)))
    assert all(p.grad is None for p in parts(model, "a").values())
    assert all(p.grad is not None for p in parts(model, "b").values())
    with pytest.raises(ConfigError, match="needs the name"):
        model.train_adapter()


def test_the_walk_back_ends_at_a_frozen_adapter_below_the_first_that_trains(
    small_transformer, token_batch
) -> None:
    for below, above in (("houlsby", "pfeiffer"), ("parallel", "houlsby"), ("pfeiffer",) * 2):
        model = with_adapters(small_transformer(), below, above).astype(np.float64)
        model.set_active("a", "b")
        model.backward(np.ones_like(model(*token_batch)))
        everything = {key: p.grad for key, p in parts(model, "b").items()}
        model.train_adapter("b")
        model.set_active("a", "b")
        model.backward(np.ones_like(model(*token_batch)))
        for key, parameter in parts(model, "b").items():
            np.testing.assert_allclose(parameter.grad, everything[key], rtol=1e-12)


# -- averages -----------------------------------------------------------------------------


def branches(model: mt.Transformer, h: np.ndarray, name: str) -> list[np.ndarray]:
    """f(h) of that adapter at each of its sites."""
    return [site.adapters[name].f(h) for site in model.eval().sites() if name in site.adapters]


def hidden_states(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((3, 5, 16))


@pytest.mark.parametrize("weights", [(1, 1, -1), (1 / 3, 1 / 3, 1 / 3), (0, -0.5, 2)])
def test_a_sum_of_outputs_is_exact_for_any_weights(small_transformer, weights) -> None:
    model = with_adapters(small_transformer(), "pfeiffer", "pfeiffer", "pfeiffer")
    model.astype(np.float64)
    before = {name: digest(model, name) for name in NAMES}
    mt.average_adapters(model, "sum", dict(zip(NAMES, weights, strict=True)))
    h = hidden_states()
    single = zip(*(branches(model, h, name) for name in NAMES), strict=True)
    for total, fs in zip(branches(model, h, "sum"), single, strict=True):
        expected = sum(w * f for w, f in zip(weights, fs, strict=True))
        np.testing.assert_allclose(total, expected, rtol=0, atol=1e-12)
    assert {name: digest(model, name) for name in NAMES} == before
    assert model.active_adapters == ("sum",)
    assert model.adapter_config("sum").bottleneck == 12


@pytest.mark.parametrize("scaling", [3.0, "learned"])
def test_a_sum_of_outputs_keeps_each_scaling_and_takes_unequal_widths(
    small_transformer, scaling
) -> None:
    model = small_transformer().astype(np.float64)
    for seed, (name, m) in enumerate((("a", 3), ("b", 5)), start=1):
        rng = np.random.default_rng(seed)
        model.add_adapter(name, mt.AdapterConfig(bottleneck=m, scaling=scaling), rng)
        for parameter in parts(model, name).values():
            parameter.value += 0.3 * rng.standard_normal(parameter.shape)
    mt.average_adapters(model, "difference", {"a": 1, "b": -2})
    h = hidden_states()
    found = (branches(model, h, name) for name in ("difference", "a", "b"))
    for difference, a, b in zip(*found, strict=True):
        np.testing.assert_allclose(difference, a - 2 * b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", [None, "before", "after"])
@pytest.mark.parametrize("scaling", [1.0, "learned"])
def test_weight_minus_one_negates_an_adapter(small_transformer, norm, scaling) -> None:
    model = small_transformer().astype(np.float64)
    rng = np.random.default_rng(0)
    config = mt.AdapterConfig(bottleneck=4, norm=norm, scaling=scaling)
    model.add_adapter("a", config, rng)
    for parameter in parts(model, "a").values():
        parameter.value += 0.3 * rng.standard_normal(parameter.shape)
    mt.average_adapters(model, "minus", {"a": -1}, of="parameters")
    h = hidden_states()
    for minus, a in zip(branches(model, h, "minus"), branches(model, h, "a"), strict=True):
        assert np.abs(a).max() > 0.01
        np.testing.assert_allclose(minus, -a, rtol=0, atol=1e-12)


def test_a_mean_of_parameters_is_that_of_every_array(small_transformer, token_batch) -> None:
    model = with_adapters(small_transformer(), "pfeiffer", "pfeiffer", "pfeiffer")
    mt.average_adapters(model, "mean", {"a": 0.25, "b": 0.5, "c": 0.25}, of="parameters")
    for key, parameter in parts(model, "mean").items():
        a, b, c = (model.state_dict()[key.replace(".mean.", f".{name}.")] for name in NAMES)
        np.testing.assert_allclose(parameter.value, (a + 2 * b + c) / 4, atol=1e-6)
    mt.average_adapters(model, "same", {"a": 1.0}, of="parameters")
    once_a = model(*token_batch)
    with model.use("a"):
        np.testing.assert_array_equal(model(*token_batch), once_a)


def test_a_sum_of_outputs_trains_and_travels(small_transformer, token_batch, tmp_path) -> None:
    model = with_adapters(small_transformer(), "houlsby", "houlsby")
    mt.average_adapters(model, "sum", {"a": 1, "b": -1})
    expected = model(*token_batch)
    model.backward(np.ones_like(expected))
    assert all(p.grad is not None for p in parts(model, "sum").values())
    model.save_adapter(tmp_path / "sum.safetensors", "sum")
    model.delete_adapter("sum")
    model.load_adapter(tmp_path / "sum.safetensors", "sum")
    np.testing.assert_array_equal(model(*token_batch), expected)


def test_one_shape_written_in_two_ways_can_be_averaged(small_transformer) -> None:
    model = small_transformer().freeze()
    model.add_adapter("a", mt.AdapterConfig(reduction_factor=4))
    model.add_adapter("b", mt.AdapterConfig(bottleneck=4, sites=("attention", "ffn")))
    mt.average_adapters(model, "mean", {"a": 0.5, "b": 0.5})
    assert model.active_adapters == ("mean",)


def test_what_cannot_be_averaged_is_refused_by_name(small_transformer) -> None:
    model = with_adapters(small_transformer(), "pfeiffer", "pfeiffer")
    model.add_adapter("wide", mt.AdapterConfig(bottleneck=8, placement="pfeiffer"))
    with pytest.raises(ConfigError, match=r"'a' and 'wide' .* bottleneck \(4 and 8\), activation"):
        mt.average_adapters(model, "new", {"a": 0.5, "wide": 0.5}, of="parameters")
    with pytest.raises(ConfigError, match=r"'a' and 'wide' .* differ in activation"):
        mt.average_adapters(model, "new", {"a": 0.5, "wide": 0.5})
    with pytest.raises(ConfigError, match="of='weights': expected 'outputs' or 'parameters'"):
        mt.average_adapters(model, "new", {"a": 0.5, "b": 0.5}, of="weights")
    model.add_adapter("normed", mt.AdapterConfig(bottleneck=4, norm="after"))
    with pytest.raises(ConfigError, match="norm='after' have no sum of outputs"):
        mt.average_adapters(model, "new", {"normed": 1})
    model.delete_adapter("normed")
    with pytest.raises(ConfigError, match="no adapter 'x'; this model has: a, b, wide"):
        mt.average_adapters(model, "new", {"a": 0.5, "x": 0.5})
    with pytest.raises(ConfigError, match="weight nan of adapter 'b'"):
        mt.average_adapters(model, "new", {"a": 0.5, "b": float("nan")})
    with pytest.raises(ConfigError, match="'a' is there already"):
        mt.average_adapters(model, "a", {"a": 0.5, "b": 0.5})
    with pytest.raises(ConfigError, match="no adapters to average"):
        mt.average_adapters(model, "new", {})
    model.add_fusion("mix", ["a", "b"])
    with pytest.raises(ConfigError, match="'mix' is a fusion"):
        mt.average_adapters(model, "new", {"a": 0.5, "mix": 0.5})
    assert model.adapter_names == ["a", "b", "wide", "mix"]


# -- rows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["post", "pre"])
@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(st.sampled_from([*NAMES, None]), min_size=1, max_size=5),
    placements=st.permutations(list(PLACEMENTS)),
)
def test_each_row_equals_walking_it_alone(norm, rows, placements) -> None:
    model = mt.Transformer(
        mt.TransformerConfig(
            vocab_size=50, d_model=16, n_layers=2, n_heads=2, d_ff=32, max_positions=24,
            norm=norm, causal=norm == "pre",
        ),
        np.random.default_rng(0),
    )  # fmt: skip
    with_adapters(model, *placements).astype(np.float64)
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 50, (len(rows), 5))
    mask = np.arange(5) < rng.integers(1, 6, len(rows))[:, None]
    dy = rng.standard_normal((len(rows), 5, 16))

    model.set_adapter_per_row(rows)
    together = model(ids, mask)
    if any(rows):
        model.backward(dy)
    together_grads = {key: p.grad for key, p in model.trainable_parameters().items()}

    model.zero_grad()
    for i, name in enumerate(rows):
        model.set_active(name)
        alone = model(ids[i : i + 1], mask[i : i + 1])
        np.testing.assert_allclose(together[i], alone[0], rtol=0, atol=1e-12)
        if name is not None:
            model.backward(dy[i : i + 1])
    for key, parameter in model.trainable_parameters().items():
        assert (parameter.grad is None) == (together_grads[key] is None)
        if parameter.grad is not None:
            np.testing.assert_allclose(together_grads[key], parameter.grad, rtol=0, atol=1e-10)


def test_rows_leave_no_trace_when_something_else_is_activated(
    small_transformer, token_batch
) -> None:
    model = with_adapters(small_transformer(), "after_norm", "parallel", "houlsby")
    names = list(model.state_dict())
    with model.use_adapter_per_row(["a", None, "c", "b"]):
        assert model.active_adapters == ("a", "c", "b")
        assert sorted(model.adapter_names) == ["a", "b", "c"]
        assert list(model.state_dict()) == names
        copy = model.replica().eval()
        np.testing.assert_array_equal(copy(*token_batch), model.eval()(*token_batch))
    assert [name for name, _ in model.named_modules() if "rows" in name] == []
    assert model.active_adapters == ("c",)


def test_rows_must_fit_the_batch_and_the_model(small_transformer, token_batch) -> None:
    model = with_adapters(small_transformer(), "after_norm", "parallel", "houlsby")
    model.set_adapter_per_row(["a", None, "c"])
    with pytest.raises(ShapeError, match="a batch of 4 rows, but adapters were chosen for 3"):
        model(*token_batch)
    with pytest.raises(ConfigError, match="no adapter 'x'"):
        model.set_adapter_per_row(["a", "x"])
    with pytest.raises(ConfigError, match="for each row"):
        model.set_adapter_per_row([])
    with pytest.raises(ConfigError, match="rows='abc': expected a list"):
        model.set_adapter_per_row("abc")
    assert model.rows == ("a", None, "c")

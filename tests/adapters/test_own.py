"""Adapters of one's own: what is refused and with which words; trained, saved, loaded, counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.adapters.config import PLACEMENTS
from minitransformer.costs.counting import count_multiply_adds
from minitransformer.costs.memory import saved_bytes
from minitransformer.errors import CheckpointError, ConfigError
from minitransformer.formats.adapterhub import save_adapterhub
from minitransformer.nn.layers import Activation, Linear
from minitransformer.nn.module import Array

Make = Callable[..., mt.Transformer]
Batch = tuple[np.ndarray, np.ndarray]


class Gate(mt.Module):
    """f(h) = tanh(g h): from scratch, with everything that it needs saved by itself."""

    def __init__(self, d_model: int, config: mt.AdapterConfig, rng: np.random.Generator) -> None:
        self.g = mt.Parameter(0.3 * rng.standard_normal(d_model, dtype=np.float32))

    def f(self, h: Array) -> Array:
        y = np.tanh(self.g.value * h)
        self.save_for_backward(y.shape, h, y)
        return y

    def f_backward(self, df: Array) -> Array | None:
        h, y = self.pop_saved(df)
        dz = df * (1 - y * y)
        if self.g.trainable:
            self.g.accumulate((dz * h).reshape(-1, h.shape[-1]).sum(axis=0))
        return dz * self.g.value if self.needs_input_grad else None


class TwoLayers(mt.Module):
    """Inner modules, and nothing saved by itself."""

    def __init__(self, d_model: int, config: mt.AdapterConfig, rng: np.random.Generator) -> None:
        m = config.width(d_model)
        self.a, self.b = Linear(d_model, m, rng, 0.05), Linear(m, m, rng, 0.3)
        self.c = Linear(m, d_model, rng, 0.05)
        self.act, self.act2 = Activation("tanh"), Activation("silu")

    def f(self, h: Array) -> Array:
        for module in (self.a, self.act, self.b, self.act2, self.c):
            h = module.forward(h)
        return h

    def f_backward(self, df: Array) -> Array | None:
        return mt.backward_through(df, self.c, self.act2, self.b, self.act, self.a)


class Doubled(mt.Adapter):
    """A bottleneck adapter with twice the branch."""

    def f(self, h: Array) -> Array:
        return 2 * super().f(h)

    def f_backward(self, df: Array) -> Array | None:
        return super().f_backward(2 * df)


OWN = (Gate, TwoLayers, Doubled)


def site_with(small_transformer: Make, factory: Any, placement: str, norm: str, lower: bool) -> Any:
    """A sub-layer with the adapter; `lower`: whether the base in front of it trains too."""
    model = small_transformer(norm=norm).freeze()
    model.add_adapter("first", mt.AdapterConfig(4, placement=placement))
    model.add_adapter("own", mt.AdapterConfig(4, placement=placement), factory=factory)
    model.set_active("first", "own")
    site = model.blocks[0].ffn
    return site.unfreeze() if lower else site


@pytest.mark.parametrize("factory", OWN)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_gradients_at_every_placement(
    small_transformer: Make, placement: str, factory: Any
) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 16))
    for norm in ("post", "pre"):
        for lower in (True, False):
            site = site_with(small_transformer, factory, placement, norm, lower)
            report = mt.gradcheck(site, x, check_inputs=lower, max_entries=20)
            assert any(".own." in row.name and row.tested for row in report.rows)


@pytest.mark.parametrize("factory", OWN)
def test_frozen_below_another_and_fused(
    small_transformer: Make, token_batch: Batch, factory: Any
) -> None:
    model = small_transformer().freeze()
    model.add_adapter("a", factory)
    model.add_adapter("b", mt.AdapterConfig(4), factory=factory)
    model.train_adapter("b")
    model.set_active("b", "a")  # "a" is frozen, and passes the gradient on
    model.train()
    hidden = model(*token_batch)
    model.backward(np.ones_like(hidden))
    grads = {name for name, p in model.named_parameters() if p.grad is not None}
    assert grads and all(".adapters.b." in name for name in grads)
    model.add_fusion("both", ["a", "b"])
    model.train_adapter("both")
    assert np.isfinite(model.train()(*token_batch)).all()
    model.backward(np.ones_like(hidden))


@pytest.mark.parametrize("factory", OWN)
def test_saved_and_loaded_again(
    small_transformer: Make, token_batch: Batch, tmp_path: Path, factory: Any
) -> None:
    model, other, path = small_transformer(), small_transformer(), tmp_path / "own.safetensors"
    model.freeze()
    model.add_adapter("own", mt.AdapterConfig(4, placement="houlsby", layers=(1,)), factory=factory)
    model.add_adapter("plain", mt.AdapterConfig(4))
    model.set_active("own", "plain")
    model.save_adapter(path, "own", "plain")
    with pytest.raises(CheckpointError, match=rf"load_adapter\(path, factory={factory.__name__}\)"):
        other.load_adapter(path)
    wrong = next(f for f in OWN if f is not factory)
    with pytest.raises(CheckpointError, match=f"is {factory.__name__}, but the factory made"):
        other.load_adapter(path, factory=wrong)
    assert other.adapter_names == []
    other.load_adapter(path, factory=factory)
    assert np.array_equal(other(*token_batch), model.eval()(*token_batch))
    assert type(other.blocks[1].ffn.adapters["own"]) is factory

    model.save_adapter(path, "plain")
    with pytest.raises(ConfigError, match="holds adapters of only those of this library"):
        small_transformer().load_adapter(path, factory=factory)


def test_counted_as_all_others(small_transformer: Make, token_batch: Batch) -> None:
    model = small_transformer().freeze()
    model.add_adapter("own", mt.AdapterConfig(4), factory=TwoLayers)
    per_site = 16 * 4 + 4 + 4 * 4 + 4 + 4 * 16 + 16
    assert model.summary().trainable == 6 * per_site
    work = {}
    for names in ((), ("own",)):
        model.set_active(*names)
        with count_multiply_adds(model) as counter:
            model.train()(*token_batch)
        work[names] = counter.multiply_adds
    tokens = token_batch[0].size
    assert work["own",] - work[()] == 6 * tokens * (16 * 4 + 4 * 4 + 4 * 16)
    assert saved_bytes(model) > 0


# -- what is refused ---------------------------------------------------------------------------


class NoBackward(mt.Module):
    def __init__(self, *_: Any) -> None: ...

    def f(self, h: Array) -> Array:
        return h


class NothingAtAll(mt.Module):
    def __init__(self, *_: Any) -> None: ...


class OwnForward(mt.Adapter):
    def forward(self, h: Array) -> Array:
        return h + 2 * self.f(h)


class OwnBackward(mt.Adapter):
    def backward(self, dy: Array) -> Array | None:
        return dy


class AlwaysReturns(Gate):
    def f_backward(self, df: Array) -> Array | None:
        self.needs_input_grad = True
        return super().f_backward(df)


class NeverReturns(Gate):
    def f_backward(self, df: Array) -> Array | None:
        super().f_backward(df)
        return None


class IgnoresFreezing(Gate):
    def f_backward(self, df: Array) -> Array | None:
        self.g.accumulate(df.sum(axis=(0, 1)))
        return super().f_backward(df)


class Narrow(Gate):
    def f(self, h: Array) -> Array:
        return super().f(h)[..., :1]


class Float64(Gate):
    def f(self, h: Array) -> Array:
        return super().f(h).astype(np.float64)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (NoBackward, "NoBackward has no f_backward"),
        (lambda d_model: Gate(d_model), "cannot be called as factory.d_model, config, rng."),
        (NothingAtAll, "NothingAtAll has no f and no f_backward"),
        (OwnForward, "OwnForward has a forward of its own, which would not be used"),
        (OwnBackward, "OwnBackward has a backward of its own"),
        (AlwaysReturns, "AlwaysReturns.f_backward returned the gradient of h although nothing"),
        (NeverReturns, "NeverReturns.f_backward returned None, but h has"),
        (IgnoresFreezing, "IgnoresFreezing, frozen: a gradient arrived at a frozen parameter"),
        (Narrow, r"Narrow.f returned \(2, 3, 1\) float32 for h of \(2, 3, 16\) float32"),
        (Float64, "Float64.f returned .* float64"),
        (lambda *_: np.ones(3), "expected a Module with f and f_backward"),
        (mt.AdapterConfig, r"expected a configuration, as AdapterConfig\(bottleneck=16\)"),
        (16, r"config=16: expected a configuration"),
    ],
)
def test_what_cannot_stand_there_is_refused_by_name(
    small_transformer: Make, factory: Any, message: str
) -> None:
    model = small_transformer().freeze()
    with pytest.raises(ConfigError, match=message):
        model.add_adapter("own", factory)
    assert model.adapter_names == []


def test_what_is_of_bottleneck_adapters_alone(small_transformer: Make, tmp_path: Path) -> None:
    model = small_transformer(pooler=True).freeze()
    config = mt.AdapterConfig(4, activation="linear", placement="houlsby")
    for name in ("a", "b"):
        model.add_adapter(name, config, factory=Doubled)
    with pytest.raises(ConfigError, match="'a' is Doubled, a class of your own: averages"):
        mt.average_adapters(model, "mean", {"a": 0.5, "b": 0.5})
    model.set_active("a")
    with pytest.raises(ConfigError, match="Doubled cannot be merged"):
        model.merge("a")  # what it inherits would merge half of it
    with pytest.raises(ConfigError, match="'a' is Doubled, a class of your own: folders"):
        save_adapterhub(model, "a", tmp_path / "there")
    with pytest.raises(ConfigError, match="an AdapterConfig that says where it stands"):
        model.add_method("c", mt.LoRAConfig(), factory=Doubled)


# -- words -------------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_placement_takes_part(
    small_transformer: Make, token_batch: Batch, placement: str
) -> None:
    for norm in ("post", "pre"):
        model = small_transformer(norm=norm).eval()
        plain = model(*token_batch)
        model.add_adapter("own", mt.AdapterConfig(4, placement=placement), factory=Gate)
        assert np.abs(model(*token_batch) - plain).max() > 1e-3


def test_a_placement_without_code_is_an_error(
    small_transformer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PLACEMENTS, "sideways", ("ffn",))  # a word, and no lines in SubLayer
    with pytest.raises(ConfigError, match="placement 'sideways' has no code in SubLayer"):
        small_transformer().add_adapter("own", mt.AdapterConfig(placement="sideways"))


def test_an_activation_is_added_in_one_place(
    small_transformer: Make, token_batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minitransformer.nn.kernels import ACTIVATIONS

    def square(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
        return x * x, 2 * x if with_derivative else None

    with pytest.raises(ConfigError, match="activation 'square' is unknown"):
        mt.AdapterConfig(activation="square")
    monkeypatch.setitem(ACTIVATIONS, "square", square)
    adapter = mt.Adapter(6, mt.AdapterConfig(3, activation="square"))
    mt.gradcheck(adapter, np.random.default_rng(0).standard_normal((2, 6)))
    model = small_transformer(pooler=True)
    model.add_adapter("own", mt.AdapterConfig(3, activation="square"))
    with pytest.raises(CheckpointError, match="activation 'square' has no word there"):
        save_adapterhub(model, "own", tmp_path / "there")


# -- a real encoder ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_trained_on_minilm(placement: str, tmp_path: Path) -> None:
    """A few steps at each placement: the loss falls, the base stays, file and memory agree."""
    task, tokenizer = (
        mt.load_task("rotten-tomatoes", limit=256),
        mt.Tokenizer.from_pretrained("minilm"),
    )
    train_set, validation = (
        mt.encode_split(split, tokenizer, 32) for split in (task.train, task.validation)
    )
    base = mt.Transformer.from_pretrained("minilm").freeze()
    before = {name: value.copy() for name, value in base.state_dict().items()}
    base.add_adapter("own", mt.AdapterConfig(16, placement=placement), factory=TwoLayers)
    model = mt.Classifier(base, 2, rng=np.random.default_rng(0))
    options = mt.TrainingOptions(epochs=3, lr=2e-3)
    trainer = mt.Trainer(model, train_set, validation, options, progress=False)
    start = mt.evaluate(model.eval(), train_set)
    trainer.fit()
    end = mt.evaluate(model.eval(), train_set)
    print(
        f"{placement}: training loss {start.loss:.3f} -> {end.loss:.3f}, "
        f"validation accuracy {mt.evaluate(model, validation).accuracy:.3f}"
    )
    assert end.loss < 0.8 * start.loss
    for name, value in before.items():
        assert np.array_equal(base.state_dict()[name], value), name

    path = tmp_path / "own.safetensors"
    model.save_adapter(path, "own")
    again = mt.Classifier(mt.Transformer.from_pretrained("minilm"), 2).eval()
    again.load_adapter(path, factory=TwoLayers)
    ids, mask = mt.pad(train_set.sequences[:8], train_set.pad_id)
    np.testing.assert_allclose(again(ids, mask), model.eval()(ids, mask), atol=1e-6)
    x = np.random.default_rng(0).standard_normal((1, 3, 384))
    mt.gradcheck(base.blocks[0].ffn, x, max_entries=20)

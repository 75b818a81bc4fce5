"""LoRA, (IA)^3, prefix tuning and parts of the base: inserted, active, trained, removed, saved."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer.adapters.config import TARGETS
from minitransformer.adapters.select import base_parameters, select_trainable
from minitransformer.costs.memory import saved_bytes
from minitransformer.errors import CheckpointError, ConfigError
from minitransformer.formats.adapter_file import fingerprint
from minitransformer.training.prefix_cache import frozen_depth

CONFIGS = {
    "lora": mt.LoRAConfig(4, targets=TARGETS),
    "ia3": mt.IA3Config(),
    "prefix": mt.PrefixConfig(3),
}


def randomize(model, name: str, seed: int = 1) -> None:
    rng = np.random.default_rng(seed)
    for key, parameter in model.named_parameters():
        if f".adapters.{name}." in key:
            noise = rng.standard_normal(parameter.shape).astype(parameter.value.dtype)
            parameter.value += noise * 0.2


def with_method(small_transformer, method: str, **options):
    model = small_transformer(**options)
    model.add_method("task", CONFIGS[method])
    randomize(model, "task")
    return model.eval()


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_at_the_start_nothing_changes(small_transformer, token_batch, method, norm) -> None:
    model = small_transformer(norm=norm)
    plain = model(*token_batch)
    model.add_method("task", CONFIGS[method])
    np.testing.assert_array_equal(model(*token_batch), plain)


@pytest.mark.parametrize("method", CONFIGS)
def test_inactive_and_removed_leave_the_plain_base(small_transformer, token_batch, method) -> None:
    model = small_transformer()
    plain, digest, tree = model(*token_batch), fingerprint(model), str(model)
    names = [name for name, _ in model.named_parameters()]
    model.add_method("task", CONFIGS[method])
    randomize(model, "task")
    changed = model(*token_batch)
    assert np.abs(changed - plain).max() > 1e-4
    assert [n for n, _ in model.named_parameters() if ".adapters." not in n] == names
    assert fingerprint(model) == digest
    with model.use(None):
        np.testing.assert_array_equal(model(*token_batch), plain)
    np.testing.assert_array_equal(model(*token_batch), changed)
    model.delete_adapter("task")
    np.testing.assert_array_equal(model(*token_batch), plain)
    assert str(model) == tree


@pytest.mark.parametrize("method", CONFIGS)
def test_only_what_was_inserted_trains(small_transformer, token_batch, method) -> None:
    model = with_method(small_transformer, method).train()
    model.train_adapter("task")
    assert all(".adapters.task." in name for name in model.trainable_parameters())
    model.backward(np.ones_like(model(*token_batch)))
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (".adapters.task." in name)


@pytest.mark.parametrize("method", CONFIGS)
def test_eval_saves_nothing(small_transformer, token_batch, method) -> None:
    model = with_method(small_transformer, method)
    model(*token_batch)
    assert saved_bytes(model) == 0


@pytest.mark.parametrize("method", CONFIGS)
def test_nothing_is_saved_below_the_first_that_trains(
    small_transformer, token_batch, method
) -> None:
    model = small_transformer()
    model.add_method("task", replace(CONFIGS[method], layers=(2,)))
    model.train_adapter("task")
    model(*token_batch)
    assert all(saved_bytes(block) == 0 for block in model.blocks[:2])
    assert saved_bytes(model.blocks[2]) > 0
    assert frozen_depth(model) == 2


def test_a_frozen_active_lora_is_not_part_of_the_frozen_prefix(small_transformer) -> None:
    model = with_method(small_transformer, "lora").freeze()
    assert frozen_depth(model) == 0


@pytest.mark.parametrize("method", CONFIGS)
def test_a_replica_has_the_same_outputs_and_gradients_of_its_own(
    small_transformer, token_batch, method
) -> None:
    model = with_method(small_transformer, method).train()
    model.train_adapter("task")
    replica = model.replica()
    y = model(*token_batch)
    np.testing.assert_array_equal(replica(*token_batch), y)
    replica.backward(np.ones_like(y))
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is not None for p in replica.trainable_parameters().values())
    assert model.state_dict().keys() == replica.state_dict().keys()


@settings(max_examples=20, deadline=None)
@given(
    rank=st.integers(1, 20),
    targets=st.sets(st.sampled_from(TARGETS), min_size=1),
    layers=st.none() | st.sets(st.integers(0, 2), min_size=1),
)
def test_lora_is_the_update_of_the_weight_that_it_says(rank, targets, layers) -> None:
    config = mt.LoRAConfig(rank, alpha=3.0, targets=tuple(targets), layers=layers)
    shape = mt.TransformerConfig(50, 16, 3, 2, 32, max_positions=24)
    ids = np.arange(14).reshape(2, 7)
    model = mt.Transformer(shape)
    model.add_lora("task", config)
    randomize(model, "task")
    widths = {"up": (16, 32), "down": (32, 16)}
    count = sum(rank * sum(widths.get(t, (16, 16))) for t in targets) * len(layers or range(3))
    added = {n: p.value for n, p in model.named_parameters() if ".adapters." in n}
    assert sum(a.size for a in added.values()) == count
    by_hand = mt.Transformer(shape)
    for name, a in added.items():
        if name.endswith(".a"):
            place = name.removesuffix(".adapters.task.a")
            update = 3.0 / rank * (a @ added[name[:-1] + "b"])  # (n, d_in, d)
            weight = by_hand.state_dict()[f"{place}.weight"]
            if place.endswith("qkv"):
                parts = [i for i, t in enumerate(("query", "key", "value")) if t in targets]
                for i, part in zip(parts, update, strict=True):
                    weight[:, 16 * i : 16 * (i + 1)] += part
            else:
                weight += update[0]
    np.testing.assert_allclose(model(ids), by_hand(ids), atol=2e-5)


def test_two_loras_are_a_sum_in_any_order(small_transformer, token_batch) -> None:
    model = with_method(small_transformer, "lora")
    model.add_lora("other", mt.LoRAConfig(2, alpha=1.0, targets=("query", "down")))
    randomize(model, "other", seed=2)
    model.set_active("task", "other")
    one = model(*token_batch)
    model.set_active("other", "task")
    np.testing.assert_allclose(model(*token_batch), one, atol=1e-5)
    model.merge("task", "other")
    np.testing.assert_allclose(model(*token_batch), one, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_padding_does_not_hide_the_prefix_and_changes_nothing_else(
    small_transformer, token_batch, causal
) -> None:
    norm = "pre" if causal else "post"
    model = with_method(small_transformer, "prefix", causal=causal, norm=norm)
    ids, mask = token_batch
    padded = model(ids, mask)
    np.testing.assert_allclose(padded[3, :2], model(ids[3:, :2])[0], atol=1e-5)
    with model.use(None):
        assert np.abs(model(ids, mask)[3, :2] - padded[3, :2]).max() > 0.01


@pytest.mark.parametrize("method", CONFIGS)
def test_with_a_cache_the_same_as_without(small_transformer, token_batch, method) -> None:
    model = with_method(small_transformer, method, causal=True, norm="pre")
    ids, _ = token_batch
    cache = model.new_cache(len(ids))
    pieces = [model(ids[:, i:j], cache=cache) for i, j in ((0, 3), (3, 4), (4, 7))]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), model(ids), atol=1e-5)


@pytest.mark.parametrize("method", CONFIGS)
def test_the_first_position_alone_is_the_same(small_transformer, token_batch, method) -> None:
    model = with_method(small_transformer, method)
    first = model(*token_batch, first_only=True)
    np.testing.assert_allclose(first, model(*token_batch)[:, :1], atol=1e-5)


def test_each_row_with_its_own(small_transformer, token_batch) -> None:
    model = with_method(small_transformer, "lora")
    model.add_ia3("factors")
    randomize(model, "factors")
    model.add_adapter("bottleneck", mt.AdapterConfig(4))
    rows = ["task", None, "factors", "bottleneck"]
    with model.use_adapter_per_row(rows):
        y = model(*token_batch)
    for i, name in enumerate(rows):
        with model.use(name):
            np.testing.assert_allclose(y[i], model(*token_batch)[i], atol=1e-5)
    model.add_prefix("prefix")
    with pytest.raises(ConfigError, match="'prefix' is a prefix"):
        model.set_adapter_per_row([*rows[:3], "prefix"])


def test_a_fusion_of_loras_is_refused(small_transformer) -> None:
    model = with_method(small_transformer, "lora")
    model.add_adapter("a")
    with pytest.raises(ConfigError, match="'task' changes projections"):
        model.add_fusion("both", ["a", "task"])


@pytest.mark.parametrize("method", CONFIGS)
def test_saved_and_loaded(small_transformer, token_batch, tmp_path, method) -> None:
    model = with_method(small_transformer, method).freeze()
    record = model.save_adapter(tmp_path / "file.safetensors", "task")
    other = small_transformer().eval()
    assert other.load_adapter(tmp_path / "file.safetensors", "renamed") == "renamed"
    assert other.adapter_config("renamed") == CONFIGS[method]
    np.testing.assert_array_equal(other(*token_batch), model(*token_batch))
    assert record is None or record.adapters == {"task": CONFIGS[method]}
    with pytest.raises(CheckpointError, match="another base"):
        small_transformer(seed=1).load_adapter(tmp_path / "file.safetensors")


@pytest.mark.parametrize(
    ("method", "part", "count"),
    [
        ("bitfit", "biases", 3 * (3 * 16 + 16 + 32 + 16 + 2 * 16)),
        ("layer-norm", "layer_norms", 3 * 2 * 2 * 16),
        ("head", "none", 0),
    ],
)
def test_parts_of_the_base_that_train(small_transformer, token_batch, method, part, count) -> None:
    model = small_transformer()
    model.add_lora("task")  # adapters are no part of the base
    select_trainable(model, method)
    trained = model.trainable_parameters()
    assert sum(p.size for p in trained.values()) == count
    assert trained.keys() == base_parameters(model, part).keys()
    with pytest.raises(ConfigError, match="method='bias': expected one of adapter, lora"):
        select_trainable(model, "bias")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mt.LoRAConfig(0), "rank=0"),
        (lambda: mt.LoRAConfig(alpha=float("nan")), "alpha=nan"),
        (lambda: mt.LoRAConfig(dropout=1.0), "dropout=1.0"),
        (lambda: mt.LoRAConfig(targets=("query", "q")), "expected some of query, key"),
        (lambda: mt.LoRAConfig(targets=()), "targets=()"),
        (lambda: mt.LoRAConfig(layers=3), "layers=3"),
        (lambda: mt.IA3Config(layers=(1, 1)), "each once"),
        (lambda: mt.PrefixConfig(0), "length=0"),
    ],
)
def test_configurations_check_themselves(make, message) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    assert message in str(error.value)


def test_a_layer_that_does_not_exist_changes_nothing(small_transformer) -> None:
    model = small_transformer()
    tree = str(model)
    with pytest.raises(ConfigError, match="there is no block 7"):
        model.add_lora("task", mt.LoRAConfig(layers=(0, 7)))
    assert str(model) == tree

"""save_adapter and load_adapter of a model: adapters, stacks, fusions and heads, by name."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

import minitransformer as mt
from minitransformer.errors import CheckpointError, ConfigError
from minitransformer.formats.adapter_file import fingerprint, read_adapter
from minitransformer.formats.files import read_tensors, write_tensors

Make = Callable[..., mt.Transformer]
DECODER = {"norm": "pre", "causal": True, "token_types": 0}
CONFIGS = {
    "a": mt.AdapterConfig(bottleneck=4),
    "b": mt.AdapterConfig(reduction_factor=4, sites=("ffn",), layers=(0, 2), scaling="learned"),
    "c": mt.AdapterConfig(bottleneck=3, placement="pfeiffer", norm="before", dropout=0.1),
}


@pytest.fixture
def adapted(small_transformer: Make) -> mt.Transformer:
    """A frozen base with three adapters and a fusion of two, all weights random."""
    model = small_transformer()
    for name, config in CONFIGS.items():
        model.add_adapter(name, config)
    model.add_fusion("mix", ["a", "b"])
    rng = np.random.default_rng(1)
    for name, parameter in model.named_parameters():
        if ".adapters." in name:
            parameter.value += 0.3 * rng.standard_normal(parameter.shape, dtype=np.float32)
    return model.freeze()


def predicted(model: mt.Transformer | mt.Classifier, batch: tuple[np.ndarray, np.ndarray]):
    return model.eval()(*batch)


@pytest.mark.parametrize(
    ("names", "inside"),
    [
        (("a",), {"a"}),
        (("b",), {"b"}),
        (("c",), {"c"}),
        (("c", "a"), {"a", "c"}),
        (("mix",), {"a", "b", "mix"}),
        (("mix", "c"), {"a", "b", "c", "mix"}),
    ],
)
def test_adapters_stacks_and_fusions_come_back(
    adapted, small_transformer, token_batch, tmp_path, names, inside
) -> None:
    """Frozen ones too, and whatever is active while saving."""
    path = tmp_path / "new folder" / "own.safetensors"
    adapted.set_active(None)
    plain = predicted(adapted, token_batch)
    adapted.save_adapter(path, *names)
    other = small_transformer()
    assert other.load_adapter(path) == names[-1]
    assert other.active_adapters == names
    assert set(other.adapter_names) == inside
    adapted.set_active(*names)
    found = predicted(other, token_batch)
    assert np.array_equal(found, predicted(adapted, token_batch))
    assert np.abs(found - plain).max() > 0.01
    with adapted.use(None), other.use(None):
        assert np.array_equal(predicted(other, token_batch), plain)
    for name in names:
        other.delete_adapter(name)
    assert not set(names) & set(other.adapter_names)


def test_a_loaded_adapter_trains_as_a_new_one_does(adapted, small_transformer, tmp_path) -> None:
    adapted.save_adapter(tmp_path / "a", "a")
    adapted.save_adapter(tmp_path / "mix", "mix")
    other = small_transformer().freeze()
    other.load_adapter(tmp_path / "a")
    assert all(".adapters.a." in name for name in other.trainable_parameters())
    assert len(other.trainable_parameters()) == 4 * 6
    fused = small_transformer().freeze()
    fused.load_adapter(tmp_path / "mix")  # its sources are frozen, as in `add_fusion`
    assert all(".adapters.mix." in name for name in fused.trainable_parameters())


def test_a_single_adapter_may_get_another_name(adapted, small_transformer, tmp_path) -> None:
    for name in ("a", "mix"):
        adapted.save_adapter(tmp_path / name, name)
    model = small_transformer()
    assert model.load_adapter(tmp_path / "a", "first") == "first"
    assert model.load_adapter(tmp_path / "a", "second") == "second"
    assert model.load_adapter(tmp_path / "mix", "both") == "both"
    assert model.adapter_names == ["first", "second", "a", "both", "b"]
    adapted.save_adapter(tmp_path / "stack", "a", "c")
    with pytest.raises(ConfigError, match=r"another name; .* holds a, c"):
        model.load_adapter(tmp_path / "stack", "new")


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_classifier_with_its_head(
    adapted, small_transformer, token_batch, tmp_path, pooling
) -> None:
    model = mt.Classifier(adapted, 3, pooling, rng=np.random.default_rng(3))
    adapted.set_active("a")
    model.save_adapter(tmp_path / "a", "a")
    again = mt.Classifier(small_transformer().freeze(), 3, pooling)
    again.load_adapter(tmp_path / "a")
    assert np.array_equal(predicted(again, token_batch), predicted(model, token_batch))

    model.save_adapter(tmp_path / "head")  # alone
    head_only = mt.Classifier(small_transformer().freeze(), 3, pooling)
    head_only.transformer.add_adapter("own")
    assert head_only.load_adapter(tmp_path / "head") is None
    assert head_only.transformer.active_adapters == ("own",)  # as before
    head_only.transformer.set_active(None)
    adapted.set_active(None)
    assert np.array_equal(predicted(head_only, token_batch), predicted(model, token_batch))

    model.save_adapter(tmp_path / "without", "a", head=False)
    assert not any(key.startswith("head.") for key in read_tensors(tmp_path / "without"))
    fresh = mt.Classifier(small_transformer(), 5, pooling)
    before = fresh.head.linear.weight.value.copy()
    for file in ("without", "a"):  # a file's head, or none, does not matter
        fresh.transformer.delete_adapter(fresh.load_adapter(tmp_path / file, head=False))
    assert np.array_equal(fresh.head.linear.weight.value, before)
    assert small_transformer().load_adapter(tmp_path / "a") == "a"  # a transformer has no head


def test_heads_that_do_not_fit_are_refused(adapted, small_transformer, tmp_path) -> None:
    mt.Classifier(adapted, 3, "mean").save_adapter(tmp_path / "mean", "a")
    adapted.save_adapter(tmp_path / "none", "a")
    mt.LanguageModel(adapted).save_adapter(tmp_path / "words", "a")
    for file, message in (
        ("mean", "trained with pooling='mean', this model has 'cls'"),
        ("none", r"this model has a head .*none has not; load_adapter\(path, head=False\)"),
        ("words", "trained with pooling=None, this model has 'cls'"),
    ):
        model = mt.Classifier(small_transformer(), 3)
        with pytest.raises(CheckpointError, match=message):
            model.load_adapter(tmp_path / file)
        assert not model.transformer.adapter_names
    two = mt.Classifier(small_transformer(), 2, "mean")
    two.transformer.add_adapter("own")
    with pytest.raises(CheckpointError, match=r"head.linear.weight is \(16, 3\), expected"):
        two.load_adapter(tmp_path / "mean")
    assert two.transformer.adapter_names == ["own"] == list(two.transformer.active_adapters)


@pytest.mark.parametrize("options", [{}, DECODER])
def test_a_language_model(small_transformer, token_batch, tmp_path, options) -> None:
    model = mt.LanguageModel(small_transformer(**options).freeze())
    model.transformer.add_adapter("novel", mt.AdapterConfig(4), np.random.default_rng(2))
    if model.head.bias is not None:
        model.head.bias.value += 0.5
    model.save_adapter(tmp_path / "novel", "novel")
    again = mt.LanguageModel(small_transformer(**options))
    assert again.load_adapter(tmp_path / "novel") == "novel"
    assert np.array_equal(predicted(again, token_batch), predicted(model, token_batch))
    if model.head.bias is None:  # then there is nothing to save without an adapter
        with pytest.raises(ConfigError, match=r"nothing to save: name one .*\(novel\)"):
            model.save_adapter(tmp_path / "head")


def test_double_precision_loses_no_digit(small_transformer, tmp_path) -> None:
    model = small_transformer().astype(np.float64).freeze()
    model.add_adapter("a", mt.AdapterConfig(4))
    for parameter in model.trainable_parameters().values():
        parameter.value += 1e-12
    model.save_adapter(tmp_path / "a", "a")
    again = small_transformer().astype(np.float64)
    again.load_adapter(tmp_path / "a")
    for name, value in again.state_dict().items():
        assert np.array_equal(value, model.state_dict()[name]), name


def test_the_same_content_gives_the_same_bytes(adapted, tmp_path) -> None:
    files = [tmp_path / str(i) for i in range(20)]
    for file in files:
        adapted.save_adapter(file, "mix", "c")
    assert len({file.read_bytes() for file in files}) == 1
    assert sorted(tmp_path.iterdir()) == sorted(files)  # no temporary file is left


def test_what_cannot_be_saved(adapted, tmp_path) -> None:
    with pytest.raises(ConfigError, match="no adapter 'x'; this model has: a, mix, b, c"):
        adapted.save_adapter(tmp_path / "x", "x")
    with pytest.raises(ConfigError, match="nothing to save"):
        adapted.save_adapter(tmp_path / "x")
    with pytest.raises(ConfigError, match="is a folder; give a file in it"):
        adapted.save_adapter(tmp_path, "a")
    assert not list(tmp_path.iterdir())


def test_a_base_that_may_have_trained_is_warned_of(small_transformer, tmp_path) -> None:
    model = small_transformer()
    model.add_adapter("a", mt.AdapterConfig(4))
    with pytest.warns(UserWarning, match="arrays of the base are trainable .* not in an adapter"):
        model.save_adapter(tmp_path / "a", "a")
    model.train_adapter("a")
    model.save_adapter(tmp_path / "a", "a")


def test_another_base_and_a_taken_name(adapted, small_transformer, tmp_path) -> None:
    adapted.save_adapter(tmp_path / "mix", "mix")
    for other in (small_transformer(seed=1), small_transformer(d_model=32), mt.Transformer):
        if other is mt.Transformer:
            other = mt.Transformer.from_pretrained("tiny")
        with pytest.raises(CheckpointError, match="trained on another base") as error:
            other.load_adapter(tmp_path / "mix")
        assert fingerprint(other) in str(error.value) and fingerprint(adapted) in str(error.value)
        assert not other.adapter_names
    model = small_transformer()
    model.add_adapter("b")
    with pytest.raises(ConfigError, match="an adapter 'b' is there already"):
        model.load_adapter(tmp_path / "mix")
    assert model.adapter_names == ["b"] == list(model.active_adapters)


def test_damaged_and_foreign_files(adapted, small_transformer, tmp_path) -> None:
    path = tmp_path / "a.safetensors"
    adapted.save_adapter(path, "a")
    tensors, metadata = read_tensors(path), read_adapter(path).record.to_metadata()
    key = "blocks.1.ffn.adapters.a.up.bias"
    model = small_transformer()
    for changes, message in (
        ({key: None}, f"missing: {key}"),
        ({key: np.zeros(3, np.float32)}, r"up.bias is \(3,\), expected \(16,\)"),
        ({key: np.full(16, np.nan, np.float32)}, "contains NaN or infinity"),
        ({"more": np.zeros(3, np.float32)}, "unexpected: more"),
    ):
        new = {k: v for k, v in {**tensors, **changes}.items() if v is not None}
        write_tensors(path, new, metadata)
        with pytest.raises(CheckpointError, match=message):
            model.load_adapter(path)
    write_tensors(path, tensors, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"not an adapter file .* holds format, .* expected"):
        model.load_adapter(path)
    write_tensors(path, tensors, {"minitransformer-adapter-2": "{}"})
    with pytest.raises(CheckpointError, match="written by an older version"):
        model.load_adapter(path)
    write_tensors(path, tensors, dict.fromkeys(metadata, "{}"))
    with pytest.raises(CheckpointError, match="damaged record"):
        model.load_adapter(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="truncated"):
        model.load_adapter(path)
    with pytest.raises(CheckpointError, match=r"is not a run: no adapter\.safetensors"):
        model.load_adapter(tmp_path / "nowhere")
    assert not model.adapter_names


def test_a_flipped_bit_anywhere_is_noticed(adapted, small_transformer, tmp_path) -> None:
    path = tmp_path / "a.safetensors"
    adapted.save_adapter(path, "a")
    whole = path.read_bytes()
    model = small_transformer()
    header = 8 + int.from_bytes(whole[:8], "little")
    for i in range(0, len(whole), 17):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ (1 << i % 8)]) + whole[i + 1 :])
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            model.load_adapter(path)
    path.write_bytes(whole[:header] + b"\x3f" * 4 + whole[header + 4 :])
    with pytest.raises(CheckpointError, match=r"is damaged, or another program .* Copy it again"):
        model.load_adapter(path)
    path.write_bytes(whole)
    assert model.load_adapter(path) == "a"


def test_the_digest_is_that_of_the_file_with_zeros_for_it(adapted, tmp_path) -> None:
    """Other programs read the file, and can check it."""
    for name in ("one", "two"):
        adapted.save_adapter(tmp_path / name, "a")
    whole = (tmp_path / "one").read_bytes()
    assert whole == (tmp_path / "two").read_bytes()
    with safe_open(tmp_path / "one", framework="np") as file:
        digits = file.metadata()["minitransformer-sha256"].encode()
        assert file.keys()
    assert hashlib.sha256(whole.replace(digits, b"0" * 64)).hexdigest().encode() == digits


def test_files_without_a_digest(adapted, small_transformer, tmp_path) -> None:
    """As another program would write them; those of an older version are read, with a warning."""
    path = tmp_path / "a.safetensors"
    adapted.save_adapter(path, "a")
    tensors, record = read_tensors(path), read_adapter(path).record.to_metadata()
    path.write_bytes(save(tensors, record))
    with pytest.raises(CheckpointError, match="carries no SHA-256 of itself"):
        small_transformer().load_adapter(path)
    (text,) = record.values()
    path.write_bytes(save(tensors, {"minitransformer-adapter-3": text}))
    model = small_transformer()
    with pytest.warns(UserWarning, match="an older version wrote it"):
        assert model.load_adapter(path) == "a"
    model.freeze().save_adapter(path, "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert small_transformer().load_adapter(path) == "a"


def test_a_run_is_loaded_by_its_folder(tmp_path: Path) -> None:
    training = mt.TrainingOptions(epochs=1, batch_size=16)
    options = mt.RunOptions(base="tiny", limit=32, training=training)
    run = mt.train("toy-reviews", options, tmp_path / "run")
    model = mt.Classifier(mt.Transformer.from_pretrained("tiny").freeze(), 2)
    assert model.load_adapter(tmp_path / "run", "reviews") == "reviews"
    batch = mt.pad(run.tokenizer.encode(["the soup was fresh", "the plot was dull"]))
    assert np.array_equal(predicted(model, batch), predicted(run.model, batch))


def test_a_name_given_twice_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    model = mt.Transformer.from_pretrained("tiny").freeze()
    model.add_adapter("a", mt.AdapterConfig(4))
    with pytest.raises(ConfigError, match="each name once"):
        model.save_adapter(tmp_path / "twice.safetensors", "a", "a")
    assert not (tmp_path / "twice.safetensors").exists()
    with pytest.raises(CheckpointError, match=r"no\.safetensors is not there"):
        model.load_adapter(tmp_path / "no.safetensors")

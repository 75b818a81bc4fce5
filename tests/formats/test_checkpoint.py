"""checkpoints: folders in the Hugging Face layout, written and read, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

import minitransformer as mt
from minitransformer.costs.parameters import shape_of
from minitransformer.errors import CheckpointError, HubError
from minitransformer.formats.files import read_tensors, write_tensors
from minitransformer.formats.huggingface import ACTIVATION_WORDS
from minitransformer.nn.module import Array

DECODER = {"norm": "pre", "causal": True, "token_types": 0}
OPTIONS = {
    "bert": {"pooler": True},
    "roberta": {"pooler": True, "token_types": 1, "pad_id": 1},
    "distilbert": {"token_types": 0, "layer_norm_eps": 1e-12},
    "gpt2": DECODER,
}


@pytest.fixture
def decoder(small_transformer: Callable[..., mt.Transformer]) -> mt.Transformer:
    base = small_transformer(**DECODER, activation="gelu_tanh", layer_norm_eps=1e-5)
    rng = np.random.default_rng(1)
    for parameter in base.parameters():  # no gain left at 1, no bias at 0
        parameter.value += 0.1 * rng.standard_normal(parameter.shape, dtype=np.float32)
    return base


def tensors_of(folder: Path) -> dict[str, Array]:
    return {name: t.copy() for name, t in read_tensors(folder / "model.safetensors").items()}


def rewrite(folder: Path, tensors: dict[str, Array]) -> None:
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})


def change_words(folder: Path, **words: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **words}))


def assert_same(one: mt.Transformer, other: mt.Transformer) -> None:
    assert one.config == other.config
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        assert np.array_equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("activation", sorted(set(ACTIVATION_WORDS.values())))
@pytest.mark.parametrize("family", sorted(OPTIONS))
def test_written_and_read_again(
    family: str,
    activation: str,
    small_transformer: Callable[..., mt.Transformer],
    tmp_path: Path,
) -> None:
    dropouts = {"dropout": 0.1, "attention_dropout": 0.2}
    options = {"layer_norm_eps": 3e-6, **OPTIONS[family]}
    base = small_transformer(**options, **dropouts, activation=activation)
    base.save_pretrained(tmp_path / "new")
    assert_same(mt.Transformer.from_pretrained(tmp_path / "new", dropout=None), base)
    assert json.loads((tmp_path / "new/config.json").read_text())["model_type"] == family
    left = {path.name for path in (tmp_path / "new").iterdir()}
    assert left == {"config.json", "model.safetensors"}  # no temporary file


def test_adapters_are_left_out(decoder: mt.Transformer, tmp_path: Path) -> None:
    decoder.save_pretrained(tmp_path / "plain")
    decoder.add_adapter("task", mt.AdapterConfig(4))
    decoder.save_pretrained(tmp_path / "adapted")
    plain, adapted = (tmp_path / name / "model.safetensors" for name in ("plain", "adapted"))
    assert plain.read_bytes() == adapted.read_bytes()


def test_with_its_tokenizer(decoder: mt.Transformer, tmp_path: Path) -> None:
    tokenizer = mt.Tokenizer.train_bpe(["to be or not to be"], 260)
    decoder.save_pretrained(tmp_path, tokenizer)
    words = json.loads((tmp_path / "config.json").read_text())
    assert words["eos_token_id"] == tokenizer.end_id == 0
    again = mt.Tokenizer.from_pretrained(tmp_path)
    assert again.encode(["or not"]) == tokenizer.encode(["or not"])


def test_a_model_that_no_layout_describes(
    small_transformer: Callable[..., mt.Transformer], tmp_path: Path
) -> None:
    distilled = {"token_types": 0, "layer_norm_eps": 1e-5}
    for options in ({"norm": "pre"}, {"causal": True}, {**DECODER, "token_types": 2}, distilled):
        with pytest.raises(CheckpointError, match="no public layout describes norm="):
            small_transformer(**options).save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ GPT-2 files as they are around


def test_prefix_buffers_and_a_tied_head(decoder: mt.Transformer, tmp_path: Path) -> None:
    decoder.save_pretrained(tmp_path)
    found = {f"transformer.{name}": tensor for name, tensor in tensors_of(tmp_path).items()}
    for i in range(3):
        found[f"transformer.h.{i}.attn.bias"] = np.tri(24, dtype=bool)[None, None]
        found[f"transformer.h.{i}.attn.masked_bias"] = np.float32(-1e4)
    rewrite(tmp_path, {**found, "lm_head.weight": found["transformer.wte.weight"]})
    assert_same(mt.Transformer.from_pretrained(tmp_path), decoder)

    rewrite(tmp_path, {**found, "lm_head.weight": 2 * found["transformer.wte.weight"]})
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from wte\.weight"):
        mt.Transformer.from_pretrained(tmp_path)


def test_half_precision_is_read(decoder: mt.Transformer, tmp_path: Path) -> None:
    decoder.save_pretrained(tmp_path)
    rewrite(tmp_path, {name: t.astype(np.float16) for name, t in tensors_of(tmp_path).items()})
    half = mt.Transformer.from_pretrained(tmp_path)
    assert half.dtype == np.float32
    for name, value in half.state_dict().items():
        assert np.array_equal(value, decoder.state_dict()[name].astype(np.float16)), name


def test_the_width_left_to_the_reader(
    small_transformer: Callable[..., mt.Transformer], tmp_path: Path
) -> None:
    base = small_transformer(**DECODER, d_ff=64, activation="gelu_tanh", layer_norm_eps=1e-5)
    base.save_pretrained(tmp_path)
    change_words(tmp_path, n_inner=None)
    assert_same(mt.Transformer.from_pretrained(tmp_path), base)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True; only"),
        ({"scale_attn_weights": False}, "scale_attn_weights=False; only True is supported"),
        ({"add_cross_attention": True}, "add_cross_attention=True; only False is supported"),
        ({"activation_function": "mish"}, "activation_function='mish'; expected one of gelu, "),
        ({"model_type": "llama"}, "of type 'llama'; expected one of 'bert', 'roberta', "),
        ({"n_head": 5}, "n_heads=5 does not divide d_model=16"),
    ],
)
def test_what_is_not_supported_is_named(
    decoder: mt.Transformer, tmp_path: Path, words: dict[str, object], message: str
) -> None:
    decoder.save_pretrained(tmp_path)
    change_words(tmp_path, **words)
    with pytest.raises(CheckpointError, match=message):
        mt.Transformer.from_pretrained(tmp_path)


def test_missing_and_unexpected_tensors_together(decoder: mt.Transformer, tmp_path: Path) -> None:
    decoder.save_pretrained(tmp_path)
    found = tensors_of(tmp_path)
    found["h.7.ln_1.weight"] = found.pop("h.2.ln_1.weight")
    rewrite(tmp_path, found)
    with pytest.raises(CheckpointError) as caught:
        mt.Transformer.from_pretrained(tmp_path)
    assert "does not fit a GPT-2 of this shape" in str(caught.value)
    assert "missing: h.2.ln_1.weight" in str(caught.value)
    assert "unexpected: h.7.ln_1.weight (16,)" in str(caught.value)


def test_a_pickle_is_refused_with_the_command_that_converts_it(
    decoder: mt.Transformer, tmp_path: Path
) -> None:
    decoder.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(HubError, match=r"pytorch_model\.bin, a pickle, .* convert it once: python"):
        mt.Transformer.from_pretrained(tmp_path)


# ----------------------------------------------------------------------------- shards and bfloat16


@pytest.fixture
def shards(decoder: mt.Transformer, tmp_path: Path) -> Path:
    """The decoder in two files, and the index that names them."""
    decoder.save_pretrained(tmp_path)
    tensors, map_ = tensors_of(tmp_path), {}
    for i in range(2):
        part = f"model-0000{i + 1}-of-00002.safetensors"
        own = dict(sorted(tensors.items())[i::2])
        write_tensors(tmp_path / part, own, {"format": "pt"})
        map_ |= dict.fromkeys(own, part)
    (tmp_path / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": map_}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def test_shards_are_read_as_one(decoder: mt.Transformer, shards: Path) -> None:
    assert_same(mt.Transformer.from_pretrained(shards), decoder)
    assert shape_of(shards) == decoder.config


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"wte.weight": "model-00003-of-00003.safetensors"}, "lacks model-00003-of-00003"),
        ({"wte.weight": "../other.safetensors"}, "expected files beside it"),
        ({}, "expected files beside it"),
        (["model.safetensors"], "no map from tensors to files"),
    ],
)
def test_an_index_that_cannot_be_used(shards: Path, weight_map: object, message: str) -> None:
    index = shards / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=message):
        mt.Transformer.from_pretrained(shards)


def test_bfloat16_is_the_upper_half_of_float32(decoder: mt.Transformer, tmp_path: Path) -> None:
    decoder.save_pretrained(tmp_path)
    halves = {k: (t.view(np.uint32) >> 16).astype("<u2") for k, t in tensors_of(tmp_path).items()}
    path = tmp_path / "model.safetensors"
    raw = save(halves).replace(b'"dtype":"U16"', b'"dtype":"BF16"')
    (size,) = np.frombuffer(raw[:8], "<u8")  # the header has grown by a letter for each tensor
    grown = int(size) + len(halves)
    path.write_bytes(np.array(grown, "<u8").tobytes() + raw[8:])
    found = mt.Transformer.from_pretrained(tmp_path)
    for name, value in decoder.state_dict().items():
        kept = found.state_dict()[name]
        assert kept.dtype == np.float32
        assert np.array_equal(kept.view(np.uint32), value.view(np.uint32) >> 16 << 16), name


def test_a_base_that_was_written_here_notices_damage(
    decoder: mt.Transformer, tmp_path: Path
) -> None:
    decoder.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        mt.Transformer.from_pretrained(tmp_path)
    path.write_bytes(whole)
    path.write_bytes(save(read_tensors(path), {"format": "pt"}))
    mt.Transformer.from_pretrained(tmp_path)  # as from elsewhere: without a digest


def test_heads_with_and_without_bias(
    decoder: mt.Transformer, small_transformer: Callable[..., mt.Transformer]
) -> None:
    assert mt.LanguageModel(decoder).head.bias is None
    assert mt.LanguageModel(small_transformer()).head.bias is not None
    assert mt.LanguageModel(decoder, bias=True).head.bias is not None
    assert "head.bias" not in dict(mt.LanguageModel(decoder).named_parameters())

"""PEFT's folders of LoRA and (IA)^3: written, read, and compared with PEFT itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.errors import CheckpointError, ConfigError
from minitransformer.formats.files import read_tensors, write_tensors
from minitransformer.formats.folders import LinearHead
from minitransformer.formats.peft import is_peft, load_peft, read_head, read_peft, save_peft

Make = Callable[..., mt.Transformer]
Batch = tuple[np.ndarray, np.ndarray]
GPT2 = {
    "norm": "pre",
    "causal": True,
    "token_types": 0,
    "activation": "gelu_tanh",
    "layer_norm_eps": 1e-5,
}
FAMILIES: dict[str, dict[str, Any]] = {"bert": {"pooler": True}, "gpt2": GPT2}
ALL_FAMILIES = {
    **FAMILIES,
    "roberta": {"token_types": 1, "pad_id": 0, "pooler": True},
    "distilbert": {"token_types": 0},
}
TARGETS = ("query", "key", "value", "output", "up", "down")
LORAS = [
    mt.LoRAConfig(rank=3, alpha=5.0),
    mt.LoRAConfig(rank=1, alpha=16.0, dropout=0.1, targets=("query",), layers=(1,)),
    mt.LoRAConfig(rank=2, alpha=0.7, targets=("key", "output"), layers=(0, 2)),
    mt.LoRAConfig(rank=4, alpha=8.0, targets=TARGETS),
    mt.LoRAConfig(rank=2, targets=("up", "down")),
    mt.LoRAConfig(rank=3, alpha=-4.0),
]
IA3S = [mt.IA3Config(), mt.IA3Config(layers=(2, 0))]
CONFIGS = [*LORAS, *IA3S]
ROOT = "base_model.model."


def insert(model: mt.Transformer, config: Any, name: str = "mine") -> None:
    """An addition that does much, on a frozen base that is far from zero."""
    rng = np.random.default_rng(1)
    for parameter in model.parameters():
        if parameter.value.ndim == 2:
            parameter.value[...] += 0.2 * rng.standard_normal(parameter.shape)
    model.freeze()
    model.add_method(name, config)
    for parameter in model.trainable_parameters().values():
        parameter.value[...] = 0.5 * rng.standard_normal(parameter.shape) + (
            1 if isinstance(config, mt.IA3Config) else 0
        )


def head_of(n: int = 3, pooling: str = "pooler") -> LinearHead:
    rng = np.random.default_rng(3)
    weight, bias = (rng.standard_normal(s).astype(np.float32) for s in ((16, n), n))
    return LinearHead(("bad", "so so", "good")[:n], pooling, weight, bias)


def edit(folder: Path, **words: Any) -> None:
    """Change entries of the configuration."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **words}))


def retensor(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    write_tensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    return read_tensors(folder / "adapter_model.safetensors")


# -- there and back ------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_round_trip_is_exact(
    small_transformer: Make, tmp_path: Path, config: Any, family: str
) -> None:
    model, other = (small_transformer(**FAMILIES[family]) for _ in range(2))
    insert(model, config)
    folder = save_peft(model, "mine", tmp_path / "there")
    assert is_peft(folder)
    assert load_peft(other, folder) == "default"
    layers = tuple(sorted(config.layers)) if config.layers else None
    assert other.adapter_config("default") == replace(config, layers=layers)
    for key, value in model.state_dict().items():
        if ".adapters." in key:
            theirs = other.state_dict()[key.replace(".mine.", ".default.")]
            assert np.array_equal(value, theirs), key


def test_files_of_lora_on_bert(small_transformer: Make, tmp_path: Path) -> None:
    model = small_transformer(pooler=True)
    insert(model, mt.LoRAConfig(rank=3, alpha=6.0, targets=("value", "down"), layers=(1,)))
    folder = save_peft(model, "mine", tmp_path / "there", head_of(), "minilm")
    block = "encoder.layer.1."
    assert {key: t.shape for key, t in tensors_of(folder).items()} == {
        f"{ROOT}bert.{block}attention.self.value.lora_A.weight": (3, 16),
        f"{ROOT}bert.{block}attention.self.value.lora_B.weight": (16, 3),
        f"{ROOT}bert.{block}output.dense.lora_A.weight": (3, 32),
        f"{ROOT}bert.{block}output.dense.lora_B.weight": (16, 3),
        f"{ROOT}classifier.weight": (3, 16),
        f"{ROOT}classifier.bias": (3,),
    }
    words = json.loads((folder / "adapter_config.json").read_text())
    assert words["target_modules"] == [f"{block}attention.self.value", f"{block}output.dense"]
    assert (words["peft_type"], words["r"], words["lora_alpha"]) == ("LORA", 3, 6.0)
    assert (words["task_type"], words["modules_to_save"]) == ("SEQ_CLS", ["classifier"])
    assert words["base_model_name_or_path"] == "minilm" and words["rank_pattern"] == {}


def test_fused_projection_of_gpt2(small_transformer: Make, tmp_path: Path) -> None:
    """Query and value of rank 2 are one update of rank 4 in `c_attn`, zero elsewhere."""
    model = small_transformer(**GPT2)
    insert(model, mt.LoRAConfig(rank=2, alpha=6.0, targets=("query", "value", "up"), layers=(0,)))
    folder = save_peft(model, "mine", tmp_path / "there")
    words, tensors = json.loads((folder / "adapter_config.json").read_text()), tensors_of(folder)
    fused = f"{ROOT}transformer.h.0.attn.c_attn"
    assert tensors[f"{fused}.lora_A.weight"].shape == (4, 16)
    b = tensors[f"{fused}.lora_B.weight"].reshape(3, 16, 2, 2)  # part, column, target, direction
    assert not b[0, :, 1].any() and not b[1].any() and not b[2, :, 0].any()
    assert b[0, :, 0].all() and b[2, :, 1].all()
    assert words["rank_pattern"] == {"h.0.attn.c_attn": 4}
    assert words["alpha_pattern"] == {"h.0.attn.c_attn": 12.0}


def test_gpt2_lora_from_peft_serves_query_key_and_value(
    small_transformer: Make, token_batch: Batch, tmp_path: Path
) -> None:
    """One A for all three there; here each has a copy, and the same answer."""
    model, plain = (small_transformer(**GPT2) for _ in range(2))
    insert(model, mt.LoRAConfig(rank=2, targets=("query", "key", "value")))
    folder = save_peft(model, "mine", tmp_path / "there")
    model.astype(np.float64)
    plain.astype(np.float64)
    rng, tensors = np.random.default_rng(4), {}
    for key, tensor in tensors_of(folder).items():
        shape = (5, 16) if "lora_A" in key else (48, 5)
        tensors[key] = 0.3 * rng.standard_normal(shape).astype(tensor.dtype)
    retensor(folder, tensors)
    edit(folder, r=5, lora_alpha=10, rank_pattern={}, alpha_pattern={})
    load_peft(model, folder, "theirs")
    assert model.adapter_config("theirs") == mt.LoRAConfig(
        rank=5, alpha=10.0, targets=("query", "key", "value")
    )
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if ".adapters." not in k})
    for i, block in enumerate(plain.blocks):
        at = f"{ROOT}transformer.h.{i}.attn.c_attn.lora_"
        block.attention.module.qkv.weight.value[...] += (
            2 * (np.float64(tensors[f"{at}B.weight"]) @ tensors[f"{at}A.weight"]).T
        )
    assert_same(model.eval()(*token_batch), plain.eval()(*token_batch), token_batch)


@pytest.mark.parametrize("family", FAMILIES)
def test_factors_that_only_peft_has(
    small_transformer: Make, token_batch: Batch, tmp_path: Path, family: str
) -> None:
    """On queries, and on what enters the output projection: the same as on keys and values."""
    model = small_transformer(**FAMILIES[family])
    insert(model, mt.IA3Config(layers=(1,)))
    folder = save_peft(model, "mine", tmp_path / "there")
    tensors, rng = tensors_of(folder), np.random.default_rng(5)
    block = {"bert": "encoder.layer.1.attention", "gpt2": "transformer.h.1.attn"}[family]
    names = {"bert": ("self.query", "output.dense"), "gpt2": ("c_attn", "c_proj")}[family]
    query, output = (f"{ROOT}{block}.{name}.ia3_l" for name in names)
    factors = rng.uniform(0.5, 2, (2, 16)).astype(np.float32)
    columns = tensors.get(query, np.ones((16, 1), np.float32)).copy()
    columns[:16] *= factors[0][:, None]
    retensor(folder, {**tensors, query: columns, output: factors[1][None]})

    load_peft(model.astype(np.float64), folder, "theirs")
    model.eval().set_active("mine")
    attention = model.blocks[1].attention.module
    attention.qkv.linear.weight.value[:, :16] *= factors[0]
    attention.qkv.linear.bias.value[:16] *= factors[0]
    attention.out.weight.value[...] *= factors[1][:, None]
    expected = model(*token_batch)
    attention.qkv.linear.weight.value[:, :16] /= factors[0]
    attention.qkv.linear.bias.value[:16] /= factors[0]
    attention.out.weight.value[...] /= factors[1][:, None]
    assert np.abs(model(*token_batch) - expected).max() > 0.05
    model.set_active("theirs")
    assert_same(model(*token_batch), expected, token_batch)


def test_factors_that_are_missing_are_one(small_transformer: Make, folder_ia3: Path) -> None:
    tensors = {k: v for k, v in tensors_of(folder_ia3).items() if "self.key" in k}
    retensor(folder_ia3, tensors)
    model = small_transformer()
    load_peft(model, folder_ia3)
    block = model.blocks[0]
    assert not np.array_equal(block.attention.module.qkv.adapters["default"].factors.value[0], 1)
    assert (block.attention.module.qkv.adapters["default"].factors.value[1] == 1).all()
    assert (block.ffn.module.down.adapters["default"].factors.value == 1).all()


def test_rank_stabilized_scaling(small_transformer: Make, folder: Path) -> None:
    edit(folder, use_rslora=True)  # alpha / sqrt(r) there: 8 / 2
    model = small_transformer()
    load_peft(model, folder)
    assert model.adapter_config("default") == mt.LoRAConfig(rank=4, alpha=16.0)


def test_head_and_its_labels(small_transformer: Make, tmp_path: Path) -> None:
    model, head = small_transformer(pooler=True), head_of()
    insert(model, mt.LoRAConfig())
    folder = save_peft(model, "mine", tmp_path / "there", head, origin={"max_length": 64})
    found = read_peft(folder)
    again = read_head(found, model.config)
    assert again is not None and again.label_names == ("bad", "so so", "good")
    assert np.array_equal(again.weight, head.weight) and np.array_equal(again.bias, head.bias)
    assert found.origin["max_length"] == 64
    (folder / "minitransformer.json").unlink()  # as PEFT writes it
    again = read_head(read_peft(folder), model.config)
    assert again is not None and again.label_names == ("0", "1", "2") and again.pooling == "pooler"
    save_peft(model, "mine", tmp_path / "without")
    assert read_head(read_peft(tmp_path / "without"), model.config) is None


# -- what they have and we have not --------------------------------------------------------


@pytest.fixture
def folder(small_transformer: Make, tmp_path: Path) -> Path:
    """A LoRA that can be read."""
    model = small_transformer()
    insert(model, mt.LoRAConfig(rank=4, alpha=8.0))
    return save_peft(model, "mine", tmp_path / "there")


@pytest.fixture
def folder_ia3(small_transformer: Make, tmp_path: Path) -> Path:
    """An (IA)^3 that can be read."""
    model = small_transformer()
    insert(model, mt.IA3Config())
    return save_peft(model, "mine", tmp_path / "there")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"use_dora": True}, "use_dora=True"),
        ({"bias": "all"}, "bias='all'"),
        ({"bias": "lora_only"}, "bias='lora_only'"),
        ({"lora_bias": True}, "lora_bias=True"),
        ({"modules_to_save": ["classifier", "pooler"]}, r"modules_to_save=\['pooler'\]"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"target_parameters": ["a.weight"]}, "target_parameters"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"something_new": 3, "use_dora": True}, "something_new=3, use_dora=True"),
        ({"rank_pattern": {"self.value": 2}}, "rank 4"),  # the tensors are of rank 4
        ({"rank_pattern": {".*value": 4}}, "no expressions"),
        ({"alpha_pattern": {"1.attention.self.value": 2}}, "alpha_pattern"),
        ({"r": 3}, "r=3, but .* rank 4"),
        ({"r": 0}, "r=0"),
        ({"lora_alpha": "big"}, "adapter_config"),
        ({"lora_dropout": 2}, "dropout=2"),
        ({"peft_type": "PREFIX_TUNING"}, "'PREFIX_TUNING'.*takes none"),
        ({"peft_type": "ADALORA"}, "peft_type='ADALORA'"),
        ({"peft_type": None}, "peft_type=None"),
    ],
    ids=str,
)
def test_words_without_equivalent(
    small_transformer: Make, folder: Path, words: dict[str, Any], named: str
) -> None:
    edit(folder, **words)
    model = small_transformer()
    with pytest.raises(CheckpointError, match=named):
        load_peft(model, folder)
    assert not model.adapter_names


def test_an_option_is_named_before_the_tensors_that_it_adds(
    small_transformer: Make, folder: Path
) -> None:
    tensors = tensors_of(folder)
    key = next(key for key in tensors if "lora_A" in key)
    tensors[key.replace("lora_A.weight", "lora_magnitude_vector")] = np.ones(16, np.float32)
    retensor(folder, tensors)
    with pytest.raises(CheckpointError, match=r"unexpected: .*lora_magnitude_vector"):
        load_peft(small_transformer(), folder)
    edit(folder, use_dora=True)
    with pytest.raises(CheckpointError, match="use_dora=True: there is no equivalent"):
        load_peft(small_transformer(), folder)


def test_ranks_that_differ(small_transformer: Make, folder: Path) -> None:
    tensors = tensors_of(folder)
    for key, tensor in tensors.items():
        if "layer.2.attention.self.value" in key:
            tensors[key] = tensor[:2] if "lora_A" in key else tensor[:, :2]
    retensor(folder, tensors)
    edit(folder, rank_pattern={"layer.2.attention.self.value": 2})
    with pytest.raises(CheckpointError, match=r"rank_pattern=.*ranks \[2, 4\]"):
        load_peft(small_transformer(), folder)


def test_words_that_change_nothing(small_transformer: Make, folder: Path) -> None:
    edit(
        folder, target_modules="all-linear", layers_pattern="layer", layers_to_transform=[0, 1, 2],
        use_dora=False, loftq_config={}, init_lora_weights="gaussian", qalora_group_size=16,
        modules_to_save=["classifier", "score"], eva_config=None,
    )  # fmt: skip
    model = small_transformer()
    load_peft(model, folder, "other")
    assert model.adapter_config("other") == mt.LoRAConfig(rank=4, alpha=8.0)


def test_a_target_in_some_blocks_alone(small_transformer: Make, folder: Path) -> None:
    tensors = {
        k: v for k, v in tensors_of(folder).items() if "layer.2.attention.self.value" not in k
    }
    retensor(folder, tensors)
    with pytest.raises(CheckpointError, match="block 2 has no update of value"):
        load_peft(small_transformer(), folder)


@pytest.mark.parametrize(
    ("name", "shape", "named"),
    [
        ("intermediate.dense", (32, 1), "intermediate.dense.ia3_l scales its output"),
        ("output.dense", (16, 1), "output.dense.ia3_l scales its output"),
        ("attention.self.key", (1, 16), "key.ia3_l scales its input"),
    ],
)
def test_factors_elsewhere(
    small_transformer: Make, folder_ia3: Path, name: str, shape: tuple[int, int], named: str
) -> None:
    key = f"{ROOT}encoder.layer.0.{name}.ia3_l"
    retensor(folder_ia3, {**tensors_of(folder_ia3), key: np.ones(shape, np.float32)})
    with pytest.raises(CheckpointError, match=named):
        load_peft(small_transformer(), folder_ia3)


def test_weights_that_do_not_fit(small_transformer: Make, folder: Path) -> None:
    tensors, at = tensors_of(folder), f"{ROOT}encoder.layer.0.attention.self"
    tensors[f"{ROOT}encoder.layer.7.attention.self.query.lora_A.weight"] = np.zeros((4, 16), "f4")
    tensors[f"{ROOT}pooler.dense.lora_A.weight"] = np.zeros((4, 16), "f4")
    tensors[f"{at}.key.lora_magnitude_vector"] = np.zeros(16, "f4")
    tensors[f"{at}.value.lora_B.weight"] = np.zeros((16, 3), "f4")
    tensors[f"{at}.query.lora_A.weight"] = np.full((4, 16), np.nan, "f4")
    del tensors[f"{ROOT}encoder.layer.1.attention.self.value.lora_A.weight"]
    retensor(folder, tensors)
    model = small_transformer()
    with pytest.raises(CheckpointError) as error:
        load_peft(model, folder)
    for problem in (
        "unexpected: base_model.model.encoder.layer.7",
        "unexpected: base_model.model.pooler.dense",
        "lora_magnitude_vector",
        "(16, 3), expected (16, 4)",
        "NaN",
        "missing: encoder.layer.1.attention.self.value.lora_A.weight",
    ):
        assert problem in str(error.value)
    assert not model.adapter_names


def test_another_base(small_transformer: Make, folder: Path) -> None:
    with pytest.raises(CheckpointError, match="expected"):
        load_peft(small_transformer(d_model=32), folder)
    with pytest.raises(CheckpointError, match="a GPT-2 of 3 blocks"):
        load_peft(small_transformer(**GPT2), folder)
    with pytest.raises(CheckpointError, match=r"unexpected: base_model.model.encoder.layer.2"):
        load_peft(small_transformer(n_layers=2), folder)


def test_foreign_and_damaged_files(small_transformer: Make, folder: Path, tmp_path: Path) -> None:
    model = small_transformer()
    with pytest.raises(CheckpointError, match="cannot read"):
        load_peft(model, tmp_path / "nowhere")
    assert not is_peft(tmp_path / "nowhere")
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    for damaged in (b"", whole[:40], whole[:-5]):
        weights.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="cannot read"):
            load_peft(model, folder)
    retensor(folder, {})
    with pytest.raises(CheckpointError, match=r"nothing|cannot read"):
        load_peft(model, folder)
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="safe_serialization=True"):
        load_peft(model, folder)
    for text in ("{", "[]", "{}", '{"peft_type": "LORA"}'):
        weights.write_bytes(whole)
        (folder / "adapter_config.json").write_text(text)
        with pytest.raises(CheckpointError, match="adapter_config"):
            load_peft(model, folder)
    assert not model.adapter_names


def test_heads_without_equivalent(small_transformer: Make, tmp_path: Path) -> None:
    model = small_transformer(pooler=True)
    insert(model, mt.LoRAConfig())
    folder = save_peft(model, "mine", tmp_path / "there", head_of())
    good = tensors_of(folder)
    bias, weight = (f"{ROOT}classifier.{kind}" for kind in ("bias", "weight"))
    for changed in ({bias: good[bias][:2]}, {f"{ROOT}score.weight": good[weight]}):
        retensor(folder, {**good, **changed})
        with pytest.raises(CheckpointError, match="expected one Linear"):
            read_head(read_peft(folder), model.config)
    retensor(folder, good)
    (folder / "minitransformer.json").write_text('{"label_names": ["a"]}')
    with pytest.raises(CheckpointError, match="no names for 3 classes"):
        read_head(read_peft(folder), model.config)


def test_nothing_half_written(small_transformer: Make, folder: Path, tmp_path: Path) -> None:
    model, decoder = small_transformer(pooler=True), small_transformer(**GPT2)
    insert(model, mt.LoRAConfig())
    insert(decoder, mt.LoRAConfig())
    model.add_adapter("bottleneck")
    model.add_prefix("prefix")
    new = tmp_path / "new"
    for name in ("bottleneck", "prefix"):
        with pytest.raises(CheckpointError, match="for LoRA and"):
            save_peft(model, name, new)
    with pytest.raises(CheckpointError, match="has no bias there"):
        save_peft(decoder, "mine", new, head_of())
    with pytest.raises(CheckpointError, match=r"'cls'.*train with pooling 'pooler'"):
        save_peft(model, "mine", new, head_of(pooling="cls"))
    with pytest.raises(ConfigError, match="exists already"):
        save_peft(model, "mine", folder)
    with pytest.raises(ConfigError, match="no adapter 'other'"):
        save_peft(model, "other", new)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    with pytest.raises(ConfigError, match="there already"):
        load_peft(small_model_with(model, folder), folder, "taken")


def small_model_with(model: mt.Transformer, folder: Path) -> mt.Transformer:
    load_peft(model, folder, "taken")
    return model


# -- against PEFT itself -------------------------------------------------------------------

reference = pytest.mark.reference
quiet = pytest.mark.filterwarnings("ignore")  # those of other packages


def their_base(folder: Path, family: str, head: bool) -> Any:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("peft")
    if family == "gpt2":
        return transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    if head and family == "bert":
        kind = transformers.BertForSequenceClassification
        return kind.from_pretrained(folder, num_labels=3).eval()
    return transformers.AutoModel.from_pretrained(folder).eval()


def their_answer(model: Any, batch: Batch) -> np.ndarray:
    """Logits, or the last hidden states of a model without a head, in float64."""
    import torch

    model.double().eval()

    inputs = {"input_ids": torch.tensor(batch[0]), "attention_mask": torch.tensor(batch[1])}
    with torch.no_grad():
        answer = model(**inputs)
    return (answer.logits if hasattr(answer, "logits") else answer.last_hidden_state).numpy()


def our_answer(model: mt.Transformer, head: LinearHead | None, batch: Batch) -> np.ndarray:
    """The same here."""
    model.astype(np.float64)
    if model.config.causal:
        return mt.LanguageModel(model).eval()(*batch)
    if head is None:
        return model.eval()(*batch)
    classifier = mt.Classifier(model, len(head.label_names), head.pooling)
    classifier.head.linear.load_state_dict({"weight": head.weight, "bias": head.bias})
    return classifier.eval()(*batch)


def assert_same(ours: np.ndarray, theirs: np.ndarray, batch: Batch) -> None:
    if ours.ndim == 3:  # positions behind the text mean nothing
        ours, theirs = (states[batch[1] == 1] for states in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


@reference
@quiet
@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_exported_folder_answers_the_same_there(
    small_transformer: Make, token_batch: Batch, tmp_path: Path, config: Any, family: str
) -> None:
    peft = pytest.importorskip("peft")
    model = small_transformer(**ALL_FAMILIES[family])
    insert(model, config)
    model.save_pretrained(tmp_path / "base")
    heads = [None, head_of()] if family == "bert" else [None]
    for i, head in enumerate(heads):
        folder = save_peft(model, "mine", tmp_path / f"there{i}", head)
        base = their_base(tmp_path / "base", family, head is not None)
        theirs = peft.PeftModel.from_pretrained(base, folder).eval()
        kind = "ia3" if isinstance(config, mt.IA3Config) else "lora"
        there = {key for key, _ in theirs.named_parameters() if kind in key}
        assert {key.replace(".default", "") for key in there} == {
            key for key in tensors_of(folder) if "classifier" not in key
        }
        ours = our_answer(model, head, token_batch)
        assert_same(ours, their_answer(theirs, token_batch), token_batch)
        with model.use():
            assert np.abs(our_answer(model, head, token_batch) - ours).max() > 0.05


def peft_configs(family: str) -> dict[str, Any]:
    """What one would write there, PEFT's defaults among them."""
    import peft

    if family == "bert":
        loras: dict[str, Any] = {
            "plain": {"target_modules": ["query", "value"]},
            "default targets": {},
            "upper blocks": {"target_modules": ["key", "dense"], "layers_to_transform": [1, 2]},
            "rank-stabilized": {"target_modules": ["query"], "use_rslora": True, "lora_alpha": 5},
        }
        ia3s: dict[str, Any] = {
            "default": {},
            "queries too": {
                "target_modules": ["query", "key", "value", "output.dense"],
                "feedforward_modules": ["output.dense"],
            },
        }
    elif family in ("roberta", "distilbert"):
        upper = {"roberta": ["key", "dense"], "distilbert": ["q_lin", "lin2"]}[family]
        loras = {"upper block": {"target_modules": upper, "layers_to_transform": [2]}}
        defaults = {"default": {}} if family == "roberta" else {}  # PEFT has none for DistilBERT
        loras, ia3s = loras | defaults, defaults
    else:
        loras = {
            "default targets": {},
            "all": {"target_modules": ["c_attn", "c_proj", "c_fc"], "lora_alpha": 3},
            "upper block": {"target_modules": ["c_attn"], "layers_to_transform": [2]},
        }
        ia3s = {"default": {}}
    task = {"bert": "SEQ_CLS", "gpt2": "CAUSAL_LM"}.get(family, "FEATURE_EXTRACTION")
    fan = {"fan_in_fan_out": family == "gpt2", "task_type": task}
    return {f"lora, {k}": peft.LoraConfig(r=3, **fan, **v) for k, v in loras.items()} | {
        f"ia3, {k}": peft.IA3Config(**fan, **v) for k, v in ia3s.items()
    }


@reference
@quiet
@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_trained_there_answers_the_same_here(
    small_transformer: Make, token_batch: Batch, tmp_path: Path, family: str
) -> None:
    import torch

    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = small_transformer(**ALL_FAMILIES[family])
    insert(base, mt.LoRAConfig())  # the base's weights are what is wanted
    base.delete_adapter("mine")
    base.save_pretrained(tmp_path / "base")
    base.astype(np.float64)
    for i, (name, config) in enumerate(peft_configs(family).items()):
        plain = their_base(tmp_path / "base", family, True)
        theirs = peft.get_peft_model(plain, config)
        with torch.no_grad():
            for parameter in theirs.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.3 * torch.randn(parameter.shape))
        theirs.save_pretrained(tmp_path / f"there{i}")
        found = read_peft(tmp_path / f"there{i}")
        load_peft(base, found)
        head = read_head(found, base.config) if family == "bert" else None
        assert (head is not None) == (family == "bert"), name
        ours = our_answer(base, head, token_batch)
        assert_same(ours, their_answer(theirs, token_batch), token_batch)
        with base.use():
            assert np.abs(our_answer(base, head, token_batch) - ours).max() > 0.05, name
        base.delete_adapter("default")

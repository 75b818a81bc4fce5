"""Folders of the `adapters` library (AdapterHub): written, read, and tried out there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.adapters.config import NORMS, PLACEMENTS, SITES
from minitransformer.errors import CheckpointError, ConfigError
from minitransformer.formats.adapterhub import (
    load_adapterhub,
    read_head,
    save_adapterhub,
)
from minitransformer.formats.adapterhub_config import reduction_factor
from minitransformer.formats.files import read_tensors, write_tensors
from minitransformer.formats.folders import LinearHead
from minitransformer.nn.functional import ACTIVATIONS

Make = Callable[..., mt.Transformer]
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
ALL_SITES = (SITES, ("attention",), ("ffn",))


def insert(transformer: mt.Transformer, config: mt.AdapterConfig, seed: int = 1) -> None:
    """Adapters with weights far from the identity, on a frozen base that is far from zero."""
    rng = np.random.default_rng(seed)
    transformer.freeze()
    transformer.add_adapter("mine", config)
    for key, parameter in transformer.named_parameters():
        noise = rng.standard_normal(parameter.shape).astype(np.float32)
        if ".adapters." in key:
            parameter.value[...] = 0.3 * noise + (1 if parameter.shape[0] == 1 else 0)
        elif parameter.value.ndim == 2:
            parameter.value[...] += 0.2 * noise


def variants(placement: str) -> Iterator[mt.AdapterConfig]:
    """Every site, scaling and norm at a placement; the other options change along."""
    choices = product(ALL_SITES, (1.0, 0.5, "learned"), NORMS)
    for i, (sites, scaling, norm) in enumerate(choices):
        yield mt.AdapterConfig(
            bottleneck=3 + i % 3,
            activation=list(ACTIVATIONS)[i % 5],
            placement=placement,
            sites=sites,
            layers=((2, 0), (1,), None)[i % 3],
            init=("near_identity", "zero_up")[i % 2],
            scaling=scaling,
            dropout=0.1 * (i % 2),
            norm=norm,
        )


def words_of(folder: Path, file: str = "adapter_config.json") -> dict[str, Any]:
    words: dict[str, Any] = json.loads((folder / file).read_text())
    return words


# -- there and back ------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_round_trip_is_exact(
    small_transformer: Make, tmp_path: Path, placement: str, family: str
) -> None:
    for i, config in enumerate(variants(placement)):
        model, other = (small_transformer(**FAMILIES[family]) for _ in range(2))
        insert(model, config)
        folder = save_adapterhub(model, "mine", tmp_path / str(i))
        assert load_adapterhub(other, folder) == "mine"
        layers = tuple(sorted(config.layers)) if config.layers else None
        assert other.adapter_config("mine") == replace(config, layers=layers)
        for key, value in model.state_dict().items():
            if ".adapters." in key:
                assert np.array_equal(value, other.state_dict()[key])


@pytest.mark.parametrize("family", FAMILIES)
def test_names_of_the_other_side(small_transformer: Make, tmp_path: Path, family: str) -> None:
    model = small_transformer(**FAMILIES[family])
    insert(model, mt.AdapterConfig(bottleneck=5, sites="ffn", layers=(1,), scaling="learned"))
    folder = save_adapterhub(model, "mine", tmp_path / "there", called="yours")
    place = {
        "bert": "bert.encoder.layer.1.output.adapters.yours.",
        "gpt2": "transformer.h.1.output_adapters.adapters.yours.",
    }[family]
    assert {key: t.shape for key, t in read_tensors(folder / "adapter.safetensors").items()} == {
        f"{place}adapter_down.0.weight": (5, 16),
        f"{place}adapter_down.0.bias": (5,),
        f"{place}adapter_up.weight": (16, 5),
        f"{place}adapter_up.bias": (16,),
        f"{place}scaling": (1,),
    }
    words = words_of(folder)
    assert words.pop("config") == {
        "mh_adapter": False,
        "output_adapter": True,
        "is_parallel": False,
        "original_ln_before": True,
        "original_ln_after": False,
        "residual_before_ln": False,
        "adapter_residual_before_ln": False,
        "reduction_factor": 16 / 5.5,
        "non_linearity": "relu",
        "scaling": "learned",
        "ln_before": False,
        "ln_after": False,
        "leave_out": [0, 2],
        "dropout": 0.0,
        "init_weights": "houlsby",
    }
    assert words == {
        "name": "yours",
        "model_type": family,
        "model_class": {"bert": "BertAdapterModel", "gpt2": "GPT2AdapterModel"}[family],
        "model_name": "",
        "hidden_size": 16,
        "version": "adapters.1.3.0",
    }


@pytest.mark.parametrize("d_model", [1, 7, 16, 312, 384, 768, 1024])
def test_factor_gives_the_bottleneck(d_model: int) -> None:
    widths = range(1, 2 * d_model + 2)
    assert [int(d_model // reduction_factor(d_model, m)) for m in widths] == list(widths)


# -- what they have and we have not --------------------------------------------------------


@pytest.fixture
def folder(small_transformer: Make, tmp_path: Path) -> Path:
    """A folder that can be read."""
    model = small_transformer()
    insert(model, mt.AdapterConfig(bottleneck=4))
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((16, 2)).astype(np.float32)
    head = LinearHead(("bad", "good"), "cls", weight, np.zeros(2, np.float32))
    return save_adapterhub(model, "mine", tmp_path / "there", head)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"phm_layer": True}, "phm_layer=True"),
        ({"use_gating": True}, "use_gating=True"),
        ({"inv_adapter": "nice", "inv_adapter_reduction_factor": 2}, "inv_adapter='nice'"),
        ({"cross_adapter": True}, "cross_adapter=True"),
        ({"stochastic_depth": 0.1}, "stochastic_depth=0.1"),
        ({"something_new": 3}, "something_new=3"),
        ({"non_linearity": "leakyrelu"}, "non_linearity='leakyrelu'"),
        ({"scaling": "channel"}, "scaling='channel'"),
        ({"ln_before": True, "ln_after": True}, "ln_before with ln_after"),
        ({"ln_after": True, "adapter_residual_before_ln": True}, "adapter_residual_before_ln"),
        ({"original_ln_after": True}, "no placement here is is_parallel=False"),
        ({"residual_before_ln": "post_add"}, "residual_before_ln='post_add'"),
        ({"is_parallel": True}, "original_ln_after=False"),
        ({"architecture": "lora"}, "architecture='lora'"),
        ({"reduction_factor": {"0": 2, "default": 4}}, "found 4, 8"),
        ({"reduction_factor": "4"}, "adapter_config.json"),
        ({"reduction_factor": 0}, "adapter_config.json"),
        ({"reduction_factor": 1e-308}, "reduction_factor=1e-308: too small for a width of 16"),
        ({"leave_out": [0, 1, 2]}, "found none"),
        ({"mh_adapter": False, "output_adapter": False}, "sites"),
    ],
)
def test_no_equivalent_is_refused_by_name(
    small_transformer: Make, folder: Path, options: dict[str, Any], named: str
) -> None:
    words = words_of(folder)
    words["config"] |= options
    (folder / "adapter_config.json").write_text(json.dumps(words))
    model = small_transformer()
    with pytest.raises(CheckpointError) as error:
        load_adapterhub(model, folder)
    assert named in str(error.value)
    assert not model.adapter_names


def test_what_says_nothing_is_read_over(small_transformer: Make, folder: Path) -> None:
    words = words_of(folder)
    words["config"] |= {
        "phm_layer": False, "phm_dim": 4, "inv_adapter": None, "stochastic_depth": 0.0,
        "init_weights": "bert", "adapter_residual_before_ln": True, "non_linearity": "ReLU",
        "reduction_factor": {"1": 4, "default": 4.0},
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(words))
    model = small_transformer()
    load_adapterhub(model, folder, "other")
    assert model.adapter_config("other") == mt.AdapterConfig(bottleneck=4, sites=SITES)


def test_old_words_for_gelu(small_transformer: Make, folder: Path) -> None:
    words = words_of(folder)
    del words["version"]
    for old, ours in {"gelu": "gelu_tanh", "gelu_orig": "gelu"}.items():
        words["config"]["non_linearity"] = old
        (folder / "adapter_config.json").write_text(json.dumps(words))
        model = small_transformer()
        load_adapterhub(model, folder)
        assert model.adapter_config("mine").activation == ours


def test_weights_that_do_not_fit(small_transformer: Make, folder: Path) -> None:
    path = folder / "adapter.safetensors"
    tensors = read_tensors(path)
    tensors["bert.encoder.layer.9.output.adapters.mine.adapter_up.bias"] = np.ones(16, np.float32)
    site = "bert.encoder.layer.0.output.adapters.mine"
    del tensors[f"{site}.adapter_up.bias"]
    tensors[f"{site}.adapter_up.weight"] = np.ones((16, 3), np.float32)
    tensors[f"{site}.adapter_down.0.bias"] = np.full(4, np.nan, np.float32)
    write_tensors(path, tensors, {})
    model = small_transformer()
    with pytest.raises(CheckpointError) as error:
        load_adapterhub(model, folder)
    for problem in ("unexpected: encoder.layer.9", "missing", "(16, 3), expected (16, 4)", "NaN"):
        assert problem in str(error.value)
    assert not model.adapter_names


def test_another_base(small_transformer: Make, folder: Path) -> None:
    for options in ({"d_model": 32}, FAMILIES["gpt2"]):
        with pytest.raises(CheckpointError, match="'bert' with hidden_size 16"):
            load_adapterhub(small_transformer(**options), folder)
    with pytest.raises(CheckpointError, match=r"unexpected: encoder.layer.2"):
        load_adapterhub(small_transformer(n_layers=2), folder)


def test_pickles_are_named_with_the_way_out(small_transformer: Make, folder: Path) -> None:
    (folder / "adapter.safetensors").rename(folder / "pytorch_adapter.bin")
    with pytest.raises(CheckpointError, match=r"save_adapter\(folder, name, use_safetensors=True"):
        load_adapterhub(small_transformer(), folder)
    words = words_of(folder)
    words["config"]["ln_before"] = True  # then that call fails there
    (folder / "adapter_config.json").write_text(json.dumps(words))
    with pytest.raises(CheckpointError, match=r"v\.clone\(\)"):
        load_adapterhub(small_transformer(), folder)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"layers": 2}, "layers=2"),
        ({"head_type": "tagging"}, "head_type='tagging'"),
        ({"bias": False}, "bias=False"),
        ({"label2id": {"bad": 0, "good": 2}}, "does not number 2 labels"),
        ({"num_labels": None}, "num_labels=None, but the weights are for 2"),
    ],
)
def test_heads_without_equivalent(folder: Path, options: dict[str, Any], named: str) -> None:
    words = words_of(folder, "head_config.json")
    words["config"] |= options
    (folder / "head_config.json").write_text(json.dumps(words))
    with pytest.raises(CheckpointError, match=named):
        read_head(folder)


def test_labels_without_names_are_numbers(folder: Path) -> None:
    words = words_of(folder, "head_config.json")
    words["config"]["label2id"] = None
    (folder / "head_config.json").write_text(json.dumps(words))
    head = read_head(folder)
    assert head is not None and head.label_names == ("0", "1")


def test_foreign_and_damaged_files(small_transformer: Make, folder: Path, tmp_path: Path) -> None:
    model = small_transformer()
    with pytest.raises(CheckpointError, match="cannot read"):
        load_adapterhub(model, tmp_path / "nowhere")
    for text in ("{", "[]", "{}", '{"config": null, "name": "x"}'):
        (folder / "adapter_config.json").write_text(text)
        with pytest.raises(CheckpointError, match="adapter_config"):
            load_adapterhub(model, folder)


def test_nothing_half_written(small_transformer: Make, folder: Path, tmp_path: Path) -> None:
    model = small_transformer(**FAMILIES["gpt2"])
    insert(model, mt.AdapterConfig(bottleneck=2))
    with pytest.raises(CheckpointError, match="is not exchanged"):  # a head does not fit there
        save_adapterhub(model, "mine", tmp_path / "new", read_head(folder))
    with pytest.raises(ConfigError, match="exists already"):
        save_adapterhub(model, "mine", folder)
    with pytest.raises(ConfigError, match="letters"):
        save_adapterhub(model, "mine", tmp_path / "new", called="a.b")
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


# -- against the library itself ------------------------------------------------------------

reference = pytest.mark.reference
quiet = pytest.mark.filterwarnings("ignore")  # those of other packages
SWITCHES = {
    "after_norm": (True, False, False, False),
    "houlsby": (False, True, True, False),
    "pfeiffer": (True, True, True, False),
    "parallel": (False, True, True, True),
}


def their_model(folder: Path, family: str) -> Any:
    adapters = pytest.importorskip("adapters")
    assert json.loads((folder / "config.json").read_text())["model_type"] == family
    return adapters.AutoAdapterModel.from_pretrained(folder).eval()


def their_answer(model: Any, family: str, batch: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Logits of an encoder, the last hidden states of a GPT-2."""
    import torch

    inputs = {"input_ids": torch.tensor(batch[0]), "attention_mask": torch.tensor(batch[1])}
    with torch.no_grad():
        if family != "gpt2":
            return model(**inputs).logits.numpy()
        return model.transformer(**inputs).last_hidden_state.numpy()


def our_answer(
    model: mt.Transformer, head: LinearHead | None, batch: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    if head is None:
        return model.eval()(*batch)
    classifier = mt.Classifier(model, len(head.label_names), head.pooling)
    classifier.head.linear.load_state_dict({"weight": head.weight, "bias": head.bias})
    return classifier.eval()(*batch)


def reference_variants(placement: str) -> list[mt.AdapterConfig]:
    """Each site, scaling, norm, activation and layer subset at least once."""
    return [config for i, config in enumerate(variants(placement)) if i % 4 == 1]


def assert_same(ours: np.ndarray, theirs: np.ndarray, batch: tuple[Any, np.ndarray]) -> None:
    if ours.ndim == 3:  # positions behind the text mean nothing
        ours, theirs = (states[batch[1] == 1] for states in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@reference
@quiet
@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_exported_folder_answers_the_same_there(
    small_transformer: Make,
    token_batch: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    placement: str,
    family: str,
) -> None:
    rng = np.random.default_rng(3)
    for i, config in enumerate(reference_variants(placement)):
        model = small_transformer(**ALL_FAMILIES[family])
        insert(model, config)
        head, pooler = None, model.pooler is not None
        if family != "gpt2":
            weight, bias = (rng.standard_normal(s).astype(np.float32) for s in ((16, 3), 3))
            head = LinearHead(("x", "y", "z"), ("cls", "pooler")[i % 2 * pooler], weight, bias)
        model.save_pretrained(tmp_path / f"base{i}")
        folder = save_adapterhub(model, "mine", tmp_path / f"there{i}", head)
        theirs = their_model(tmp_path / f"base{i}", family)
        info: dict[str, Any] = {}
        theirs.load_adapter(str(folder), use_safetensors=True, set_active=True, loading_info=info)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        theirs.eval()
        ours = our_answer(model, head, token_batch)
        assert_same(ours, their_answer(theirs, family, token_batch), token_batch)
        if head is not None:
            assert theirs.heads["mine"].config["label2id"] == {"x": 0, "y": 1, "z": 2}
        model.set_active(None)
        assert np.abs(our_answer(model, head, token_batch) - ours).max() > 0.05


@reference
@quiet
@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_adapter_made_there_answers_the_same_here(
    small_transformer: Make,
    token_batch: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    placement: str,
    family: str,
) -> None:
    import torch

    adapters = pytest.importorskip("adapters")
    torch.manual_seed(0)
    for i, wanted in enumerate(reference_variants(placement)):
        base = small_transformer(**ALL_FAMILIES[family])
        insert(base, mt.AdapterConfig(bottleneck=1))  # the base's weights are what is wanted
        base.delete_adapter("mine")
        base.save_pretrained(tmp_path / f"base{i}")
        theirs = their_model(tmp_path / f"base{i}", family)
        before, after, residual_before, parallel = SWITCHES[placement]
        layers = wanted.layers or range(3)
        config = adapters.BnConfig(
            mh_adapter="attention" in wanted.resolved_sites,
            output_adapter="ffn" in wanted.resolved_sites,
            reduction_factor=16 / (wanted.bottleneck + 0.5),
            non_linearity={"gelu_tanh": "gelu_new", "silu": "swish"}.get(
                wanted.activation, wanted.activation
            ),
            original_ln_before=before,
            original_ln_after=after,
            residual_before_ln=residual_before,
            is_parallel=parallel,
            scaling=wanted.scaling,
            ln_before=wanted.norm == "before",
            ln_after=wanted.norm == "after",
            leave_out=[block for block in range(3) if block not in layers],
            dropout=wanted.dropout,
        )
        theirs.add_adapter("made", config=config, set_active=True)
        use_pooler = bool(i % 2) and base.pooler is not None
        if family != "gpt2":
            theirs.add_classification_head(
                "made", num_labels=2, layers=1, use_pooler=use_pooler, id2label={0: "n", 1: "p"}
            )
        with torch.no_grad():
            for key, parameter in theirs.named_parameters():
                if ".adapters.made." in key or "heads." in key:
                    parameter.copy_(0.4 * torch.randn(parameter.shape))
        theirs.eval()
        folder = tmp_path / f"made{i}"
        if wanted.norm == "before":  # the library cannot write these itself, see `read_weights`
            theirs.save_adapter(str(folder), "made")
            with pytest.raises(CheckpointError, match=r"v\.clone\(\)"):
                load_adapterhub(base, folder)
            convert(folder)
        else:
            theirs.save_adapter(str(folder), "made", use_safetensors=True)
        load_adapterhub(base, folder)
        layers_here = tuple(sorted(layers)) if len(layers) < 3 else None
        assert base.adapter_config("made") == replace(
            wanted, layers=layers_here, sites=wanted.resolved_sites, init="near_identity"
        )
        head = read_head(folder) if family != "gpt2" else None
        assert head is None or head.label_names == ("n", "p")
        ours = our_answer(base, head, token_batch)
        assert_same(ours, their_answer(theirs, family, token_batch), token_batch)


def convert(folder: Path) -> None:
    """What the error for a pickle tells one to do."""
    import torch
    from safetensors.torch import save_file

    for pickle, file in (
        ("pytorch_adapter.bin", "adapter.safetensors"),
        ("pytorch_model_head.bin", "model_head.safetensors"),
    ):
        if (folder / pickle).exists():
            tensors = torch.load(folder / pickle, weights_only=True)
            save_file({k: v.clone() for k, v in tensors.items()}, folder / file)

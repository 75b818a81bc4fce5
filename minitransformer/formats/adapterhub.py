"""The folder format of the `adapters` library (AdapterHub), written and read without PyTorch.

A folder holds `adapter_config.json` and `adapter.safetensors`, and for a classifier also
`head_config.json` and `model_head.safetensors`; see `adapterhub_config` for the words in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..adapters.attach import Adaptable
from ..adapters.bottleneck import Adapter
from ..adapters.config import AdapterConfig
from ..adapters.own import check_not_own
from ..errors import CheckpointError, ConfigError, listed
from ..nn.module import Array
from .adapterhub_config import (
    MODEL_CLASSES,
    from_words,
    model_type_of,
    places,
    to_words,
    turned,
)
from .files import read_tensors, write_tensors
from .folders import LinearHead, Words, new_folder, read_words, summed_up, write_words
from .huggingface import family_of

CONFIG, WEIGHTS = "adapter_config.json", "adapter.safetensors"
HEAD_CONFIG, HEAD_WEIGHTS = "head_config.json", "model_head.safetensors"
PICKLES = {WEIGHTS: "pytorch_adapter.bin", HEAD_WEIGHTS: "pytorch_model_head.bin"}
VERSION = "adapters.1.3.0"  # whose words these are


@dataclass(frozen=True)
class AdapterHubFolder:
    """The content of a folder of the `adapters` library.

    Attributes:
        path: where it lies.
        name: what the adapter is called there.
        model_type, model_name, hidden_size: the base, as the library saw it.
        words: the adapter's configuration in the library's words.
        tensors: the adapter's weights under the library's names and in its layout.
        origin: what this library adds when it writes a folder; empty in others.
    """

    path: Path
    name: str
    model_type: str
    model_name: str
    hidden_size: int
    words: Words
    tensors: Mapping[str, Array]
    origin: Words


# -- an adapter into a folder, and back ----------------------------------------------------


def save_adapterhub(
    transformer: Adaptable,
    name: str,
    folder: str | Path,
    head: LinearHead | None = None,
    called: str | None = None,
    model_name: str = "",
    origin: Words | None = None,
    card: str | None = None,
) -> Path:
    """Write the adapters called `name` as a folder that the `adapters` library loads.

    There: `model.load_adapter(folder, use_safetensors=True)`. `called` is the adapter's name in
    the folder (default: `name`), `model_name` what the base is called, `origin` anything that a
    later import here should know, `card` the text of README.md. Returns the folder; it is complete
    or not there at all.
    Raises: ConfigError if the folder exists or a name cannot be; CheckpointError for a model that
    no family describes, or a head where the library's reads another position.
    """
    folder, called = Path(folder).expanduser(), called if called is not None else name
    if not re.fullmatch(r"[\w-]+", called):
        raise ConfigError(f"adapter name {called!r}: expected letters, digits, - and _ alone")
    config, shape = transformer.adapter_config(name), transformer.config
    if not isinstance(config, AdapterConfig):
        raise CheckpointError(
            f"{name!r} is of the method {config.method!r}; only bottleneck adapters are written as "
            "a folder of the `adapters` library"
        )
    check_not_own(transformer, name, "folders of the `adapters` library are")
    model_type = model_type_of(shape)
    about = {
        "model_type": model_type,
        "model_class": MODEL_CLASSES[model_type],
        "model_name": model_name,
        "hidden_size": shape.d_model,
        "name": called,
        "version": VERSION,
    }
    words = {"config": to_words(config, shape.d_model, shape.n_layers), **about}
    if origin:
        words["minitransformer"] = origin
    values, tensors = transformer.state_dict(), {}
    for ours, theirs in places(shape, config, name, called).items():
        for key in theirs:
            tensors[family_of(shape).prefix + key] = turned(values[ours])
    with new_folder(folder) as temporary:
        if card is not None:
            (temporary / "README.md").write_text(card, encoding="utf-8")
        write_words(temporary / CONFIG, words)
        write_tensors(temporary / WEIGHTS, tensors, {"format": "pt"})
        if head is not None:
            check_head(model_type)
            write_words(temporary / HEAD_CONFIG, {"config": head_words(head), **about})
            at = f"heads.{called}.1"  # 0 is the dropout
            linear = {f"{at}.weight": turned(head.weight), f"{at}.bias": turned(head.bias)}
            write_tensors(temporary / HEAD_WEIGHTS, linear, {"format": "pt"})
    return folder


def load_adapterhub(
    transformer: Adaptable, folder: str | Path | AdapterHubFolder, name: str | None = None
) -> str:
    """Insert the adapter of a folder that the `adapters` library saved; its head is left out.

    The adapter is trainable and active, under `name` (default: its name there), which is returned.
    Raises: CheckpointError for a folder that cannot be read, belongs to another kind of base, or
    holds what cannot be expressed here; ConfigError if the name is taken. Then nothing changed.
    """
    found = folder if isinstance(folder, AdapterHubFolder) else read_folder(folder)
    name = name if name is not None else found.name
    shape = transformer.config
    ours = model_type_of(shape)
    if (found.model_type, found.hidden_size) != (ours, shape.d_model):
        raise CheckpointError(
            f"{found.path} was made for a base of type {found.model_type!r} with hidden_size "
            f"{found.hidden_size} ({found.model_name or 'without a name'}); this one is of type "
            f"{ours!r} with {shape.d_model}"
        )
    try:
        config = from_words(found.words, shape.d_model, shape.n_layers)
    except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
        raise CheckpointError(f"{found.path / CONFIG}: {error}") from error
    values = fitting(found, transformer, config, name)
    transformer.add_adapter(name, config)
    parameters = dict(transformer.named_parameters())
    for key, value in values.items():
        parameters[key].value[...] = value
    return name


def fitting(
    found: AdapterHubFolder, transformer: Adaptable, config: AdapterConfig, name: str
) -> dict[str, Array]:
    """The folder's weights under our names and in our layout.

    Raises: CheckpointError that lists all that is missing, unexpected, mis-shaped or not finite.
    """
    prefix = family_of(transformer.config).prefix
    tensors = {key.removeprefix(prefix): tensor for key, tensor in found.tensors.items()}
    shapes = {k: p.shape for k, p in Adapter(found.hidden_size, config).named_parameters()}
    names = places(transformer.config, config, name, found.name)
    known = {key for keys in names.values() for key in keys}
    problems = [f"unexpected: {key}" for key in tensors.keys() - known]
    values = {}
    for ours, (key, *_) in names.items():  # a second one is the same once more
        expected = shapes[ours.split(f".adapters.{name}.")[1]]
        if key not in tensors:
            problems.append(f"missing: {key}")
            continue
        values[ours] = turned(tensors[key])
        if values[ours].shape != expected:
            problems.append(
                f"wrong shape: {key} is {tensors[key].shape}, expected {expected[::-1]}"
            )
        elif not np.isfinite(values[ours]).all():
            problems.append(f"not finite: {key} contains NaN or infinity")
    if problems:
        raise CheckpointError(
            f"{found.path / WEIGHTS} does not fit this base of {transformer.config.n_layers} "
            f"blocks:\n  {summed_up(problems)}"
        )
    return values


# -- files ---------------------------------------------------------------------------------


def read_folder(folder: str | Path) -> AdapterHubFolder:
    """A folder that the `adapters` library saved, or `save_adapterhub`; the head is not read.

    Raises: CheckpointError if a file is missing, damaged or pickled.
    """
    path = Path(folder).expanduser()
    about = read_words(path / CONFIG)
    try:
        words, name = dict(about["config"]), str(about["name"])
        model_type, hidden_size = about["model_type"], about["hidden_size"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path / CONFIG} describes no single adapter of the `adapters` library: {error!r}"
        ) from error
    if "version" not in about:  # written before the words for GELU changed
        old = words.get("non_linearity")
        words["non_linearity"] = {"gelu": "gelu_new", "gelu_orig": "gelu"}.get(str(old), old)
    origin = about.get("minitransformer")
    return AdapterHubFolder(
        path=path,
        name=name,
        model_type=model_type,
        model_name=str(about.get("model_name") or ""),
        hidden_size=hidden_size,
        words=words,
        tensors=read_weights(path / WEIGHTS, shared=bool(words.get("ln_before"))),
        origin=origin if isinstance(origin, dict) else {},
    )


def read_weights(path: Path, shared: bool = False) -> dict[str, Array]:
    """Float32 tensors. `shared`: whether two of them are one in memory, as with `ln_before`.

    Raises: CheckpointError; for a pickle, which only PyTorch can read, with the way out.
    """
    pickle = path.with_name(PICKLES[path.name])
    if not path.exists() and pickle.exists():
        there = "model.save_adapter(folder, name, use_safetensors=True)"
        if shared:  # then that call fails, because safetensors stores no tensor twice
            there = (
                "safetensors.torch.save_file({k: v.clone() for k, v in torch.load("
                f'"{pickle.name}", weights_only=True).items()}}, "{path.name}")'
            )
        raise CheckpointError(
            f"{pickle} is a pickle, which needs PyTorch; save it there as safetensors: {there}"
        )
    return {key: tensor.astype(np.float32) for key, tensor in read_tensors(path).items()}


# -- the head ------------------------------------------------------------------------------


def check_head(model_type: str) -> None:
    """Raises: CheckpointError for a decoder's head."""
    if model_type == "gpt2":
        raise CheckpointError(
            f"the head of a classifier on {model_type!r} is not exchanged with the `adapters` "
            "library, only those on encoders are; the adapter alone can be taken over (there: "
            "save_adapter(..., with_head=False))"
        )


def head_words(head: LinearHead) -> Words:
    """One Linear, as `add_classification_head(name, layers=1, ...)` makes it."""
    return {
        "head_type": "classification",
        "num_labels": len(head.label_names),
        "layers": 1,
        "activation_function": None,
        "use_pooler": head.pooling == "pooler",
        "bias": True,
        "dropout_prob": None,
        "label2id": {label: i for i, label in enumerate(head.label_names)},
    }


def read_head(folder: str | Path) -> LinearHead | None:
    """The head of a folder; None if there is none.

    Raises: CheckpointError if it cannot be read, or names what cannot be expressed here.
    """
    folder = Path(folder).expanduser()
    path = folder / HEAD_CONFIG
    if not path.exists():
        return None
    about = read_words(path)
    words, name = about.get("config"), about.get("name")
    check_head(str(about.get("model_type")))
    if not isinstance(words, dict):
        raise CheckpointError(
            f"{path}: the head of a {about.get('model_class')}; expected that of an AdapterModel, "
            f"as {MODEL_CLASSES['bert']}, made by add_classification_head(name, layers=1)"
        )
    words = {"bias": True, **words}
    expected = {"head_type": "classification", "layers": 1, "bias": True}
    wrong = [f"{k}={words.get(k)!r} (not {v!r})" for k, v in expected.items() if words.get(k) != v]
    if wrong:
        raise CheckpointError(
            f"{path}: {', '.join(wrong)}: no head here is like that; one made by "
            "add_classification_head(name, layers=1) is"
        )
    tensors = read_weights(folder / HEAD_WEIGHTS)
    keys = f"heads.{name}.1.weight", f"heads.{name}.1.bias"
    if tensors.keys() != set(keys):
        seen = listed(sorted(tensors))
        raise CheckpointError(
            f"{folder / HEAD_WEIGHTS} holds {seen}; expected {' and '.join(keys)}"
        )
    pooling = "pooler" if words.get("use_pooler") else "cls"
    weight, bias = (turned(tensors[key]) for key in keys)
    return LinearHead(label_names(words, path, bias.size), pooling, weight, bias)


def label_names(words: Words, path: Path, n: int) -> tuple[str, ...]:
    """The labels of n classes in order; numbers where the library was given no names."""
    try:
        ids = {str(label): int(i) for label, i in (words.get("label2id") or {}).items()}
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path} is damaged: {error!r}") from error
    if words.get("num_labels") != n:
        raise CheckpointError(
            f"{path} is damaged: num_labels={words.get('num_labels')!r}, but the weights are for "
            f"{n}"
        )
    if ids and sorted(ids.values()) != list(range(n)):
        raise CheckpointError(f"{path}: label2id={ids} does not number {n} labels from 0")
    return tuple(sorted(ids, key=lambda label: ids[label])) or tuple(map(str, range(n)))

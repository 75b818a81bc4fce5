"""A checkpoint folder in the Hugging Face layout: `config.json` and `model.safetensors`.

Four families (see huggingface.py). A Linear's weight is (d_in, d_out) here and in GPT-2's files,
(d_out, d_in) in the others; `qkv` is one matrix here and in GPT-2's files, three in the others.
Large models come in shards: several files, and an index that says which tensor is in which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, ConfigError
from ..nn.config import TransformerConfig
from ..nn.module import Array
from .files import read_tensors, tensor_names, write_tensors, write_text
from .folders import read_words, summed_up
from .huggingface import FAMILIES, Family, Words, family_of

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights: `model.safetensors`, or the shards that the index names.

    Raises: CheckpointError for an index that is damaged, or if a shard is missing.
    """
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return [folder / WEIGHTS]
    try:
        names = sorted(set(read_words(index)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is damaged: no map from tensors to files") from error
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CheckpointError(f"{index} names {names}: expected files beside it")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)}, of the {len(names)} files that {INDEX} names"
        )
    return [folder / name for name in names]


def read_config(folder: Path) -> TransformerConfig:
    """`config.json` of a base in the Hugging Face layout.

    Raises: CheckpointError if it is unreadable, of another family, or asks for something that
    this library does not have.
    """
    names = [name for path in weight_files(folder) for name in tensor_names(path)]
    return _config(folder / "config.json", names)


def read_checkpoint(folder: Path) -> tuple[TransformerConfig, dict[str, Array]]:
    """The shape of a base, and its weights; each file is read once.

    Raises: CheckpointError as `read_config` and `state_from`.
    """
    files = weight_files(folder)
    tensors: dict[str, Array] = {}
    for path in files:
        tensors |= read_tensors(path)
    config = _config(folder / "config.json", list(tensors))
    path = files[0] if len(files) == 1 else folder / INDEX
    there = sum(tensor.size for tensor in tensors.values())
    if config.matrix_parameters > there:  # before such a model is built
        raise CheckpointError(
            f"{folder / 'config.json'} describes a model of {config.matrix_parameters:,} or more "
            f"parameters, but {path.name} holds {there:,}"
        )
    return config, state_from(tensors, config, path)


def _config(path: Path, tensors: list[str]) -> TransformerConfig:
    words, family = _words(path)
    try:
        for option, expected in family.fixed.items():
            value = words.get(option)
            if value is not None and value != expected:
                raise CheckpointError(f"{option}={value!r}; only {expected!r} is supported")
        config = family.shape(words, tensors)
        if config.n_layers > len(tensors):
            raise CheckpointError(f"{config.n_layers} blocks, but {len(tensors)} tensors in all")
        return config
    except KeyError as error:
        raise CheckpointError(f"{path} lacks the entry {error}") from error
    except (CheckpointError, ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _words(path: Path) -> tuple[Words, Family]:
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    kind = words.get("model_type", "bert") if isinstance(words, dict) else type(words).__name__
    if not isinstance(kind, str) or kind not in FAMILIES:
        expected = ", ".join(map(repr, FAMILIES))
        raise CheckpointError(
            f"{path} describes a model of type {kind!r}; expected one of {expected}"
        )
    return words, FAMILIES[kind]


def state_from(
    tensors: Mapping[str, Array], config: TransformerConfig, path: Path
) -> dict[str, Array]:
    """The tensors of a checkpoint under our names and layout, float32.

    The prefix of a model with a head is recognized; buffers and heads of other tasks are left out.
    Raises: CheckpointError that lists all missing, unexpected and mis-shaped tensors together, or
    if GPT-2's output matrix is another one than its token embedding.
    """
    family = family_of(config)
    theirs = {name.removeprefix(family.prefix): t for name, t in tensors.items()}
    names = family.names(config)
    wanted = {name for group in names.values() for name in group}
    problems = [f"missing: {name}" for name in wanted - theirs.keys()]
    problems += [
        f"unexpected: {name} {theirs[name].shape}"
        for name in theirs.keys() - wanted
        if not family.is_extra(name)
    ]
    if problems:
        raise CheckpointError(
            f"{path} does not fit {family.label} of this shape:\n  " + summed_up(problems)
        )
    head = theirs.get("lm_head.weight")
    if head is not None and not np.array_equal(head, theirs["wte.weight"]):
        raise CheckpointError(
            f"{path}: lm_head.weight differs from wte.weight; only a head that shares the token "
            "embedding (tie_word_embeddings) is supported"
        )

    state: dict[str, Array] = {}
    for ours, group in names.items():
        parts = [theirs[name].astype(np.float32, copy=False) for name in group]
        if family.transposed and _is_linear_weight(ours):
            if any(part.ndim != 2 for part in parts):
                raise CheckpointError(f"{path}: {group[0]} {parts[0].shape} is not a matrix")
            parts = [part.T for part in parts]
        try:
            state[ours] = np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        except ValueError as error:
            raise CheckpointError(f"{path}: {', '.join(group)} do not fit: {error}") from error
    return state


def write_checkpoint(
    folder: Path,
    config: TransformerConfig,
    state: Mapping[str, Array],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a base as `config.json` and `model.safetensors` in the layout of its family.

    `state` holds its parameters under our names; what is not the base's (adapters) is left out.
    `extra` goes into config.json beside the model's shape.
    Raises: CheckpointError for a model that none of the layouts can describe; ConfigError if
    `folder` is a file.
    """
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; expected a folder to write the base into")
    family = family_of(config)
    words = {**family.words(config), **(extra or {})}
    tensors: dict[str, Array] = {}
    for ours, group in family.names(config).items():
        turn = family.transposed and _is_linear_weight(ours)
        for name, part in zip(group, np.split(state[ours], len(group), axis=-1), strict=True):
            tensors[name] = part.T if turn else part
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    write_text(folder / "config.json", json.dumps(words, indent=2) + "\n")


def _is_linear_weight(name: str) -> bool:
    """Whether a parameter of ours is a Linear's matrix."""
    return name.endswith(".weight") and not name.startswith("embeddings.") and "norm." not in name

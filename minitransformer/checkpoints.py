"""Public checkpoints: their configuration words, their weight names, safetensors in and out.

Reads and writes the Hugging Face BERT layout: `config.json` and `model.safetensors`, where a
Linear keeps its weight as (d_out, d_in) and q, k, v apart; here it is (d_in, d_out) and one `qkv`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .config import TransformerConfig
from .errors import CheckpointError, ConfigError
from .module import Array

# words for the activation: Hugging Face's -> ours
ACTIVATION_WORDS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu", "silu": "silu"}

# one block of BERT: our name -> theirs, under blocks.{i} and encoder.layer.{i}
BERT_BLOCK = {
    "attention.core.out": "attention.output.dense",
    "attention.norm": "attention.output.LayerNorm",
    "ffn.core.up": "intermediate.dense",
    "ffn.core.down": "output.dense",
    "ffn.norm": "output.LayerNorm",
}
BERT_QKV = tuple(f"attention.self.{part}" for part in ("query", "key", "value"))
BERT_EMBEDDINGS = {
    "embeddings.token.weight": "embeddings.word_embeddings.weight",
    "embeddings.position.weight": "embeddings.position_embeddings.weight",
    "embeddings.token_type.weight": "embeddings.token_type_embeddings.weight",
}


def bert_names(config: TransformerConfig) -> dict[str, tuple[str, ...]]:
    """Our parameter name -> the Hugging Face names that hold it (three for qkv)."""
    names: dict[str, tuple[str, ...]] = {k: (v,) for k, v in BERT_EMBEDDINGS.items()}
    if not config.token_types:
        del names["embeddings.token_type.weight"]
    for kind in ("weight", "bias"):
        names[f"embeddings.norm.{kind}"] = (f"embeddings.LayerNorm.{kind}",)
        for i in range(config.n_layers):
            ours, theirs = f"blocks.{i}", f"encoder.layer.{i}"
            qkv = tuple(f"{theirs}.{part}.{kind}" for part in BERT_QKV)
            names[f"{ours}.attention.core.qkv.{kind}"] = qkv
            for our_part, their_part in BERT_BLOCK.items():
                names[f"{ours}.{our_part}.{kind}"] = (f"{theirs}.{their_part}.{kind}",)
        if config.pooler:
            names[f"pooler.dense.{kind}"] = (f"pooler.dense.{kind}",)
    return names


def is_linear_weight(name: str) -> bool:
    """Whether a parameter of ours is a Linear's matrix, which the public layout transposes."""
    return name.endswith(".weight") and not name.startswith("embeddings.") and ".norm." not in name


def read_config(folder: Path) -> TransformerConfig:
    """`config.json` of a BERT in the Hugging Face layout.

    Raises: CheckpointError if it is unreadable, of another family, or asks for something that
    this library does not have.
    """
    path = folder / "config.json"
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(words, dict) or words.get("model_type", "bert") != "bert":
        kind = words.get("model_type") if isinstance(words, dict) else type(words).__name__
        raise CheckpointError(f"{path} describes a model of type {kind!r}; expected 'bert'")
    position_kind = words.get("position_embedding_type") or "absolute"
    if position_kind != "absolute":
        raise CheckpointError(
            f"{path}: position_embedding_type={position_kind!r}; only 'absolute' is supported"
        )
    activation = words.get("hidden_act", "gelu")
    if activation not in ACTIVATION_WORDS:
        raise CheckpointError(
            f"{path}: hidden_act={activation!r}; expected one of {', '.join(ACTIVATION_WORDS)}"
        )
    try:
        return TransformerConfig(
            vocab_size=words["vocab_size"],
            d_model=words["hidden_size"],
            n_layers=words["num_hidden_layers"],
            n_heads=words["num_attention_heads"],
            d_ff=words["intermediate_size"],
            max_positions=words["max_position_embeddings"],
            token_types=words.get("type_vocab_size", 2),
            activation=ACTIVATION_WORDS[activation],
            layer_norm_eps=words.get("layer_norm_eps", 1e-12),
            dropout=words.get("hidden_dropout_prob", 0.0),
            attention_dropout=words.get("attention_probs_dropout_prob", 0.0),
            pooler=has_pooler(folder),
        )
    except KeyError as error:
        raise CheckpointError(f"{path} lacks the entry {error}") from error
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def has_pooler(folder: Path) -> bool:
    """Whether the weights hold BERT's pooler (many published checkpoints leave it out)."""
    return any(name.endswith("pooler.dense.weight") for name in tensor_names(folder))


def tensor_names(folder: Path) -> list[str]:
    """Names in `model.safetensors`, without reading the tensors."""
    from safetensors import safe_open

    path = folder / "model.safetensors"
    try:
        with safe_open(path, framework="np") as file:
            return list(file.keys())
    except Exception as error:  # the library raises its own kinds, and OSError
        raise CheckpointError(f"cannot read {path}: {error}; is it truncated?") from error


def read_tensors(path: Path) -> dict[str, Array]:
    """All tensors of a safetensors file. Raises: CheckpointError if it cannot be read."""
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except Exception as error:  # the library raises its own kinds, OSError, and TypeError (bf16)
        raise CheckpointError(f"cannot read {path}: {error}; is it truncated?") from error


def tensor_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file. Raises: CheckpointError if it cannot be read."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except Exception as error:  # as above
        raise CheckpointError(f"cannot read {path}: {error}; is it truncated?") from error


def read_weights(folder: Path, config: TransformerConfig) -> dict[str, Array]:
    """`model.safetensors` under our names and layout, float32.

    A prefix (`bert.`) and heads of other tasks are recognized and left out.
    Raises: CheckpointError that lists all missing, unexpected and mis-shaped tensors together.
    """
    path = folder / "model.safetensors"
    theirs = {name.removeprefix("bert."): t for name, t in read_tensors(path).items()}
    names = bert_names(config)
    wanted = {name for group in names.values() for name in group}
    problems = [f"missing: {name}" for name in wanted - theirs.keys()]
    problems += [
        f"unexpected: {name} {theirs[name].shape}"
        for name in theirs.keys() - wanted
        if not is_known_extra(name)
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit a BERT of this shape:\n  " + listing(problems))

    state: dict[str, Array] = {}
    for ours, group in names.items():
        parts = [theirs[name].astype(np.float32, copy=False) for name in group]
        if is_linear_weight(ours):
            if any(part.ndim != 2 for part in parts):
                raise CheckpointError(f"{path}: {group[0]} {parts[0].shape} is not a matrix")
            parts = [part.T for part in parts]
        try:
            state[ours] = np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        except ValueError as error:
            raise CheckpointError(f"{path}: {', '.join(group)} do not fit: {error}") from error
    return state


def is_known_extra(name: str) -> bool:
    """Tensors that BERT files carry beside the encoder: buffers and other tasks' heads."""
    return name == "embeddings.position_ids" or name.startswith(("cls.", "classifier."))


def listing(problems: list[str], most: int = 20) -> str:
    shown = sorted(problems)[:most]
    rest = len(problems) - len(shown)
    return "\n  ".join([*shown, f"and {rest} more"] if rest else shown)


def write_checkpoint(
    folder: Path,
    config: TransformerConfig,
    state: Mapping[str, Array],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write an encoder as `config.json` and `model.safetensors` in the Hugging Face BERT layout.

    Raises: CheckpointError for a model that BERT's layout cannot describe.
    """
    if config.norm != "post" or config.causal:
        raise CheckpointError("BERT's layout describes post-norm encoders without a causal mask")
    back = {ours: theirs for theirs, ours in ACTIVATION_WORDS.items()}
    words = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.d_ff,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.token_types,
        "hidden_act": back[config.activation],
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        **(extra or {}),
    }
    tensors: dict[str, Array] = {}
    for ours, group in bert_names(config).items():
        for name, part in zip(group, np.split(state[ours], len(group), axis=-1), strict=True):
            tensors[name] = np.ascontiguousarray(part.T if is_linear_weight(ours) else part)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", tensors, {"format": "np"})
    write_text(folder / "config.json", json.dumps(words, indent=2) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """A safetensors file, complete or not at all: written beside its name, then renamed."""
    from safetensors.numpy import save

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        temporary.write_bytes(save(contiguous, dict(metadata)))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A text file, complete or not at all: written beside its name, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

"""Adapter files: what was trained, and which base it belongs to, in one safetensors file.

The file holds the trained parameters under their names in the model, with the adapter's own name
taken out (`transformer.blocks.0.attention.adapter.down.weight`, `head.linear.weight`, ...), and a
metadata record: configuration, task, label names, and the fingerprint of the base.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from ..adapters.config import AdapterConfig
from ..errors import CheckpointError, ConfigError
from ..nn.module import Array, Module
from .files import read_tensors, tensor_metadata, write_tensors

FORMAT = "minitransformer-adapter-1"
METHODS = ("adapter", "head", "full")


@dataclass(frozen=True)
class AdapterRecord:
    """The metadata of an adapter file.

    Attributes:
        fingerprint: SHA-256 of the base that it was trained on.
        base: the name or folder under which that base was loaded.
        method: "adapter", "head" or "full": what was trained.
        task, label_names: what the head answers. No labels: the adapter of a language model, which
            has no head of its own, trained on the text `task`.
        pooling, max_length: how a text becomes the vector that the head sees.
        adapter: the AdapterConfig, or None where none was inserted.
    """

    fingerprint: str
    base: str
    method: str
    task: str
    label_names: tuple[str, ...]
    pooling: str
    max_length: int
    adapter: AdapterConfig | None = None

    def to_metadata(self) -> dict[str, str]:
        """The record as safetensors metadata (text to text)."""
        values = asdict(self)
        values["adapter"] = self.adapter.to_dict() if self.adapter else None
        return {"format": FORMAT, "record": json.dumps(values)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: Path) -> AdapterRecord:
        """The inverse of `to_metadata`. Raises: CheckpointError for a foreign or damaged record."""
        if metadata.get("format") != FORMAT:
            raise CheckpointError(
                f"{path} is not an adapter file of this library: its metadata says "
                f"format={metadata.get('format')!r}, expected {FORMAT!r}"
            )
        try:
            values = json.loads(metadata["record"])
            if values.keys() != {field.name for field in fields(cls)}:
                raise ConfigError(f"entries {sorted(values)}")
            values["label_names"] = tuple(values["label_names"])
            if values["adapter"] is not None:
                values["adapter"] = AdapterConfig.from_dict(values["adapter"])
            return cls(**values)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise CheckpointError(f"{path} has a damaged record: {error}") from error


def fingerprint(base: Module) -> str:
    """SHA-256 over the base's weights: names, shapes and float32 bytes; adapters are left out.

    Equal before and after adapter training, and different for any other base.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(base.named_parameters()):
        if ".adapters." not in name:
            value = np.ascontiguousarray(parameter.value, np.float32)
            digest.update(f"{name} {value.shape}\n".encode())
            digest.update(value.data)
    return digest.hexdigest()


def save_adapter(path: Path, model: Module, record: AdapterRecord, name: str | None) -> int:
    """Write what `model` trains, complete or not at all. Returns the size in bytes.

    `name` is the adapter's name in the model, or None where there is none.
    """
    tensors = {
        portable(key, name): np.asarray(parameter.value, np.float32)
        for key, parameter in model.trainable_parameters().items()
    }
    write_tensors(path, tensors, record.to_metadata())
    return path.stat().st_size


def read_adapter(path: Path) -> tuple[AdapterRecord, dict[str, Array]]:
    """The record and the parameters of an adapter file.

    Raises: CheckpointError if the file is missing, truncated, foreign, or not finite.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no adapter file {path}")
    record = AdapterRecord.from_metadata(tensor_metadata(path), path)
    tensors = read_tensors(path)
    for key, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {key} contains NaN or infinity")
    return record, tensors


def check_base(record: AdapterRecord, found: str, path: Path) -> None:
    """Raises: CheckpointError if the adapter was trained on another base than `found`."""
    if record.fingerprint != found:
        raise CheckpointError(
            f"{path} was trained on another base: it needs {record.base!r} with fingerprint "
            f"{record.fingerprint}, this one has {found}"
        )


def load_values(model: Module, tensors: Mapping[str, Array], name: str | None, path: Path) -> None:
    """Copy the parameters of an adapter file into the model that was built for it.

    Raises: CheckpointError that lists all missing, unexpected and mis-shaped names together;
    then nothing has changed.
    """
    places = {portable(key, name): p for key, p in model.trainable_parameters().items()}
    problems = [f"missing: {key}" for key in places.keys() - tensors.keys()]
    problems += [f"unexpected: {key}" for key in tensors.keys() - places.keys()]
    problems += [
        f"wrong shape: {key} is {tensors[key].shape}, expected {places[key].shape}"
        for key in places.keys() & tensors.keys()
        if tensors[key].shape != places[key].shape
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit:\n  " + "\n  ".join(sorted(problems)))
    for key, parameter in places.items():
        parameter.value[...] = tensors[key]


def portable(key: str, name: str | None) -> str:
    """A parameter's name in a file: the same whatever the adapter is called in the model."""
    return key if name is None else key.replace(f".adapters.{name}.", ".adapter.", 1)

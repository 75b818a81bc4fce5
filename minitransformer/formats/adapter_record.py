"""The record of an adapter file: what is in it, which base it fits, and how it was trained.

It stands in the file's metadata as JSON, so that a file says all of that without its tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..adapters.config import CONFIGS, METHODS, AnyConfig
from ..adapters.select import BASE_PARTS
from ..errors import CheckpointError, ConfigError, listed
from .kinds import check_kinds

FORMAT = "minitransformer-adapter-4"  # the metadata's entry beside the digest of the file
WITHOUT_DIGEST = "minitransformer-adapter-3"  # the same without a digest
OLDER = ("minitransformer-adapter-1", "minitransformer-adapter-2")  # told the base by its weights


@dataclass(frozen=True)
class AdapterRecord:
    """The metadata of an adapter file: what is in it, and, of a run, how it was trained.

    Attributes:
        fingerprint: SHA-256 of the base that it was trained on; see the function of that name.
        adapters: name -> configuration, in the order of insertion.
        fusions: name -> names of the sources, in the order of insertion.
        factories: name -> class, of those that a factory of the user's made; no code is kept.
        active: the names that `load_adapter` activates; several are a stack.
        pooling: how a text becomes the vector that the head sees; None if the file has no
            classification head.
        base_part: which parameters of the base were trained and are in the file too: "none",
            "layer_norms" or "biases" (those of the blocks), or "all".
        tokenizer: SHA-256 of what made token ids of the texts (`Tokenizer.fingerprint`); "" if not
            known.
        base: the name or folder under which that base was loaded; "" if not known.
        method: one of METHODS: what a run trained.
        task, label_names, max_length: the task of a run, or the text of a language run, which has
            no labels, and of a number one, its name; and to how many tokens its texts are cut.
        pair: whether a run reads pairs of texts.
    """

    fingerprint: str
    adapters: dict[str, AnyConfig] = field(default_factory=dict)
    fusions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    factories: dict[str, str] = field(default_factory=dict)
    active: tuple[str, ...] = ()
    pooling: str | None = None
    base_part: str = "none"
    tokenizer: str = ""
    base: str = ""
    method: str = "adapter"
    task: str = ""
    label_names: tuple[str, ...] = ()
    max_length: int = 0
    pair: bool = False

    @property
    def adapter(self) -> Any:
        """The configuration of the adapter, of whichever method; None if there is not one."""
        return next(iter(self.adapters.values())) if len(self.adapters) == 1 else None

    def to_metadata(self) -> dict[str, str]:
        """The record as safetensors metadata (text to text)."""
        adapters = {
            name: {"method": config.method, **config.to_dict()}
            for name, config in self.adapters.items()
        }
        return {FORMAT: json.dumps({**asdict(self), "adapters": adapters})}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: Path) -> AdapterRecord:
        """The inverse of `to_metadata`. Raises: CheckpointError for a foreign or damaged record."""
        if not metadata.keys().isdisjoint(OLDER):
            raise CheckpointError(
                f"{path} was written by an older version, which knew its base by the weights "
                "alone, not by heads, activation and tokenizer; train it again"
            )
        text = metadata.get(FORMAT, metadata.get(WITHOUT_DIGEST))
        if text is None:
            found = listed(sorted(metadata)) if metadata else "nothing"
            raise CheckpointError(
                f"{path} is not an adapter file of this library: its metadata holds {found}, "
                f"expected an entry {FORMAT!r}"
            )
        try:
            values = json.loads(text)
            if values.keys() != {entry.name for entry in fields(cls)}:
                raise ConfigError(f"entries {sorted(values)}")
            adapters = {
                name: CONFIGS[config.pop("method")].from_dict(config)
                for name, config in values["adapters"].items()
            }
            fusions = {k: tuple(v) for k, v in values["fusions"].items()}
            lists = {k: tuple(values[k]) for k in ("active", "label_names")}
            record = cls(**{**values, **lists, "adapters": adapters, "fusions": fusions})
            record.check()
            return record
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} has a damaged record: {error}") from error

    def check(self) -> None:
        """Raises: ConfigError for an entry of the wrong kind, or that names what is not there."""
        check_kinds(type(self), {entry.name: getattr(self, entry.name) for entry in fields(self)})
        for name, choices in (("base_part", BASE_PARTS), ("method", METHODS)):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected one of {choices}")
        known = set(self.adapters)
        if not known.issuperset(self.factories):
            raise ConfigError(
                f"factories of {listed(self.factories)}: expected some of {listed(sorted(known))}"
            )
        for name, sources in (*self.fusions.items(), ("active", self.active)):
            if not known.issuperset(sources):
                raise ConfigError(
                    f"{name}={listed(sources)}: expected some of {listed(sorted(known))}"
                )
            known.add(name)
        if self.max_length < 0 or len(set(self.label_names)) < len(self.label_names):
            raise ConfigError(
                f"max_length={self.max_length}, label_names={listed(self.label_names)}: expected "
                "a length from 0, and each name once"
            )

"""Adapter files: what was trained, and which base it belongs to, in one safetensors file.

The file holds parameters under their names in the transformer
(`blocks.0.attention.adapters.NAME.down.weight`), those of the head under `head.`, and in its
metadata a record (what to insert, and the fingerprint of the base) and a digest of the file.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..adapters.attach import Adaptable
from ..adapters.config import METHODS, AnyConfig, size_of
from ..adapters.fusion import Fusion
from ..adapters.own import AdapterFactory, check_factory, own_class
from ..adapters.select import base_parameters
from ..errors import CheckpointError, ConfigError, MiniTransformerError, listed
from ..nn.module import Array, Module, Parameter
from .adapter_parameters import (
    adapter_modules,
    adapter_parameters,
    parts,
    pooling_of,
    warn_of_trainable_base,
)
from .adapter_record import FORMAT, AdapterRecord
from .files import DIGEST, read_safetensors, tensor_names, write_tensors
from .folders import refuse_foreign, summed_up

BUILT_ANYWAY = 1_000_000  # parameters: so much is built, and then all that does not fit is listed
MOST_IN_A_FILE = 512  # adapters, with those in fusions: each takes longer to insert than the last


@dataclass(frozen=True)
class AdapterFile:
    """An adapter file that was read: its record and its parameters by name."""

    path: Path
    record: AdapterRecord
    tensors: dict[str, Array]


# -- writing and reading -------------------------------------------------------------------


def save_adapter(
    path: str | Path,
    model: Module,
    names: Sequence[str],
    head: bool = True,
    *,
    base_fingerprint: str | None = None,
    base_part: str = "none",
    **about: Any,
) -> AdapterRecord:
    """Write adapters by name, and the head of the model if it has one, complete or not at all.

    `model` is a transformer, or has one as `transformer`. `base_fingerprint` is that of the base
    before training (default: as it is now); `about` are further entries of the record, which is
    returned.
    Raises: ConfigError for an unknown name, or if there is nothing to write; CheckpointError if it
    cannot be written, or there are more adapters than one file may hold.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give a file in it, as {path / 'my.safetensors'}")
    if path.is_file() and path.suffix != ".safetensors":
        try:
            tensor_names(path)
        except CheckpointError as error:
            raise ConfigError(
                f"{path} is there, and is no adapter file: choose another name, or remove it"
            ) from error
    transformer, head_parameters = parts(model)
    transformer.check_unmerged("save adapters")
    for name in names:
        transformer.check_adapter(name)
    if len(set(names)) < len(names):
        raise ConfigError(f"names={list(names)}: expected each name once")
    if not head:
        head_parameters = {}
    if not names and not head_parameters:
        known = listed(transformer.adapter_names)
        raise ConfigError(f"nothing to save: name one of the adapters of this model ({known})")
    if base_part == "none":
        warn_of_trainable_base(transformer)

    adapters: dict[str, AnyConfig] = {}
    fusions: dict[str, tuple[str, ...]] = {}
    for _, name, module in adapter_modules(transformer, names):
        if isinstance(module, Fusion):  # where an adapter is missing, it has fewer sources
            fusions[name] = max(fusions.get(name, ()), tuple(module.sources), key=len)
        else:
            adapters[name] = module.config
    check_count(adapters, fusions, path)
    record = AdapterRecord(
        fingerprint=base_fingerprint or fingerprint(transformer),
        adapters=adapters,
        fusions=fusions,
        factories={
            name: own for name in adapters if (own := own_class(transformer, name)) is not None
        },
        active=tuple(names),
        pooling=pooling_of(model) if head_parameters else None,
        base_part=base_part,
        **about,
    )
    parameters = {
        **base_parameters(transformer, base_part),
        **adapter_parameters(transformer, names),
        **head_parameters,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {key: parameter.value for key, parameter in parameters.items()}
    write_tensors(path, tensors, record.to_metadata())
    return record


def read_adapter(path: str | Path) -> AdapterFile:
    """An adapter file, or that of a run's folder.

    Warns of a file that an older version wrote, without a digest.
    Raises: CheckpointError if the file is missing, damaged, foreign, or not finite.
    """
    path = find_adapter(path)
    tensors, metadata = read_safetensors(path)
    record = AdapterRecord.from_metadata(metadata, path)
    if DIGEST not in metadata:
        unknown = f"{path} carries no SHA-256 of itself ({DIGEST!r} in its metadata)"
        if FORMAT in metadata:
            raise CheckpointError(f"{unknown}: it is damaged, or another program wrote it")
        warnings.warn(
            f"{unknown}: an older version wrote it; damage to it stays unnoticed until "
            "it is loaded and saved again",
            stacklevel=3,
        )
    for key, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {key} contains NaN or infinity")
    return AdapterFile(path, record, tensors)


def find_adapter(path: str | Path) -> Path:
    """The adapter file of a run's folder, or the file itself. Raises: CheckpointError if none."""
    path = Path(path).expanduser()
    try:
        if path.is_file():
            return path
        refuse_foreign(path)
        for method in METHODS:
            if (path / f"{method}.safetensors").is_file():
                return path / f"{method}.safetensors"
    except OSError as error:  # too long a name
        raise CheckpointError(f"cannot read {str(path)[:200]}: {error.strerror}") from error
    names = " or ".join(f"{method}.safetensors" for method in METHODS)
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path} is not there: expected an adapter file or a run's folder")
    raise CheckpointError(f"{path} is not a run: no {names} there; train one first")


def load_adapter(
    file: str | Path | AdapterFile,
    model: Module,
    name: str | None = None,
    head: bool = True,
    base_fingerprint: str | None = None,
    factory: AdapterFactory | None = None,
) -> str | None:
    """Insert what an adapter file holds into a model, trainable and active.

    Returns the name of the adapter; of a stack that of the last one, None for a head alone. `name`
    is what a single adapter or a fusion is called in the model (default: as in the file).
    `base_fingerprint` is that of the model's base, where it is known already; `factory` makes the
    adapters that a factory of the user's made. A transformer alone
    takes no head. Where a run trained parameters of the base, those are changed.
    Raises: CheckpointError for a file that cannot be read, or does not fit; ConfigError if a name
    is taken. Then nothing has changed.
    """
    file = file if isinstance(file, AdapterFile) else read_adapter(file)
    record, (transformer, head_parameters) = file.record, parts(model)
    check_base(file, base_fingerprint or fingerprint(transformer))
    check_sizes(file, transformer)
    if head and model is not transformer:
        check_head(file, head_parameters, pooling_of(model))
    else:
        head_parameters = {}
    check_factory(file.path, record.factories, factory)
    new_names = names_in_model(file, name)
    active = [new_names[old] for old in record.active]

    before = transformer.adapter_names
    try:
        with transformer.restored():
            for old, config in record.adapters.items():
                own = factory if old in record.factories else None
                transformer.add_method(new_names[old], config, factory=own)
                if own_class(transformer, new_names[old]) != record.factories.get(old):
                    raise CheckpointError(
                        f"{file.path}: {old!r} is {record.factories[old]}, but "
                        f"the factory made {own_class(transformer, new_names[old])}"
                    )
            for old, sources in record.fusions.items():
                transformer.add_fusion(new_names[old], [new_names[source] for source in sources])
            places = {
                **base_parameters(transformer, record.base_part),
                **adapter_parameters(transformer, active),
                **head_parameters,
            }
        tensors = {renamed(key, new_names): tensor for key, tensor in file.tensors.items()}
        if not head_parameters:
            tensors = {k: tensor for k, tensor in tensors.items() if not k.startswith("head.")}
        fill(places, tensors, file.path)
    except MiniTransformerError:
        for added in set(transformer.adapter_names) - set(before):
            transformer.delete_adapter(added)
        raise
    if active:
        transformer.set_active(*active)
    return active[-1] if active else None


def check_sizes(file: AdapterFile, transformer: Adaptable) -> None:
    """Refuse a record that asks for more than the file holds, before any of it is built.

    Raises: CheckpointError.
    """
    held: dict[str, int] = {}  # name -> values
    for key, tensor in file.tensors.items():
        name = key.partition(".adapters.")[2].partition(".")[0]
        held[name] = held.get(name, 0) + tensor.size
    empty = file.record.adapters.keys() - held.keys()
    if empty - {*file.record.factories}:
        raise CheckpointError(
            f"{file.path} does not fit: it holds nothing of {listed(sorted(empty))}"
        )
    check_count(file.record.adapters, file.record.fusions, file.path)
    d, blocks = transformer.config.d_model, len(transformer.blocks)
    asked_of_all = 0.0
    for name, config in file.record.adapters.items():
        if name in file.record.factories:  # how large it is, its class says
            continue
        own = held[name]
        places = blocks if config.layers is None else len(config.layers)
        what, size = size_of(config, d)
        asked = size * d * places  # the least that any method has
        if asked > own + BUILT_ANYWAY:
            raise CheckpointError(
                f"{file.path} does not fit: {what}={size} in {places} blocks of width {d}, "
                f"but the tensors of {name!r} have {own:,} values"
            )
        asked_of_all += asked
    if asked_of_all > sum(held.values()) + BUILT_ANYWAY:
        raise CheckpointError(
            f"{file.path} does not fit: its {len(file.record.adapters)} adapters have "
            f"{asked_of_all:,.0f} values or more, but their tensors {sum(held.values()):,}"
        )
    n_fused = len(file.record.fusions)
    if n_fused * d * d > sum(t.size for t in file.tensors.values()) + BUILT_ANYWAY:
        raise CheckpointError(f"{file.path} does not fit: it holds no {n_fused} fusions")


def check_count(adapters: Iterable[str], fusions: Mapping[str, Sequence[str]], path: Path) -> None:
    """Raises: CheckpointError for more adapters than one file may hold."""
    modules = dict.fromkeys(adapters, 1)  # name -> adapters and fusions that it is made of
    n = len(modules)
    for name, sources in fusions.items():
        modules[name] = min(1 + sum(modules.get(s, 1) for s in sources), MOST_IN_A_FILE)
        n += modules[name]
    if n > MOST_IN_A_FILE:
        raise CheckpointError(
            f"{path} has more than {MOST_IN_A_FILE} adapters (those in a fusion count once more): "
            "too many for one file, use several"
        )


def names_in_model(file: AdapterFile, name: str | None) -> dict[str, str]:
    """The name of each adapter in the file -> its name in the model.

    Raises: ConfigError for a new name where there is not exactly one adapter or fusion to call so.
    """
    record = file.record
    names = {old: old for old in (*record.adapters, *record.fusions)}
    if name is not None:
        if len(record.active) != 1:
            stack = listed(record.active)
            raise ConfigError(
                f"name={name!r}: only a single adapter gets another name; {file.path} holds {stack}"
            )
        names[record.active[0]] = name
    return names


def renamed(key: str, names: Mapping[str, str]) -> str:
    """blocks.0.ffn.adapters.OLD.up.bias -> blocks.0.ffn.adapters.NEW.up.bias"""
    before, adapters, rest = key.partition(".adapters.")
    name, dot, parameter = rest.partition(".")
    return before + adapters + names.get(name, name) + dot + parameter


def fill(places: Mapping[str, Parameter], tensors: Mapping[str, Array], path: Path) -> None:
    """Copy tensors into parameters of the same names.

    Raises: CheckpointError that lists all missing, unexpected and mis-shaped names together;
    then nothing has changed.
    """
    problems = [f"missing: {key}" for key in places.keys() - tensors.keys()]
    problems += [f"unexpected: {key}" for key in tensors.keys() - places.keys()]
    problems += [
        f"wrong shape: {key} is {tensors[key].shape}, expected {places[key].shape}"
        for key in places.keys() & tensors.keys()
        if tensors[key].shape != places[key].shape
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit:\n  {summed_up(problems)}")
    for key, parameter in places.items():
        parameter.value[...] = tensors[key]


# -- the base, and the head ----------------------------------------------------------------


def fingerprint(base: Module) -> str:
    """SHA-256 of a base: what its configuration says of the answers, and its weights in float32.

    Equal before and after adapter training, and different for any other base: with the same
    weights, another number of heads or another activation gives other answers, too. Adapters are
    left out, and so is dropout, which is for training.
    Raises: ConfigError while adapters are merged into the weights.
    """
    digest = hashlib.sha256()
    if isinstance(base, Adaptable):
        base.check_unmerged("save, load or compare adapters")
        words = {
            entry.name: value
            for entry in fields(base.config)
            if (value := getattr(base.config, entry.name)) != entry.default
            and "dropout" not in entry.name
        }  # without defaults: an option that is added later changes no fingerprint
        digest.update(json.dumps(words, sort_keys=True).encode())
    for name, parameter in sorted(base.named_parameters()):
        if ".adapters." not in name:
            value = np.ascontiguousarray(parameter.value, np.float32)
            digest.update(f"{name} {value.shape}\n".encode())
            digest.update(value.data)
    return digest.hexdigest()


def check_base(file: AdapterFile, found: str) -> None:
    """Raises: CheckpointError if the adapter was trained on another base than `found`."""
    record = file.record
    if record.fingerprint != found:
        name = repr(record.base) if record.base else "the base"
        raise CheckpointError(
            f"{file.path} was trained on another base: it needs {name} with fingerprint "
            f"{record.fingerprint}, this one has {found}"
        )


def check_tokenizer(file: AdapterFile, found: str) -> None:
    """Raises: CheckpointError if the adapter was trained on ids of another tokenizer than `found`.

    A file that does not say which one it was passes.
    """
    record = file.record
    if record.tokenizer and record.tokenizer != found:
        name = repr(record.base) if record.base else "the base"
        raise CheckpointError(
            f"{file.path} was trained with another tokenizer: it needs that of {name} with "
            f"fingerprint {record.tokenizer}, this one has {found}; with it, the same text would "
            "become other token ids"
        )


def check_head(
    file: AdapterFile, head_parameters: Mapping[str, Parameter], pooling: str | None
) -> None:
    """Raises: CheckpointError if the file and the model have not the same kind of head."""
    in_file = any(key.startswith("head.") for key in file.tensors)
    if in_file != bool(head_parameters):
        has, lacks = (file.path, "this model") if in_file else ("this model", file.path)
        raise CheckpointError(
            f"{has} has a head with weights of its own, {lacks} has not; "
            "load_adapter(path, head=False) loads the adapters alone"
        )
    if in_file and file.record.pooling != pooling:
        raise CheckpointError(
            f"the head in {file.path} was trained with pooling={file.record.pooling!r}, this "
            f"model has {pooling!r}; load_adapter(path, head=False) loads the adapters alone"
        )

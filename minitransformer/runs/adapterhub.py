"""Trained runs as folders of the `adapters` library (AdapterHub): export and import."""

from __future__ import annotations

import re
from pathlib import Path

from ..data.hub import find_checkpoint
from ..errors import CheckpointError, ConfigError
from ..formats.adapter_file import AdapterRecord, fingerprint, read_adapter, save_adapter
from ..formats.adapterhub import (
    AdapterHubHead,
    load_adapterhub,
    new_folder,
    read_folder,
    read_head,
    save_adapterhub,
)
from ..models.heads import Classifier, LanguageModel
from ..models.transformer import Transformer
from .classification import Run, run_from
from .language_modeling import LanguageRun, language_run_from
from .options import ADAPTER_NAME, RunOptions


def open_run(folder: str | Path, base: str | Path | None = None) -> Run | LanguageRun:
    """A trained run from its folder: of a task, or of a language model. See `load_run`."""
    file = read_adapter(folder)
    return run_from(file, base) if file.record.label_names else language_run_from(file, base)


def export_adapterhub(
    run: Run | LanguageRun | str | Path, folder: str | Path, name: str | None = None
) -> Path:
    """Write a run's adapter, and its head if it has one, as a folder of the `adapters` library.

    There, on the same base (for a task an `AutoAdapterModel`):
    `model.load_adapter(folder, use_safetensors=True, set_active=True)`. `name` is what adapter and
    head are called there; default: the task. Returns the folder.
    Raises: ConfigError if the folder exists; CheckpointError for a run that has no equivalent
    there: of another method than adapters, with layer norms that were trained too, or with a head
    on the mean of all positions.
    """
    if not isinstance(run, Run | LanguageRun):
        run = open_run(run)
    record, model = run.record, run.model
    if record is None or run.adapter is None:
        method = record.method if record is not None else "none"
        raise CheckpointError(f"method {method!r}: only adapters can be exported")
    if record.base_part != "none":
        raise CheckpointError(
            "layer norms of the base were trained too: the `adapters` library has no place for "
            "them beside an adapter; train without layer_norm"
        )
    head = adapterhub_head(model, record) if isinstance(model, Classifier) else None
    return save_adapterhub(
        model.transformer,
        run.adapter,
        folder,
        head,
        called=name if name is not None else re.sub(r"[^\w-]+", "_", record.task),
        model_name=record.base,
        origin={
            "task": record.task,
            "max_length": record.max_length,
            "fingerprint": record.fingerprint,
        },
    )


def adapterhub_head(model: Classifier, record: AdapterRecord) -> AdapterHubHead:
    """The head of a run. Raises: CheckpointError for one that `adapters` does not have."""
    if record.pooling not in ("cls", "pooler"):
        raise CheckpointError(
            f"pooling {record.pooling!r}: the classification head of the `adapters` library reads "
            "the first position; train with cls or pooler"
        )
    linear = model.head.linear
    weight, bias = linear.weight.value, linear.bias.value
    return AdapterHubHead(record.label_names, record.pooling, weight, bias)


def import_adapterhub(
    folder: str | Path, base: str | Path, out: str | Path, max_length: int | None = None
) -> Path:
    """Make a run of a folder that the `adapters` library saved with `use_safetensors=True`.

    `out` receives `adapter.safetensors`; `load_run(out)`, `minitransformer predict` and `evaluate`
    take it from there, or `generate` for the adapter of a GPT-2. `base` is the base that it was
    trained on, under a name that this library knows. Texts are cut to `max_length` tokens (default:
    what the run was trained with if it was exported from here, else that of a new run).
    Returns the new folder.
    Raises: ConfigError if `out` exists or max_length cannot be; CheckpointError for a folder that
    cannot be read, belongs to another base, or holds what has no equivalent here; and for an
    encoder's adapter without a head, which predicts nothing: `load_adapterhub` inserts it into a
    Transformer.
    """
    out = Path(out).expanduser()
    if max_length is not None and (not isinstance(max_length, int) or max_length < 1):
        raise ConfigError(f"max_length={max_length!r}: expected a whole number above 0")
    found, head = read_folder(folder), read_head(folder)
    transformer = Transformer.from_pretrained(find_checkpoint(base))
    if head is None and not transformer.config.causal:
        raise CheckpointError(
            f"{found.path} holds an adapter without a head, so it predicts nothing; in Python, "
            "formats.adapterhub.load_adapterhub(transformer, folder) inserts it into a base"
        )
    own, trained_on = fingerprint(transformer), found.origin.get("fingerprint")
    if trained_on not in (None, own):
        raise CheckpointError(
            f"{found.path} was trained on another base: it needs one with fingerprint "
            f"{trained_on}, {base} has {own}"
        )
    transformer.freeze()
    load_adapterhub(transformer, found, ADAPTER_NAME)
    model: Classifier | LanguageModel
    if head is None:
        model = LanguageModel(transformer)
    else:
        model = Classifier(transformer, len(head.label_names), head.pooling)
        model.head.linear.load_state_dict({"weight": head.weight, "bias": head.bias})
    length = max_length or found.origin.get("max_length", RunOptions.max_length)
    with new_folder(out) as temporary:
        save_adapter(
            temporary / "adapter.safetensors",
            model,
            [ADAPTER_NAME],
            base_fingerprint=own,
            base=str(base),
            task=str(found.origin.get("task", found.name)),
            label_names=head.label_names if head is not None else (),
            max_length=min(length, transformer.config.max_positions),
        )
    return out

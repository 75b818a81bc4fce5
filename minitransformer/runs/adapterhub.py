"""Trained runs as folders of the `adapters` library (AdapterHub): export and import."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import CheckpointError
from ..formats.adapterhub import load_adapterhub, read_folder, read_head, save_adapterhub
from .card import model_card
from .classification import Run
from .exchange import base_for, exported_adapter, exported_head, open_run, origin_of, write_run
from .language_modeling import LanguageRun
from .model import ADAPTER_NAME


def export_adapterhub(
    run: Run | LanguageRun | str | Path, folder: str | Path, name: str | None = None
) -> Path:
    """Write a run's adapter, and its head if it has one, as a folder of the `adapters` library.

    There, on the same base (for a task an `AutoAdapterModel`):
    `model.load_adapter(folder, use_safetensors=True, set_active=True)`. `name` is what adapter and
    head are called there; default: the task. README.md is a model card. Returns the folder.
    Raises: ConfigError if the folder exists; CheckpointError for a run that has no equivalent
    there: of another method than adapters, with layer norms that were trained too, or with a head
    on the mean of all positions.
    """
    run = run if isinstance(run, Run | LanguageRun) else open_run(run)
    record, adapter = exported_adapter(run)
    head = exported_head(run, record)
    if head is not None and head.pooling not in ("cls", "pooler"):
        raise CheckpointError(
            f"pooling {head.pooling!r}: the classification head of the `adapters` library reads "
            "the first position; train with cls or pooler"
        )
    return save_adapterhub(
        run.model.transformer,
        adapter,
        folder,
        head,
        called=name if name is not None else re.sub(r"[^\w-]+", "_", record.task),
        model_name=record.base,
        origin=origin_of(record),
        card=model_card(run, Path(folder), "adapters"),
    )


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
    found, head = read_folder(folder), read_head(folder)
    transformer = base_for(found.path, base, found.origin, max_length)
    load_adapterhub(transformer, found, ADAPTER_NAME)
    out = Path(out).expanduser()
    write_run(out, transformer, head, found.origin, base, found.name, max_length, found.path)
    return out

"""Trained runs that travel: to the `adapters` library (AdapterHub) and from there."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import CheckpointError, ConfigError
from ..formats.adapter_file import (
    AdapterRecord,
    check_base,
    fingerprint,
    read_adapter,
    save_adapter,
)
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
from ..nn.module import Module
from .classification import Run, load_run
from .folder import adapter_path
from .language_modeling import LanguageRun, load_language_run
from .options import ADAPTER_NAME, RunOptions


def open_run(folder: str | Path, base: str | Path | None = None) -> Run | LanguageRun:
    """A trained run from its folder: of a task, or of a language model. See `load_run`."""
    record, _ = read_adapter(adapter_path(Path(folder).expanduser()))
    return load_run(folder, base) if record.label_names else load_language_run(folder, base=base)


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
    if record is None or record.method != "adapter":
        method = record.method if record is not None else "none"
        raise CheckpointError(f"method {method!r}: only what adapters learnt can travel")
    check_trained(model)
    head = adapterhub_head(model, record) if isinstance(model, Classifier) else None
    return save_adapterhub(
        model.transformer,
        ADAPTER_NAME,
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


def check_trained(model: Module) -> None:
    """Raises: CheckpointError if the base's own layer norms were trained beside the adapters."""
    own = (f".adapters.{ADAPTER_NAME}.", "head.")
    others = [key for key in model.trainable_parameters() if not any(part in key for part in own)]
    if others:
        raise CheckpointError(
            f"layer norms of the base were trained too ({others[0]} and {len(others) - 1} more): "
            "the other side has no place for them beside an adapter; train without layer_norm"
        )


def adapterhub_head(model: Classifier, record: AdapterRecord) -> AdapterHubHead:
    """The head of a run. Raises: CheckpointError for one that the other side does not know."""
    if record.pooling not in ("cls", "pooler"):
        raise CheckpointError(
            f"pooling {record.pooling!r}: the classification head of the `adapters` library reads "
            "the first position; train with cls or pooler"
        )
    linear = model.head.linear
    return AdapterHubHead(
        record.label_names, record.pooling, linear.weight.value, linear.bias.value
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
    encoder's adapter without a head, which answers nothing: `load_adapterhub` inserts it into a
    Transformer.
    """
    out = Path(out).expanduser()
    found, head = read_folder(folder), read_head(folder)
    transformer = Transformer.from_pretrained(base)
    if head is None and not transformer.config.causal:
        raise CheckpointError(
            f"{found.path} holds an adapter without a head, so it answers nothing; in Python, "
            "adapters.exchange.load_adapterhub(transformer, folder) inserts it into a base"
        )
    if max_length is None:
        max_length = found.origin.get("max_length", RunOptions.max_length)
    if not isinstance(max_length, int) or max_length < 1:
        raise ConfigError(f"max_length={max_length!r}: expected a whole number above 0")
    transformer.freeze()
    load_adapterhub(transformer, found, ADAPTER_NAME)
    record = AdapterRecord(
        fingerprint=str(found.origin.get("fingerprint", fingerprint(transformer))),
        base=str(base),
        method="adapter",
        task=str(found.origin.get("task", found.name)),
        label_names=head.label_names if head is not None else (),
        pooling=head.pooling if head is not None else RunOptions.pooling,
        max_length=min(max_length, transformer.config.max_positions),
        adapter=transformer.adapter_config(ADAPTER_NAME),
    )
    check_base(record, fingerprint(transformer), found.path)
    model: Module
    if head is None:
        model = LanguageModel(transformer)
    else:
        model = Classifier(transformer, len(head.label_names), head.pooling)
        model.head.linear.load_state_dict({"weight": head.weight, "bias": head.bias})
    with new_folder(out) as temporary:
        save_adapter(temporary / "adapter.safetensors", model, record, ADAPTER_NAME)
    return out

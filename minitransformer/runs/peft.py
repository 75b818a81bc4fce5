"""Trained runs of LoRA and (IA)^3 as PEFT's folders: export and import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError
from ..formats.peft import load_peft, read_head, read_peft, save_peft
from .card import model_card
from .classification import Run
from .exchange import base_for, exported_adapter, exported_head, open_run, origin_of, write_run
from .language_modeling import LanguageRun
from .model import ADAPTER_NAME


def export_peft(run: Run | LanguageRun | str | Path, folder: str | Path) -> Path:
    """Write a run of LoRA or (IA)^3, and its head if it has one, as a folder that PEFT loads.

    There: `PeftModel.from_pretrained(base, folder)`, where `base` is the same base: for a task a
    BertForSequenceClassification with as many labels, for a language model a GPT2LMHeadModel.
    Its README.md is a model card. Returns the folder.
    Raises: ConfigError if the folder exists; CheckpointError for a run that has no equivalent
    there: of another method, with layer norms that were trained too, or with a head that does not
    read BERT's pooler.
    """
    run = run if isinstance(run, Run | LanguageRun) else open_run(run)
    record, adapter = exported_adapter(run)
    head, origin = exported_head(run, record), origin_of(record)
    card = model_card(run, Path(folder), "peft")
    return save_peft(run.model.transformer, adapter, folder, head, record.base, origin, card)


def import_peft(
    folder: str | Path,
    base: str | Path,
    out: str | Path,
    max_length: int | None = None,
    label_names: Sequence[str] | None = None,
) -> Path:
    """Make a run of a folder that PEFT saved: a LoRA or an (IA)^3, for an encoder with classifier.

    `out` receives `lora.safetensors` or `ia3.safetensors`; `load_run(out)`, `minitransformer
    predict` and `evaluate` take it from there, or `generate` for a GPT-2's. `base` is the base that
    it was trained on, under a name that this library knows. Texts are cut to `max_length` tokens
    (default: what the run was trained with if it was exported from here, else that of a new run).
    PEFT keeps no label names: `label_names` are those of the classes in order (default: as
    exported from here, else numbers).
    Returns the new folder.
    Raises: ConfigError if `out` exists, or max_length or the labels cannot be; CheckpointError for
    a folder that cannot be read, does not fit the base, or holds what has no equivalent here; and
    for an encoder's adapter without a head: `load_peft` inserts it into a Transformer.
    """
    found = read_peft(folder)
    transformer = base_for(found.path, base, found.origin, max_length)
    load_peft(transformer, found, ADAPTER_NAME)
    head = read_head(found, transformer.config)
    if label_names is not None:
        n = len(head.label_names) if head is not None else 0
        if len(set(label_names)) != n or len(label_names) != n:
            raise ConfigError(f"label_names={list(label_names)}: expected {n} different names")
        assert head is not None
        head = replace(head, label_names=tuple(label_names))
    out, name = Path(out).expanduser(), found.path.resolve().name
    write_run(out, transformer, head, found.origin, base, name, max_length, found.path)
    return out

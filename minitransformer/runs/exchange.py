"""What runs exported to other libraries and imported from them have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..adapters.config import is_whole
from ..data.hub import find_checkpoint
from ..errors import CheckpointError, ConfigError
from ..formats.adapter_file import fingerprint, read_adapter, save_adapter
from ..formats.adapter_record import AdapterRecord
from ..formats.folders import LinearHead, Words, new_folder
from ..models.heads import Classifier, LanguageModel, Regressor
from ..models.transformer import Transformer
from .classification import Run, run_from
from .language_modeling import LanguageRun, language_run_from
from .model import ADAPTER_NAME
from .options import RunOptions


def open_run(folder: str | Path, base: str | Path | None = None) -> Run | LanguageRun:
    """A trained run from its folder: of a task, or of a language model. See `load_run`."""
    file = read_adapter(folder)
    return run_from(file, base) if file.record.label_names else language_run_from(file, base)


def exported_adapter(run: Run | LanguageRun) -> tuple[AdapterRecord, str]:
    """A run's record, and the name of its adapter in its model.

    Raises: CheckpointError for a run of another method, or with layer norms that were trained too.
    """
    record = run.record
    if record is None or run.adapter is None:
        method = record.method if record is not None else "none"
        raise CheckpointError(f"method {method!r}: only adapters can be exported")
    if record.base_part != "none":
        raise CheckpointError(
            "layer norms of the base were trained too: the other library has no place for them "
            "beside an adapter; train without layer_norm"
        )
    return record, run.adapter


def exported_head(run: Run | LanguageRun, record: AdapterRecord) -> LinearHead | None:
    """A run's classifier; None of a language model.

    Raises: CheckpointError for a run that predicts a number.
    """
    if not isinstance(run.model, Classifier):
        return None
    if isinstance(run.model, Regressor):
        raise CheckpointError(
            "this run predicts a number: only heads for classes can be exported; in Python, "
            "run.model.transformer holds the adapter"
        )
    linear = run.model.head.linear
    pooling = run.model.pooling.kind
    return LinearHead(record.label_names, pooling, linear.weight.value, linear.bias.value)


def origin_of(record: AdapterRecord) -> Words:
    """What an import of an exported folder should know."""
    return {
        "task": record.task,
        "max_length": record.max_length,
        "pair": record.pair,
        "fingerprint": record.fingerprint,
        "tokenizer": record.tokenizer,
    }


def base_for(
    path: Path, base: str | Path, origin: Mapping[str, Any], max_length: int | None
) -> Transformer:
    """The frozen base for a folder that is imported.

    Raises: ConfigError if max_length cannot be; CheckpointError if the folder was exported from
    here and says that it belongs to another base.
    """
    if max_length is not None and (not isinstance(max_length, int) or max_length < 1):
        raise ConfigError(f"max_length={max_length!r}: expected a whole number above 0")
    length = origin.get("max_length", 1)
    if not is_whole(length) or length < 1:
        raise CheckpointError(f"{path}: max_length={length!r}: expected a whole number above 0")
    transformer = Transformer.from_pretrained(find_checkpoint(base))
    own, trained_on = fingerprint(transformer), origin.get("fingerprint")
    if trained_on not in (None, own):
        raise CheckpointError(
            f"{path} was trained on another base: it needs one with fingerprint "
            f"{trained_on}, {base} has {own}"
        )
    return transformer.freeze()


def write_run(
    out: Path,
    transformer: Transformer,
    head: LinearHead | None,
    origin: Mapping[str, Any],
    base: str | Path,
    task: str,
    max_length: int | None,
    path: Path,
) -> None:
    """Write the imported adapter in `transformer`, and the head on it, as the folder of a run.

    Raises: ConfigError if `out` exists; CheckpointError for an encoder without a head, which
    predicts nothing.
    """
    model: Classifier | LanguageModel
    if head is not None:
        model = Classifier(transformer, len(head.label_names), head.pooling)
        model.head.linear.load_state_dict({"weight": head.weight, "bias": head.bias})
    elif transformer.config.causal:
        model = LanguageModel(transformer)
    else:
        raise CheckpointError(
            f"{path} holds an adapter without a head, so it predicts nothing; in Python, load_peft "
            "or load_adapterhub in minitransformer.formats inserts it into a base"
        )
    length = max_length or origin.get("max_length", RunOptions.max_length)
    method = transformer.adapter_config(ADAPTER_NAME).method
    with new_folder(out) as temporary:
        save_adapter(
            temporary / f"{method}.safetensors",
            model,
            [ADAPTER_NAME],
            tokenizer=str(origin.get("tokenizer", "")),  # load_run compares it with the base's
            base=str(base),
            method=method,
            task=str(origin.get("task", task)),
            label_names=head.label_names if head is not None else (),
            max_length=min(length, transformer.config.max_length),
            pair=bool(origin.get("pair", False)),
        )

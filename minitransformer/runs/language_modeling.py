"""Language models: a small decoder pretrained from scratch, and adapted to another style.

The base learns one text; adapters learn another one while it is frozen. Switched off, they leave a
base that writes, and measures, as before to the last bit.
"""

from __future__ import annotations

import json
import math
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..adapters.config import AdapterConfig
from ..data.corpus import load_corpus, windows
from ..data.hub import find_checkpoint
from ..data.tokenization import Tokenizer
from ..errors import CheckpointError, ConfigError
from ..formats.adapter_file import (
    AdapterRecord,
    check_base,
    fingerprint,
    load_values,
    read_adapter,
    save_adapter,
)
from ..formats.files import write_text
from ..models.generation import generate
from ..models.heads import LanguageModel
from ..models.transformer import Transformer
from ..nn.module import Array
from ..plots import plot_history
from ..training.evaluation import perplexity
from ..training.process import cores
from ..training.trainer import Trainer
from .folder import RunFolder, adapter_path, folder_and_options, peak_memory_mb, read_text
from .options import ADAPTER_NAME, PretrainOptions, RunOptions

OWN_TEXT = "held-out.txt"  # in a base's folder: text of its own that it was not trained on


class LanguageRun(RunFolder):
    """A language model that continues texts, perhaps with an adapter.

    Made by `pretrain`, `train_language` or `load_language_run`. `record` is the adapter's, or
    None.
    """

    def __init__(
        self,
        folder: Path,
        model: LanguageModel,
        tokenizer: Tokenizer,
        record: AdapterRecord | None = None,
    ) -> None:
        self.folder, self.model, self.tokenizer, self.record = folder, model, tokenizer, record

    def write(
        self,
        prompt: str = "",
        tokens: int = 200,
        *,
        adapter: bool = True,
        temperature: float | None = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> str:
        """The prompt and what the model makes of it; `adapter=False`: the base alone.

        Without a prompt it begins a paragraph. The options are those of `generate`.
        Raises: ConfigError for an option out of range.
        """
        ids = np.array(self.tokenizer.encode([prompt or "\n\n"]))
        transformer = self.model.transformer
        active = transformer.active_adapters
        transformer.set_active(*(active if adapter else ()))
        try:
            found = generate(
                self.model,
                ids,
                tokens,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                rng=np.random.default_rng(seed),
            )
        finally:
            transformer.set_active(*active)
        return self.tokenizer.decode(found[0]).lstrip("\n" if not prompt else "")


def load_language_run(
    folder: str | Path, adapter: str | Path | None = None, base: str | Path | None = None
) -> LanguageRun:
    """A decoder from its folder (or name), with the adapter of a run if asked for.

    Instead of the decoder's, `folder` may be that of a run, which knows its base; `base` says
    where that lies now, if it was moved.
    Raises: CheckpointError if the adapter belongs to another base or is no language model's;
    ConfigError if the base is not causal; HubError if there is no such folder.
    """
    if adapter is None and is_run(folder):
        adapter = folder
    if adapter is None:
        path = find_checkpoint(folder)
        model = LanguageModel(decoder(folder))
        model.eval()
        return LanguageRun(path, model, Tokenizer.from_pretrained(folder))

    path = adapter_path(Path(adapter).expanduser())
    record, tensors = read_adapter(path)
    if record.label_names or record.adapter is None:
        raise CheckpointError(f"{path} is no language model's: it answers with labels; see predict")
    if base is None:
        base = record.base if is_run(folder) else folder
    transformer = decoder(base)
    check_base(record, fingerprint(transformer), path)
    model = LanguageModel(transformer)
    insert_adapter(model, record.adapter)
    load_values(model, tensors, ADAPTER_NAME, path)
    model.eval()
    return LanguageRun(path.parent, model, Tokenizer.from_pretrained(base), record)


def is_run(folder: str | Path) -> bool:
    """Whether there is an adapter file."""
    try:
        return adapter_path(Path(folder).expanduser()).is_file()
    except CheckpointError:
        return False


def decoder(base: str | Path, dropout: float | None = 0.0) -> Transformer:
    """A causal base. Raises: ConfigError if it is an encoder."""
    transformer = Transformer.from_pretrained(base, dropout)
    if not transformer.config.causal:
        raise ConfigError(
            f"{str(base)!r} is an encoder, which cannot write; give a folder that "
            "`minitransformer pretrain` made, or another GPT-2"
        )
    return transformer


def insert_adapter(
    model: LanguageModel, config: AdapterConfig, rng: np.random.Generator | None = None
) -> None:
    """Freeze everything; what trains is an adapter."""
    model.freeze()
    model.transformer.add_adapter(ADAPTER_NAME, config, rng)


# -- pretraining --------------------------------------------------------------------------


def pretrain(
    text: str | Path = "shakespeare-comedies",
    options: PretrainOptions | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> LanguageRun:
    """Train a tokenizer and a small decoder on a text: what `minitransformer pretrain` does.

    The folder (default: runs/TEXT-base-seedN) is then a base in the Hugging Face layout of GPT-2
    (`config.json`, `model.safetensors`, `tokenizer.json`) with the weights of the best epoch; also
    `held-out.txt`, `history.csv`, `curves.png`, `metrics.json` and `options.json`. Ctrl-C and
    `resume` as in `train`.

    Raises: ConfigError if the folder holds a run already, or (resume) none that can go on;
    DataError, HubError for a text that cannot be used; TrainingError if the loss is not finite.
    """
    folder, options = folder_and_options(text, options, PretrainOptions, out, resume)
    options = replace(options, threads=options.threads or cores())
    corpus = load_corpus(text)
    if resume:
        tokenizer = Tokenizer.from_folder(folder)
    else:
        tokenizer = Tokenizer.train_bpe([corpus.train], options.vocab_size)
        tokenizer.save(folder)
        write_text(folder / OWN_TEXT, corpus.held_out)
    tokens = Tokens(*(encode(tokenizer, part) for part in corpus.parts))
    model = LanguageModel(new_decoder(options, tokenizer.vocab_size))

    trainer = fit(model, tokens, options.block_size, text, options, folder, resume, progress)
    model.transformer.save_pretrained(folder, tokenizer)
    title = f"{corpus.name}: a decoder of {len(model.transformer.blocks)} blocks from scratch"
    record_of(trainer, title, folder)
    metrics = {"text": corpus.name, **options.to_dict(), **measured(trainer, tokens)}
    if not trainer.interrupted:
        found = perplexity(model, tokens.held_out, options.block_size, threads=options.threads)
        metrics["held_out_perplexity"] = found
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    model.eval()
    return LanguageRun(folder, model, tokenizer)


def new_decoder(options: PretrainOptions, vocab_size: int) -> Transformer:
    """A decoder with GPT-2's start values, which follow from the seed alone.

    Truncated normal with sigma 0.02; what adds to the residual stream, twice a block, is scaled by
    1 / sqrt(2 n_layers), so that the stream does not grow with depth (Radford et al. 2019, section
    2.3).
    """
    rng = np.random.default_rng([options.training.seed, 1])
    transformer = Transformer(options.config(vocab_size), rng)
    for block in transformer.blocks:
        for projection in (block.attention.module.out, block.ffn.module.down):
            projection.weight.value *= np.float32(1 / math.sqrt(2 * options.n_layers))
    return transformer


# -- another style ------------------------------------------------------------------------


def train_language(
    text: str | Path,
    options: RunOptions | None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> LanguageRun:
    """Adapt a decoder to another text, the base frozen: what `minitransformer train --lm` does.

    Of the options, those about heads and labels are not used; `max_length` is the window. The
    folder receives `adapter.safetensors` (the best epoch), `history.csv`, `curves.png`,
    `metrics.json` (perplexities with the adapter and without, those of the base on text of its own
    before and after) and `options.json`. Ctrl-C and `resume` as in `train`.

    Raises: ConfigError for a base that is not causal or a method other than adapters; else as
    `pretrain`.
    """
    folder, options = folder_and_options(text, options, RunOptions, out, resume)
    if options.method != "adapter":
        raise ConfigError(f"method={options.method!r}: a language model is adapted with adapters")
    corpus = load_corpus(text)
    tokenizer = Tokenizer.from_pretrained(options.base)
    transformer = decoder(options.base, options.dropout)
    block_size = min(options.max_length, transformer.config.max_positions)
    threads = options.threads or cores()
    options = replace(options, max_length=block_size, threads=threads)
    tokens = Tokens(*(encode(tokenizer, part) for part in corpus.parts))
    model = LanguageModel(transformer)

    def perplexity_on(ids: Array | None) -> float | None:
        return perplexity(model, ids, threads=threads) if ids is not None else None

    own_file = find_checkpoint(options.base) / OWN_TEXT
    own = encode(tokenizer, read_text(own_file)) if own_file.is_file() else None
    fingerprint_before, own_before = fingerprint(transformer), perplexity_on(own)

    seed = options.training.seed
    insert_adapter(model, options.adapter, np.random.default_rng([seed, 2]))
    folder.mkdir(parents=True, exist_ok=True)
    trainer = fit(model, tokens, block_size, text, options, folder, resume, progress)
    record = AdapterRecord(
        fingerprint=fingerprint_before,
        base=options.base,
        method=options.method,
        task=corpus.name,
        label_names=(),
        pooling=options.pooling,
        max_length=block_size,
        adapter=options.adapter,
    )
    size = save_adapter(folder / "adapter.safetensors", model, record, ADAPTER_NAME)
    record_of(trainer, f"{corpus.name}: adapters on a frozen {options.base}", folder)
    metrics = {
        "text": corpus.name,
        **options.to_dict(),
        **measured(trainer, tokens),
        "file_bytes": size,
        "base_sha256_before": fingerprint_before,
        "base_sha256_after": fingerprint(transformer),
    }
    if not trainer.interrupted:
        metrics["perplexity_adapter_on"] = perplexity_on(tokens.held_out)
        transformer.set_active(None)
        metrics["perplexity_adapter_off"] = perplexity_on(tokens.held_out)
        metrics |= {
            "base_perplexity_before": own_before,
            "base_perplexity_after": perplexity_on(own),
        }
        transformer.set_active(ADAPTER_NAME)
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    model.eval()
    return LanguageRun(folder, model, tokenizer, record)


# -- what both do -------------------------------------------------------------------------


class Tokens(NamedTuple):
    """A corpus as token ids, (N,) each."""

    train: Array
    validation: Array
    held_out: Array


def encode(tokenizer: Tokenizer, text: str) -> Array:
    """(N,) token ids of one long text."""
    return np.array(tokenizer.encode([text])[0], np.int64)


def fit(
    model: LanguageModel,
    tokens: Tokens,
    block_size: int,
    text: str | Path,
    options: RunOptions | PretrainOptions,
    folder: Path,
    resume: bool,
    progress: bool,
) -> Trainer:
    """Train to the end or until Ctrl-C; the model then has the values of the best epoch."""
    trainer = Trainer(
        model,
        windows(tokens.train, block_size),
        windows(tokens.validation, block_size),
        options.training,
        folder / "state.safetensors",
        progress,
        options.threads,
        best_by="loss",
    )
    if resume:
        trainer.load_state()
    else:
        kept = {"task": str(text), **options.to_dict()}
        write_text(folder / "options.json", json.dumps(kept, indent=2) + "\n")
    trainer.fit()
    trainer.restore_best()
    return trainer


def record_of(trainer: Trainer, title: str, folder: Path) -> None:
    """Write the history and its picture; what was learnt is on disk already."""
    write_text(folder / "history.csv", trainer.history.to_csv())
    plot_history(trainer.history, title, folder / "curves.png", trainer.best_by)
    if not trainer.interrupted:
        (folder / "state.safetensors").unlink(missing_ok=True)


def measured(trainer: Trainer, tokens: Tokens) -> dict[str, Any]:
    """What a training run is remembered by, as plain values."""
    summary, best = trainer.model.summary(), trainer.history.best(trainer.best_by)
    return {
        "finished": not trainer.interrupted,
        "steps": trainer.step,
        "best_epoch": best.epoch if best else None,
        "validation_loss": best.validation_loss if best else None,
        "tokens": {name: len(part) for name, part in tokens._asdict().items()},
        "parameters": summary.total,
        "trainable_parameters": summary.trainable,
        "training_seconds": trainer.seconds,
        "peak_memory_mb": peak_memory_mb(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }

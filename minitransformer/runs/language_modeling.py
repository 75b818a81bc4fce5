"""Language models: a small decoder pretrained from scratch, and adapted to another text.

The base learns one text; adapters learn another one while it is frozen. Without them the base
generates, and measures, as before to the last bit.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..adapters.config import is_whole
from ..data.corpus import Corpus, load_corpus, windows
from ..data.hub import find_checkpoint
from ..data.tokenization import Tokenizer
from ..errors import CheckpointError, ConfigError
from ..formats.adapter_file import (
    AdapterFile,
    check_tokenizer,
    find_adapter,
    fingerprint,
    load_adapter,
    read_adapter,
    save_adapter,
)
from ..formats.adapter_record import AdapterRecord
from ..formats.files import write_text
from ..models.generation import generate
from ..models.heads import LanguageModel
from ..models.transformer import Transformer
from ..nn.module import Array
from ..training.evaluation import perplexity
from .folder import RunFolder, base_of, open_run, read_text
from .model import ADAPTER_NAME
from .options import PRETRAINED, WHAT_TRAINS, LanguageOptions, PretrainOptions, with_changes
from .pipeline import Job, base_digests, digest, train_in_folder

COMEDIES, HISTORIES = "shakespeare-comedies", "shakespeare-histories"  # the default texts
OWN_TEXT = "held-out.txt"  # in a base's folder: text of its own that it was not trained on


class LanguageRun(RunFolder):
    """A language model that continues texts, perhaps with an adapter.

    Made by `pretrain`, `train_language` or `load_language_run`.

    Attributes:
        folder: where it lies.
        model, tokenizer: the decoder, and what makes tokens of a text.
        record: what the adapter file says, or None without an adapter.
        adapter: the adapter's name in the model, or None.
    """

    def __init__(
        self,
        folder: Path,
        model: LanguageModel,
        tokenizer: Tokenizer,
        record: AdapterRecord | None = None,
        adapter: str | None = None,
    ) -> None:
        self.folder, self.model, self.tokenizer = folder, model, tokenizer
        self.record, self.adapter = record, adapter

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
        Raises: ConfigError for an option out of range, or top_k or top_p where nothing is drawn.
        """
        if not temperature and (top_k is not None or top_p is not None):
            raise ConfigError(
                f"top_k={top_k}, top_p={top_p} with temperature={temperature}: the most probable "
                "token is taken, nothing is drawn; leave them out, or give a temperature above 0"
            )
        if not is_whole(seed) or seed < 0:
            raise ConfigError(f"seed={seed!r}: expected a whole number, 0 or more")
        model = self.model.replica()  # has active adapters of its own
        if not adapter:
            model.transformer.set_active(None)
        found = generate(
            model,
            np.array(self.tokenizer.encode([prompt or "\n\n"])),
            tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            rng=np.random.default_rng(seed),
        )
        return self.tokenizer.decode(found[0]).lstrip("\n" if not prompt else "")


def load_language_run(
    folder: str | Path, adapter: str | Path | None = None, base: str | Path | None = None
) -> LanguageRun:
    """A decoder from its folder (or name), with the adapter of a run if given.

    Instead of the decoder's, `folder` may be that of a run, which knows its base; `base` says
    where that lies now, if it was moved.
    Raises: CheckpointError if the adapter belongs to another base or is no language model's;
    ConfigError if the base is not causal, or is given twice; HubError if there is no such folder.
    """
    if is_run(folder):
        if adapter is not None:
            raise ConfigError(
                f"{folder} is a run with an adapter of its own; give the folder of its base "
                f"to use the adapter of {adapter}"
            )
        return language_run_from(read_adapter(folder), base)
    if base is not None:
        raise ConfigError(f"base={str(base)!r}: {folder} is a base itself; give one of the two")
    if adapter is not None:
        return language_run_from(read_adapter(adapter), folder)
    checkpoint = find_checkpoint(folder)
    model = LanguageModel(decoder(checkpoint, folder))
    model.eval()
    return LanguageRun(checkpoint, model, Tokenizer.from_folder(checkpoint))


def language_run_from(file: AdapterFile, base: str | Path | None = None) -> LanguageRun:
    """The language run that an adapter file belongs to; as `load_language_run`."""
    if file.record.pooling is not None or not file.record.adapters:
        raise CheckpointError(
            f"{file.path} is no language model's: it predicts labels: minitransformer predict"
        )
    checkpoint = base_of(file, base)
    model = LanguageModel(decoder(checkpoint, base or file.record.base))
    model.freeze()
    adapter = load_adapter(file, model)
    model.eval()
    tokenizer = Tokenizer.from_folder(checkpoint)
    check_tokenizer(file, tokenizer.fingerprint)
    return LanguageRun(file.path.parent, model, tokenizer, file.record, adapter)


def is_run(folder: str | Path) -> bool:
    """Whether there is an adapter file."""
    try:
        return find_adapter(folder).is_file()
    except CheckpointError:
        return False


def decoder(checkpoint: Path, name: str | Path, dropout: float | None = 0.0) -> Transformer:
    """A causal base, called `name` in errors. Raises: ConfigError if it is an encoder."""
    transformer = Transformer.from_pretrained(checkpoint, dropout)
    if not transformer.config.causal:
        raise ConfigError(
            f"{str(name)!r} is an encoder, which cannot generate; give a folder that "
            "`minitransformer pretrain` made, or another GPT-2"
        )
    return transformer


class Tokens(NamedTuple):
    """A corpus as token ids, (N,) each."""

    train: Array
    validation: Array
    held_out: Array


def tokens_of(corpus: Corpus, tokenizer: Tokenizer) -> Tokens:
    """The parts of a corpus as token ids."""
    return Tokens(*(encode(tokenizer, part) for part in corpus.parts))


def encode(tokenizer: Tokenizer, text: str) -> Array:
    """(N,) token ids of one long text."""
    return np.array(tokenizer.encode([text])[0], np.int64)


# -- pretraining --------------------------------------------------------------------------


def pretrain(
    text: str | Path = COMEDIES,
    options: PretrainOptions | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    **changes: Any,
) -> LanguageRun:
    """Train a tokenizer and a small decoder on a text: what `minitransformer pretrain` does.

    The folder (default: runs/TEXT-base-seedN) is then a base in the Hugging Face layout of GPT-2
    (`config.json`, `model.safetensors`, `tokenizer.json`) with the weights of the best epoch; also
    `held-out.txt`, `history.csv`, `curves.png`, `metrics.json` and `options.json`. Ctrl-C, `resume`
    and `progress` (and options by name) as in `train`.

    Raises: ConfigError if the folder is not empty, or (resume) holds no run that can go on;
    DataError, HubError for a text that cannot be used; TrainingError if the loss is not finite.
    """
    options = with_changes(PretrainOptions, options, changes)
    with open_run(text, options, PretrainOptions, out, resume) as (folder, options):
        corpus = load_corpus(text)
        if (folder / "tokenizer.json").is_file():  # of the run that is resumed
            tokenizer = Tokenizer.from_folder(folder)
        else:
            tokenizer = Tokenizer.train_bpe([corpus.train], options.vocab_size)
        job = Pretraining(corpus, tokenizer, options)
        train_in_folder(job, folder, text, resume, progress)
    return LanguageRun(folder, job.model, tokenizer)


class Pretraining(Job):
    """A decoder from scratch. Saves it as a base; measures its perplexity."""

    model: LanguageModel
    options: PretrainOptions
    best_by = "loss"

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, options: PretrainOptions) -> None:
        self.options, self.tokenizer = options.resolved(), tokenizer
        self.held_out = corpus.held_out
        self.tokens = tokens_of(corpus, tokenizer)
        self.name = corpus.name
        self.title = f"{corpus.name}: a decoder of {options.n_layers} blocks from scratch"
        self.train = windows(self.tokens.train, options.block_size)
        self.validation = windows(self.tokens.validation, options.block_size)
        self.model = LanguageModel(new_decoder(self.options, tokenizer.vocab_size))
        self.inputs = {"the held-out text": digest(corpus.held_out)}

    def begin(self, folder: Path) -> None:
        self.tokenizer.save(folder)
        write_text(folder / OWN_TEXT, self.held_out)

    def save(self, folder: Path) -> Path:
        self.model.transformer.save_pretrained(folder, self.tokenizer)
        return folder / "model.safetensors"

    def measure(self, finished: bool, folder: Path) -> dict[str, Any]:
        metrics: dict[str, Any] = {"tokens": count(self.tokens)}
        if finished:
            o = self.options
            metrics["held_out_perplexity"] = perplexity(
                self.model, self.tokens.held_out, o.block_size, threads=o.threads
            )
        return metrics


def count(tokens: Tokens) -> dict[str, int]:
    """How many tokens each part has."""
    return {name: len(part) for name, part in tokens._asdict().items()}


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


# -- another text --------------------------------------------------------------------------


def train_language(
    text: str | Path = HISTORIES,
    options: LanguageOptions | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    **changes: Any,
) -> LanguageRun:
    """Adapt a decoder to another text, the base frozen: what `minitransformer train --lm` does.

    The folder (default: runs/TEXT-METHOD-seedN) receives `METHOD.safetensors` (the best epoch),
    `history.csv`, `curves.png`, `metrics.json` (perplexities with the adapter and without, those of
    the base on its own text before and after) and `options.json`. Ctrl-C, `resume`, `progress` and
    options by name as in `train`.

    Raises: ConfigError for a base that is missing or not causal; else as `pretrain`.
    """
    options = with_changes(LanguageOptions, options, changes)
    with open_run(text, options, LanguageOptions, out, resume) as (folder, options):
        job = Adaptation(load_corpus(text), options)
        train_in_folder(job, folder, text, resume, progress)
    return LanguageRun(folder, job.model, job.tokenizer, job.record, ADAPTER_NAME)


class Adaptation(Job):
    """Adapters on a frozen decoder. Saves them; measures perplexities with and without."""

    model: LanguageModel
    options: LanguageOptions
    best_by = "loss"

    def __init__(self, corpus: Corpus, options: LanguageOptions) -> None:
        checkpoint = find_decoder(options.base)
        self.tokenizer = Tokenizer.from_folder(checkpoint)
        transformer = decoder(checkpoint, options.base, options.dropout)
        self.options = options = options.resolved(transformer.config.max_length)
        self.tokens = tokens_of(corpus, self.tokenizer)
        self.name = corpus.name
        self.title = f"{corpus.name}: {WHAT_TRAINS[options.method]} {options.base}"
        self.train = windows(self.tokens.train, options.max_length)
        self.validation = windows(self.tokens.validation, options.max_length)
        self.model = LanguageModel(transformer)

        file = checkpoint / OWN_TEXT
        own_text = read_text(file) if file.is_file() else None
        self.own_text = encode(self.tokenizer, own_text) if own_text is not None else None
        self.base_before = fingerprint(transformer)
        self.inputs = {
            "the held-out text": digest(corpus.held_out),
            **base_digests(transformer, self.base_before, checkpoint),
            f"the base's {OWN_TEXT}": digest(own_text or ""),
        }
        self.own_before = self.perplexity_on(self.own_text)
        self.model.freeze()
        rng = np.random.default_rng([options.training.seed, 2])
        transformer.add_method(ADAPTER_NAME, self.options.config, rng)

    def save(self, folder: Path) -> Path:
        file = folder / f"{self.options.method}.safetensors"
        self.record = save_adapter(
            file,
            self.model,
            [ADAPTER_NAME],
            base_fingerprint=self.base_before,
            tokenizer=self.tokenizer.fingerprint,
            base=self.options.base,
            method=self.options.method,
            task=self.name,
            max_length=self.options.max_length,
        )
        return file

    def measure(self, finished: bool, folder: Path) -> dict[str, Any]:
        transformer = self.model.transformer
        metrics: dict[str, Any] = {
            "tokens": count(self.tokens),
            "base_sha256_before": self.base_before,
            "base_sha256_after": fingerprint(transformer),
        }
        if finished:
            metrics["perplexity_adapter_on"] = self.perplexity_on(self.tokens.held_out)
            with transformer.use(None):
                metrics["perplexity_adapter_off"] = self.perplexity_on(self.tokens.held_out)
                metrics["base_perplexity_before"] = self.own_before
                metrics["base_perplexity_after"] = self.perplexity_on(self.own_text)
        return metrics

    def perplexity_on(self, ids: Array | None) -> float | None:
        """None where there is no text."""
        return (
            perplexity(self.model, ids, threads=self.options.threads) if ids is not None else None
        )


def find_decoder(base: str) -> Path:
    """The checkpoint folder of a base. Raises: HubError, or ConfigError, if there is none."""
    if base == PRETRAINED and not Path(base).is_dir():
        raise ConfigError(
            f"there is no decoder in {base}; `minitransformer pretrain` makes it, or name another "
            "base, as a folder or a model-hub id"
        )
    return find_checkpoint(base)

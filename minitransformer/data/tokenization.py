"""Text -> token ids -> rectangular arrays. The splitting itself is done by `tokenizers`."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointError, ConfigError, DataError
from ..formats.files import write_text
from ..nn.module import Array
from .hub import find_checkpoint

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


LONGEST = 1_000_000  # characters of a text that is cut to max_length: more would fill the memory
END = "<|endoftext|>"  # separates two texts in GPT-2's training


class Tokenizer:
    """The tokenizer of a checkpoint, as its tokenizer.json describes it, or a newly trained one.

    Only the vocabulary and the special tokens of the file count. Padding and truncation, which
    some files ship switched on, are decided here: `encode` truncates, `pad` pads.

    Attributes:
        vocab_size: how many different tokens there are.
        pad_id: what to pad with. GPT-2 has no such token and takes `end_id`: being masked, it
            changes nothing.
        end_id: the token that ends a text, `<|endoftext|>`; None where there is none (BERT).
    """

    _truncating = threading.Lock()  # the length to cut to is a setting of the backend

    def __init__(self, backend: Backend) -> None:
        padding = backend.padding or {}
        self.end_id: int | None = backend.token_to_id(END)
        known = [backend.token_to_id(name) for name in ("[PAD]", "<pad>")]
        known = [padding.get("pad_id"), *known, self.end_id, 0]
        self.pad_id: int = next(i for i in known if i is not None)
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        self._special: int = backend.num_special_tokens_to_add(False)  # [CLS] and [SEP] for BERT
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend

    @classmethod
    def from_pretrained(cls, name: str | Path) -> Tokenizer:
        """The tokenizer of a base: "tiny", "minilm", a folder, or a model-hub id."""
        return cls.from_folder(find_checkpoint(name))

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """Read `tokenizer.json` in a checkpoint folder; or GPT-2's `vocab.json` and `merges.txt`.

        Raises: CheckpointError if they are missing or unreadable.
        """
        from tokenizers import Tokenizer as Backend

        path = Path(folder) / "tokenizer.json"
        older = [Path(folder) / name for name in ("vocab.json", "merges.txt")]
        in_parts = not path.is_file() and all(part.is_file() for part in older)
        if not path.is_file() and not in_parts:
            raise CheckpointError(
                f"{folder} has no tokenizer.json (nor vocab.json with merges.txt), so text cannot "
                "become token ids; copy it there from the checkpoint's origin"
            )
        try:
            return cls(_byte_level(*older) if in_parts else Backend.from_file(str(path)))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # plain Exception, or a panic, which is no Exception
            what = " with ".join(map(str, older)) if in_parts else path
            raise CheckpointError(f"{what} is not a readable tokenizer file: {error}") from error

    @classmethod
    def train_bpe(cls, texts: Sequence[str], vocab_size: int) -> Tokenizer:
        """Learn a byte-level byte-pair encoding, as GPT-2 has it, from texts.

        (Sennrich et al. 2016, arXiv 1508.07909, algorithm 1; on bytes: Radford et al. 2019, section
        2.2.) Every text can be encoded and comes back unchanged. The vocabulary is `<|endoftext|>`,
        the 256 bytes, and the most frequent pairs; short texts may yield fewer than `vocab_size`.

        Raises: ConfigError if vocab_size is below 257; DataError without texts.
        """
        from tokenizers import pre_tokenizers, trainers

        if vocab_size < 257:
            raise ConfigError(f"vocab_size={vocab_size}: expected 257 ({END}, 256 bytes) or more")
        backend = _byte_level()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(_checked(texts), trainer)
        return cls(backend)

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json`, complete or not at all; `from_folder` reads it."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_text(Path(folder) / "tokenizer.json", self._as_json() + "\n")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the token ids of a text.

        It is taken of what `tokenizers` writes, which is the same in its versions 0.20 to 0.22.
        """
        return hashlib.sha256(self._as_json().encode()).hexdigest()

    def _as_json(self) -> str:
        with self._truncating:
            self._backend.no_truncation()
            text: str = self._backend.to_str()
        return text

    def encode(self, texts: Sequence[str], max_length: int | None = None) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut to at most `max_length` if given.

        Empty text is legal: it becomes the special tokens alone, of which GPT-2 has none.

        Raises: DataError for an empty batch, or a text that is no string or (with max_length) of
        more than a million characters; ConfigError if max_length leaves no space beside the special
        tokens; CheckpointError if the tokenizer is damaged.
        """
        if max_length is not None and max_length <= self._special:
            raise ConfigError(
                f"max_length={max_length} leaves no space for text: "
                f"this tokenizer adds {self._special} special tokens to each"
            )
        return [found.ids for found in self._encode(_checked(texts, max_length), max_length)]

    def encode_pairs(
        self, texts: Sequence[str], pairs: Sequence[str], max_length: int | None = None
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of each text with its second one, and the type of each token: 0 or 1.

        For BERT: [CLS] text [SEP] second [SEP], types 0 up to the first [SEP] and 1 after it. Of a
        pair that is too long, tokens are taken off the end of the longer text.

        Raises: DataError for an empty batch, a text that is no string or has no second one;
        ConfigError for a tokenizer that puts nothing between two texts, or if max_length leaves no
        space.
        """
        special = self._backend.num_special_tokens_to_add(True)
        if special <= self._special:
            raise ConfigError("this tokenizer puts nothing between two texts: give it one text")
        if max_length is not None and max_length < special + 2:
            raise ConfigError(f"max_length={max_length} leaves no space for two texts")
        if len(texts) != len(pairs):
            raise DataError(f"{len(texts)} texts, but {len(pairs)} second ones: expected as many")
        both = list(zip(_checked(texts, max_length), _checked(pairs, max_length), strict=True))
        found = self._encode(both, max_length)
        return [each.ids for each in found], [each.type_ids for each in found]

    def _encode(self, inputs: Sequence[str | tuple[str, str]], max_length: int | None) -> list[Any]:
        with self._truncating:  # several threads may encode, each to a length of its own
            if max_length is None:
                self._backend.no_truncation()
            else:
                self._backend.enable_truncation(max_length)  # of a pair, the longer text
            try:
                return list(self._backend.encode_batch_fast(inputs))
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # as in `from_folder`: its vocabulary has gaps
                raise CheckpointError(f"the tokenizer cannot encode texts: {error}") from error

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """The text of token ids, as the tokenizer normalized it (for BERT: in lower case).

        Bytes that are no complete character, where a text breaks off, become U+FFFD.

        Raises: DataError for an id outside the vocabulary.
        """
        numbers = [int(i) for i in ids]
        for number in numbers:
            if not 0 <= number < self.vocab_size:
                raise DataError(f"token id {number} is not in the vocabulary of {self.vocab_size}")
        text: str = self._backend.decode(numbers, skip_special_tokens=skip_special_tokens)
        return text


def pad(
    sequences: Sequence[Sequence[int]], pad_id: int = 0, *, left: bool = False
) -> tuple[Array, Array]:
    """Lay sequences of unequal length into one array, filled up with `pad_id` on the right.

    With `left`, on the left: `generate` continues prompts whose last tokens are in one column.
    Shapes: B sequences, T the longest -> ids (B, T) int64, attention_mask (B, T) int64, 1 for a
    token and 0 for padding.

    Raises: DataError for an empty batch or a sequence without tokens.
    """
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)  # (B,)
    if lengths.size == 0:
        raise DataError("an empty batch cannot be padded: give at least one sequence")
    if lengths.min() == 0:
        raise DataError(f"sequence {int(lengths.argmin())} has no tokens: give each at least one")
    mask = np.arange(lengths.max()) < lengths[:, None]  # (B, T)
    mask = mask[:, ::-1] if left else mask
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.concatenate([np.asarray(sequence, dtype=np.int64) for sequence in sequences])
    return ids, mask.astype(np.int64)


def _byte_level(vocab: Path | None = None, merges: Path | None = None) -> Backend:
    """Byte-pair encoding of bytes: with GPT-2's two files, or empty."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    model = models.BPE.from_file(str(vocab), str(merges)) if vocab else models.BPE()
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if backend.token_to_id(END) is not None:
        backend.add_special_tokens([END])
    return backend


def _checked(texts: Sequence[str], max_length: int | None = None) -> list[str]:
    if isinstance(texts, str):
        raise DataError("texts must be a list of strings; for a single text write [text]")
    if len(texts) == 0:
        raise DataError("an empty batch of texts cannot be encoded: give at least one text")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"text {position} is {type(text).__name__} {text!r}, expected str")
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            raise DataError(f"text {position} holds half a surrogate pair: it was decoded wrongly")
        if max_length is not None and len(text) > LONGEST:
            raise DataError(
                f"text {position} has {len(text):,} characters, expected at most {LONGEST:,}: it "
                f"will be cut to {max_length} tokens; is a separator missing in the file?"
            )
    return list(texts)

"""Text -> token ids -> rectangular arrays. The splitting itself is done by `tokenizers`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import CheckpointError, ConfigError, DataError
from .hub import find_checkpoint
from .module import Array

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


class Tokenizer:
    """The tokenizer of a checkpoint, as its tokenizer.json describes it.

    Only the vocabulary and the special tokens of the file count. Padding and truncation, which
    some files ship switched on, are decided here: `encode` truncates, `pad` pads.
    """

    def __init__(self, backend: Backend) -> None:
        padding = backend.padding or {}
        known = [backend.token_to_id(name) for name in ("[PAD]", "<pad>")]
        known = [padding.get("pad_id"), *known, 0]  # GPT-2 has none: any id will do, being masked
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
        """Read `tokenizer.json` in a checkpoint folder.

        Raises: CheckpointError if it is missing or unreadable.
        """
        from tokenizers import Tokenizer as Backend

        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(
                f"{folder} has no tokenizer.json, so text cannot become token ids; copy it there "
                "from the checkpoint's origin"
            )
        try:
            return cls(Backend.from_file(str(path)))
        except Exception as error:  # the library raises plain Exception
            raise CheckpointError(f"{path} is not a readable tokenizer file: {error}") from error

    def encode(self, texts: Sequence[str], max_length: int) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut to at most `max_length`.

        Empty text is legal: it becomes the special tokens alone.

        Raises: DataError for an empty batch or a text that is no string; ConfigError if max_length
        leaves no room beside the special tokens.
        """
        if max_length <= self._special:
            raise ConfigError(
                f"max_length={max_length} leaves no room for text: "
                f"this tokenizer adds {self._special} special tokens to each"
            )
        self._backend.enable_truncation(max_length)
        return [found.ids for found in self._backend.encode_batch_fast(_checked(texts))]

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """The text of token ids, as the tokenizer normalized it (for BERT: in lower case).

        Raises: DataError for an id outside the vocabulary.
        """
        numbers = [int(i) for i in ids]
        for number in numbers:
            if not 0 <= number < self.vocab_size:
                raise DataError(f"token id {number} is not in the vocabulary of {self.vocab_size}")
        text: str = self._backend.decode(numbers, skip_special_tokens=skip_special_tokens)
        return text


def pad(sequences: Sequence[Sequence[int]], pad_id: int = 0) -> tuple[Array, Array]:
    """Lay sequences of unequal length into one array, filled up on the right with `pad_id`.

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
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.concatenate([np.asarray(sequence, dtype=np.int64) for sequence in sequences])
    return ids, mask.astype(np.int64)


def _checked(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise DataError("texts must be a list of strings; for a single text write [text]")
    if len(texts) == 0:
        raise DataError("an empty batch of texts cannot be encoded: give at least one text")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"text {position} is {type(text).__name__} {text!r}, expected str")
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            raise DataError(f"text {position} holds half a surrogate pair: it was decoded wrongly")
    return list(texts)

"""Token ids of a split, and its batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError
from ..nn.functional import IGNORE
from ..nn.module import Array
from .splits import Split
from .tokenization import Tokenizer, pad

POOL = 50  # batches whose examples are sorted by length together


@dataclass(frozen=True)
class Encoded:
    """A split as token ids: n sequences, labels (n,). Made by `encode_split`, or by hand.

    Labels are classes, int64, or numbers, float64; a list of them will do. For a language model the
    sequences are of one length T and labels (n, T) are the tokens that follow; IGNORE (-100) where
    one does not count. Of pairs of texts, `token_types` tells which of the two each token belongs
    to, 0 or 1.
    Raises: DataError if there is not one label, or row of labels, for each sequence, and one type
    for each token.
    """

    sequences: list[list[int]]
    labels: Array
    pad_id: int = 0
    token_types: list[list[int]] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", np.asarray(self.labels))
        if self.token_types is not None:
            lengths = [len(types) for types in self.token_types]
            if lengths != [len(sequence) for sequence in self.sequences]:
                raise DataError("token_types: expected one for each token of each sequence")
        if len(self.sequences) != len(self.labels):
            raise DataError(
                f"{len(self.sequences)} sequences, but {len(self.labels)} labels: "
                "expected one for each sequence"
            )

    def __len__(self) -> int:
        return len(self.sequences)


@dataclass(frozen=True)
class Batch:
    """B examples: ids and attention_mask (B, T), labels (B,) or (B, T), index (B,), all int64.

    `index` gives each example's position in its split, to bring predictions back into order.
    Labels that are numbers are float64. `token_types` (B, T) for pairs of texts, else None.
    """

    ids: Array
    attention_mask: Array
    labels: Array
    index: Array
    token_types: Array | None = None

    @property
    def counted(self) -> int:
        """How many labels take part in the loss."""
        return int(np.count_nonzero(counted(self.labels)))


@dataclass(frozen=True)
class Batches:
    """The batches of one epoch: iterate, or index; each is padded only when it is read."""

    encoded: Encoded
    indices: tuple[Array, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Batch]:
        return (self[position] for position in range(len(self)))

    def __getitem__(self, position: int) -> Batch:
        index = self.indices[position]
        encoded, types = self.encoded, None
        ids, mask = pad([encoded.sequences[i] for i in index], encoded.pad_id)
        if encoded.token_types is not None:
            types, _ = pad([encoded.token_types[i] for i in index])
        return Batch(ids, mask, encoded.labels[index], index, types)


def counted(labels: Array) -> Array:
    """Which labels take part in the loss: all numbers, and all classes but IGNORE."""
    return np.ones(labels.shape, bool) if labels.dtype.kind == "f" else labels != IGNORE


def encode_split(split: Split, tokenizer: Tokenizer, max_length: int) -> Encoded:
    """Token ids of a split's texts, or pairs of texts, each cut to `max_length`.

    Raises: DataError if it is empty, or no `Split`.
    """
    if not isinstance(split, Split):
        raise DataError(
            f"split is a {type(split).__name__}: expected a Split, as load_task(...).train is one; "
            "tokenizer.encode takes a list of texts"
        )
    if len(split) == 0:
        raise DataError("this split has no examples; a file without train rows is for evaluation")
    return encode_texts(split.texts, split.pairs, split.labels, tokenizer, max_length)


def encode_texts(
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    labels: Array,
    tokenizer: Tokenizer,
    max_length: int,
) -> Encoded:
    """Token ids of texts or, with `pairs`, of each text and its second one."""
    if pairs is None:
        return Encoded(tokenizer.encode(texts, max_length), labels, tokenizer.pad_id)
    ids, types = tokenizer.encode_pairs(texts, pairs, max_length)
    return Encoded(ids, labels, tokenizer.pad_id, types)


def check_encoded(**splits: Any) -> None:
    """Raises: DataError for texts, where token ids are expected."""
    for name, split in splits.items():
        if not isinstance(split, Encoded):
            raise DataError(
                f"{name} is a {type(split).__name__}, expected token ids: "
                f"mt.encode_split(split, tokenizer, max_length=128) makes them of a Split, as "
                "load_task(...).train is one"
            )


def batches(encoded: Encoded, batch_size: int, rng: np.random.Generator | None = None) -> Batches:
    """Every example exactly once, in batches of similar length, so that little is padding.

    With `rng`: shuffled, sorted by length within pools of 50 batches (ties stay random), cut into
    batches, and these shuffled. Without: sorted by length, the same each time, for evaluation.

    Raises: DataError if there are no examples, ConfigError if batch_size is below 1.
    """
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise ConfigError(f"batch_size={batch_size!r}: expected a whole number, 1 or more")
    check_encoded(encoded=encoded)
    if len(encoded) == 0:
        raise DataError("there are no examples to make batches of")
    lengths = np.array([len(sequence) for sequence in encoded.sequences])
    order = np.arange(len(encoded)) if rng is None else rng.permutation(len(encoded))
    pool = len(order) if rng is None else POOL * batch_size
    indices = []
    for start in range(0, len(order), pool):
        members = order[start : start + pool]
        members = members[np.argsort(lengths[members], kind="stable")]
        indices += [members[i : i + batch_size] for i in range(0, len(members), batch_size)]
    if rng is not None:
        indices = [indices[i] for i in rng.permutation(len(indices))]
    return Batches(encoded, tuple(indices))

"""The prefix cache: the output of the frozen blocks below the first adapter, once per example.

Blocks in which nothing trains and nothing is dropped out give the same output for the same text in
every epoch. Computed once, before training, it lets every epoch start above them; losses and
gradients are the same to round-off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import numpy as np

from ..adapters.methods import places_in
from ..data.batches import Batch, Encoded, batches
from ..errors import ConfigError
from ..formats.adapter_file import fingerprint
from ..models.heads import Classifier, LanguageModel
from ..models.transformer import Transformer
from ..nn.layers import Dropout
from ..nn.module import Array

MEMORY_LIMIT = 2 << 30  # bytes
AT_ONCE = 32  # texts in a batch

Compute = Callable[[Classifier | LanguageModel, Batch], None]


def frozen_depth(transformer: Transformer) -> int:
    """How many blocks, from the embeddings up, have nothing that trains and no active adapter."""
    if any(p.trainable for p in transformer.embeddings.parameters()):
        return 0
    for depth, block in enumerate(transformer.blocks):
        adapted = any(place.active for _, place in places_in(block))
        if adapted or any(p.trainable for p in block.parameters()):
            return depth
    return len(transformer.blocks)


class PrefixCache:
    """Hidden states that enter the first block that trains, one (T, d) for each example.

    `fill` computes them; at most `limit` bytes are stored. A batch with an example beyond the limit
    is computed anew each time.
    An entry belongs to a text (its token ids) and a base (its fingerprint). Dropout in the cached
    blocks is turned off for good: with it, their output would differ from epoch to epoch.

    Raises: ConfigError if there is no frozen prefix.
    """

    def __init__(
        self,
        transformer: Transformer,
        encoded: Encoded,
        limit: int = MEMORY_LIMIT,
    ) -> None:
        self.depth = frozen_depth(transformer)
        if self.depth == 0:
            raise ConfigError(
                "there is no frozen prefix to cache: block 0 has an adapter or trains; put "
                "adapters into upper blocks only, for instance layers=(3, 4, 5)"
            )
        for below in (transformer.embeddings, *transformer.blocks[: self.depth]):
            for _, module in below.named_modules():
                if isinstance(module, Dropout):
                    module.p = 0.0
        self.base = fingerprint(transformer)
        types = encoded.token_types or [[]] * len(encoded)
        self.keys = [self.key(*both) for both in zip(encoded.sequences, types, strict=True)]

        # One text after the other, in the order of the split, up to the limit.
        d, dtype = transformer.config.d_model, transformer.dtype
        self.slices: dict[bytes, slice] = {}  # where in `states` a text is stored
        stored: list[int] = []
        end, most = 0, limit // (d * dtype.itemsize)
        for i, (key, sequence) in enumerate(zip(self.keys, encoded.sequences, strict=True)):
            if key not in self.slices and end + len(sequence) <= most:
                self.slices[key] = slice(end, end + len(sequence))
                end += len(sequence)
                stored.append(i)
        self.stored_keys = [self.keys[i] for i in stored]
        self.stored = Encoded(
            [encoded.sequences[i] for i in stored],
            np.zeros(len(stored), np.int64),
            encoded.pad_id,
            [types[i] for i in stored] if encoded.token_types is not None else None,
        )
        self.filled = False
        self.states: Array = np.empty((end, d), dtype)

    def key(self, sequence: list[int], types: list[int]) -> bytes:
        """An entry's name: the base, the depth, and the text as token ids and types."""
        digest = hashlib.sha256(f"{self.base} {self.depth} ".encode())
        digest.update(np.asarray([*sequence, *types], np.int64).tobytes())
        return digest.digest()

    def fill(
        self,
        over_batches: Callable[[Compute, Iterable[Batch]], Iterable[None]],
        on_batch: Callable[[], None] | None = None,
    ) -> None:
        """Compute what is stored, in the same batches whenever training begins or goes on.

        (The batches of an epoch would not do: a run that is resumed would find others, whose
        padding changes the last bits.) `over_batches`: `DataParallel.map`. `on_batch` is called
        with each batch.
        """

        def compute(model: Classifier | LanguageModel, batch: Batch) -> None:
            if on_batch is not None:
                on_batch()
            x = model.transformer.forward_below(
                self.depth, batch.ids, batch.attention_mask, batch.token_types
            )
            for row, i in zip(x, batch.index, strict=True):
                where = self.states[self.slices[self.stored_keys[i]]]
                where[...] = row[: len(where)]

        if len(self.stored) and not self.filled:
            list(over_batches(compute, batches(self.stored, AT_ONCE)))
        self.filled = True

    def hidden(self, transformer: Transformer, batch: Batch) -> Array:
        """What enters block `depth` for a batch: (B, T, d), zeros at the padding if all is cached.

        `transformer`: the one of the cache, or a replica.
        """
        keys = [self.keys[i] for i in batch.index]
        if not self.filled or not self.slices.keys() >= set(keys):
            return transformer.forward_below(
                self.depth, batch.ids, batch.attention_mask, batch.token_types
            )
        x = np.zeros((*batch.ids.shape, self.states.shape[1]), self.states.dtype)
        for row, key in zip(x, keys, strict=True):
            stored = self.states[self.slices[key]]
            row[: len(stored)] = stored
        return x

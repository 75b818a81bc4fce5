"""The transformer: embeddings, blocks of two sub-layers, and the two passes through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..adapters.attach import Adaptable
from ..adapters.own import AdapterFactory
from ..data.hub import find_checkpoint
from ..errors import ConfigError, ShapeError
from ..formats import adapter_file
from ..formats.checkpoint import read_checkpoint, write_checkpoint
from ..nn.attention import KeyValueCache, MultiHeadAttention, binary_mask
from ..nn.config import TransformerConfig
from ..nn.layers import (
    Activation,
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    Rng,
    Zeros,
    default_rng,
    seed_dropouts,
)
from ..nn.module import Array, Module, backward_through
from ..nn.sublayer import SubLayer

if TYPE_CHECKING:
    from ..data.tokenization import Tokenizer

MOST_PARAMETERS = 10**11  # 400 GB in float32


class FeedForward(Module):
    """down(activation(up(x))), at each position alone (Vaswani et al. 2017, equation 2).

    Shapes: x (B, T, d_model) -> (B, T, d_model); d_ff in between.
    """

    def __init__(
        self, d_model: int, d_ff: int, activation: str = "gelu", rng: Rng | None = None
    ) -> None:
        rng = default_rng(rng)
        self.up = Linear(d_model, d_ff, rng)
        self.activation = Activation(activation)
        self.down = Linear(d_ff, d_model, rng)

    def forward(self, x: Array) -> Array:
        return self.down.forward(self.activation.forward(self.up.forward(x)))

    def backward(self, dy: Array) -> Array | None:
        return backward_through(dy, self.down, self.activation, self.up)


class Block(Module):
    """One transformer block: the attention sub-layer, then the feed-forward sub-layer.

    Shapes: x (B, T, d_model), attention_mask (B, T) -> (B, T, d_model), or only the first
    `queries` positions of it.
    """

    def __init__(self, config: TransformerConfig, rng: Rng | None = None) -> None:
        d, eps, pre = config.d_model, config.layer_norm_eps, config.norm == "pre"
        rng = default_rng(rng)
        attention = MultiHeadAttention(
            d, config.n_heads, config.causal, config.attention_dropout, rng
        )
        feed_forward = FeedForward(d, config.d_ff, config.activation, rng)
        self.attention = SubLayer(attention, LayerNorm(d, eps), pre, config.dropout)
        self.ffn = SubLayer(feed_forward, LayerNorm(d, eps), pre, config.dropout)

    def forward(
        self,
        x: Array,
        attention_mask: Array | None = None,
        queries: int | None = None,
        cache: KeyValueCache | None = None,
    ) -> Array:
        return self.ffn.forward(self.attention.forward(x, attention_mask, queries, cache))

    def backward(self, dy: Array) -> Array | None:
        return backward_through(dy, self.ffn, self.attention)


class Embeddings(Module):
    """Token + position (+ token-type) embeddings; BERT normalizes their sum.

    Shapes: ids, token_types (B, T) integers -> (B, T, d_model). `positions` (T,) or (B, T) are
    the positions of the tokens; None: 0, 1, 2, ..., or as RoBERTa counts.
    """

    def __init__(self, config: TransformerConfig, rng: Rng | None = None) -> None:
        d, rng, self.pad_id = config.d_model, default_rng(rng), config.pad_id
        self.token = Embedding(config.vocab_size, d, rng)
        self.position = Embedding(config.max_positions, d, rng)
        self.token_type = Embedding(config.token_types, d, rng) if config.token_types else None
        self.norm = LayerNorm(d, config.layer_norm_eps) if config.norm == "post" else None
        self.dropout = Dropout(config.dropout)

    def forward(
        self, ids: Array, token_types: Array | None = None, positions: Array | None = None
    ) -> Array:
        if positions is None and self.pad_id is not None:
            positions = positions_after_padding(ids, self.pad_id)
        elif positions is None:
            positions = np.arange(ids.shape[1])  # the same for each row of the batch
        x = self.token.forward(ids)
        x += self.position.forward(positions)
        if self.token_type is not None:
            types = np.zeros_like(ids) if token_types is None else np.asarray(token_types)
            if types.shape != ids.shape:
                raise ShapeError(
                    f"token_types has shape {types.shape}; expected {ids.shape}, one for each token"
                )
            x += self.token_type.forward(types)
        if self.norm is not None:
            x = self.norm.forward(x)
        x = self.dropout.forward(x)
        self.save_for_backward(x.shape, positions.ndim == 1)
        return x

    def backward(self, dy: Array) -> None:
        (positions_are_shared,) = self.pop_saved(dy)
        norm = [] if self.norm is None else [self.norm]
        d = backward_through(dy, self.dropout, *norm)
        if d is None:
            return
        backward_through(d, self.token)
        backward_through(d.sum(axis=0) if positions_are_shared else d, self.position)
        if self.token_type is not None:
            backward_through(d, self.token_type)


def positions_after_padding(ids: Array, pad_id: int) -> Array:
    """RoBERTa's positions: tokens count from pad_id + 1 on, and padding stands at pad_id.

    Shapes: ids (B, T) -> (B, T).
    """
    real = ids != pad_id
    return pad_id + np.cumsum(real, axis=1) * real


class Pooler(Module):
    """BERT's pooler: tanh(dense(h)) on the [CLS] vector. Shapes: (B, d) -> (B, d)."""

    def __init__(self, d_model: int, rng: Rng | None = None) -> None:
        self.dense = Linear(d_model, d_model, rng)
        self.tanh = Activation("tanh")

    def forward(self, h: Array) -> Array:
        return self.tanh.forward(self.dense.forward(h))

    def backward(self, dy: Array) -> Array | None:
        return backward_through(dy, self.tanh, self.dense)


class Transformer(Adaptable, Module):
    """A BERT-like encoder or a GPT-2-like decoder: token ids to hidden states.

    Shapes: ids (B, T) integers, attention_mask (B, T) with 1 for real tokens and 0 for padding,
    token_types (B, T) -> hidden states (B, T, d_model), or (B, 1, d_model) with `first_only`: then
    the last block computes the first position alone. With `hidden` (B, T, d_model), what
    `forward_below(start, ...)` returned, the forward pass begins at block `start`.
    With `cache` (from `new_cache`; causal models in eval mode), ids are the tokens that come after
    those of the earlier calls, and attention_mask, if given, covers those and these.
    `positions` (T,) or (B, T): the positions of the tokens, if not 0, 1, 2, ...
    Raises: ShapeError for ids that are not integers of shape (B, T), out of range, too long or
    an empty batch, and for a mask of another shape; ConfigError for a cache that cannot be used, or
    to train weights that adapters are merged into.
    """

    def __init__(self, config: TransformerConfig, rng: Rng | None = None) -> None:
        """`rng` draws the start values (truncated normal, sigma 0.02); default: seed 0.

        Raises: ConfigError for a shape that no memory holds.
        """
        if config.matrix_parameters > MOST_PARAMETERS:
            raise ConfigError(
                f"{config} has {config.matrix_parameters:,} parameters or more; expected at most "
                f"{MOST_PARAMETERS:,}"
            )
        self.config, rng = config, default_rng(rng)
        self.embeddings = Embeddings(config, rng)
        self.blocks = [Block(config, rng) for _ in range(config.n_layers)]
        pre = config.norm == "pre"
        self.final_norm = LayerNorm(config.d_model, config.layer_norm_eps) if pre else None
        self.pooler = Pooler(config.d_model, rng) if config.pooler else None
        seed_dropouts(self)

    @classmethod
    def from_pretrained(cls, name: str | Path, dropout: float | None = 0.0) -> Transformer:
        """Load a pretrained base in eval() mode: "tiny", "minilm", a folder, or a model-hub id.

        A folder holds `config.json` and `model.safetensors` (or its shards and their index) in the
        Hugging Face layout of BERT, RoBERTa, DistilBERT or GPT-2. Dropout
        inside is 0 unless asked for; None takes what `config.json` says. Call `train()` before a
        training loop of your own.
        Raises: HubError if it cannot be fetched, CheckpointError if files and model do not fit.
        """
        config, weights = read_checkpoint(find_checkpoint(name))
        if dropout is not None:
            config = replace(config, dropout=dropout, attention_dropout=dropout)
        model = cls(config, Zeros())  # filled by the next line
        model.load_state_dict(weights)
        return model.eval()

    def save_pretrained(self, folder: str | Path, tokenizer: Tokenizer | None = None) -> None:
        """Write the base as a folder in the Hugging Face layout of its family.

        `from_pretrained` reads it, and so does `transformers`. Adapters are left out. With a
        tokenizer, its file is written too.
        Raises: CheckpointError for a model that none of the layouts can describe.
        """
        extra = {}
        if tokenizer is not None and tokenizer.end_id is not None:
            extra = {"bos_token_id": tokenizer.end_id, "eos_token_id": tokenizer.end_id}
        write_checkpoint(Path(folder), self.config, self.state_dict(), extra)
        if tokenizer is not None:
            tokenizer.save(folder)

    def save_adapter(self, path: str | Path, *names: str) -> None:
        """Write the adapters called `names` to one file; several names are a stack.

        Of a fusion its sources are written too. What trains or is active does not matter.
        Raises: ConfigError for an unknown name, or without any. Warns if the base is trainable: its
        weights are not written, and the file fits only the base as it is now.
        """
        adapter_file.save_adapter(path, self, names)

    def load_adapter(
        self, path: str | Path, name: str | None = None, factory: AdapterFactory | None = None
    ) -> str | None:
        """Insert the adapters of a file (or of a run's folder), trainable and active.

        Returns their name; of a stack that of the last one, None for a file with a head alone.
        `name` is what a single adapter or a fusion is called here (default: as in the file);
        `factory` makes adapters of a class of your own, as for `add_adapter`. A head in the file
        is left out: `Classifier.load_adapter` reads it.
        Raises: CheckpointError for a file that cannot be read, or was made for another base;
        ConfigError if a name is taken. Then nothing has changed.
        """
        return adapter_file.load_adapter(path, self, name, factory=factory)

    def forward(
        self,
        ids: Array,
        attention_mask: Array | None = None,
        token_types: Array | None = None,
        first_only: bool = False,
        start: int = 0,
        hidden: Array | None = None,
        cache: Sequence[KeyValueCache] | None = None,
        positions: Array | None = None,
    ) -> Array:
        if cache:
            self.check_cache()
        if self.training:
            self.check_merged_weights_are_frozen()
        earlier = cache[start].length if cache else 0
        ids, attention_mask = self.check_ids(ids, earlier), binary_mask(attention_mask)
        if positions is None and earlier:
            positions = earlier + np.arange(ids.shape[1])
        x = self.embeddings.forward(ids, token_types, positions) if hidden is None else hidden
        for i, block in enumerate(self.blocks[start:], start):  # x (B, T, d)
            ends_here = first_only and block is self.blocks[-1]
            cache_of_block = cache[i] if cache else None
            x = block.forward(x, attention_mask, 1 if ends_here else None, cache_of_block)
        if self.final_norm is not None:
            x = self.final_norm.forward(x)
        self.save_for_backward(x.shape)
        return x

    def forward_below(
        self,
        depth: int,
        ids: Array,
        attention_mask: Array | None = None,
        token_types: Array | None = None,
    ) -> Array:
        """The hidden states (B, T, d_model) that enter block `depth`; nothing is saved.

        `forward(ids, mask, start=depth, hidden=...)` goes on from there.
        """
        below, attention_mask = [self.embeddings, *self.blocks[:depth]], binary_mask(attention_mask)
        training = self.training
        for module in below:
            module.eval()
        x = self.embeddings.forward(self.check_ids(ids), token_types)
        for block in self.blocks[:depth]:
            x = block.forward(x, attention_mask)
        for module in below:
            module.train(training)
        return x

    def backward(self, dy: Array) -> None:
        self.pop_saved(dy)
        norm = [] if self.final_norm is None else [self.final_norm]
        backward_through(dy, *norm, *reversed(self.blocks), self.embeddings)

    def new_cache(self, batch: int) -> list[KeyValueCache]:
        """An empty cache for each block, for `batch` sequences of `max_positions` tokens."""
        c = self.config
        shape = (batch, c.n_heads, c.max_positions, c.d_model // c.n_heads)
        return [KeyValueCache(*shape, self.dtype) for _ in self.blocks]

    def check_cache(self) -> None:
        """Raises: ConfigError in train mode, or if this model is not causal."""
        if self.training:
            raise ConfigError("a cache is for eval() mode: there is no backward pass through it")
        if not self.config.causal:
            raise ConfigError(
                "a cache needs a causal model: where a position attends to later ones, as in "
                "BERT, a new token changes the keys and values of all others"
            )

    def check_ids(self, ids: Array, earlier: int = 0) -> Array:
        """ids as an array, when it is sure that they fit; `earlier`: how many tokens came before.

        Raises: ShapeError, as the class says.
        """
        ids = np.asarray(ids)
        if not np.issubdtype(ids.dtype, np.integer) and ids.size:
            raise ShapeError(
                f"ids of dtype {ids.dtype}: expected integers, as tokenizer.encode makes of texts"
            )
        if ids.ndim != 2 or ids.size == 0:
            raise ShapeError(
                f"ids of shape {ids.shape}: expected (batch, tokens) with at least one of each"
            )
        length = earlier + ids.shape[1]
        if length > self.config.max_length:
            raise ShapeError(
                f"a sequence of {length} tokens is too long: this model has "
                f"{self.config.max_length} positions; truncate with max_length"
            )
        return ids

"""Multi-head self-attention, its additive mask, and the key/value cache of a decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, ShapeError
from . import kernels
from .functional import merge_heads, split_heads, split_qkv
from .layers import Dropout, Linear, Rng, default_rng
from .module import Array, Module


def binary_mask(attention_mask: Any) -> Array | None:
    """A mask of 1 (or true) for real tokens and 0 for padding, as an array.

    Raises: ShapeError for other values: those of an additive mask would mean the opposite.
    """
    if attention_mask is None:
        return None
    mask = np.asarray(attention_mask)
    other = (mask != 0) & (mask != 1)
    if other.any():
        raise ShapeError(
            f"attention_mask contains {mask[other][0]}; expected 1 for real tokens, 0 for padding: "
            "what is added to the scores is made from it"
        )
    return mask


def additive_attention_mask(
    attention_mask: Array | None,
    causal: bool,
    batch: int,
    length: int,
    dtype: npt.DTypeLike,
    first: int = 0,
) -> Array | None:
    """What is added to the scores: 0 where a query may attend, a large negative number elsewhere.

    Shapes: attention_mask (B, T), 1 for real tokens -> (B or 1, 1, 1 or Q, T), or None when
    nothing is masked; the queries are the Q = T - first positions from `first` on. A query that
    could attend to nothing at all attends to itself.
    Raises: ShapeError for a mask of another shape, or with other entries than 1 and 0.
    """
    attention_mask = binary_mask(attention_mask)
    if attention_mask is not None and attention_mask.shape != (batch, length):
        raise ShapeError(
            f"attention_mask has shape {attention_mask.shape}; expected {(batch, length)}, "
            "one entry for each token (1: real, 0: padding)"
        )
    visible = None
    if attention_mask is not None and not attention_mask.all():
        visible = (attention_mask != 0)[:, None, None, :]  # (B, 1, 1, T): padding is masked
    if causal:
        past = np.tri(length - first, length, first, dtype=bool)  # (Q, T): keys 0..i
        visible = past[None, None] if visible is None else visible & past
    if visible is None or visible.all():
        return None
    empty = ~visible.any(axis=-1, keepdims=True)  # as padding on the left of a causal sequence
    if empty.any():
        itself = np.eye(length - first, length, first, dtype=bool)
        visible = visible | (empty & itself)  # a softmax over nothing would be NaN
    return np.where(visible, 0, np.finfo(dtype).min / 2).astype(dtype)


class KeyValueCache:
    """Keys and values of the positions that one attention module has processed.

    In a causal model they do not change when a token is added, so that a new token costs one
    position instead of all. `transformer.new_cache(batch)` makes one for each block.

    Shapes: keys, values (B, H, max_length, d_head), of which the first `length` positions count.
    """

    def __init__(
        self, batch: int, n_heads: int, max_length: int, d_head: int, dtype: npt.DTypeLike
    ) -> None:
        self.keys = np.empty((batch, n_heads, max_length, d_head), dtype)
        self.values = np.empty_like(self.keys)
        self.length = 0

    def append(self, k: Array, v: Array, prefix: int = 0) -> tuple[Array, Array]:
        """Add T positions (B, H, T, d_head); returns all keys and values so far.

        The first `prefix` positions of k and v are not kept: every call brings them, and they are
        returned in front of all others.
        Raises: ShapeError for another batch or when the cache is full.
        """
        in_front, (k, v) = (
            (k[:, :, :prefix], v[:, :, :prefix]),
            (k[:, :, prefix:], v[:, :, prefix:]),
        )
        B, H, capacity, d_head = self.keys.shape
        end = self.length + k.shape[2]
        if k.shape != (B, H, k.shape[2], d_head) or end > capacity:
            raise ShapeError(
                f"a cache for {B} sequences of {capacity} tokens, of which {self.length} are used, "
                f"cannot take {k.shape[2]} more of {len(k)} sequences; clear it or make a new one"
            )
        new = slice(self.length, end)
        self.keys[:, :, new], self.values[:, :, new] = k, v
        self.length = end
        so_far = self.keys[:, :, :end], self.values[:, :, :end]
        if not prefix:
            return so_far
        keys, values = (np.concatenate(pair, axis=2) for pair in zip(in_front, so_far, strict=True))
        return keys, values

    def clear(self) -> None:
        """Empty the cache; its arrays are used again."""
        self.length = 0


class MultiHeadAttention(Module):
    """softmax(Q K^T / sqrt(d_head)) V in n_heads subspaces, concatenated and projected.

    (Vaswani et al. 2017, arXiv 1706.03762, equation 1 and section 3.2.2.)
    Shapes: x (B, T, d_model) -> (B, queries, d_model). `qkv` holds the three projections side by
    side, (d_model, 3 d_model), each divided into n_heads groups of d_head columns.
    `queries`: for how many positions, from the first, attention is computed; None: for all.
    If `qkv` returns more positions than x has (prefix tuning), the first of them are keys and
    values that all positions may read.
    With a cache, x holds new positions only, and they attend to the earlier ones too;
    attention_mask, if given, is (B, earlier + T).
    Raises: ConfigError if n_heads does not divide d_model; ShapeError for a mask of another shape,
    or with other entries than 1 and 0.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        causal: bool = False,
        dropout: float = 0.0,
        rng: Rng | None = None,
    ) -> None:
        if d_model % n_heads:
            raise ConfigError(f"n_heads={n_heads} does not divide d_model={d_model}")
        rng = default_rng(rng)
        self.n_heads, self.causal = n_heads, causal
        self.qkv = Linear(d_model, 3 * d_model, rng)
        self.dropout = Dropout(dropout)
        self.out = Linear(d_model, d_model, rng)

    def forward(
        self,
        x: Array,
        attention_mask: Array | None = None,
        queries: int | None = None,
        cache: KeyValueCache | None = None,
    ) -> Array:
        (B, T, d), H, Q = x.shape, self.n_heads, queries or x.shape[1]
        first = cache.length if cache is not None else 0  # position of the first row of x
        mask = additive_attention_mask(attention_mask, self.causal, B, first + T, x.dtype, first)
        mask = mask if mask is None else mask[:, :, :Q]
        weight, bias = self.qkv.weight, self.qkv.bias
        saved: tuple[Any, ...] = ()
        trains = self.training and (weight.trainable or bias.trainable)
        frozen = self.qkv.affine and not trains
        if frozen and cache is None and kernels.over_inputs_is_cheaper(Q, T, H, d):
            dropout_mask = self.dropout.draw((B, H, Q, T), x.dtype)
            projection = (weight.value, bias.value, H)
            context = kernels.self_attention(x, *projection, Q, mask, dropout_mask)
            if self.input_requires_grad():
                saved = (x, None, 0, mask, dropout_mask)
        else:
            qkv = self.qkv.forward(x)  # (B, P + T, 3 d), with P positions of a prefix; else P = 0
            P = qkv.shape[1] - T
            q, k, v = split_qkv(qkv, H)  # (B, H, P + T, d_head) each
            k, v = cache.append(k, v, P) if cache is not None else (k, v)
            if P and mask is not None:
                mask = np.pad(mask, ((0, 0), (0, 0), (0, 0), (P, 0)))  # no query is kept from it
            dropout_mask = self.dropout.draw((B, H, Q, k.shape[2]), x.dtype)
            context = kernels.attention(q[:, :, P : P + Q], k, v, mask, dropout_mask)
            if self.qkv.output_requires_grad:
                saved = (None, qkv, P, mask, dropout_mask)
        y = self.out.forward(merge_heads(context))  # (B, Q, d)
        self.save_for_backward(y.shape, *saved)
        return y

    def backward(self, dy: Array) -> Array | None:
        saved, dcontext = self.pop_saved(dy), self.out.backward(dy)  # (B, Q, d)
        if dcontext is None:
            return None
        (x, qkv, P, mask, dropout_mask), H, Q = saved, self.n_heads, dy.shape[1]
        dcontext = split_heads(dcontext, H)  # (B, H, Q, d_head)
        if qkv is None:
            projection = (self.qkv.weight.value, self.qkv.bias.value, H)
            return kernels.self_attention_backward(dcontext, x, *projection, mask, dropout_mask)
        q, k, v = split_qkv(qkv, H)
        dqkv = np.empty_like(qkv)
        dq, dk, dv = split_qkv(dqkv, H)  # views: what is written there arrives in dqkv
        used = slice(P, P + Q)
        dq[:, :, :P] = dq[:, :, P + Q :] = 0  # the queries that were not used
        out = (dq[:, :, used], dk, dv)
        kernels.attention_backward(dcontext, q[:, :, used], k, v, mask, dropout_mask, out)
        return self.qkv.backward(dqkv)

"""Multi-head self-attention, with padding and causal masks, and the memory of a decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, ShapeError
from .functional import attention, attention_backward, attention_of_few, attention_of_few_backward
from .layers import Dropout, Linear, flat
from .module import Array, Module


def additive_attention_mask(
    attention_mask: Array | None,
    causal: bool,
    batch: int,
    length: int,
    dtype: np.dtype,
    first: int = 0,
) -> Array | None:
    """What to add to the scores: 0 where a query may look, a huge negative number elsewhere.

    Shapes: attention_mask (B, T), nonzero for real tokens -> (B or 1, 1, 1 or Q, T), or None when
    nothing is hidden; the queries are the Q = T - first positions from `first` on. A query that
    would see nothing at all sees itself.
    Raises: ShapeError for a mask of another shape.
    """
    if attention_mask is not None and attention_mask.shape != (batch, length):
        raise ShapeError(
            f"attention_mask has shape {attention_mask.shape}; expected {(batch, length)}, "
            "one entry for each token (1: real, 0: padding)"
        )
    visible = None
    if attention_mask is not None and not attention_mask.all():
        visible = (attention_mask != 0)[:, None, None, :]  # (B, 1, 1, T): hide padding as key
    if causal:
        past = np.tri(length - first, length, first, dtype=bool)  # (Q, T): query i sees keys 0..i
        visible = past[None, None] if visible is None else visible & past
    if visible is None or visible.all():
        return None
    blind = ~visible.any(axis=-1, keepdims=True)  # padding on the left of a causal sequence, say
    if blind.any():
        itself = np.eye(length - first, length, first, dtype=bool)
        visible = visible | (blind & itself)  # no NaN
    return np.where(visible, 0, np.finfo(dtype).min / 2).astype(dtype)


def over_inputs_is_cheaper(queries: int, length: int, n_heads: int, d_model: int) -> bool:
    """Whether attention over the inputs takes fewer multiply-adds than over keys and values.

    Those cost 3 d^2 for each position; without them there are 3 d^2 for each query, and products
    of its heads with all inputs, which are d wide.
    """
    return 2 * queries * n_heads * length < 3 * (length - queries) * d_model


class KeyValueCache:
    """Keys and values of the positions that one attention module has seen.

    A causal model never changes them when a token is added, so that a new token costs one position
    instead of all. `transformer.new_cache(batch)` makes one for each block.

    Shapes: keys, values (B, H, max_length, d_head), of which the first `length` positions count.
    """

    def __init__(
        self, batch: int, n_heads: int, max_length: int, d_head: int, dtype: npt.DTypeLike
    ) -> None:
        self.keys = np.empty((batch, n_heads, max_length, d_head), dtype)
        self.values = np.empty_like(self.keys)
        self.length = 0

    def append(self, k: Array, v: Array) -> tuple[Array, Array]:
        """Keep T more positions (B, H, T, d_head); all keys and values so far, views.

        Raises: ShapeError for another batch or when there is no more room.
        """
        B, H, room, d_head = self.keys.shape
        end = self.length + k.shape[2]
        if k.shape != (B, H, k.shape[2], d_head) or end > room:
            raise ShapeError(
                f"a cache for {B} sequences of {room} tokens, of which {self.length} are there, "
                f"cannot take {k.shape[2]} more of {len(k)} sequences; clear it or make a new one"
            )
        new = slice(self.length, end)
        self.keys[:, :, new], self.values[:, :, new] = k, v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def clear(self) -> None:
        """Forget everything; the room is kept."""
        self.length = 0


class MultiHeadAttention(Module):
    """softmax(Q K^T / sqrt(d_head)) V in n_heads subspaces, concatenated and projected.

    (Vaswani et al. 2017, arXiv 1706.03762, equation 1 and section 3.2.2.)
    Shapes: x (B, T, d_model) -> (B, queries, d_model). `qkv` holds the three projections side by
    side, (d_model, 3 d_model), each divided into n_heads groups of d_head columns.
    A frozen attention of which only a few positions ask goes straight over the inputs, without
    keys and values: the same result by another order of the products.
    With a cache, x holds new positions only, and they look at the earlier ones' keys and values
    too; attention_mask, if given, is (B, earlier + T).
    Raises: ConfigError if n_heads does not divide d_model, or for a cache in train() mode or
    without a causal mask; ShapeError for a mask of another shape.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        causal: bool = False,
        dropout: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> None:
        if d_model % n_heads:
            raise ConfigError(f"n_heads={n_heads} does not divide d_model={d_model}")
        self.n_heads, self.d_head, self.causal = n_heads, d_model // n_heads, causal
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
        """`queries`: how many positions ask, from the first; None: all. Every position answers."""
        B, T, d = x.shape
        Q = T if queries is None else queries
        if cache is not None:
            self.check_cache()
        S = T if cache is None else cache.length + T  # positions that answer
        dropout_mask = self.dropout.draw((B, self.n_heads, Q, S), x.dtype)
        bias = additive_attention_mask(attention_mask, self.causal, B, S, x.dtype, first=S - T)
        bias = bias if bias is None else bias[:, :, :Q]
        frozen = not self.qkv.trainable_parameters()
        if cache is None and frozen and over_inputs_is_cheaper(Q, T, self.n_heads, d):
            context, *saved = self.over_inputs(x, Q, bias, dropout_mask)
        else:
            context, *saved = self.over_keys(x, Q, bias, dropout_mask, cache)
        y = self.out.forward(context.reshape(B, Q, d))
        # The way back comes this far only if something at or before qkv trains.
        self.save_for_backward(y.shape, *(saved if self.qkv.output_requires_grad else ()))
        return y

    def backward(self, dy: Array) -> Array | None:
        saved = self.pop_saved(dy)
        dcontext = self.out.backward(dy)  # (B, Q, d)
        if dcontext is None:
            return None
        way_back, *arrays = saved
        return way_back(dcontext.reshape(*dy.shape[:2], self.n_heads, self.d_head), *arrays)

    # -- keys and values of every position: what training all of it takes, and caches ------

    def over_keys(
        self,
        x: Array,
        Q: int,
        bias: Array | None,
        dropout_mask: Array | None,
        cache: KeyValueCache | None,
    ) -> tuple[Any, ...]:
        """The context (B, Q, H, d_head); then the way back, and what it reads."""
        qkv = self.qkv.forward(x)  # (B, T, 3 d)
        q, k, v = self.split_heads(qkv)  # (B, H, T, d_head) each
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H, S, d_head): the earlier positions, then the T new
        context = attention(q[:, :, :Q], k, v, bias, dropout_mask)
        return context, self.over_keys_backward, qkv, bias, dropout_mask

    def over_keys_backward(
        self, dcontext: Array, qkv: Array, bias: Array | None, dropout_mask: Array | None
    ) -> Array | None:
        Q = dcontext.shape[1]
        q, k, v = self.split_heads(qkv)
        dqkv = np.empty_like(qkv)
        dq, dk, dv = self.split_heads(dqkv)
        attention_backward(dcontext, q[:, :, :Q], k, v, bias, dropout_mask, dq[:, :, :Q], dk, dv)
        dq[:, :, Q:] = 0  # nobody used what these positions would have asked
        return self.qkv.backward(dqkv)

    def split_heads(self, qkv: Array) -> Array:
        """(B, T, 3 d) -> (3, B, H, T, d_head), a view: what is written there arrives in qkv."""
        B, T, _ = qkv.shape
        return qkv.reshape(B, T, 3, self.n_heads, -1).transpose(2, 0, 3, 1, 4)

    # -- the same straight over the inputs: cheaper where few ask and the projections are frozen

    def over_inputs(
        self, x: Array, Q: int, bias: Array | None, dropout_mask: Array | None
    ) -> tuple[Any, ...]:
        """As `over_keys`."""
        B, _, d = x.shape
        w_k, w_v, b_v = self.heads_of_weights()
        q = flat(x[:, :Q]) @ self.qkv.weight.value[:, :d]  # (B Q, d)
        q += self.qkv.bias.value[:d]
        q = q.reshape(B, Q, self.n_heads, -1).swapaxes(1, 2)  # (B, H, Q, d_head)
        context, p, asked = attention_of_few(q, x, w_k, w_v, b_v, bias, dropout_mask)
        return context, self.over_inputs_backward, x, dropout_mask, p, asked

    def over_inputs_backward(
        self, dcontext: Array, x: Array, dropout_mask: Array | None, p: Array, asked: Array
    ) -> Array:
        B, Q, _, _ = dcontext.shape
        d = x.shape[-1]
        w_k, w_v, b_v = self.heads_of_weights()
        dq, dx = attention_of_few_backward(dcontext, x, w_k, w_v, b_v, dropout_mask, p, asked)
        dq = dq.swapaxes(1, 2).reshape(B * Q, d)
        dx[:, :Q] += (dq @ self.qkv.weight.value[:, :d].T).reshape(B, Q, d)
        return dx

    def heads_of_weights(self) -> tuple[Array, Array, Array]:
        """Views by head: W_k and W_v (H, d, d_head), and the values' bias (H, 1, d_head)."""
        _, w_k, w_v = self.qkv.weight.value.reshape(-1, 3, self.n_heads, self.d_head).swapaxes(0, 1)
        b_v = self.qkv.bias.value.reshape(3, self.n_heads, 1, -1)[2]
        return w_k.swapaxes(0, 1), w_v.swapaxes(0, 1), b_v

    def check_cache(self) -> None:
        if self.training:
            raise ConfigError("a cache is for eval() mode: nothing walks back through it")
        if not self.causal:
            raise ConfigError(
                "a cache needs a causal model: where a position sees what comes after it, as in "
                "BERT, a new token changes the keys and values of all others"
            )

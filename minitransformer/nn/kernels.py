"""The functions of `functional.py` made fast: the same names, arguments and results.

What is different is only how: loops over tiles that stay in cache, buffers that are used again,
polynomials fitted to float32, products in another order. Additional keyword arguments (`out`,
`with_derivative`) say where a result goes or what is not needed. `tests/nn/test_kernels.py` holds
each function to its twin; the activations are in `activation_kernels.py`. Begin with
`functional.py`; nothing here adds to the mathematics.
"""

from __future__ import annotations

import math

import numpy as np

from . import functional
from .activation_kernels import (
    ACTIVATIONS,
    TILE,
    activation_named,
    gelu,
    gelu_tanh,
    linear,
    relu,
    silu,
    tanh,
)
from .functional import merge_heads, split_qkv
from .module import Array
from .row_gradient import RowGradient

# For type checkers: names from another file that are found here on purpose.
__all__ = ["ACTIVATIONS", "activation_named", "gelu", "gelu_tanh", "linear", "relu", "silu", "tanh"]

# -- softmax ------------------------------------------------------------------------------


def softmax(scores: Array, out: Array | None = None, shift: bool = True) -> Array:
    """`functional.softmax`. `out` may be `scores` itself.

    Without `shift`, for scores that are known to be small, there is one pass less over the rows.
    """
    if shift:
        scores = out = np.subtract(scores, scores.max(axis=-1, keepdims=True), out=out)
    p = np.exp(scores, out=out)
    p /= np.einsum("...i->...", p)[..., None]
    return p


def softmax_backward(dp: Array, p: Array, out: Array | None = None) -> Array:
    """`functional.softmax_backward`. `out` may be `dp` itself."""
    ds = np.subtract(dp, np.einsum("...i,...i->...", dp, p)[..., None], out=out)
    ds *= p
    return ds


# -- attention ----------------------------------------------------------------------------
# A few sequences at a time, so that their (Q, T) matrices stay in cache.

SMALL_SCORE = 40.0  # exp of a score between -40 and 40, and sums of them, are far from overflow


def attention(
    q: Array, k: Array, v: Array, mask: Array | None = None, dropout_mask: Array | None = None
) -> Array:
    """`functional.attention`; heads lie side by side in memory, so that merging copies nothing."""
    (B, H, Q, d_head), T = q.shape, k.shape[2]
    context = np.empty((B, Q, H, d_head), q.dtype).swapaxes(1, 2)
    for rows in _sequence_tiles(B, H * Q * T):
        p = attention_weights(q[rows], k[rows], _of_rows(mask, rows))
        if dropout_mask is not None:
            p *= dropout_mask[rows]
        np.matmul(p, v[rows], out=context[rows])
    return context


def attention_backward(
    dcontext: Array,
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None = None,
    dropout_mask: Array | None = None,
    out: tuple[Array, Array, Array] | None = None,
) -> tuple[Array, Array, Array]:
    """`functional.attention_backward`, written into `out` if given."""
    dq, dk, dv = out or (np.empty_like(q), np.empty_like(k), np.empty_like(v))
    B, H, Q, d_head = q.shape
    for rows in _sequence_tiles(B, H * Q * k.shape[2]):
        dc = dcontext[rows]  # (b, H, Q, d_head)
        p = attention_weights(q[rows], k[rows], _of_rows(mask, rows))
        dropped = p if dropout_mask is None else p * dropout_mask[rows]
        np.matmul(dropped.swapaxes(-1, -2), dc, out=dv[rows])
        ds = dc @ v[rows].swapaxes(-1, -2)  # (b, H, Q, T)
        if dropout_mask is not None:
            ds *= dropout_mask[rows]
        softmax_backward(ds, p, out=ds)
        ds *= 1 / math.sqrt(d_head)
        np.matmul(ds, k[rows], out=dq[rows])
        np.matmul(ds.swapaxes(-1, -2), q[rows], out=dk[rows])
    return dq, dk, dv


def attention_weights(q: Array, k: Array, mask: Array | None = None) -> Array:
    """`functional.attention_weights`; small scores need no shift."""
    return _softmax_of_scores(q @ k.swapaxes(-1, -2), q.shape[-1], mask)


def _softmax_of_scores(scores: Array, d_head: int, mask: Array | None) -> Array:
    """softmax(scores / sqrt(d_head) + mask), in place."""
    scores *= 1 / math.sqrt(d_head)
    small = scores.max() < SMALL_SCORE and scores.min() > -SMALL_SCORE
    if mask is not None:
        scores += mask
    return softmax(scores, out=scores, shift=not small)


def _of_rows(mask: Array | None, rows: slice) -> Array | None:
    return mask if mask is None or len(mask) == 1 else mask[rows]


def _sequence_tiles(n: int, size_of_one: int) -> list[slice]:
    """Cut n sequences into groups that hold about 2 TILE numbers, at least one sequence each."""
    step = max(1, 2 * TILE // size_of_one)
    return [slice(start, start + step) for start in range(0, n, step)]


# -- self-attention of few queries --------------------------------------------------------
# Products may be done in any order: softmax(q (x W_k)^T) (x W_v) = (softmax((q W_k^T) x^T) x) W_v.
# On the right no position has keys and values, and their products, the largest of attention, are
# not needed. What remains is small for few queries: products for each head or each sequence.
# (Multi-head latent attention uses this order for every token that it generates: DeepSeek-AI 2024,
# arXiv 2405.04434, section 2.1.2.)


def over_inputs_is_cheaper(queries: int, length: int, n_heads: int, d_model: int) -> bool:
    """Whether `self_attention` takes fewer multiply-adds than keys and values of all positions.

    Those cost 3 d^2 for each position; without them there are 3 d^2 for each query, and products
    of its heads with all inputs, which are d wide.
    """
    return 2 * queries * n_heads * length < 3 * (length - queries) * d_model


def self_attention(
    x: Array,
    weight: Array,
    bias: Array,
    n_heads: int,
    queries: int,
    mask: Array | None = None,
    dropout_mask: Array | None = None,
) -> Array:
    """`functional.self_attention` without keys and values.

    The bias of the keys is not used: it adds the same to all scores of a query, and the softmax
    does not change.
    """
    w_k, w_v, b_v = _weights_by_head(weight, bias, n_heads)
    q = _queries(x, weight, bias, n_heads, queries)
    p, _ = _probabilities(q, x, w_k, mask)
    if dropout_mask is not None:
        p *= dropout_mask
    mean_input = _by_sequence(p, x)  # (B, H, Q, d): the mean of the inputs that a query reads
    return _by_head(mean_input, w_v) + p.sum(axis=-1, keepdims=True) * b_v


def self_attention_backward(
    dcontext: Array,
    x: Array,
    weight: Array,
    bias: Array,
    n_heads: int,
    mask: Array | None = None,
    dropout_mask: Array | None = None,
) -> Array:
    """`functional.self_attention_backward` without keys and values."""
    B, H, Q, d_head = dcontext.shape
    w_k, w_v, b_v = _weights_by_head(weight, bias, n_heads)
    q = _queries(x, weight, bias, n_heads, Q)
    p, q_on_inputs = _probabilities(q, x, w_k, mask)
    dmean_input = _by_head(dcontext, w_v.swapaxes(-1, -2))  # (B, H, Q, d)
    ds = _by_sequence(dmean_input, x.swapaxes(-1, -2))  # (B, H, Q, T)
    ds += (dcontext * b_v).sum(axis=-1, keepdims=True)
    dropped = p
    if dropout_mask is not None:
        dropped = p * dropout_mask
        ds *= dropout_mask
    softmax_backward(ds, p, out=ds)
    ds *= 1 / math.sqrt(d_head)
    dx = _queries_below(dropped).swapaxes(-1, -2) @ _queries_below(dmean_input)
    dx += _queries_below(ds).swapaxes(-1, -2) @ _queries_below(q_on_inputs)  # (B, T, d)
    dq = merge_heads(_by_head(_by_sequence(ds, x), w_k)).reshape(B * Q, -1)  # (B Q, d)
    dx[:, :Q] += (dq @ weight[:, : H * d_head].T).reshape(B, Q, -1)
    return dx


def _queries(x: Array, weight: Array, bias: Array, n_heads: int, queries: int) -> Array:
    """(B, H, Q, d_head): the queries of the first positions."""
    B, _, d = x.shape
    q = x[:, :queries].reshape(-1, d) @ weight[:, :d]  # one product for the whole batch
    q += bias[:d]
    return functional.split_heads(q.reshape(B, queries, d), n_heads)


def _probabilities(q: Array, x: Array, w_k: Array, mask: Array | None) -> tuple[Array, Array]:
    """P (B, H, Q, T), and the queries as vectors to multiply inputs by, q W_k^T (B, H, Q, d)."""
    q_on_inputs = _by_head(q, w_k.swapaxes(-1, -2))
    scores = _by_sequence(q_on_inputs, x.swapaxes(-1, -2))
    return _softmax_of_scores(scores, q.shape[-1], mask), q_on_inputs


def _weights_by_head(weight: Array, bias: Array, n_heads: int) -> tuple[Array, Array, Array]:
    """Views by head: W_k and W_v (H, d, d_head), and the bias of the values (H, 1, d_head)."""
    _, w_k, w_v = split_qkv(weight[None], n_heads)[:, 0]
    b_v = split_qkv(bias[None, None], n_heads)[2, 0]
    return w_k, w_v, b_v


def _queries_below(a: Array) -> Array:
    """(B, H, Q, n) -> (B, H Q, n): all queries of a sequence, below each other."""
    B, H, Q, n = a.shape
    return a.reshape(B, H * Q, n)


def _by_sequence(a: Array, b: Array) -> Array:
    """(B, H, Q, i) @ (B, i, o) -> (B, H, Q, o): a matrix for each sequence."""
    return (_queries_below(a) @ b).reshape(*a.shape[:-1], -1)


def _by_head(a: Array, b: Array) -> Array:
    """(B, H, Q, i) @ (H, i, o) -> (B, H, Q, o): a matrix for each head."""
    B, H, Q, i = a.shape
    heads = a.swapaxes(0, 1).reshape(H, B * Q, i) @ b
    return heads.reshape(H, B, Q, -1).swapaxes(0, 1)


# -- layer normalization ------------------------------------------------------------------


def layer_norm(x: Array, gain: Array, bias: Array, eps: float) -> tuple[Array, Array, Array]:
    """`functional.layer_norm`; einsum sums a row faster than `sum` and `mean` do."""
    d = x.shape[-1]
    mean = np.einsum("...i->...", x)[..., None] / d
    x_hat = x - mean
    variance = np.einsum("...i,...i->...", x_hat, x_hat)[..., None] / d
    if (variance < 1e-6 * mean * mean).any():  # then the rounding of the mean matters
        x_hat -= np.einsum("...i->...", x_hat)[..., None] / d
        variance = np.einsum("...i,...i->...", x_hat, x_hat)[..., None] / d
    rstd = 1 / np.sqrt(variance + eps)
    rstd = rstd.astype(x.dtype, copy=False)
    x_hat *= rstd
    y = x_hat * gain
    y += bias
    return y, x_hat, rstd


def layer_norm_backward(dy: Array, x_hat: Array, rstd: Array, gain: Array) -> Array:
    """`functional.layer_norm_backward`."""
    d = dy.shape[-1]
    g = dy * gain
    projection = np.einsum("...i,...i->...", g, x_hat)[..., None] / d
    g -= np.einsum("...i->...", g)[..., None] / d
    g -= x_hat * projection
    g *= rstd
    return g


# -- products ------------------------------------------------------------------------------

FEW_ROWS = 128


def matmul_transposed(dy: Array, weight: Array) -> Array:
    """`functional.matmul_transposed`; for few rows as (W dy^T)^T.

    OpenBLAS reads a large matrix faster as it is stored than as its transpose: 1.5 times as fast
    for 32 rows. From 256 rows on, copying the result into rows costs what that saves.
    """
    if len(dy) > FEW_ROWS or min(weight.shape) < FEW_ROWS:
        return dy @ weight.T
    return np.ascontiguousarray((weight @ dy.T).T)


# -- sums over rows -----------------------------------------------------------------------

ROWS = 64  # so many are added in the array's own dtype, and the sums of them in float64


def sum_rows(x: Array, factor: Array | None = None) -> Array:
    """`functional.sum_rows`: rounding grows with ROWS, not with the number of rows."""
    arrays = (x,) if factor is None else (x, factor)  # (N, d) each
    terms = ",".join(["bni"] * len(arrays)) + "->bi"
    n = len(x) // ROWS * ROWS
    blocks = np.einsum(terms, *(a[:n].reshape(-1, ROWS, a.shape[1]) for a in arrays))
    rest = np.einsum(terms, *(a[None, n:] for a in arrays))[0]
    return (blocks.sum(axis=0, dtype=np.float64) + rest).astype(x.dtype)


# -- embedding ----------------------------------------------------------------------------


def embedding_backward(dy: Array, ids: Array, n_rows: int) -> RowGradient:
    """`functional.embedding_backward`, without the rows that are zero."""
    d = dy.shape[-1]
    return RowGradient.summed((n_rows, d), ids.ravel(), dy.reshape(-1, d))


# -- AdapterFusion ------------------------------------------------------------------------
# q . (o_n K) = (q K^T) . o_n and sum_n p_n (o_n V) = (sum_n p_n o_n) V: one product, not N.


def fusion(q: Array, o: Array, key: Array, value: Array) -> tuple[Array, Array]:
    """`functional.fusion`."""
    p = softmax(np.einsum("...d,...nd->...n", q @ key.T, o))  # (..., N)
    return np.einsum("...n,...nd->...d", p, o) @ value, p


def fusion_backward(
    df: Array, q: Array, o: Array, p: Array, key: Array, value: Array, with_sources: bool = True
) -> tuple[Array, Array | None, Array, Array]:
    """`functional.fusion_backward`; do is None without `with_sources`."""
    d = df.shape[-1]
    mixed = np.einsum("...n,...nd->...d", p, o)
    dmixed = df @ value.T
    ds = softmax_backward(np.einsum("...d,...nd->...n", dmixed, o), p)  # (..., N)
    du = np.einsum("...n,...nd->...d", ds, o)  # of u = q K^T
    do = None
    if with_sources:
        do = p[..., None] * dmixed[..., None, :] + ds[..., None] * (q @ key.T)[..., None, :]
    dkey = du.reshape(-1, d).T @ q.reshape(-1, d)
    dvalue = mixed.reshape(-1, d).T @ df.reshape(-1, d)
    return du @ key, do, dkey, dvalue


# -- AdamW --------------------------------------------------------------------------------


def adamw(
    value: Array,
    grad: Array,
    m: Array,
    v: Array,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> tuple[Array, Array, Array]:
    """`functional.adamw`, in place: value, m and v are changed and returned.

    A few rows at a time, so that each array comes from memory once, and not once an operation.
    """
    b1, b2 = betas
    for rows in row_tiles(value):
        own, g, mean, square = value[rows], grad[rows], m[rows], v[rows]
        update = g - mean
        update *= 1 - b1
        mean += update
        np.multiply(g, g, out=update)
        update -= square
        update *= 1 - b2
        square += update
        np.sqrt(square, out=update)
        update /= math.sqrt(1 - b2**step)
        update += eps
        np.divide(mean, update, out=update)
        update *= lr / (1 - b1**step)
        if weight_decay:
            own *= 1 - lr * weight_decay
        own -= update
    return value, m, v


def row_tiles(x: Array, size: int | None = None) -> list[slice]:
    """Cut the first axis into pieces of about `size` (TILE) numbers, at least one row each."""
    step = max(1, (size or TILE) * len(x) // max(1, x.size))
    return [slice(start, start + step) for start in range(0, len(x), step)]

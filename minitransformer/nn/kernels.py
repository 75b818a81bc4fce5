"""The functions of `functional.py` made fast: the same names, arguments and results.

What is different is only how: loops over tiles that stay in cache, buffers that are used again,
polynomials fitted to float32, products in another order. Additional keyword arguments (`out`,
`with_derivative`) say where a result goes or what is not needed. `tests/nn/test_kernels.py` holds
each function to its twin. Begin with `functional.py`; nothing here adds to the mathematics.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..errors import ConfigError
from . import functional
from .functional import Activation, merge_heads, split_qkv
from .module import Array

TILE = 1 << 16  # numbers per tile of an element-wise kernel: a few float32 arrays of it fit in L2


# -- activations --------------------------------------------------------------------------
# The derivative is computed while x is still in cache, and only if it is wanted.


def relu(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
    """`functional.relu`; the derivative is boolean, a quarter of the memory."""
    return np.maximum(x, 0), (x > 0 if with_derivative else None)


def tanh(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
    """`functional.tanh`."""
    y = np.tanh(x)
    return y, (1 - y * y if with_derivative else None)


def silu(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
    """`functional.silu`."""
    with np.errstate(over="ignore"):
        one_plus = 1 + np.exp(-x)
    y = x / one_plus
    return y, ((1 + (x - y)) / one_plus if with_derivative else None)  # s + x s (1 - s)


def linear(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
    """`functional.linear`; the derivative is one number for all, seen as an array."""
    return x, (np.broadcast_to(np.ones((), x.dtype), x.shape) if with_derivative else None)


def gelu(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
    """`functional.gelu`; in float32 with a polynomial that is exact to its rounding."""
    if x.dtype != np.float32:
        y, derivative = functional.gelu(x)
        return y, (derivative if with_derivative else None)
    with np.errstate(over="ignore"):  # where x p(x^2) is infinite, its tanh is 1 all the same
        return _tiled(_gelu_tile, x, with_derivative)


def gelu_tanh(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
    """`functional.gelu_tanh`."""
    with np.errstate(over="ignore"):  # far out, where exp is infinite, s is 0
        return _tiled(_gelu_tanh_tile, x, with_derivative)


ACTIVATIONS: dict[str, Activation] = {
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "tanh": tanh,
    "silu": silu,
    "linear": linear,
}


def activation_named(name: str) -> Activation:
    """The function for a configuration's word. Raises: ConfigError for an unknown one."""
    if name not in ACTIVATIONS:
        raise ConfigError(f"activation {name!r} is unknown; choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _tiled(
    kernel: Callable[[Array, Array, Array | None], None], x: Array, with_derivative: bool
) -> tuple[Array, Array | None]:
    """Run an element-wise kernel over tiles that stay in cache."""
    x = np.ascontiguousarray(x)
    y = np.empty_like(x)
    derivative = np.empty_like(x) if with_derivative else None
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    flat_derivative = derivative.reshape(-1) if derivative is not None else None
    for start in range(0, x.size, TILE):
        tile = slice(start, start + TILE)
        kernel(
            flat_x[tile], flat_y[tile], None if flat_derivative is None else flat_derivative[tile]
        )
    return y, derivative


# Phi(x) = (1 + tanh(x p(x^2))) / 2, with p fitted so that x Phi(x) is off by less than 1e-7 for
# |x| < 5.6; beyond, x p(x^2) stays above 9, where float32 cannot tell its tanh from 1.
# The first two coefficients alone are, nearly, the tanh form. From scripts/fit_gelu.py.
_CDF_POLYNOMIAL = (
    7.978842e-01,
    3.633428e-02,
    -3.312998e-05,
    -5.524016e-05,
    3.969110e-06,
    -1.334464e-07,
    1.805617e-09,
)


def _normal_cdf_tile(x: Array, squares: Array, cdf: Array) -> None:
    """Phi(x) in float32, from x and x^2, written into `cdf`."""
    np.multiply(squares, np.float32(_CDF_POLYNOMIAL[-1]), out=cdf)
    for coefficient in _CDF_POLYNOMIAL[-2:0:-1]:  # Horner's rule
        cdf += np.float32(coefficient)
        cdf *= squares
    cdf += np.float32(_CDF_POLYNOMIAL[0])
    cdf *= x
    np.tanh(cdf, out=cdf)
    cdf *= 0.5
    cdf += 0.5


def _gelu_tile(x: Array, y: Array, derivative: Array | None) -> None:
    squares = x * x
    if derivative is not None:  # phi(x) = exp(-x^2 / 2) / sqrt(2 pi)
        np.multiply(squares, -0.5, out=derivative)
        np.exp(derivative, out=derivative)
        derivative *= 1 / math.sqrt(2 * math.pi)
        derivative *= x
    _normal_cdf_tile(x, squares, y)
    if derivative is not None:
        derivative += y
    y *= x


def _gelu_tanh_tile(x: Array, y: Array, derivative: Array | None) -> None:
    a, b = 2 * math.sqrt(2 / math.pi), 2 * 0.044715 * math.sqrt(2 / math.pi)
    squares = x * x
    np.minimum(squares, 900, out=squares)  # |x| = 30: beyond, s is 0 or 1; infinity must not arise
    s = squares * -b
    s -= a
    s *= x
    np.exp(s, out=s)
    s += 1
    np.reciprocal(s, out=s)
    if derivative is not None:  # s + x s (1 - s) (a + 3 b x^2)
        np.subtract(1, s, out=derivative)
        derivative *= s
        derivative *= x
        squares *= 3 * b
        squares += a
        derivative *= squares
        derivative += s
    np.multiply(x, s, out=y)


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


# -- sums over rows -----------------------------------------------------------------------

ROWS = 64  # so many are added in the array's own dtype, and the sums of them in float64


def sum_rows(x: Array, factor: Array | None = None) -> Array:
    """`functional.sum_rows`: rounding grows with ROWS, not with the number of rows."""
    if len(x) <= ROWS or x.dtype == np.float64:
        return x.sum(axis=0) if factor is None else np.einsum("ni,ni->i", x, factor)
    n, d = len(x) // ROWS, x.shape[1]
    whole, rest = slice(n * ROWS), slice(n * ROWS, None)
    blocks = x[whole].reshape(n, ROWS, d)
    if factor is None:
        sums = blocks.sum(axis=1)  # (n, d)
    else:
        sums = np.einsum("bni,bni->bi", blocks, factor[whole].reshape(n, ROWS, d))
    total = sums.sum(axis=0, dtype=np.float64)
    total += x[rest].sum(axis=0) if factor is None else np.einsum("ni,ni->i", x[rest], factor[rest])
    return total.astype(x.dtype)


# -- embedding ----------------------------------------------------------------------------


def embedding_backward(dy: Array, ids: Array, n_rows: int) -> Array:
    """`functional.embedding_backward`: sort by id, then add up each run of equal ids."""
    order = np.argsort(ids, axis=None, kind="stable")
    rows, starts = np.unique(ids.ravel()[order], return_index=True)
    dweight = np.zeros((n_rows, dy.shape[-1]), dy.dtype)
    dweight[rows] = np.add.reduceat(dy.reshape(-1, dy.shape[-1])[order], starts, axis=0)
    return dweight


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
    """`functional.adamw`, in place: value, m and v are changed and returned."""
    b1, b2 = betas
    m += (1 - b1) * (grad - m)
    v += (1 - b2) * (grad * grad - v)
    if weight_decay:
        value *= 1 - lr * weight_decay
    update = np.sqrt(v)
    update /= math.sqrt(1 - b2**step)
    update += eps
    np.divide(m, update, out=update)
    update *= lr / (1 - b1**step)
    value -= update
    return value, m, v

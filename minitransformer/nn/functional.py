"""Stateless maths in forward/backward pairs, each pair together.

A forward returns its value and, where there is one, the statistic that its backward reads. This
is the one file where buffers are reused in place, loops are cut into tiles that stay in cache, or
a formula is rearranged for speed; everywhere else code reads like the equation in the paper.

All functions dropout_mask the dtype of their input: float32 for work, float64 for checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..errors import ConfigError, DataError, ShapeError
from .module import Array

TILE = 1 << 16  # numbers per tile of an element-wise kernel: a few float32 arrays of it fit in L2


# -- element-wise functions ---------------------------------------------------------------
# Each returns (f(x), f'(x)). All their backward passes are the same product: dx = dy * f'(x).
# The derivative is computed while x is still in cache, and only if it is wanted.

Activation = Callable[..., tuple[Array, "Array | None"]]


def relu(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
    """max(x, 0); derivative 1 where x > 0, else 0 (kept as booleans: a quarter of the memory)."""
    return np.maximum(x, 0), (x > 0 if with_derivative else None)


def tanh(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
    """tanh x; derivative 1 - tanh^2 x."""
    y = np.tanh(x)
    return y, (1 - y * y if with_derivative else None)


def silu(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
    """x s(x) with the logistic s (Elfwing et al. 2017); derivative s + x s (1 - s)."""
    s = 0.5 * (1 + np.tanh(0.5 * x))  # the logistic, without overflow at either end
    y = x * s
    return y, (s + y * (1 - s) if with_derivative else None)


def gelu(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
    """x Phi(x), Phi the normal distribution function (Hendrycks and Gimpel 2016, section 2).

    Slope: Phi(x) + x phi(x). float64 uses the C library's erf; float32 a polynomial that is
    exact to its rounding (see `_normal_cdf_tile`).
    """
    if x.dtype != np.float32:
        cdf = 0.5 * (1 + _erf(x / math.sqrt(2)))
        density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi) if with_derivative else None
        return x * cdf, (cdf + x * density if density is not None else None)
    with np.errstate(over="ignore"):  # where x p(x^2) is infinite, its tanh is 1 all the same
        return _tiled(_gelu_tile, x, with_derivative)


def gelu_tanh(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): GPT-2's GELU (same paper, section 2)."""
    return _tiled(_gelu_tanh_tile, x, with_derivative)


ACTIVATIONS: dict[str, Activation] = {
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "tanh": tanh,
    "silu": silu,
}


def activation_named(name: str) -> Activation:
    """The function for a configuration's word. Raises: ConfigError for an unknown one."""
    if name not in ACTIVATIONS:
        raise ConfigError(f"activation {name!r} is unknown; choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _erf(x: Array) -> Array:
    flat = map(math.erf, x.ravel().tolist())
    return np.fromiter(flat, np.float64, x.size).reshape(x.shape)


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
    a, b = math.sqrt(2 / math.pi), 0.044715 * math.sqrt(2 / math.pi)
    squares = x * x
    t = squares * b
    t += a
    t *= x
    np.tanh(t, out=t)
    cdf = t * 0.5
    cdf += 0.5
    if derivative is not None:  # cdf + x/2 (1 - t^2) (a + 3 b x^2)
        np.multiply(t, t, out=t)
        np.subtract(1, t, out=t)
        t *= 0.5
        t *= x
        squares *= 3 * b
        squares += a
        np.multiply(t, squares, out=derivative)
        derivative += cdf
    np.multiply(x, cdf, out=y)


# -- softmax and attention ----------------------------------------------------------------


def softmax(scores: Array, out: Array | None = None, shift: bool = True) -> Array:
    """exp(s) / sum exp(s) over the last axis, shifted by the maximum so that nothing overflows.

    Without `shift`, for scores that are known to be small, one pass less over the rows. `out` may
    be `scores` itself.
    """
    if shift:
        scores = out = np.subtract(scores, scores.max(axis=-1, keepdims=True), out=out)
    p = np.exp(scores, out=out)
    p /= np.einsum("...i->...", p)[..., None]
    return p


def softmax_backward(dp: Array, p: Array, out: Array | None = None) -> Array:
    """ds = p (dp - sum(dp p)): the Jacobian diag(p) - p p^T, applied to dp.

    `out` may be `dp` itself.
    """
    ds = np.subtract(dp, np.einsum("...i,...i->...", dp, p)[..., None], out=out)
    ds *= p
    return ds


SMALL_SCORE = 40.0  # exp of a score between -40 and 40, and sums of them, are far from overflow


def attention_weights(q: Array, k: Array, bias: Array | None) -> Array:
    """P = softmax(Q K^T / sqrt(d_head) + bias); shapes as in `attention`, P (B, H, Q, T)."""
    return _weights_of_scores(q @ k.swapaxes(-1, -2), q.shape[-1], bias)


def _weights_of_scores(p: Array, d_head: int, bias: Array | None) -> Array:
    """softmax(p / sqrt(d_head) + bias), in place."""
    p *= 1 / math.sqrt(d_head)
    small = p.max() < SMALL_SCORE and p.min() > -SMALL_SCORE
    if bias is not None:
        p += bias
    return softmax(p, out=p, shift=not small)


def attention(
    q: Array, k: Array, v: Array, bias: Array | None, dropout_mask: Array | None
) -> Array:
    """softmax(Q K^T / sqrt(d_head) + bias) V (Vaswani et al. 2017, arXiv 1706.03762, equation 1).

    Shapes: q (B, H, Q, d_head); k, v (B, H, T, d_head); bias (B or 1, 1, Q or 1, T); dropout_mask
    (B, H, Q, T), which the probabilities are multiplied by. Returns the context (B, Q, H, d_head),
    heads side by side.

    A few sequences at a time, so that their (Q, T) matrices stay in cache; they are not kept.
    """
    (B, H, Q, d_head), T = q.shape, k.shape[2]
    context = np.empty((B, Q, H, d_head), q.dtype)
    for rows in _sequence_tiles(B, H * Q * T):
        p = attention_weights(q[rows], k[rows], _of_rows(bias, rows))
        if dropout_mask is not None:
            p *= dropout_mask[rows]
        np.matmul(p, v[rows], out=context[rows].swapaxes(1, 2))
    return context


def attention_backward(
    dcontext: Array,
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None,
    dropout_mask: Array | None,
    dq: Array,
    dk: Array,
    dv: Array,
) -> None:
    """Gradients of `attention`, written into dq, dk, dv.

    dV = P^T dC;  dS = softmax'(dC V^T) / sqrt(d_head);  dQ = dS K;  dK = dS^T Q. P is computed
    once more: that costs less than to keep it (Dao et al. 2022, arXiv 2205.14135, section 3.1).
    """
    B, H, Q, d_head = q.shape
    for rows in _sequence_tiles(B, H * Q * k.shape[2]):
        dc = dcontext[rows].swapaxes(1, 2)  # (b, H, Q, d_head)
        p = attention_weights(q[rows], k[rows], _of_rows(bias, rows))
        kept = p if dropout_mask is None else p * dropout_mask[rows]
        np.matmul(kept.swapaxes(-1, -2), dc, out=dv[rows])
        ds = dc @ v[rows].swapaxes(-1, -2)  # (b, H, Q, T)
        if dropout_mask is not None:
            ds *= dropout_mask[rows]
        softmax_backward(ds, p, out=ds)
        ds *= 1 / math.sqrt(d_head)
        np.matmul(ds, k[rows], out=dq[rows])
        np.matmul(ds.swapaxes(-1, -2), q[rows], out=dk[rows])


def _of_rows(bias: Array | None, rows: slice) -> Array | None:
    return bias if bias is None or len(bias) == 1 else bias[rows]


def _sequence_tiles(n: int, size_of_one: int) -> list[slice]:
    """Cut n sequences into groups that hold about 2 TILE numbers, at least one sequence each."""
    step = max(1, 2 * TILE // size_of_one)
    return [slice(start, start + step) for start in range(0, n, step)]


# -- attention, where few positions ask ---------------------------------------------------
# Products may be done in any order: softmax(q (x W_k)^T) (x W_v) = (softmax((q W_k^T) x^T) x) W_v.
# On the right no position has keys and values, and with them the dearest products of attention
# are gone. What is left is small where few ask: products for each head or for each sequence.
# (Multi-head latent attention takes this order for every token that it generates: DeepSeek-AI
# 2024, arXiv 2405.04434, section 2.1.2.)


def attention_of_few(
    q: Array,
    x: Array,
    w_k: Array,
    w_v: Array,
    b_v: Array,
    bias: Array | None,
    dropout_mask: Array | None,
) -> tuple[Array, Array, Array]:
    """`attention` with k = x W_k + b_k and v = x W_v + b_v, without computing k and v.

    Shapes: q (B, H, Q, d_head); x (B, T, d); w_k, w_v (H, d, d_head); b_v (H, 1, d_head); bias and
    dropout_mask as in `attention`. b_k is not asked for: it adds the same to all scores of a
    query, and the softmax takes that away. Returns the context (B, Q, H, d_head), and for the
    backward the probabilities P (B, H, Q, T) and what the queries ask of the inputs, q W_k^T
    (B, H, Q, d).
    """
    asked = _by_head(q, w_k.swapaxes(-1, -2))  # (B, H, Q, d)
    p = _weights_of_scores(_by_sequence(asked, x.swapaxes(-1, -2)), q.shape[-1], bias)
    kept = p if dropout_mask is None else p * dropout_mask
    seen = _by_sequence(kept, x)  # (B, H, Q, d): the mean input that a query sees
    context = _by_head(seen, w_v) + kept.sum(axis=-1, keepdims=True) * b_v
    return context.swapaxes(1, 2), p, asked


def attention_of_few_backward(
    dcontext: Array,
    x: Array,
    w_k: Array,
    w_v: Array,
    b_v: Array,
    dropout_mask: Array | None,
    p: Array,
    asked: Array,
) -> tuple[Array, Array]:
    """Gradients of `attention_of_few`: dq (B, H, Q, d_head), and dx (B, T, d) through keys and
    values (q's own part is not in it)."""
    dc = dcontext.swapaxes(1, 2)  # (B, H, Q, d_head)
    dseen = _by_head(dc, w_v.swapaxes(-1, -2))  # (B, H, Q, d)
    ds = _by_sequence(dseen, x.swapaxes(-1, -2))  # (B, H, Q, T)
    ds += (dc * b_v).sum(axis=-1, keepdims=True)
    kept = p
    if dropout_mask is not None:
        kept = p * dropout_mask
        ds *= dropout_mask
    softmax_backward(ds, p, out=ds)
    ds *= 1 / math.sqrt(dc.shape[-1])
    dx = _rows(kept).swapaxes(-1, -2) @ _rows(dseen)  # (B, T, H Q) @ (B, H Q, d)
    dx += _rows(ds).swapaxes(-1, -2) @ _rows(asked)
    return _by_head(_by_sequence(ds, x), w_k), dx


def _rows(a: Array) -> Array:
    """(B, H, Q, n) -> (B, H Q, n): all queries of a sequence, below each other."""
    B, H, Q, n = a.shape
    return a.reshape(B, H * Q, n)


def _by_sequence(a: Array, b: Array) -> Array:
    """(B, H, Q, i) @ (B, i, o) -> (B, H, Q, o): a matrix for each sequence."""
    return (_rows(a) @ b).reshape(*a.shape[:-1], -1)


def _by_head(a: Array, b: Array) -> Array:
    """(B, H, Q, i) @ (H, i, o) -> (B, H, Q, o): a matrix for each head."""
    B, H, Q, i = a.shape
    heads = a.swapaxes(0, 1).reshape(H, B * Q, i) @ b
    return heads.reshape(H, B, Q, -1).swapaxes(0, 1)


# -- layer normalization ------------------------------------------------------------------


def layer_norm(x: Array, gain: Array, bias: Array, eps: float) -> tuple[Array, Array, Array]:
    """y = gain x_hat + bias, x_hat = (x - mean) / sqrt(variance + eps) over the last axis.

    (Ba et al. 2016, arXiv 1607.06450, equation 4.) Returns y, and for the backward x_hat
    (..., d) and the reciprocal deviation (..., 1).
    """
    d = x.shape[-1]
    x_hat = x - np.einsum("...i->...", x)[..., None] / d  # einsum: faster here than sum or mean
    variance = np.einsum("...i,...i->...", x_hat, x_hat)[..., None] / d
    rstd = 1 / np.sqrt(variance + eps)
    rstd = rstd.astype(x.dtype, copy=False)
    x_hat *= rstd
    y = x_hat * gain
    y += bias
    return y, x_hat, rstd


def layer_norm_backward(dy: Array, x_hat: Array, rstd: Array, gain: Array) -> Array:
    """dx = rstd (g - mean(g) - x_hat mean(g x_hat)) with g = gain dy.

    The two means are what the mean and the variance of x take back.
    """
    d = dy.shape[-1]
    g = dy * gain
    projection = np.einsum("...i,...i->...", g, x_hat)[..., None] / d
    g -= np.einsum("...i->...", g)[..., None] / d
    g -= x_hat * projection
    g *= rstd
    return g


# -- cross-entropy ------------------------------------------------------------------------

IGNORE = -100  # a label with this value takes no part in the loss


def cross_entropy(
    logits: Array, labels: Array, label_smoothing: float = 0.0
) -> tuple[float, Array]:
    """Mean of -sum_k q_k log p_k over the labels that are not IGNORE.

    q puts 1 - label_smoothing on the label and spreads label_smoothing evenly over all K classes
    (Szegedy et al. 2016, arXiv 1512.00567, section 7).

    Shapes: logits (..., K), labels (...) integers. Returns the loss and p (..., K), which
    `cross_entropy_backward` reads.
    Raises: ShapeError; DataError for a label out of range or when every label is IGNORE.
    """
    n_classes = logits.shape[-1]
    if labels.shape != logits.shape[:-1]:
        raise ShapeError(
            f"labels of shape {labels.shape} do not fit logits of shape {logits.shape}; "
            f"expected {logits.shape[:-1]}"
        )
    counted = labels != IGNORE
    if not counted.any():
        raise DataError(f"no label to learn from: all {labels.size} labels are {IGNORE} (ignored)")
    bad = labels[counted & ((labels < 0) | (labels >= n_classes))]
    if bad.size:
        raise DataError(f"label {bad[0]} is out of range: expected 0 to {n_classes - 1}")

    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    at_label = np.take_along_axis(log_p, np.where(counted, labels, 0)[..., None], axis=-1)[..., 0]
    losses = (1 - label_smoothing) * at_label + label_smoothing * log_p.mean(axis=-1)
    return -float(losses[counted].mean(dtype=np.float64)), np.exp(log_p)


def cross_entropy_backward(p: Array, labels: Array, label_smoothing: float = 0.0) -> Array:
    """dlogits = (p - q) / number of counted labels; zero where the label is IGNORE."""
    counted = (labels != IGNORE)[..., None]
    d = p - p.dtype.type(label_smoothing / p.shape[-1])
    index = np.where(counted, labels[..., None], 0)
    at_label = np.take_along_axis(d, index, axis=-1) - p.dtype.type(1 - label_smoothing)
    np.put_along_axis(d, index, at_label, axis=-1)
    d *= counted
    d /= counted.sum()
    return d

"""The mathematics of a transformer: each function as its paper writes it, its backward below it.

This is the file to read. A forward function returns its value and, where the backward function
needs more than the inputs, that as well. `kernels.py` has functions of the same names and
arguments that are fast; the layers call those, and tests hold each of them to the one here.

All functions return the dtype of their input: float32 for work, float64 for gradient checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..errors import DataError, ShapeError
from .module import Array

# -- activations: y = f(x), and the derivative f'(x); backward: dx = dy f'(x) ---------------

Activation = Callable[..., tuple[Array, "Array | None"]]


def relu(x: Array) -> tuple[Array, Array]:
    """max(x, 0), and its derivative: 1 where x > 0, else 0."""
    return np.maximum(x, 0), x > 0


def tanh(x: Array) -> tuple[Array, Array]:
    """tanh x, and its derivative 1 - tanh^2 x."""
    y = np.tanh(x)
    return y, 1 - y * y


def silu(x: Array) -> tuple[Array, Array]:
    """x s(x) with the logistic function s (Elfwing et al. 2017, arXiv 1702.03118, equation 5).

    Derivative: s + x s (1 - s).
    """
    s = logistic(x)
    return x * s, s + x * s * (1 - s)


def gelu(x: Array) -> tuple[Array, Array]:
    """x Phi(x), Phi the normal distribution function (Hendrycks and Gimpel 2016, section 2).

    (arXiv 1606.08415.) Derivative: Phi(x) + x phi(x), with the normal density phi.
    """
    cdf = 0.5 * erfc(-x / math.sqrt(2))  # 1 + erf(x / sqrt(2)) would cancel in the left tail
    density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return x * cdf, cdf + x * density


def gelu_tanh(x: Array) -> tuple[Array, Array]:
    """0.5 x (1 + tanh u), u = a (x + b x^3), a = sqrt(2 / pi), b = 0.044715: GPT-2's GELU.

    (The same paper, section 2.) Written as x s(2 u) with the logistic function s: 1 + tanh u
    would cancel in the left tail. Derivative: s + x s (1 - s) 2 u'.
    """
    a, b = math.sqrt(2 / math.pi), 0.044715
    near = np.clip(x, -30, 30)  # beyond, s is 0 or 1 even in float64; x^3 must not overflow
    s = logistic(2 * a * (near + b * near**3))
    return x * s, s + near * s * (1 - s) * 2 * a * (1 + 3 * b * near**2)


def linear(x: Array) -> tuple[Array, Array]:
    """x itself, and its derivative 1: no activation at all."""
    return x, np.ones_like(x)


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)), 0 where exp(-x) is infinite."""
    with np.errstate(over="ignore"):
        y: Array = 1 / (1 + np.exp(-x))
    return y


def erfc(x: Array) -> Array:
    """1 - erf(x), the complementary error function, element by element."""
    values = np.fromiter(map(math.erfc, x.ravel().tolist()), x.dtype, x.size)
    return values.reshape(x.shape)


ACTIVATIONS: dict[str, Activation] = {
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "tanh": tanh,
    "silu": silu,
    "linear": linear,
}


# -- softmax ------------------------------------------------------------------------------


def softmax(scores: Array) -> Array:
    """p = exp(s) / sum exp(s) over the last axis; shifted by the maximum against overflow."""
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_backward(dp: Array, p: Array) -> Array:
    """ds = p (dp - sum(dp p)): the Jacobian diag(p) - p p^T, applied to dp."""
    return p * (dp - (dp * p).sum(axis=-1, keepdims=True))


# -- attention ----------------------------------------------------------------------------


def attention(
    q: Array, k: Array, v: Array, mask: Array | None = None, dropout_mask: Array | None = None
) -> Array:
    """softmax(Q K^T / sqrt(d_head) + mask) V (Vaswani et al. 2017, arXiv 1706.03762, equation 1).

    Shapes: q (B, H, Q, d_head); k, v (B, H, T, d_head); additive mask (B or 1, 1, Q or 1, T);
    dropout_mask (B, H, Q, T), a factor of the probabilities. Returns (B, H, Q, d_head).
    """
    p = attention_weights(q, k, mask)  # (B, H, Q, T)
    if dropout_mask is not None:
        p = p * dropout_mask
    return p @ v


def attention_backward(
    dcontext: Array,
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None = None,
    dropout_mask: Array | None = None,
) -> tuple[Array, Array, Array]:
    """dV = P^T dC; dP = dC V^T; dS = softmax_backward(dP) / sqrt(d_head); dQ = dS K; dK = dS^T Q.

    P is computed again from q and k: that costs less than to keep it (Dao et al. 2022, arXiv
    2205.14135, section 3.1).
    """
    p = attention_weights(q, k, mask)  # (B, H, Q, T)
    dp = dcontext @ v.swapaxes(-1, -2)  # (B, H, Q, T)
    dropped = p
    if dropout_mask is not None:
        dropped, dp = p * dropout_mask, dp * dropout_mask
    dv = dropped.swapaxes(-1, -2) @ dcontext  # (B, H, T, d_head)
    ds = softmax_backward(dp, p) / math.sqrt(q.shape[-1])
    return ds @ k, ds.swapaxes(-1, -2) @ q, dv


def attention_weights(q: Array, k: Array, mask: Array | None = None) -> Array:
    """P = softmax(Q K^T / sqrt(d_head) + mask): how much each query reads of each position."""
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])  # (B, H, Q, T)
    return softmax(scores if mask is None else scores + mask)


def self_attention(
    x: Array,
    weight: Array,
    bias: Array,
    n_heads: int,
    queries: int,
    mask: Array | None = None,
    dropout_mask: Array | None = None,
) -> Array:
    """Attention of the first `queries` positions of x over all of its T positions.

    Shapes: x (B, T, d); weight (d, 3 d) and bias (3 d,), the projections to queries, keys and
    values side by side; masks as in `attention`. Returns (B, H, queries, d_head).
    """
    q, k, v = split_qkv(x @ weight + bias, n_heads)
    return attention(q[:, :, :queries], k, v, mask, dropout_mask)


def self_attention_backward(
    dcontext: Array,
    x: Array,
    weight: Array,
    bias: Array,
    n_heads: int,
    mask: Array | None = None,
    dropout_mask: Array | None = None,
) -> Array:
    """dx (B, T, d) of `self_attention` with frozen projections."""
    Q, T = dcontext.shape[2], x.shape[1]
    q, k, v = split_qkv(x @ weight + bias, n_heads)
    dq, dk, dv = attention_backward(dcontext, q[:, :, :Q], k, v, mask, dropout_mask)
    dq = np.pad(dq, ((0, 0), (0, 0), (0, T - Q), (0, 0)))  # the other queries were not used
    dqkv = np.concatenate([merge_heads(d) for d in (dq, dk, dv)], axis=-1)  # (B, T, 3 d)
    return dqkv @ weight.T


def split_qkv(qkv: Array, n_heads: int) -> Array:
    """(B, T, 3 d) -> q, k, v (3, B, H, T, d_head), a view."""
    B, T, _ = qkv.shape
    return qkv.reshape(B, T, 3, n_heads, -1).transpose(2, 0, 3, 1, 4)


def split_heads(x: Array, n_heads: int) -> Array:
    """(B, T, d) -> (B, H, T, d_head), a view."""
    B, T, _ = x.shape
    return x.reshape(B, T, n_heads, -1).swapaxes(1, 2)


def merge_heads(x: Array) -> Array:
    """(B, H, T, d_head) -> (B, T, d): the heads side by side."""
    B, H, T, d_head = x.shape
    return x.swapaxes(1, 2).reshape(B, T, H * d_head)


# -- layer normalization ------------------------------------------------------------------


def layer_norm(x: Array, gain: Array, bias: Array, eps: float) -> tuple[Array, Array, Array]:
    """y = gain x_hat + bias, x_hat = (x - mean) / sqrt(variance + eps) over the last axis.

    (Ba et al. 2016, arXiv 1607.06450, equation 4.) Returns y, x_hat (..., d) and the reciprocal
    standard deviation (..., 1), which the backward function reads.
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    centred -= centred.mean(axis=-1, keepdims=True)  # the mean is rounded: a row of 30.1 is not 0
    variance = (centred**2).mean(axis=-1, keepdims=True)
    rstd = (1 / np.sqrt(variance + eps)).astype(x.dtype)
    x_hat = centred * rstd
    return gain * x_hat + bias, x_hat, rstd


def layer_norm_backward(dy: Array, x_hat: Array, rstd: Array, gain: Array) -> Array:
    """dx = rstd (g - mean(g) - x_hat mean(g x_hat)) with g = gain dy.

    The two means come from the mean and the variance, which depend on x as well.
    """
    g = gain * dy
    return rstd * (
        g - g.mean(axis=-1, keepdims=True) - x_hat * (g * x_hat).mean(axis=-1, keepdims=True)
    )


# -- products ------------------------------------------------------------------------------


def matmul_transposed(dy: Array, weight: Array) -> Array:
    """dx = dy W^T, the gradient of the input of y = x W. (N, d_out), (d_in, d_out) -> (N, d_in)."""
    return dy @ weight.T


# -- sums over rows -----------------------------------------------------------------------


def sum_rows(x: Array, factor: Array | None = None) -> Array:
    """sum_n x_n, or sum_n x_n factor_n: (N, d) -> (d,), the gradient of a bias and of a gain.

    Summed in float64: one float32 number for each of thousands of rows would drift.
    """
    product = x if factor is None else x * factor
    return product.sum(axis=0, dtype=np.float64).astype(x.dtype)


# -- embedding ----------------------------------------------------------------------------


def embedding_backward(dy: Array, ids: Array, n_rows: int) -> Array:
    """dW (n_rows, d): the gradients of all positions with the same id are added up.

    Shapes: dy (..., d); ids (...) integers. Forward is W[ids].
    """
    dweight = np.zeros((n_rows, dy.shape[-1]), dy.dtype)
    np.add.at(dweight, ids, dy)
    return dweight


# -- AdapterFusion ------------------------------------------------------------------------


def fusion(q: Array, o: Array, key: Array, value: Array) -> tuple[Array, Array]:
    """f = sum_n p_n (o_n V), p = softmax_n(q . (o_n K)): attention over the outputs of N adapters.

    (Pfeiffer et al. 2020, arXiv 2005.00247, equation 2; not scaled by 1 / sqrt(d).)
    Shapes: q (..., d); o (..., N, d); key, value (d, d). Returns f (..., d) and p (..., N).
    """
    k, v = o @ key, o @ value  # (..., N, d)
    p = softmax((k @ q[..., None])[..., 0])  # (..., N)
    return (p[..., None, :] @ v)[..., 0, :], p


def fusion_backward(
    df: Array, q: Array, o: Array, p: Array, key: Array, value: Array
) -> tuple[Array, Array, Array, Array]:
    """dq, do, dkey, dvalue of `fusion`."""
    d = df.shape[-1]
    k, v = o @ key, o @ value  # (..., N, d)
    dv = p[..., None] * df[..., None, :]  # (..., N, d)
    ds = softmax_backward((v @ df[..., None])[..., 0], p)  # (..., N)
    dk = ds[..., None] * q[..., None, :]  # (..., N, d)
    dq = (ds[..., None, :] @ k)[..., 0, :]
    do = dk @ key.T + dv @ value.T
    rows = o.reshape(-1, d)
    return dq, do, rows.T @ dk.reshape(-1, d), rows.T @ dv.reshape(-1, d)


# -- cross-entropy ------------------------------------------------------------------------

IGNORE = -100  # a label with this value takes no part in the loss


def cross_entropy(
    logits: Array,
    labels: Array,
    label_smoothing: float = 0.0,
    class_weights: Array | None = None,
) -> tuple[float, Array]:
    """Mean of -sum_k q_k log p_k over the labels that are not IGNORE.

    q puts 1 - label_smoothing on the label and spreads label_smoothing evenly over all K classes
    (Szegedy et al. 2016, arXiv 1512.00567, section 7). With class_weights (K,) it is a weighted
    mean, in which each label counts as much as its class.

    Shapes: logits (..., K), labels (...) integers. Returns the loss and p (..., K), which
    `cross_entropy_backward` reads.
    Raises: ShapeError for labels of another shape, or that are not integers; DataError for a label
    out of range or when every label is IGNORE.
    """
    n_classes = logits.shape[-1]
    if not np.issubdtype(labels.dtype, np.integer):
        raise ShapeError(f"labels of dtype {labels.dtype}: expected integers, the classes' numbers")
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

    with np.errstate(over="ignore"):  # logits 3e38 and -3e38: their difference is infinite
        shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    at_label = np.take_along_axis(log_p, np.where(counted, labels, 0)[..., None], axis=-1)[..., 0]
    losses = (1 - label_smoothing) * at_label
    if label_smoothing:  # 0 times the log of a class at -inf would be NaN
        losses += label_smoothing * log_p.mean(axis=-1)
    weights = None if class_weights is None else class_weights[labels[counted]]
    mean = np.average(losses[counted].astype(np.float64), weights=weights)
    return 0.0 - float(mean), np.exp(log_p)


def cross_entropy_backward(
    p: Array,
    labels: Array,
    label_smoothing: float = 0.0,
    class_weights: Array | None = None,
) -> Array:
    """dlogits = (p - q) / number of counted labels; zero where the label is IGNORE.

    With class_weights: w (p - q) / sum of w, where w is the weight of the label's class.
    """
    counted = (labels != IGNORE)[..., None]
    d = p - p.dtype.type(label_smoothing / p.shape[-1])
    index = np.where(counted, labels[..., None], 0)
    at_label = np.take_along_axis(d, index, axis=-1) - p.dtype.type(1 - label_smoothing)
    np.put_along_axis(d, index, at_label, axis=-1)
    w = counted if class_weights is None else counted * class_weights[index].astype(d.dtype)
    d *= w
    d /= w.sum()
    return d


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
    """One update, step = 1, 2, ... (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2).

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;
    w <- w - lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay w).
    Returns the new value, m and v.
    """
    b1, b2 = betas
    m = b1 * m + (1 - b1) * grad
    v = b2 * v + (1 - b2) * grad**2
    m_hat, v_hat = m / (1 - b1**step), v / (1 - b2**step)
    return value - lr * (m_hat / (np.sqrt(v_hat) + eps) + weight_decay * value), m, v

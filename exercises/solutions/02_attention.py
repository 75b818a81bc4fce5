import numpy as np

from minitransformer import exercises
from minitransformer.nn.functional import softmax


STUDENT = "your-name"  # the id under which you hand in: some numbers are your own


def softmax_backward(dp, p):
    """ds of p = softmax(s) over the last axis."""
    along = (dp * p).sum(axis=-1, keepdims=True)
    return p * (dp - along)


FIRST_DS = ...
own = exercises.my_numbers(2, STUDENT)
p, dp = np.array(own["p"]), np.array(own["dp"])
FIRST_DS = p[0] * (dp[0] - p @ dp)


def attention(q, k, v, mask=None):
    """softmax(Q K^T / sqrt(d) + mask) V."""
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]).astype(q.dtype)
    p = softmax(scores if mask is None else scores + mask)
    return p @ v


def attention_backward(dcontext, q, k, v, mask=None):
    """dQ, dK and dV of `attention`."""
    scale = 1 / np.sqrt(q.shape[-1]).astype(q.dtype)
    scores = q @ k.swapaxes(-1, -2) * scale
    p = softmax(scores if mask is None else scores + mask)
    dv = p.swapaxes(-1, -2) @ dcontext
    dp = dcontext @ v.swapaxes(-1, -2)
    ds = softmax_backward(dp, p) * scale
    return ds @ k, ds.swapaxes(-1, -2) @ q, dv

"""Mistakes in Linear, layer norm, softmax and attention, for `wrong_solutions.py`.

Each is `(kind, what stands in the solution, what is written instead, words of the hint)`.
"""

from __future__ import annotations

# -- 1 and 5: Linear; both are written alike -------------------------------------------------

LINEAR = [
    ("batch sum", "flat(dy).sum(axis=0)", "flat(dy)", "not summed over the leading axes"),
    ("batch sum", "flat(dy).sum(axis=0)", "dy.sum(axis=1)[0]", "not summed over all positions"),
    ("transpose", "flat(x).T @ flat(dy)", "flat(dy).T @ flat(x)", "transpose"),
    ("transpose", "flat(x).T @ flat(dy)", "(flat(dy).T @ flat(x)).reshape(self.weight.shape)",
     "in the wrong order"),
    ("mean for sum", "flat(dy).sum(axis=0)", "flat(dy).mean(axis=0)", "the number of tokens"),
    ("wrong axis", "flat(dy).sum(axis=0)", "flat(dy).sum(axis=1)", "shape"),
    ("sign", "return dy @ self.weight.value.T", "return -dy @ self.weight.value.T", "sign"),
    ("scaling", "flat(x).T @ flat(dy)", "flat(x).T @ flat(dy) / 2", "0.5"),
    ("stale", "(x,) = self.pop_saved(dy)",
     "(x,) = self.__dict__.setdefault('kept', self.pop_saved(dy))",
     "an earlier forward pass has kept"),
    ("frozen", "if self.bias.trainable:", "if True:", "frozen parameter has a gradient"),
    ("in place", "self.bias.accumulate(flat(dy).sum(axis=0))",
     "self.bias.accumulate(flat(dy).sum(axis=0))\n        dy *= 1.5", "changed dy in place"),
    ("broadcasting", "flat(dy).sum(axis=0)", "np.full(self.bias.shape, flat(dy).sum())",
     "the sum goes over the columns as well"),
    ("broadcasting", "flat(dy).sum(axis=0)", "flat(dy).sum(axis=0, keepdims=True)", "shape (1,"),
    ("float32", "return dy @ self.weight.value.T",
     "return (dy @ self.weight.value.T).astype(np.float32)", "float32"),
    ("float32", "(x,) = self.pop_saved(dy)",
     "(x,) = self.pop_saved(dy)\n        dy = dy.astype(np.float32).astype(dy.dtype)", "float32"),
    ("one sentence", "flat(x).T @ flat(dy)",
     "(x if x.ndim < 3 else x[0]).reshape(-1, x.shape[-1]).T"
     " @ (dy if dy.ndim < 3 else dy[0]).reshape(-1, dy.shape[-1])", "With a single sentence"),
    ("rare entries", "return dy @ self.weight.value.T",
     "dx = dy @ self.weight.value.T\n        dx[..., -1] = 0\n        return dx",
     "wrong only at columns 3"),
    ("rare entries", "return dy @ self.weight.value.T",
     "return np.clip(dy, -2.5, 2.5) @ self.weight.value.T", "entries disagree"),
]  # fmt: skip

# -- 1: layer norm -------------------------------------------------------------------------

GAIN, BIAS = "flat(dy * x_hat).sum(axis=0)", "flat(dy).sum(axis=0)\n"
DX = "return rstd * (u - mean - x_hat * along)"
LAYER_NORM = [
    ("batch sum", GAIN, "(dy * x_hat)", "not summed over the leading axes"),
    ("mean for sum", GAIN, "flat(dy * x_hat).mean(axis=0)", "the number of tokens"),
    ("mean for sum", "u.mean(axis=-1", "u.sum(axis=-1", "a sum stands where the mean of u"),
    ("wrong axis", "u.mean(axis=-1", "u.mean(axis=-2", "no pattern"),
    ("wrong axis", GAIN, "(dy * x_hat).sum(axis=-1)", "shape"),
    ("sign", DX, "return rstd * (u - mean + x_hat * along)", "it is subtracted"),
    ("sign", DX, "return rstd * (mean - u + x_hat * along)", "sign is flipped"),
    ("scaling", DX, "return u - mean - x_hat * along", "the factor r"),
    ("scaling", "u = self.weight.value * dy", "u = dy", "the gain is missing"),
    ("dropped term", DX, "return rstd * (u - x_hat * along)", "mean(u) is not subtracted"),
    ("dropped term", DX, "return rstd * (u - mean)", "the variance depends on x"),
    ("dropped term", DX, "return rstd * u", "two terms are missing"),
    ("stale", "x_hat, rstd = self.pop_saved(dy)",
     "x_hat, rstd = self.__dict__.setdefault('kept', self.pop_saved(dy))",
     "an earlier forward pass has kept"),
    ("in place", "u = self.weight.value * dy", "u = dy\n        u *= self.weight.value",
     "changed dy in place"),
    ("broadcasting", "mean = u.mean(axis=-1, keepdims=True)", "mean = u.mean(axis=-1)", "in line"),
    ("broadcasting", "mean = u.mean(axis=-1, keepdims=True)", "mean = u.mean()",
     "mean(u) is one number for all"),
    ("broadcasting", "along = (u * x_hat).mean(axis=-1, keepdims=True)",
     "along = (u * x_hat).mean()", "mean(u x_hat) is one number for all"),
    ("broadcasting", "mean = u.mean(axis=-1, keepdims=True)\n"
     "        along = (u * x_hat).mean(axis=-1, keepdims=True)",
     "mean, along = u.mean(), (u * x_hat).mean()", "both means are one number for all"),
    ("float32", DX, DX + ".astype(np.float32)", "float32"),
    ("one sentence", "u.mean(axis=-1, keepdims=True)",
     "u.mean(axis=(-1, 0) if u.ndim > 2 else -1, keepdims=True)", "With a single sentence"),
    ("rare entries", DX, "dx = rstd * (u - mean - x_hat * along)\n        dx[..., 0] = 0\n"
     "        return dx", "wrong only at columns 0"),
]  # fmt: skip

# -- 2: softmax and attention --------------------------------------------------------------

SOFTMAX = [
    ("dropped term", "return p * (dp - along)", "return p * dp", "every p depends on every score"),
    ("dropped term", "return p * (dp - along)", "return dp - along", "p in front is missing"),
    ("sign", "return p * (dp - along)", "return p * (dp + along)", "it is subtracted"),
    ("sign", "return p * (dp - along)", "return p * (along - dp)", "sign is flipped"),
    ("mean for sum", "(dp * p).sum(", "(dp * p).mean(", "a mean stands where the sum"),
    ("wrong axis", "(dp * p).sum(axis=-1,", "(dp * p).sum(axis=-2 if p.ndim > 1 else -1,",
     "the sum goes over the queries"),
    ("broadcasting", "sum(axis=-1, keepdims=True)", "sum(axis=-1)", "in line"),
    ("broadcasting", "sum(axis=-1, keepdims=True)", "sum()", "the sum goes over everything"),
    ("in place", "along = (dp * p)", "dp *= p\n    along = (dp)", "changes an array"),
    ("float32", "return p * (dp - along)", "return (p * (dp - along)).astype(np.float32)",
     "float32"),
    ("rare entries", "return p * (dp - along)", "return np.where(p > 0.6, 0, p * (dp - along))",
     "entries disagree"),
]  # fmt: skip
ATTENTION = [
    ("scaling", "scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]).astype(q.dtype)",
     "scores = q @ k.swapaxes(-1, -2)", "not divided by sqrt(d_head)"),
    ("scaling", "/ np.sqrt(q.shape[-1]).astype(q.dtype)", "/ q.shape[-1]", "its square root"),
    ("wrong axis", "return p @ v", "p = np.exp(scores) / np.exp(scores).sum(axis=-2, keepdims=True)"
     "\n    return p @ v", "belongs over the keys"),
    ("in place", "return p @ v", "q *= 2\n    return p @ v", "changes an array"),
]  # fmt: skip
ATTENTION_BACKWARD = [
    ("scaling", "ds = softmax_backward(dp, p) * scale", "ds = softmax_backward(dp, p)",
     "sqrt(d_head)"),
    ("scaling", "ds = softmax_backward(dp, p) * scale", "ds = softmax_backward(dp, p) * scale**2",
     "sqrt(d_head)"),
    ("dropped term", "ds = softmax_backward(dp, p) * scale", "ds = p * dp * scale",
     "the softmax's Jacobian"),
    ("dropped term", "ds = softmax_backward(dp, p) * scale", "ds = dp * scale",
     "the softmax is not passed backward"),
    ("transpose", "dv = p.swapaxes(-1, -2) @ dcontext", "dv = p @ dcontext", "in line"),
    ("transpose", "ds.swapaxes(-1, -2) @ q", "ds @ q", "in line"),
    ("sign", "return ds @ k, ", "return -ds @ k, ", "sign is flipped"),
    ("order", "return ds @ k, ds.swapaxes(-1, -2) @ q, dv",
     "return ds @ k, dv, ds.swapaxes(-1, -2) @ q", "no pattern"),
    ("mean for sum", "dv = p.swapaxes(-1, -2) @ dcontext",
     "dv = p.swapaxes(-1, -2) @ dcontext / len(q)", "the batch size"),
    ("stale", "dv = p.swapaxes", "p = globals().setdefault('KEPT', {}).setdefault(p.shape, p)\n"
     "    dv = p.swapaxes", "an earlier one"),
    ("in place", "dp = dcontext @ v.swapaxes(-1, -2)",
     "dcontext *= 2\n    dp = dcontext @ v.swapaxes(-1, -2)", "changes an array"),
    ("float32", "    return ds @ k,", "    ds = ds.astype(np.float32)\n    return ds @ k,",
     "float32"),
    ("one sentence", "    dv = p.swapaxes", "    p = np.broadcast_to(p[:1], p.shape)\n"
     "    dv = p.swapaxes", "With a single sentence"),
    ("rare entries", "    return ds @ k,", "    dv[:, :, -1] = 0\n    return ds @ k,",
     "wrong only at"),
]  # fmt: skip
PADDING = [
    ("dropped term", "p = softmax(scores if mask is None else scores + mask)\n    return",
     "p = softmax(scores)\n    return", "the mask is not added"),
    ("dropped term", "p = softmax(scores if mask is None else scores + mask)\n    dv",
     "p = softmax(scores)\n    dv", "without the mask"),
    ("rare entries", "    dv = p.swapaxes", "    p = np.where(p > 1e-30, p, 0.01)\n"
     "    dv = p.swapaxes",
     "no influence on the output"),
]  # fmt: skip

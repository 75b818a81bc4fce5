"""Wrong solutions that misuse what a page gives, for `wrong_solutions.py`.

Each is `(exercise, kind, what stands there, what is written instead, part, words of the hint)`. At
first, the hint of each named a wrong cause or none, or nothing was noticed.
"""

from __future__ import annotations

WEIGHT = "self.weight.accumulate(flat(x).T @ flat(dy))"
THREE = "return ds @ k, ds.swapaxes(-1, -2) @ q, dv"
REDRAWN = (
    "while (outside := np.abs(draw) > 2).any():\n            "
    "draw[outside] = rng.standard_normal(outside.sum())"
)
MERGED = "return weight + self.scaling * (self.a.value @ self.b.value), bias"
USAGE = [
    # The gradient of the second batch replaces that of the first. Called float32 before.
    (1, "assigned", WEIGHT, WEIGHT.replace("accumulate(", "grad = ("), "linear-gradients",
     "it was overwritten"),
    (5, "assigned", WEIGHT, WEIGHT.replace("accumulate(", "grad = ("), "linear-gradients",
     "it was overwritten"),
    (3, "assigned", "self.b_up.accumulate(flat(df)", "self.b_up.grad = (flat(df)", "gradients",
     "it was overwritten"),
    (7, "assigned", "self.b.accumulate(flat(z)", "self.b.grad = (flat(z)", "gradients",
     "it was overwritten"),
    # Noticed in the model alone, where no line was named.
    (1, "tuple", "return dy @ self.weight.value.T", "return (dy @ self.weight.value.T,)",
     "linear-gradients", "a tuple of length 1; expected one array"),
    (7, "tuple", "return dz @ self.a.value.T", "return dz @ self.a.value.T, dy",
     "gradients", "a tuple of length 2; expected one array"),
    # "The skip connection is counted twice": a layer norm has none.
    (1, "skip", "return rstd * (u - mean", "return dy + rstd * (u - mean", "layer-norm-gradients",
     "or there is none"),
    (1, "parameter", "return dy @ self.weight.value.T", "return dy @ self.weight.T",
     "linear-gradients", "the array of a Parameter is its `.value`"),
    # "Tuple index out of range", and that backward returns None.
    (2, "tuple", THREE, THREE.removesuffix(", dv"), "attention-backward",
     "returns 2 arrays; expected three"),
    (2, "tuple", THREE, f"return np.concatenate([{THREE[7:]}], axis=-2)", "attention-backward",
     "returns ndarray; expected three"),
    # These passed.
    (4, "stale", "draw = rng.standard_normal(shape)", "draw = np.random.randn(*shape)",
     "start-weights", "two generators of the same seed"),
    (4, "transpose", "return truncated((d, m)), b_down, truncated((m, d)), b_up",
     "w = truncated((d, m))\n    return w, b_down, w.T.copy(), b_up", "start-weights",
     "is the transpose of w_down"),
    (4, "dropped term", REDRAWN, "draw[np.abs(draw) > 2] = 0", "start-weights",
     "not set to 0"),
    (5, "frozen", 'parameter.requires_grad = ".adapters." in name or (norms and norm)',
     'if not (".adapters." in name or (norms and norm)):\n            '
     "parameter.requires_grad = False", "what-trains", "everything was frozen before"),
    # The letters of "w_down" were taken for names.
    (4, "set", '"zero_up": {"w_down", "b_down"}', '"zero_up": "w_down"', "no-gradient", "1 more"),
    # NaN, without a word on where it comes from.
    (6, "off by one", "m_hat = m / (1 - b1**self.t)\n            v_hat = v / (1 - b2**self.t)",
     "m_hat = m / (1 - b1 ** (self.t - 1))\n            v_hat = v / (1 - b2 ** (self.t - 1))",
     "first-step", "With a t of 0"),
    # "merged returns two arrays", which was meant as what is asked.
    (7, "tuple", MERGED, MERGED.removesuffix(", bias"), "merged", "returns ndarray; expected two"),
]  # fmt: skip

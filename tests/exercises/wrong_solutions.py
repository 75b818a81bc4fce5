"""Wrong solutions: the reference solution of an exercise with one mistake written into it.

Each is `(exercise, kind, what stands there, what is written instead, part, hint)`: the part that
must fail, and words that its hint must have. The kinds are the mistakes that students make.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exercises.wrong_layers import (
    ATTENTION,
    ATTENTION_BACKWARD,
    LAYER_NORM,
    LINEAR,
    PADDING,
    SOFTMAX,
)
from exercises.wrong_usage import USAGE

SOLUTIONS = Path(__file__).parents[2] / "exercises" / "solutions"
STUDENT = "ada"


@dataclass(frozen=True)
class Wrong:
    exercise: int
    kind: str
    old: str
    new: str
    part: str
    hint: str

    @property
    def name(self) -> str:
        return f"{self.exercise} {self.kind}: {' '.join(self.new.split())[:60]}"

    def source(self) -> str:
        text = solution(self.exercise)
        assert text.count(self.old) >= 1, f"{self.name}: {self.old!r} is not in the solution"
        return text.replace(self.old, self.new, 1)


def solution(exercise: int, student: str = STUDENT) -> str:
    """The reference solution, for the numbers of a student."""
    (path,) = SOLUTIONS.glob(f"{exercise:02d}_*.py")
    return path.read_text("utf-8").replace("your-name", student)


# -- 3: the adapter ------------------------------------------------------------------------

ADAPTER_FORWARD = [
    ("skip", "y = h + self.scaling * f", "y = self.scaling * f", "the skip connection is missing"),
    ("scaling", "y = h + self.scaling * f", "y = h + f", "the scaling s is missing"),
    ("scaling", "y = h + self.scaling * f", "y = self.scaling * (h + f)", "belongs to f alone"),
    ("sign", "y = h + self.scaling * f", "y = h - self.scaling * f", "subtracted"),
    ("dropped term", "a = np.maximum(z, 0)", "a = z", "the ReLU is missing"),
    ("dropped term", "@ self.w_down.value + self.b_down.value", "@ self.w_down.value",
     "bias of the down-projection"),
    ("in place", "y = h + self.scaling * f", "h += self.scaling * f\n        y = h.copy()",
     "changes an array"),
    ("float32", "y = h + self.scaling * f", "y = (h + self.scaling * f).astype(np.float32)",
     "float32"),
    ("float32", "y = h + self.scaling * f", "y = h + np.float32(self.scaling) * f",
     "precision of float32 alone"),
    ("float32", "z = h @ self.w_down.value + self.b_down.value",
     "z = (h @ self.w_down.value + self.b_down.value).astype(np.float32)",
     "precision of float32 alone"),
]  # fmt: skip
B_UP = "self.b_up.accumulate(flat(df).sum(axis=0))"
DH = "return dy + dz @ self.w_down.value.T"
ADAPTER = [
    ("batch sum", B_UP, "self.b_up.accumulate(flat(df))", "not summed over the leading axes"),
    ("batch sum", B_UP, "self.b_up.accumulate(flat(df)[0])", "at a single position"),
    ("transpose", "flat(a).T @ flat(df)", "flat(df).T @ flat(a)", "transpose"),
    ("transpose", "flat(a).T @ flat(df)", "(flat(df).T @ flat(a)).reshape(self.w_up.shape)",
     "in the wrong order"),
    ("skip", DH, "return dz @ self.w_down.value.T", "the skip connection's gradient is missing"),
    ("skip", DH, "return 2 * dy + dz @ self.w_down.value.T", "counted twice"),
    ("mean for sum", B_UP, "self.b_up.accumulate(flat(df).mean(axis=0))", "the number of tokens"),
    ("wrong axis", B_UP, "self.b_up.accumulate(flat(df).sum(axis=1))", "shape"),
    ("sign", DH, "return dy - dz @ self.w_down.value.T", "is subtracted"),
    ("scaling", "df = self.scaling * dy", "df = dy", "the scaling"),
    ("scaling", DH, "return self.scaling * dy + dz @ self.w_down.value.T",
     "the skip connection's share"),
    ("dropped term", "(df @ self.w_up.value.T) * (a > 0)", "df @ self.w_up.value.T",
     "the ReLU is not passed backward"),
    ("dropped term", DH, "return dy", "what comes back through f is missing"),
    ("stale", "h, a = self.pop_saved(dy)",
     "h, a = self.__dict__.setdefault('kept', self.pop_saved(dy))",
     "an earlier forward pass has kept"),
    ("in place", "df = self.scaling * dy", "dy *= self.scaling\n        df = dy",
     "changed dy in place"),
    ("broadcasting", B_UP, "self.b_up.accumulate(np.full(self.b_up.shape, df.sum()))",
     "the sum goes over the columns as well"),
    ("float32", DH, "return (dy + dz @ self.w_down.value.T).astype(np.float32)", "float32"),
    ("float32", "df = self.scaling * dy", "df = (self.scaling * dy).astype(np.float32)", "float32"),
    ("float32", "df = self.scaling * dy", "df = np.float32(self.scaling) * dy",
     "are right to the precision of float32 alone"),
    ("one sentence", "flat(h).T @ flat(dz)",
     "h[0].T @ dz[0] if h.ndim > 2 else flat(h).T @ flat(dz)", "With a single sentence"),
    ("one sentence", "flat(h).T @ flat(dz)",
     "(h if h.ndim < 3 else h[0]).reshape(-1, h.shape[-1]).T"
     " @ (dz if dz.ndim < 3 else dz[0]).reshape(-1, dz.shape[-1])", "With a single sentence"),
    ("rare entries", DH, "dh = dy + dz @ self.w_down.value.T\n        dh[..., -1] = 0\n"
     "        return dh", "wrong only at columns 5"),
    ("rare entries", "h, a = self.pop_saved(dy)",
     "h, a = self.pop_saved(dy)\n        dy = np.clip(dy, -2.2, 2.2)", "entries disagree"),
]  # fmt: skip
ADAPTER_FROZEN = [
    ("frozen", "if self.w_down.trainable:", "if True:", "frozen parameter has a gradient"),
    ("frozen", "if not self.needs_input_grad:", "if False:", "return None"),
    ("frozen", "if self.b_up.trainable:", "if self.w_up.trainable:", "with w_up frozen, b_up.grad"),
]  # fmt: skip

# -- 4: near the identity ------------------------------------------------------------------

START = [
    ("scaling", "(sigma * draw)", "draw", "beyond"),
    ("scaling", "(sigma * draw)", "(sigma**2 * draw)", "sigma squared"),
    ("scaling", "(sigma * draw)", "(np.sqrt(sigma) * draw)", "beyond"),
    ("dropped term", "while (outside := np.abs(draw) > 2).any():\n            "
     "draw[outside] = rng.standard_normal(outside.sum())", "pass", "beyond two sigma"),
    ("dropped term", "while (outside := np.abs(draw) > 2).any():\n            "
     "draw[outside] = rng.standard_normal(outside.sum())", "draw = np.clip(draw, -2, 2)",
     "not moved to the edge"),
    ("float32", ".astype(np.float32)", "", "float64"),
    ("transpose", "truncated((d, m)), b_down", "truncated((m, d)), b_down", "shape"),
    ("wrong axis", "np.zeros(m, np.float32), np.zeros(d, np.float32)",
     "np.zeros(d, np.float32), np.zeros(m, np.float32)", "shape"),
    ("sign", "(sigma * draw)", "np.abs(sigma * draw)", "mean"),
    ("stale", "draw = rng.standard_normal(shape)",
     "draw = np.random.default_rng(0).standard_normal(shape)", "draw from the rng"),
]  # fmt: skip
DRIFT = [
    ("skip", "f = a @ w_up + b_up", "f = h + a @ w_up + b_up", "the size of h + f(h)"),
    ("dropped term", "a = np.maximum(h @ w_down + b_down, 0)", "a = h @ w_down + b_down",
     "the ReLU is missing"),
    ("scaling", "return np.linalg.norm(f) / np.linalg.norm(h)", "return np.linalg.norm(f)",
     "divide by the size of h"),
    ("transpose", "return np.linalg.norm(f) / np.linalg.norm(h)",
     "return np.linalg.norm(h) / np.linalg.norm(f)", "the inverse"),
    ("dropped term", "return np.linalg.norm(f) / np.linalg.norm(h)",
     "return (f**2).sum() / (h**2).sum()", "take the root"),
    ("in place", "f = a @ w_up + b_up", "h *= 2\n    f = a @ w_up + b_up", "changes an array"),
]  # fmt: skip
NO_GRADIENT = [
    ("dropped term", '"both_zero": {"w_down", "b_down", "w_up"}',
     '"both_zero": {"w_down", "b_down"}', "1 more"),
    ("rare entries", '"zero_up": {"w_down", "b_down"}', '"zero_up": {"w_down", "b_down", "w_up"}',
     "w_up does get a gradient"),
]  # fmt: skip

# -- 5: freezing ---------------------------------------------------------------------------

STOPS = [
    ("frozen", "if d is None or not module.output_requires_grad:", "if d is None:",
     "output_requires_grad false"),
    ("frozen", "if d is None or not module.output_requires_grad:",
     "if not module.output_requires_grad:", "whatever the third one's"),
    ("order", "for module in modules:", "for module in reversed(modules):", "it visits 2, 1, 0"),
    ("stale", "d = module.backward(d)", "d = module.backward(dy)", "should be"),
]  # fmt: skip
SAVES = [
    ("frozen", "x if self.weight.trainable else None", "x", "forward saves"),
]
COMPUTES = [
    ("frozen", "if not self.needs_input_grad:\n            return None\n        "
     "return dy @ self.weight.value.T", "return dy @ self.weight.value.T", "nobody reads"),
    ("frozen", "if not self.needs_input_grad:\n            return None\n        "
     "return dy @ self.weight.value.T",
     "dx = dy @ self.weight.value.T\n        return dx if self.needs_input_grad else None",
     "matrix products"),
]  # fmt: skip
TRAINS = [
    ("frozen", '".adapters." in name or (norms and norm)', "True", "trains, and should not"),
    (
        "frozen",
        'name.startswith("blocks.") and ".norm." in name',
        '".norm." in name',
        "embeddings.norm",
    ),
]
PRODUCTS = [
    ("dropped term", "len(trains) + sum(trains) +", "sum(trains) +", "forward products"),
    ("off by one", "(len(trains) - 1 - first)", "(len(trains) - first)", "read by nobody"),
]

# -- 6: the training step ------------------------------------------------------------------

ADAMW = [
    ("dropped term", "        self.t += 1\n", "", "self.t is still 0"),
    ("sign", "p.value -= self.lr", "p.value += self.lr", "goes up the gradient"),
    ("scaling", "direction = m_hat / (np.sqrt(v_hat) + self.eps) + decay * p.value\n"
     "            p.value -= self.lr * direction",
     "direction = m_hat / (np.sqrt(v_hat) + self.eps)\n"
     "            p.value -= self.lr * direction + decay * p.value", "by the learning rate"),
    ("dropped term", "m_hat = m / (1 - b1**self.t)\n            v_hat = v / (1 - b2**self.t)",
     "m_hat, v_hat = m, v", "not corrected"),
    ("dropped term", "np.sqrt(v_hat) + self.eps", "v_hat + self.eps", "of the size of g^2"),
    ("dropped term", "p.grad**2", "p.grad**4", "is v a mean of g^2?"),
    ("in place", "            m, v = self.m[name], self.v[name]\n",
     "            m, v = self.m[name], self.v[name]\n            p.grad += 0.2 * p.value\n",
     "step changes the gradient of weight: the decay is added to the gradient (Adam with L2)"),
    ("stale", "m[...] = b1 * m + (1 - b1) * p.grad",
     "p.grad *= 1 - b1\n            p.grad += b1 * m\n            m = self.m[name] = p.grad",
     "step changes the gradient of weight: m and v are arrays of their own"),
    ("in place", "            m, v = self.m[name], self.v[name]\n",
     "            m, v = self.m[name], self.v[name]\n            p.grad *= 1.5\n",
     "leave it as it is"),
    ("dropped term", "np.sqrt(v_hat) + self.eps", "np.sqrt(v_hat + self.eps)", "inside the root"),
    ("dropped term", "decay = self.weight_decay if p.value.ndim >= 2 else 0.0",
     "decay = self.weight_decay", "only matrices"),
    ("in place", "p.value -= self.lr * direction", "p.value = p.value - self.lr * direction",
     "new array"),
    ("off by one", "        self.t += 1\n", "        self.t += 1 if self.t else 2\n",
     "one too large"),
]  # fmt: skip
ADAMW_STEPS = [
    ("stale", "m[...] = b1 * m + (1 - b1) * p.grad\n            v[...] = ",
     "m = b1 * m + (1 - b1) * p.grad\n            v = ", "m and v of the last step play no part"),
    ("order", "b1, b2 = self.betas", "b2, b1 = self.betas", "exchanged"),
    ("stale", "m[...] = b1 * m + (1 - b1) * p.grad", "m = b1 * m + (1 - b1) * p.grad",
     "the m of the last step plays no part"),
    ("stale", "v[...] = b2 * v + (1 - b2) * p.grad**2", "v = b2 * v + (1 - b2) * p.grad**2",
     "the v of the last step plays no part"),
]  # fmt: skip
WITHOUT = [
    (
        "frozen",
        "if p.grad is None:\n                continue",
        "if False:\n                continue",
        "in line",
    ),
]
CLIP = [
    ("dropped term", "float(np.sqrt(sum((g**2).sum() for g in grads)))",
     "float(sum((g**2).sum() for g in grads))", "the root is missing"),
    ("dropped term", "if norm > max_norm:", "if True:", "made larger"),
    ("in place", "g *= max_norm / norm", "g = g * (max_norm / norm)", "nothing is scaled"),
    ("wrong axis", "float(np.sqrt(sum((g**2).sum() for g in grads)))",
     "sum(float(np.linalg.norm(g)) for g in grads)", "sum of the norms"),
    ("frozen", "for p in parameters.values() if p.grad is not None]",
     "for p in parameters.values()]", "in line"),
    ("transpose", "g *= max_norm / norm", "g *= norm / max_norm", "should be"),
]  # fmt: skip
STEP = [
    ("stale", "    model.zero_grad()\n", "", "zero_grad"),
    ("dropped term", "    clip_by_global_norm(model.trainable_parameters(), max_norm)\n", "",
     "not clipped"),
    ("dropped term", "    optimizer.step()\n", "", "optimizer.step() is missing"),
    ("order", "    model.backward(loss.backward())\n    clip_by_global_norm("
     "model.trainable_parameters(), max_norm)\n    optimizer.step()\n",
     "    optimizer.step()\n    model.backward(loss.backward())\n", "comes before the gradients"),
    ("order", "    clip_by_global_norm(model.trainable_parameters(), max_norm)\n"
     "    optimizer.step()\n", "    optimizer.step()\n"
     "    clip_by_global_norm(model.trainable_parameters(), max_norm)\n", "after the step"),
]  # fmt: skip

# -- 7: LoRA -------------------------------------------------------------------------------

LORA_FORWARD = [
    ("skip", "return y + self.scaling * (z @ self.b.value)",
     "return self.scaling * (z @ self.b.value)", "is missing: the update is added to it"),
    ("scaling", "return y + self.scaling * (z @ self.b.value)", "return y + z @ self.b.value",
     "alpha / r is missing"),
    ("scaling", "return y + self.scaling * (z", "return y + self.config.alpha * (z",
     "divide by the rank"),
    ("sign", "return y + self.scaling", "return y - self.scaling", "subtracted"),
    ("in place", "return y + self.scaling * (z @ self.b.value)",
     "y += self.scaling * (z @ self.b.value)\n        return y", "changes an array"),
]  # fmt: skip
LORA = [
    ("scaling", "du = self.scaling * dy", "du = dy", "the scaling"),
    ("transpose", "flat(z).T @ flat(du)", "flat(du).T @ flat(z)", "transpose"),
    ("transpose", "flat(x).T @ flat(dz)", "(flat(dz).T @ flat(x)).reshape(self.a.shape)",
     "in the wrong order"),
    ("mean for sum", "flat(z).T @ flat(du)", "flat(z).T @ flat(du) / len(flat(z))",
     "the number of tokens"),
    ("sign", "return dz @ self.a.value.T", "return -dz @ self.a.value.T", "is subtracted"),
    ("stale", "x, z = self.pop_saved(dy)",
     "x, z = self.__dict__.setdefault('kept', self.pop_saved(dy))",
     "an earlier forward pass has kept"),
    ("in place", "du = self.scaling * dy", "dy *= self.scaling\n        du = dy", "in place"),
    ("float32", "return dz @ self.a.value.T", "return (dz @ self.a.value.T).astype(np.float32)",
     "float32"),
    ("one sentence", "flat(x).T @ flat(dz)",
     "(x if x.ndim < 3 else x[0]).reshape(-1, x.shape[-1]).T"
     " @ (dz if dz.ndim < 3 else dz[0]).reshape(-1, dz.shape[-1])", "With a single sentence"),
    ("rare entries", "return dz @ self.a.value.T",
     "dx = dz @ self.a.value.T\n        dx[..., 0] = 0\n        return dx",
     "wrong only at columns 0"),
    ("dropped term", "return dz @ self.a.value.T", "return 0 * x",
     "what comes back through the update is missing"),
]  # fmt: skip
LORA_FROZEN = [
    ("frozen", "if self.a.trainable:", "if True:", "frozen parameter has a gradient"),
    ("frozen", "if not self.needs_input_grad:", "if False:", "return None"),
]
MERGED = [
    ("scaling", "weight + self.scaling * (self.a.value @ self.b.value), bias",
     "weight + self.a.value @ self.b.value, bias", "alpha / r is missing"),
    ("sign", "weight + self.scaling * (self.a.value @", "weight - self.scaling * (self.a.value @",
     "subtracted"),
    ("in place", "        return weight + self.scaling * (self.a.value @ self.b.value), bias",
     "        weight += self.scaling * (self.a.value @ self.b.value)\n        return weight, bias",
     "changes an array"),
    ("skip", "return weight + self.scaling", "return self.scaling", "the weight itself is missing"),
]  # fmt: skip

# -- 8: counting ---------------------------------------------------------------------------

COUNT = [
    ("adapter-parameters", "return 2 * d * m + d + m", "return 2 * d * m", "biases are missing"),
    ("adapter-parameters", "return 2 * d * m + d + m", "return d * m + d + m", "one projection"),
    ("forward", "scores = 2 * B * T * T * d\n    feed", "scores = 0\n    feed", "are missing"),
    ("forward", "scores = 2 * B * T * T * d\n    feed", "scores = B * T * T * d\n    feed",
     "one is missing"),
    ("forward", "projections = 4 *", "projections = 3 *", "the output projection"),
    ("forward", "feed_forward = 2 *", "feed_forward =", "of the feed-forward"),
    ("forward", "return projections + scores + feed_forward",
     "return 2 * (projections + scores + feed_forward)", "one multiply-add is one"),
    ("backward", "weight_gradients = 0 if frozen else linears", "weight_gradients = linears",
     "of frozen Linears"),
    ("backward", "weight_gradients = 0 if frozen else linears", "weight_gradients = 0",
     "each Linear has two gradients"),
    ("backward", "return linears + weight_gradients + 2 * scores",
     "return linears + weight_gradients + scores", "each factor"),
    ("backward", "return linears + weight_gradients + 2 * scores",
     "return 0 if frozen else linears + weight_gradients + 2 * scores", "that is zero"),
    ("bytes", "return 4 * (n + 2 * n)", "return n + 2 * n", "a float32 has four"),
    ("bytes", "return 4 * (n + 2 * n)", "return 4 * n", "the gradient alone"),
    ("bytes", "return 4 * (n + 2 * n)", "return 4 * (n + n)", "the gradient, m and v"),
    ("answers", '"share": 100 * n', '"share": n', "percent"),
    ("answers", 'n = 2 * own["blocks"]', 'n = own["blocks"]', "two adapters"),
    ("answers", '"frozen_over_full": frozen / full', '"frozen_over_full": full / frozen',
     "inverse"),
]  # fmt: skip

# -- 9: the research question ----------------------------------------------------------------

RESEARCH = [
    ("design", "seeds = [0, 1, 2]", "seeds = [0]", "are too few"),
    ("design", '"values"]\n}', '"values"][:2]\n}', "the study has"),
    ("design", "lr = 0.01", "lr = [0.01, 0.02]", "one learning rate"),
    ("design", "lr = 0.01", "lr = 0.01\ndropout = [0.0, 0.1]", "varies as well"),
    ("design", "lr = 0.01", "learning_rate = 0.01", "STUDY: "),
    ("summary", "ddof=1", "ddof=0", "n - 1"),
    ("summary", "np.mean(accuracies)", "np.median(accuracies)", "median"),
    ("summary", "np.mean(accuracies)", "np.max(accuracies)", "best seed"),
    ("conclusion", "key=lambda value: -found", "key=lambda value: found", "highest mean"),
    ("conclusion", "difference > found[first][1] + found[second][1]",
     "not difference > found[first][1] + found[second][1]", "differ by"),
]  # fmt: skip


# -- numbers of one's own, worked out by hand -------------------------------------------------

BY_HAND = [
    (1, 'own["x"][:, 0] @ own["dy"][:, 1]', 'own["x"][:, 1] @ own["dy"][:, 0]', "of W[1, 0]"),
    (1, 'own["x"][:, 0] @ own["dy"][:, 1]', '(own["x"][:, 0] * own["dy"][:, 1]).mean()',
     "a mean stands where the sum"),
    (1, 'own["x"][:, 0] @ own["dy"][:, 1]', 'own["x"][0, 0] * own["dy"][0, 1]', "single position"),
    (1, 'own["dy"][:, 1].sum()', 'own["dy"].sum()', "over the columns as well"),
    (1, 'own["dy"][:, 1].sum()', 'own["dy"][:, 0].sum()', "the gradient of b[0]"),
    (1, 'own["W"][0] @ own["dy"][2]', 'own["W"][:, 0] @ own["dy"][2]', "by a row of W"),
    (1, 'own["W"][0] @ own["dy"][2]', 'own["W"][0, 0] * own["dy"][2, 0]', "that is one of them"),
    (1, 'own["W"][0] @ own["dy"][2]', '99', "in no pattern known here"),
    (2, "p[0] * (dp[0] - p @ dp)", "p[0] * dp[0]", "the sum over all p is missing"),
    (2, "p[0] * (dp[0] - p @ dp)", "dp[0] - p @ dp", "p in front is missing"),
    (2, "p[0] * (dp[0] - p @ dp)", "p[0] * (dp[0] + p @ dp)", "it is subtracted"),
    (2, "p[0] * (dp[0] - p @ dp)", "p[0] * (1 - p[0]) * dp[0]", "what every p owes"),
    (6, 'own["lr"] * (m_hat / np.sqrt(v_hat) + own["weight_decay"] * w)',
     'own["lr"] * m_hat / np.sqrt(v_hat)', "the matrix does not decay"),
    (6, "m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)", "m_hat, v_hat = m, v", "not corrected"),
    (6, "m_hat / np.sqrt(v_hat)", "m_hat / v_hat", "of the size of g^2"),
    (6, 'w -= own["lr"]', 'w += own["lr"]', "goes up the gradient"),
    (6, "AFTER_TWO = w", "AFTER_TWO = 'w'", "is no number, but str"),
]  # fmt: skip


def of(exercise: int, part: str, table: list[tuple[str, str, str, str]]) -> list[Wrong]:
    return [Wrong(exercise, kind, old, new, part, hint) for kind, old, new, hint in table]


# Which parts may be lost by a mistake in the function that a part checks: it, and what uses it.
ALSO_LOST = {
    (1, "linear-gradients"): "linear-frozen any-shape in-the-model",
    (1, "linear-frozen"): "linear-gradients any-shape in-the-model",
    (1, "layer-norm-gradients"): "layer-norm-frozen any-shape in-the-model",
    (2, "softmax-backward"): "attention-backward padding in-the-model",
    (2, "attention"): "attention-backward padding in-the-model",
    (2, "attention-backward"): "padding in-the-model",
    (2, "padding"): "in-the-model",
    (3, "forward"): "gradients any-shape frozen in-the-model",
    (3, "gradients"): "any-shape frozen in-the-model",
    (3, "frozen"): "gradients any-shape in-the-model",
    (4, "start-weights"): "largest-sigma in-the-model",
    (4, "drift"): "largest-sigma",
    (5, "stops"): "in-the-model",
    (5, "linear-gradients"): "saves-little computes-little in-the-model",
    (5, "saves-little"): "",
    (5, "computes-little"): "",
    (6, "first-step"): "many-steps without-gradient in-the-model",
    (6, "many-steps"): "in-the-model",
    (6, "without-gradient"): "in-the-model",
    (6, "clip"): "train-step in-the-model",
    (7, "forward"): "gradients frozen in-the-model",
    (7, "gradients"): "frozen in-the-model",
    (7, "frozen"): "gradients in-the-model",
    (7, "merged"): "in-the-model",
    (8, "adapter-parameters"): "answers",
    (8, "forward"): "answers in-the-model",
    (8, "backward"): "answers in-the-model",
    (8, "bytes"): "answers",
    (9, "design"): "runs conclusion",
    (9, "summary"): "conclusion",
}

WRONG = [
    *of(1, "linear-gradients", [row for row in LINEAR if row[0] != "frozen"]),
    *of(1, "linear-frozen", [row for row in LINEAR if row[0] == "frozen"]),
    *of(1, "layer-norm-gradients", LAYER_NORM),
    *of(2, "softmax-backward", SOFTMAX),
    *of(2, "attention", ATTENTION),
    *of(2, "attention-backward", ATTENTION_BACKWARD),
    *of(2, "padding", PADDING),
    *of(3, "forward", ADAPTER_FORWARD),
    *of(3, "gradients", ADAPTER),
    *of(3, "frozen", ADAPTER_FROZEN),
    *of(4, "start-weights", START),
    *of(4, "drift", DRIFT),
    *of(4, "no-gradient", NO_GRADIENT),
    *of(5, "stops", STOPS),
    *of(5, "linear-gradients", LINEAR),
    *of(5, "saves-little", SAVES),
    *of(5, "computes-little", COMPUTES),
    *of(5, "what-trains", TRAINS),
    *of(5, "products", PRODUCTS),
    *of(6, "first-step", ADAMW),
    *of(6, "many-steps", ADAMW_STEPS),
    *of(6, "without-gradient", WITHOUT),
    *of(6, "clip", CLIP),
    *of(6, "train-step", STEP),
    *of(7, "forward", LORA_FORWARD),
    *of(7, "gradients", LORA),
    *of(7, "frozen", LORA_FROZEN),
    *of(7, "merged", MERGED),
    *(Wrong(n, "by hand", old, new, "by-hand", hint) for n, old, new, hint in BY_HAND),
    *(Wrong(8, "count", old, new, part, hint) for part, old, new, hint in COUNT),
    *(Wrong(9, "study", old, new, part, hint) for part, old, new, hint in RESEARCH),
    *(Wrong(*row) for row in USAGE),
]

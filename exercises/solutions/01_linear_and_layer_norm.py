import numpy as np

import minitransformer as mt
from minitransformer import exercises
from minitransformer.nn.layers import LayerNorm, Linear, flat


STUDENT = "your-name"  # the id under which you hand in: some numbers are your own


class MyLinear(Linear):
    """y = x W + b over the last axis."""

    def backward(self, dy):
        (x,) = self.pop_saved(dy)
        if self.weight.trainable:
            self.weight.accumulate(flat(x).T @ flat(dy))
        if self.bias.trainable:
            self.bias.accumulate(flat(dy).sum(axis=0))
        if not self.needs_input_grad:
            return None
        return dy @ self.weight.value.T


BY_HAND = {"W[0, 1]": ..., "b[1]": ..., "x[2, 0]": ...}
own = {name: np.array(rows) for name, rows in exercises.my_numbers(1, STUDENT).items()}
BY_HAND = {
    "W[0, 1]": own["x"][:, 0] @ own["dy"][:, 1],
    "b[1]": own["dy"][:, 1].sum(),
    "x[2, 0]": own["W"][0] @ own["dy"][2],
}


class MyLayerNorm(LayerNorm):
    """y = gain (x - mean) / sqrt(variance + eps) + bias over the last axis."""

    def backward(self, dy):
        x_hat, rstd = self.pop_saved(dy)
        if self.weight.trainable:
            self.weight.accumulate(flat(dy * x_hat).sum(axis=0))
        if self.bias.trainable:
            self.bias.accumulate(flat(dy).sum(axis=0))
        if not self.needs_input_grad:
            return None
        u = self.weight.value * dy
        mean = u.mean(axis=-1, keepdims=True)
        along = (u * x_hat).mean(axis=-1, keepdims=True)
        return rstd * (u - mean - x_hat * along)

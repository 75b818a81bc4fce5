# %% [markdown]
# # Exercise 1 · Linear and layer norm, backward
#
# **What does the gradient of a matrix look like, and why does a layer norm need two means more?**
#
# You will learn
#
# * to read gradients off an equation: of the input, the weight and the bias;
# * why everything that is used more than once gets a *sum*;
# * to check a gradient with numbers, and to read what the check says;
# * what a frozen weight changes, and what it does not.
#
# **Time:** about 45 minutes. **Before:** matrix products, the chain rule. **Points:** 18.
#
# Write your solutions in place of `...` and of `raise NotImplementedError("write this part")`, and
# leave the names as they are. The checks say what is wrong and where to look, as often as you like.

# %% setup
import numpy as np

import minitransformer as mt
from minitransformer import exercises
from minitransformer.nn.layers import LayerNorm, Linear, flat

# %% student
STUDENT = "your-name"  # the id under which you hand in: some numbers are your own

# %% [markdown]
# ## 1. Linear
#
# $$ y = x W + b $$
#
# for every position of every sentence: $x$ is $(B, T, d_\text{in})$, $y$ is $(B, T, d_\text{out})$.
# `backward` gets $dy = \partial L / \partial y$, with the shape of $y$. It does three things:
#
# * it adds the gradient of the weight: `self.weight.accumulate(...)`, if `self.weight.trainable`;
# * it adds the gradient of the bias, if that is trainable;
# * it returns $dx$, or `None` if `self.needs_input_grad` is false.
#
# The library's `forward` is kept: it saves $x$, and `(x,) = self.pop_saved(dy)` gets it back. (If the
# weight is frozen, $x$ is `None`: nobody needs it.) The array of a parameter is its `.value`, as in
# `self.weight.value`; `flat(x)` turns $(B, T, d)$ into $(N, d)$.
#
# **To do.** Write `backward`. Think in single numbers: $W_{ij}$ is used once at each of the
# $N = B\,T$ positions.

# %% solution
class MyLinear(Linear):
    """y = x W + b over the last axis."""

    def backward(self, dy):
        ### BEGIN SOLUTION
        (x,) = self.pop_saved(dy)
        if self.weight.trainable:
            self.weight.accumulate(flat(x).T @ flat(dy))
        if self.bias.trainable:
            self.bias.accumulate(flat(dy).sum(axis=0))
        if not self.needs_input_grad:
            return None
        return dy @ self.weight.value.T
        ### END SOLUTION

# %% [markdown]
# `mt.gradcheck` moves every number a little, and compares the change of the loss with your
# gradient.

# %% try
mt.gradcheck(MyLinear(4, 3), np.random.default_rng(0).standard_normal((2, 5, 4)), raises=False)

# %% test linear-gradients 4
exercises.check_part(1, "linear-gradients", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(1, "linear-gradients", globals(), seed=7101)
### END HIDDEN TESTS

# %% test linear-frozen 2
exercises.check_part(1, "linear-frozen", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(1, "linear-frozen", globals(), seed=7102)
### END HIDDEN TESTS

# %% [markdown]
# The same by hand, with numbers of your own: `x` has three positions and two columns, `W` two rows and
# two columns, and the gradient of $y$ is `dy`.
#
# **To do.** What are the gradients of `W[0, 1]`, of `b[1]` and of `x[2, 0]`? (Indices begin at 0.)

# %% try
exercises.my_numbers(1, STUDENT)

# %% solution
BY_HAND = {"W[0, 1]": ..., "b[1]": ..., "x[2, 0]": ...}
### BEGIN SOLUTION
own = {name: np.array(rows) for name, rows in exercises.my_numbers(1, STUDENT).items()}
BY_HAND = {
    "W[0, 1]": own["x"][:, 0] @ own["dy"][:, 1],
    "b[1]": own["dy"][:, 1].sum(),
    "x[2, 0]": own["W"][0] @ own["dy"][2],
}
### END SOLUTION

# %% test by-hand 1
exercises.check_part(1, "by-hand", globals())

# %% [markdown]
# ## 2. Layer norm
#
# For each position alone, over its $d$ numbers:
#
# $$ \hat x = \frac{x - \text{mean}(x)}{\sqrt{\text{var}(x) + \epsilon}}, \qquad
#    y = g\,\hat x + b $$
#
# with the gain $g$ (`self.weight`) and the bias $b$. `forward` saves $\hat x$ and then
# $r = 1 / \sqrt{\text{var}(x) + \epsilon}$, of shape $(\dots, 1)$; `self.pop_saved(dy)` gives both.
#
# The mean and the variance depend on $x$ as well. With $u = g\,dy$ that gives
#
# $$ dx = r\,\bigl(u - \text{mean}(u) - \hat x\; \text{mean}(u\,\hat x)\bigr), $$
#
# means over the $d$ numbers of one position. Derive it: it takes six lines.
#
# **To do.** Write `backward`: the gradients of gain and bias, and $dx$.

# %% solution
class MyLayerNorm(LayerNorm):
    """y = gain (x - mean) / sqrt(variance + eps) + bias over the last axis."""

    def backward(self, dy):
        ### BEGIN SOLUTION
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
        ### END SOLUTION

# %% try
mt.gradcheck(MyLayerNorm(6), np.random.default_rng(0).standard_normal((2, 5, 6)), raises=False)

# %% test layer-norm-gradients 5
exercises.check_part(1, "layer-norm-gradients", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(1, "layer-norm-gradients", globals(), seed=7103)
### END HIDDEN TESTS

# %% test layer-norm-frozen 1
exercises.check_part(1, "layer-norm-frozen", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(1, "layer-norm-frozen", globals(), seed=7104)
### END HIDDEN TESTS

# %% [markdown]
# One sentence, one token, one vector: the same code must do.

# %% test any-shape 2
exercises.check_part(1, "any-shape", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(1, "any-shape", globals(), seed=7105)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Inside the encoder
#
# `exercises.use(Linear=MyLinear, LayerNorm=MyLayerNorm)` plugs your classes in: every Linear and
# every layer norm of a small pretrained encoder is yours. It reads four real sentences, and all
# its gradients are compared with the library's.

# %% test in-the-model 3
exercises.check_part(1, "in-the-model", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(1, "in-the-model", globals(), seed=7106)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. The reward
#
# A pretrained MiniLM in which every Linear and every layer norm is yours: adapters in its blocks
# learn from a few hundred film reviews whether they are good or bad. (The first time, its weights
# are fetched; without a network a small encoder that comes with the library takes its place.)

# %% reward
exercises.reward(1, globals())

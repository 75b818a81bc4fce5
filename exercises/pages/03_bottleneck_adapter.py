# %% [markdown]
# # Exercise 3 · The bottleneck adapter
#
# **What do the four parts of an adapter do, and what comes back through them?**
#
# You will learn
#
# * to write an adapter as a module: forward, and backward by hand;
# * what its skip connection does to the gradient, and what the scaling does;
# * to compute gradients only for what trains;
# * to put your own adapter into a real encoder and train it.
#
# **Time:** about 45 minutes. **Before:** exercise 1. **Points:** 17.
#
# Write your solutions in place of `...` and of `raise NotImplementedError("write this part")`, and
# leave the names as they are. The checks say what is wrong and where to look, as often as you like.

# %% setup
import numpy as np

import minitransformer as mt
from minitransformer import exercises
from minitransformer.nn.layers import default_rng, flat, truncated_normal
from minitransformer.nn.module import Module, Parameter

# %% student
STUDENT = "your-name"  # the id under which you hand in: some numbers are your own

# %% [markdown]
# ## 1. The module
#
# An adapter takes hidden states $h$ of width $d$ and adds a small correction to them:
#
# $$ z = h W_\text{down} + b_\text{down}, \quad a = \max(z, 0), \quad
#    f(h) = a W_\text{up} + b_\text{up}, \quad y = h + s\, f(h) $$
#
# $W_\text{down}$ is $(d, m)$, $W_\text{up}$ is $(m, d)$, and $s$ is a fixed number, the scaling
# (Houlsby et al. 2019; He et al. 2022). $h$ may have any leading axes, $(B, T, d)$ mostly.
#
# The library's rules for a module:
#
# * the array of a parameter is its `.value`;
# * before it returns `y`, `forward` calls `self.save_for_backward(y.shape, ...)` with the arrays that
#   `backward` will read; `backward` begins with `... = self.pop_saved(dy)`, a tuple of them;
# * a gradient is added by `parameter.accumulate(gradient)`, and only if `parameter.trainable`;
# * `backward` returns the gradient of the input, or `None` if `self.needs_input_grad` is false.
#
# `flat(x)` turns $(\dots, d)$ into $(N, d)$: all positions of all sentences in one list.
#
# **To do.** Write `forward` and `backward`. For the backward pass, go through the four equations
# from the end to the beginning. $h$ is used twice: what does that mean for its gradient?

# %% solution
class MyAdapter(Module):
    """y = h + s f(h), f(h) = relu(h W_down + b_down) W_up + b_up."""

    def __init__(self, d_model, config, rng=None):
        m, rng = config.width(d_model), default_rng(rng)
        self.config, self.placement, self.scaling = config, config.placement, config.scaling
        self.w_down = Parameter(truncated_normal(rng, (d_model, m), 0.01))
        self.b_down = Parameter(np.zeros(m, np.float32))
        self.w_up = Parameter(truncated_normal(rng, (m, d_model), 0.01))
        self.b_up = Parameter(np.zeros(d_model, np.float32))

    def forward(self, h):
        ### BEGIN SOLUTION
        z = h @ self.w_down.value + self.b_down.value  # (..., m)
        a = np.maximum(z, 0)
        f = a @ self.w_up.value + self.b_up.value  # (..., d)
        y = h + self.scaling * f
        self.save_for_backward(y.shape, h, a)
        return y
        ### END SOLUTION

    def backward(self, dy):
        ### BEGIN SOLUTION
        h, a = self.pop_saved(dy)
        df = self.scaling * dy
        if self.w_up.trainable:
            self.w_up.accumulate(flat(a).T @ flat(df))
        if self.b_up.trainable:
            self.b_up.accumulate(flat(df).sum(axis=0))
        dz = (df @ self.w_up.value.T) * (a > 0)  # (..., m)
        if self.w_down.trainable:
            self.w_down.accumulate(flat(h).T @ flat(dz))
        if self.b_down.trainable:
            self.b_down.accumulate(flat(dz).sum(axis=0))
        if not self.needs_input_grad:
            return None
        return dy + dz @ self.w_down.value.T
        ### END SOLUTION

# %% [markdown]
# Try it by hand first: a tiny adapter on random numbers. `mt.gradcheck` compares your backward
# pass with differences $(L(x + \varepsilon) - L(x - \varepsilon)) / 2\varepsilon$ of the loss.

# %% try
rng = np.random.default_rng(0)
mine = MyAdapter(6, mt.AdapterConfig(bottleneck=3, scaling=0.6), rng)
h = rng.standard_normal((2, 5, 6)).astype(np.float32)
print("output", mine.forward(h).shape)
mt.gradcheck(mine, h, raises=False)

# %% test forward 3
exercises.check_part(3, "forward", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(3, "forward", globals(), seed=7301)
### END HIDDEN TESTS

# %% test gradients 5
exercises.check_part(3, "gradients", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(3, "gradients", globals(), seed=7302)
### END HIDDEN TESTS

# %% [markdown]
# One sentence, one token, one vector: the same code must do.

# %% test any-shape 2
exercises.check_part(3, "any-shape", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(3, "any-shape", globals(), seed=7303)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. What is frozen costs nothing
#
# Any of the four arrays may be frozen (`requires_grad = False`): then it gets no gradient, and the
# others get the same as before. And if nothing before the adapter trains, nobody reads the
# gradient of $h$.

# %% test frozen 3
exercises.check_part(3, "frozen", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(3, "frozen", globals(), seed=7304)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. How large is it?
#
# **To do.** Your encoder has width `d`; it gets an adapter with bottleneck `m` at each of `sites`
# places. How many parameters do all of them have together, biases included?

# %% try
exercises.my_numbers(3, STUDENT)

# %% solution
PARAMETERS = ...
### BEGIN SOLUTION
own = exercises.my_numbers(3, STUDENT)
PARAMETERS = (2 * own["d"] * own["m"] + own["d"] + own["m"]) * own["sites"]
### END SOLUTION

# %% test parameters 1
exercises.check_part(3, "parameters", globals())

# %% [markdown]
# ## 4. Inside the encoder
#
# `exercises.use(Adapter=MyAdapter)` plugs your class in: every adapter that the library makes
# inside the `with` is yours. The check sends four real sentences through a small pretrained
# encoder, and compares all gradients with those of the library's adapter.

# %% test in-the-model 3
exercises.check_part(3, "in-the-model", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(3, "in-the-model", globals(), seed=7305)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. The reward
#
# A pretrained MiniLM, frozen, with *your* adapters in every block, learns from a few hundred film
# reviews whether they are good or bad. (The first time, its weights are fetched; without a network
# a small encoder that comes with the library takes its place.)

# %% reward
exercises.reward(3, globals())

# %% [markdown]
# # Exercise 7 · LoRA, and merging it
#
# **How can a change of a large matrix be small, and cost nothing in the end?**
#
# You will learn
#
# * to write a low-rank update beside a frozen weight, forward and backward;
# * where the scaling $\alpha / r$ goes, and goes again in the backward pass;
# * to merge the update into the weight, so that nothing is left to pay.
#
# **Time:** about 50 minutes. **Before:** exercises 1 and 3. **Points:** 17.
#
# Write your solutions in place of `...` and of `raise NotImplementedError("write this part")`, and
# leave the names as they are. The checks say what is wrong and where to look, as often as you like.

# %% setup
import numpy as np

from minitransformer import exercises
from minitransformer.nn.layers import default_rng, flat
from minitransformer.nn.module import Module, Parameter

# %% student
STUDENT = "your-name"  # the id under which you hand in: some numbers are your own

# %% [markdown]
# ## 1. An update beside a frozen weight
#
# A frozen Linear gives $y = x W + b$. LoRA (Hu et al. 2021) adds to that
#
# $$ \frac{\alpha}{r}\; x A B $$
#
# with $A$ of shape $(d_\text{in}, r)$ and $B$ of shape $(r, d_\text{out})$. $B$ starts at zero, so
# that nothing changes at first.
#
# `forward(x, y)` gets both the input and what the Linear made of it, and returns the sum. `backward`
# gets the gradient of that sum and returns the gradient of $x$ *through the update alone*: the
# Linear passes back its own share.
#
# The rules as before: the array of a parameter is its `.value`; before it returns, `forward` calls
# `self.save_for_backward(shape of the output, ...)`; `backward` begins with
# `... = self.pop_saved(dy)`; gradients are added by `accumulate`, only where `trainable`; `None` is
# returned if `self.needs_input_grad` is false. $x$ may have any leading axes, $(B, T, d_\text{in})$
# mostly; `flat(x)` turns it into $(N, d_\text{in})$. (`parts` and `n_parts` concern Linears that hold
# several matrices in one; yours holds one, so leave them.)
#
# **To do.** Write `forward`, `backward` and, for section 2, `merged`.

# %% solution
class MyLoRA(Module):
    """y + (alpha / r) x A B, for y = x W + b of a frozen Linear."""

    placement = "beside"

    def __init__(self, linear, config, parts=(0,), n_parts=1, rng=None):
        (d_in, d_out), r, rng = linear.weight.shape, config.rank, default_rng(rng)
        self.config, self.scaling = config, config.alpha / r
        start = rng.standard_normal((d_in, r)) / np.sqrt(d_in)
        self.a = Parameter(start.astype(np.float32))
        self.b = Parameter(np.zeros((r, d_out), np.float32))

    def forward(self, x, y):
        ### BEGIN SOLUTION
        z = x @ self.a.value  # (..., r)
        self.save_for_backward(y.shape, x, z)
        return y + self.scaling * (z @ self.b.value)
        ### END SOLUTION

    def backward(self, dy):
        ### BEGIN SOLUTION
        x, z = self.pop_saved(dy)
        du = self.scaling * dy
        if self.b.trainable:
            self.b.accumulate(flat(z).T @ flat(du))
        dz = du @ self.b.value.T  # (..., r)
        if self.a.trainable:
            self.a.accumulate(flat(x).T @ flat(dz))
        if not self.needs_input_grad:
            return None
        return dz @ self.a.value.T
        ### END SOLUTION

    def merged(self, weight, bias):
        """Weight and bias of a Linear that does what both do together."""
        ### BEGIN SOLUTION
        return weight + self.scaling * (self.a.value @ self.b.value), bias
        ### END SOLUTION

# %% test forward 3
exercises.check_part(7, "forward", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(7, "forward", globals(), seed=7701)
### END HIDDEN TESTS

# %% test gradients 5
exercises.check_part(7, "gradients", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(7, "gradients", globals(), seed=7702)
### END HIDDEN TESTS

# %% test frozen 2
exercises.check_part(7, "frozen", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(7, "frozen", globals(), seed=7703)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Merging
#
# $x W + \frac{\alpha}{r} x A B$ is $x$ times *one* matrix. `merged(weight, bias)` returns it, and the
# bias; both are given as arrays. It writes into new arrays: the old ones are needed to undo the merge.

# %% test merged 3
exercises.check_part(7, "merged", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(7, "merged", globals(), seed=7704)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. How large is it?
#
# **To do.** A weight of `d_in` by `d_out` gets an update of rank `rank`. How many parameters does
# the update have?

# %% try
exercises.my_numbers(7, STUDENT)

# %% solution
PARAMETERS = ...
### BEGIN SOLUTION
own = exercises.my_numbers(7, STUDENT)
PARAMETERS = own["rank"] * (own["d_in"] + own["d_out"])
### END SOLUTION

# %% test parameters 1
exercises.check_part(7, "parameters", globals())

# %% [markdown]
# ## 4. Inside the encoder
#
# `exercises.use(LoRA=MyLoRA)` plugs your class in, beside three Linears of every block of a small
# pretrained encoder. It reads four real sentences; the gradients are compared with the library's,
# and the merged model with the one that is not merged.

# %% test in-the-model 3
exercises.check_part(7, "in-the-model", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(7, "in-the-model", globals(), seed=7705)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. The reward
#
# *Your* LoRA in a pretrained MiniLM, trained on a few hundred film reviews, then merged. (The first
# time, its weights are fetched; without a network a small encoder that comes with the library takes
# its place.)

# %% reward
exercises.reward(7, globals())

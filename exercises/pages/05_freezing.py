# %% [markdown]
# # Exercise 5 · Freezing: which gradients to compute, and where to stop
#
# **What does a frozen layer save, and what must it do all the same?**
#
# You will learn
#
# * that a frozen layer owns no gradient, but still passes one on;
# * what `forward` need not keep if a weight is frozen;
# * where the backward pass may stop, and how much that saves;
# * to count matrix products before anything runs.
#
# **Time:** about 45 minutes. **Before:** exercise 1. **Points:** 18.
#
# Write your solutions in place of `...` and of `raise NotImplementedError("write this part")`, and
# leave the names as they are. The checks say what is wrong and where to look, as often as you like.

# %% setup
import numpy as np

from minitransformer import exercises
from minitransformer.nn.layers import Linear, flat

# %% student
STUDENT = "your-name"  # the id under which you hand in: some numbers are your own

# %% [markdown]
# ## 1. Where to stop
#
# The backward pass visits modules one after the other. Each has `module.output_requires_grad`:
# whether anything in or before it trains. And `module.backward(d)` returns the gradient of its
# input, or `None` if nothing before it trains.
#
# **To do.** Write `backward_through(dy, *modules)`. The modules come in the order of the backward
# pass. It returns the gradient that comes out of the last one, or `None` as soon as nothing earlier
# trains; what comes after that is not visited.

# %% solution
def backward_through(dy, *modules):
    """The gradient of the input of `modules`, given in the order of the backward pass."""
    ### BEGIN SOLUTION
    d = dy
    for module in modules:
        if d is None or not module.output_requires_grad:
            return None
        d = module.backward(d)
    return d
    ### END SOLUTION

# %% test stops 3
exercises.check_part(5, "stops", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(5, "stops", globals(), seed=7501)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. A Linear that does only what is needed
#
# $y = x W + b$. Now weight and bias may each be frozen, and `self.needs_input_grad` says whether
# anybody reads $dx$.
#
# **To do.** Write `forward` and `backward`. `forward` ends with
# `self.save_for_backward(y.shape, ...)`: save no array that `backward` will not read. `backward`
# begins with `(...) = self.pop_saved(dy)`. The other rules are those of exercise 1: `.value`,
# `accumulate` only where `trainable`, `None` where nobody reads $dx$. A check counts the matrix
# products: write them as `a @ b`.

# %% solution
class MyLinear(Linear):
    """y = x W + b over the last axis; what is frozen costs nothing."""

    def forward(self, x):
        ### BEGIN SOLUTION
        y = x @ self.weight.value + self.bias.value
        self.save_for_backward(y.shape, x if self.weight.trainable else None)
        return y
        ### END SOLUTION

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

# %% test linear-gradients 3
exercises.check_part(5, "linear-gradients", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(5, "linear-gradients", globals(), seed=7502)
### END HIDDEN TESTS

# %% test saves-little 2
exercises.check_part(5, "saves-little", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(5, "saves-little", globals(), seed=7503)
### END HIDDEN TESTS

# %% test computes-little 3
exercises.check_part(5, "computes-little", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(5, "computes-little", globals(), seed=7504)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. What trains
#
# In an encoder with adapters, `model.named_parameters()` yields names and parameters. Those of
# adapters have `.adapters.` in their names. The layer norms of the blocks are called
# `blocks.0.attention.norm.weight` and so on (the one after the embeddings is not in a block).
#
# **To do.** Write `train_adapters_only(model, norms)`: set `parameter.requires_grad` so that the
# adapters train and nothing else; with `norms=True` the blocks' layer norms too (Houlsby et al.).

# %% solution
def train_adapters_only(model, norms=False):
    """Freeze everything but the adapters and, if asked, the blocks' layer norms."""
    ### BEGIN SOLUTION
    for name, parameter in model.named_parameters():
        norm = name.startswith("blocks.") and ".norm." in name
        parameter.requires_grad = ".adapters." in name or (norms and norm)
    ### END SOLUTION

# %% test what-trains 2
exercises.check_part(5, "what-trains", globals())

# %% [markdown]
# ## 4. Count
#
# A chain of Linears, one after the other; `trains` says of each, from the first to the last, whether
# its weight trains. The input of the chain is data. A Linear takes one matrix product forward, one
# for its weight's gradient and one for its input's, each only if it is needed.
#
# **To do.** How many matrix products does one training step of your chain take, forward and
# backward?

# %% try
exercises.my_numbers(5, STUDENT)

# %% solution
PRODUCTS = ...
### BEGIN SOLUTION
trains = exercises.my_numbers(5, STUDENT)["trains"]
first = trains.index(True)
PRODUCTS = len(trains) + sum(trains) + (len(trains) - 1 - first)
### END SOLUTION

# %% test products 2
exercises.check_part(5, "products", globals())

# %% [markdown]
# ## 5. Inside the encoder
#
# Your Linear and your `backward_through` run a small pretrained encoder with adapters in its upper
# block, on four real sentences.

# %% test in-the-model 3
exercises.check_part(5, "in-the-model", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(5, "in-the-model", globals(), seed=7505)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. The reward
#
# A pretrained MiniLM with your parts: one training step with everything trainable, with adapters in
# all blocks, and with adapters in the upper half. Predict the times and the bytes before you run it.
# (The first time, its weights are fetched; without a network a small encoder that comes with the
# library takes its place.)

# %% reward
exercises.reward(5, globals())

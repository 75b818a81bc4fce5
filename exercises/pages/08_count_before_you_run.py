# %% [markdown]
# # Exercise 8 · Count before you run
#
# **2 % of the parameters train. Why is a step not fifty times as fast?**
#
# You will learn
#
# * to count parameters, multiply-adds and bytes from a configuration, before anything runs;
# * what a frozen weight saves, product by product;
# * to check a formula against a real block that is counted while it runs.
#
# **Time:** about 40 minutes. **Before:** exercises 2 and 5. **Points:** 17.
#
# Write your solutions in place of `...` and of `raise NotImplementedError("write this part")`, and
# leave the names as they are. The checks say what is wrong and where to look, as often as you like.

# %% setup
import numpy as np

from minitransformer import exercises

# %% student
STUDENT = "your-name"  # the id under which you hand in: some numbers are your own

# %% [markdown]
# ## 1. Parameters
#
# **To do.** Write `adapter_parameters(d, m)`: all parameters of one bottleneck adapter of width $d$
# and bottleneck $m$, biases included.

# %% solution
def adapter_parameters(d, m):
    """How many parameters one adapter has."""
    ### BEGIN SOLUTION
    return 2 * d * m + d + m
    ### END SOLUTION

# %% test adapter-parameters 2
exercises.check_part(8, "adapter-parameters", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(8, "adapter-parameters", globals(), seed=7801)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Multiply-adds, forward
#
# A product of $(n, k)$ and $(k, m)$ takes $n\,k\,m$ multiply-adds; everything else is little beside
# the products. One block reads $x$ of shape $(B, T, d)$. Its products:
#
# * query, key, value and output projection, $d$ to $d$ each;
# * in attention, all heads together: $Q K^\top$ and $P V$, with $T$ queries and $T$ keys;
# * in the feed-forward: $d$ to $d_\text{ff}$, and back.
#
# **To do.** Write `forward_multiply_adds(B, T, d, d_ff)` for one block without adapters. Biases and
# layer norms are not counted. (How does the number of heads enter?)

# %% solution
def forward_multiply_adds(B, T, d, d_ff):
    """The multiply-adds of one block, forward."""
    ### BEGIN SOLUTION
    projections = 4 * B * T * d * d
    scores = 2 * B * T * T * d
    feed_forward = 2 * B * T * d * d_ff
    return projections + scores + feed_forward
    ### END SOLUTION

# %% test forward 3
exercises.check_part(8, "forward", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(8, "forward", globals(), seed=7802)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Multiply-adds, backward
#
# The gradient of the block's input is wanted: something below it trains. Each product
# $C = A B$ has two factors, and the gradient of each takes a product of the same size. Where one
# factor is a frozen weight, its gradient is not computed. In $Q K^\top$ and $P V$ there are no
# weights: both factors are activations.
#
# **To do.** Write `backward_multiply_adds(B, T, d, d_ff, frozen)` for one block, with all its
# weights frozen or all of them trained.

# %% solution
def backward_multiply_adds(B, T, d, d_ff, frozen):
    """The multiply-adds of one block, backward."""
    ### BEGIN SOLUTION
    linears = 4 * B * T * d * d + 2 * B * T * d * d_ff
    scores = 2 * B * T * T * d
    weight_gradients = 0 if frozen else linears
    return linears + weight_gradients + 2 * scores
    ### END SOLUTION

# %% test backward 4
exercises.check_part(8, "backward", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(8, "backward", globals(), seed=7803)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Bytes
#
# **To do.** Write `training_bytes(n)`: what $n$ trained parameters need *beside* their values, in
# float32: a gradient each, and what AdamW keeps.

# %% solution
def training_bytes(n):
    """Bytes for gradients and AdamW's state of n parameters, in float32."""
    ### BEGIN SOLUTION
    return 4 * (n + 2 * n)
    ### END SOLUTION

# %% test bytes 2
exercises.check_part(8, "bytes", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(8, "bytes", globals(), seed=7804)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Your encoder
#
# Your encoder has `blocks` blocks and `base_parameters` parameters; each block gets **two** adapters
# of bottleneck `m`.
#
# **To do.** Fill in: all `adapter_parameters`; their `share` of `base_parameters` in percent; the
# `training_bytes` of all adapters; and `frozen_over_full`, the multiply-adds of one block's step,
# forward and backward, with its weights frozen, divided by those with its weights trained (adapters
# not counted). Is it 2 %?

# %% try
exercises.my_numbers(8, STUDENT)

# %% solution
ANSWERS = {"adapter_parameters": ..., "share": ..., "training_bytes": ..., "frozen_over_full": ...}
### BEGIN SOLUTION
own = exercises.my_numbers(8, STUDENT)
shape = own["B"], own["T"], own["d"], own["d_ff"]
n = 2 * own["blocks"] * adapter_parameters(own["d"], own["m"])
forward = forward_multiply_adds(*shape)
frozen = forward + backward_multiply_adds(*shape, True)
full = forward + backward_multiply_adds(*shape, False)
ANSWERS = {
    "adapter_parameters": n,
    "share": 100 * n / own["base_parameters"],
    "training_bytes": training_bytes(n),
    "frozen_over_full": frozen / full,
}
### END SOLUTION

# %% test answers 4
exercises.check_part(8, "answers", globals())

# %% [markdown]
# ## 6. Against a real block
#
# The library can count every product that a block does while it runs. A block of a small pretrained
# encoder reads four real sentences, forward and backward; do your formulas give the same?

# %% test in-the-model 2
exercises.check_part(8, "in-the-model", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(8, "in-the-model", globals(), seed=7805)
### END HIDDEN TESTS

# %% [markdown]
# ## 7. The reward
#
# Your count beside the clock: a training step of a pretrained MiniLM with frozen blocks and adapters,
# and with everything trained. How close does the time come to `frozen_over_full`? (The first time,
# its weights are fetched; without a network a small encoder that comes with the library takes its
# place.)

# %% reward
exercises.reward(8, globals())

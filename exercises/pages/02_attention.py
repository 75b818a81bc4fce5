# %% [markdown]
# # Exercise 2 · Softmax and attention, forward and backward
#
# **How does a gradient find its way through "who looks at whom"?**
#
# You will learn
#
# * the Jacobian of the softmax, and how to apply it without ever writing it down;
# * attention's four matrix products backward: two for each of the two forward;
# * where the factor $1/\sqrt{d}$ goes, and what a mask does to gradients.
#
# **Time:** about 60 minutes. **Before:** exercise 1. **Points:** 19.
#
# Write your solutions in place of `...` and of `raise NotImplementedError("write this part")`, and
# leave the names as they are. The checks say what is wrong and where to look, as often as you like.

# %% setup
import numpy as np

from minitransformer import exercises
from minitransformer.nn.functional import softmax

# %% student
STUDENT = "your-name"  # the id under which you hand in: some numbers are your own

# %% [markdown]
# ## 1. Softmax, backward
#
# $$ p_i = \frac{e^{s_i}}{\sum_j e^{s_j}}, \qquad
#    \frac{\partial p_i}{\partial s_j} = p_i\,(\delta_{ij} - p_j) $$
#
# over the last axis. So $ds_j = \sum_i dp_i\, p_i\,(\delta_{ij} - p_j)$. Multiply out: one sum
# remains, and it is the same for every $j$.
#
# **To do.** Write `softmax_backward(dp, p)`, which returns $ds$. Both arguments have the same
# shape $(\dots, T)$. No loops.

# %% solution
def softmax_backward(dp, p):
    """ds of p = softmax(s) over the last axis."""
    ### BEGIN SOLUTION
    along = (dp * p).sum(axis=-1, keepdims=True)
    return p * (dp - along)
    ### END SOLUTION

# %% test softmax-backward 4
exercises.check_part(2, "softmax-backward", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(2, "softmax-backward", globals(), seed=7201)
### END HIDDEN TESTS

# %% [markdown]
# The same by hand, with numbers of your own: one query looks at four keys with the probabilities `p`,
# and the loss has the gradient `dp`.
#
# **To do.** What is the gradient of the first score?

# %% try
exercises.my_numbers(2, STUDENT)

# %% solution
FIRST_DS = ...
### BEGIN SOLUTION
own = exercises.my_numbers(2, STUDENT)
p, dp = np.array(own["p"]), np.array(own["dp"])
FIRST_DS = p[0] * (dp[0] - p @ dp)
### END SOLUTION

# %% test by-hand 1
exercises.check_part(2, "by-hand", globals())

# %% [markdown]
# ## 2. Attention, forward
#
# $$ S = Q K^\top / \sqrt{d}, \qquad P = \text{softmax}(S + M), \qquad C = P V $$
#
# (Vaswani et al. 2017.) $Q$ is $(B, H, T_q, d)$; $K$ and $V$ are $(B, H, T, d)$: the sentences of
# the batch, the heads, the positions, the width of a head. The mask $M$ is 0 where a query may look
# and a very large negative number where it may not; it may be `None`. It has a shape that NumPy
# spreads over $S$ by itself.
#
# **To do.** Write `attention(q, k, v, mask)`. `softmax` is there already.

# %% solution
def attention(q, k, v, mask=None):
    """softmax(Q K^T / sqrt(d) + mask) V."""
    ### BEGIN SOLUTION
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]).astype(q.dtype)
    p = softmax(scores if mask is None else scores + mask)
    return p @ v
    ### END SOLUTION

# %% test attention 3
exercises.check_part(2, "attention", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(2, "attention", globals(), seed=7202)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Attention, backward
#
# `attention_backward` gets $dC$ and what forward got, and computes $P$ again: that costs less than
# to keep it. Go through the three equations from the end to the beginning. The product $C = P V$ has
# two factors, so it has two gradients, and so has $Q K^\top$.
#
# **To do.** Write `attention_backward(dcontext, q, k, v, mask)`; it returns `(dq, dk, dv)`.

# %% solution
def attention_backward(dcontext, q, k, v, mask=None):
    """dQ, dK and dV of `attention`."""
    ### BEGIN SOLUTION
    scale = 1 / np.sqrt(q.shape[-1]).astype(q.dtype)
    scores = q @ k.swapaxes(-1, -2) * scale
    p = softmax(scores if mask is None else scores + mask)
    dv = p.swapaxes(-1, -2) @ dcontext
    dp = dcontext @ v.swapaxes(-1, -2)
    ds = softmax_backward(dp, p) * scale
    return ds @ k, ds.swapaxes(-1, -2) @ q, dv
    ### END SOLUTION

# %% test attention-backward 6
exercises.check_part(2, "attention-backward", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(2, "attention-backward", globals(), seed=7203)
### END HIDDEN TESTS

# %% [markdown]
# With a mask: the second sentence ends in padding. What gradient do keys have at which nobody may
# look?

# %% test padding 2
exercises.check_part(2, "padding", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(2, "padding", globals(), seed=7204)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Inside the encoder
#
# `exercises.use(attention=attention, attention_backward=attention_backward)` plugs your functions
# into every block of a small pretrained encoder. It reads four real sentences, and the gradients of
# adapters below and above attention are compared with the library's.

# %% test in-the-model 3
exercises.check_part(2, "in-the-model", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(2, "in-the-model", globals(), seed=7205)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. The reward
#
# A pretrained MiniLM with *your* attention in every block learns from a few hundred film reviews
# whether they are good or bad. (The first time, its weights are fetched; without a network a small
# encoder that comes with the library takes its place.)

# %% reward
exercises.reward(2, globals())

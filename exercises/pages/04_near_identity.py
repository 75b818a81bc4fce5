# %% [markdown]
# # Exercise 4 · A start near the identity, and why
#
# **Why does an adapter begin by doing nothing, and why not with zeros everywhere?**
#
# You will learn
#
# * to draw start values as the paper says: a normal, drawn again beyond two sigma;
# * to measure how far an adapter is from the identity;
# * which gradients are zero in the first step, and which start can never leave zero.
#
# **Time:** about 40 minutes. **Before:** exercise 3. **Points:** 15.
#
# Write your solutions in place of `...` and of `raise NotImplementedError("write this part")`, and
# leave the names as they are. The checks say what is wrong and where to look, as often as you like.

# %% setup
import numpy as np

from minitransformer import exercises

# %% student
STUDENT = "your-name"  # the id under which you hand in: some numbers are your own

# %% [markdown]
# ## 1. Start values
#
# The network around an adapter is good. A random module in the middle would spoil it, so both
# projections start small (Houlsby et al. 2019, section 3.6): each entry from a normal distribution
# with mean 0 and standard deviation $\sigma$, **drawn again** while it lies beyond $2\sigma$. The
# biases start at 0.
#
# **To do.** Write `start_weights(d, m, rng, sigma)`. It returns `w_down` $(d, m)$, `b_down` $(m,)$,
# `w_up` $(m, d)$ and `b_up` $(d,)$, all float32, drawn with `rng.standard_normal(shape)`.

# %% solution
def start_weights(d, m, rng, sigma):
    """Truncated normals for the projections, zeros for the biases."""
    ### BEGIN SOLUTION
    def truncated(shape):
        draw = rng.standard_normal(shape)
        while (outside := np.abs(draw) > 2).any():
            draw[outside] = rng.standard_normal(outside.sum())
        return (sigma * draw).astype(np.float32)

    b_down, b_up = np.zeros(m, np.float32), np.zeros(d, np.float32)
    return truncated((d, m)), b_down, truncated((m, d)), b_up
    ### END SOLUTION

# %% test start-weights 4
exercises.check_part(4, "start-weights", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(4, "start-weights", globals(), seed=7401)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. How far from the identity?
#
# The adapter is $h + f(h)$ with $f(h) = \max(h W_\text{down} + b_\text{down}, 0)\, W_\text{up} +
# b_\text{up}$. Its *drift* is the size of what it adds, relative to what is there:
# $\lVert f(h) \rVert / \lVert h \rVert$, the roots of the sums of squares of all entries.
#
# **To do.** Write `drift`.

# %% solution
def drift(h, w_down, b_down, w_up, b_up):
    """|f(h)| / |h|."""
    ### BEGIN SOLUTION
    a = np.maximum(h @ w_down + b_down, 0)
    f = a @ w_up + b_up
    return np.linalg.norm(f) / np.linalg.norm(h)
    ### END SOLUTION

# %% test drift 2
exercises.check_part(4, "drift", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(4, "drift", globals(), seed=7402)
### END HIDDEN TESTS

# %% [markdown]
# **To do.** Your adapter has width `d` and bottleneck `m`. Of the sigmas 0.0025, 0.005, 0.01, 0.02,
# 0.04 and 0.08, which is the largest whose drift is at most `bound`? Measure it on
# $h$ = 200 vectors of standard normal numbers. (When sigma doubles, what does the drift do?)

# %% try
exercises.my_numbers(4, STUDENT)

# %% solution
LARGEST_SIGMA = ...
### BEGIN SOLUTION
own = exercises.my_numbers(4, STUDENT)
rng = np.random.default_rng(0)
h = rng.standard_normal((200, own["d"]))
for sigma in (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08):
    if drift(h, *start_weights(own["d"], own["m"], rng, sigma)) <= own["bound"]:
        LARGEST_SIGMA = sigma
### END SOLUTION

# %% test largest-sigma 2
exercises.check_part(4, "largest-sigma", globals())

# %% [markdown]
# ## 3. Which gradients are there in the first step?
#
# Two other starts: `"zero_up"`, in which only $W_\text{up}$ is 0 (and the biases), and
# `"both_zero"`, in which $W_\text{down}$ is 0 too. Write the gradients of all four arrays down, and
# ask which are zero in the first step, whatever $h$ and $dy$ are. (At exactly 0 the derivative of
# the ReLU is 0.)
#
# **To do.** Put their names into the sets. Which of the two starts can never learn anything but a
# constant vector?

# %% solution
NO_GRADIENT = ...  # {"zero_up": {"w_down", ...}, "both_zero": {...}}
### BEGIN SOLUTION
NO_GRADIENT = {"zero_up": {"w_down", "b_down"}, "both_zero": {"w_down", "b_down", "w_up"}}
### END SOLUTION

# %% test no-gradient 4
exercises.check_part(4, "no-gradient", globals())

# %% [markdown]
# ## 4. Inside the encoder
#
# Adapters with your start are put into a small pretrained encoder, which reads four real sentences:
# with $\sigma = 0.01$ its output must stay nearly what it was, with $\sigma = 1$ it does not.

# %% test in-the-model 3
exercises.check_part(4, "in-the-model", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(4, "in-the-model", globals(), seed=7403)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. The reward
#
# Two adapters of the same size in a pretrained MiniLM: one with your start at $\sigma = 0.01$, one
# with $\sigma = 1$. Predict the accuracy of each before you run it. (The first time, its weights
# are fetched; without a network a small encoder that comes with the library takes its place.)

# %% reward
exercises.reward(4, globals())

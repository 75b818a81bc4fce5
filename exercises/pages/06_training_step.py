# %% [markdown]
# # Exercise 6 · The training step with AdamW
#
# **From gradients to better weights: what happens in one step, and in which order?**
#
# You will learn
#
# * AdamW: two running means, their correction, and decay that is not part of the gradient;
# * to clip gradients by their common norm;
# * the order of a training step, and what goes wrong in any other.
#
# **Time:** about 50 minutes. **Before:** exercise 3. **Points:** 17.
#
# Write your solutions in place of `...` and of `raise NotImplementedError("write this part")`, and
# leave the names as they are. The checks say what is wrong and where to look, as often as you like.

# %% setup
import numpy as np

import minitransformer as mt
from minitransformer import exercises

# %% student
STUDENT = "your-name"  # the id under which you hand in: some numbers are your own

# %% [markdown]
# ## 1. AdamW
#
# For each parameter $w$ with gradient $g$, in step $t = 1, 2, \dots$ (Loshchilov and Hutter 2019,
# algorithm 2):
#
# $$ m \leftarrow \beta_1 m + (1 - \beta_1)\, g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2 $$
# $$ w \leftarrow w - \text{lr} \left( \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} +
#    \epsilon} + \lambda\, w \right) $$
#
# $m$ and $v$ start at zero. Only matrices decay: for an array with fewer than two axes, $\lambda$ is
# 0. A parameter whose `grad` is `None` stays as it is.
#
# The library's class is kept, with its attributes: `self.parameters` (name → parameter, each with
# `value` and `grad`), `self.lr`, `self.betas`, `self.eps`, `self.weight_decay`, `self.t` (steps
# done so far: `step` counts it on), and `self.m` and `self.v` (name → array).
#
# **To do.** Write `step`. The arrays `parameter.value`, `self.m[name]` and `self.v[name]` are
# changed *in place*: the model holds the same ones.

# %% solution
class MyAdamW(mt.AdamW):
    """Adam with decoupled weight decay."""

    def step(self):
        ### BEGIN SOLUTION
        self.t += 1
        b1, b2 = self.betas
        for name, p in self.parameters.items():
            if p.grad is None:
                continue
            m, v = self.m[name], self.v[name]
            m[...] = b1 * m + (1 - b1) * p.grad
            v[...] = b2 * v + (1 - b2) * p.grad**2
            m_hat = m / (1 - b1**self.t)
            v_hat = v / (1 - b2**self.t)
            decay = self.weight_decay if p.value.ndim >= 2 else 0.0
            direction = m_hat / (np.sqrt(v_hat) + self.eps) + decay * p.value
            p.value -= self.lr * direction
        ### END SOLUTION

# %% test first-step 3
exercises.check_part(6, "first-step", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(6, "first-step", globals(), seed=7601)
### END HIDDEN TESTS

# %% test many-steps 3
exercises.check_part(6, "many-steps", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(6, "many-steps", globals(), seed=7602)
### END HIDDEN TESTS

# %% test without-gradient 1
exercises.check_part(6, "without-gradient", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(6, "without-gradient", globals(), seed=7603)
### END HIDDEN TESTS

# %% [markdown]
# The same by hand, with numbers of your own: an entry of a matrix is `w`, and its gradients in the first
# two steps are `g`. Take 0 for $\epsilon$. How far does the first step go, whatever the size of the
# gradient?
#
# **To do.** What is the entry after the two steps, to four decimals?

# %% try
exercises.my_numbers(6, STUDENT)

# %% solution
AFTER_TWO = ...
### BEGIN SOLUTION
own = exercises.my_numbers(6, STUDENT)
w, m, v, (b1, b2) = own["w"], 0.0, 0.0, own["betas"]
for t, g in enumerate(own["g"], 1):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
    w -= own["lr"] * (m_hat / np.sqrt(v_hat) + own["weight_decay"] * w)
AFTER_TWO = w
### END SOLUTION

# %% test by-hand 1
exercises.check_part(6, "by-hand", globals())

# %% [markdown]
# ## 2. Clipping
#
# Once in a while a batch has a very large gradient. Take the norm of *all* gradients together, as if
# they were one long vector; if it is more than `max_norm`, scale all of them by the same factor, so
# that it becomes `max_norm`.
#
# **To do.** Write `clip_by_global_norm(parameters, max_norm)`. `parameters` is name → parameter;
# some have no gradient. It scales the gradients in place and returns the norm *before*.

# %% solution
def clip_by_global_norm(parameters, max_norm):
    """Scale all gradients so that their common norm is at most `max_norm`."""
    ### BEGIN SOLUTION
    grads = [p.grad for p in parameters.values() if p.grad is not None]
    norm = float(np.sqrt(sum((g**2).sum() for g in grads)))
    if norm > max_norm:
        for g in grads:
            g *= max_norm / norm
    return norm
    ### END SOLUTION

# %% test clip 3
exercises.check_part(6, "clip", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(6, "clip", globals(), seed=7604)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. The step
#
# One step for one batch: no gradients left from the last step; the logits; the loss; the gradients;
# clipping; the update. What there is:
#
# * `model.zero_grad()`, `model(batch.ids, batch.attention_mask)` → logits, `model.backward(dlogits)`;
# * `loss = mt.CrossEntropy()`, `loss.forward(logits, batch.labels)` → a number, `loss.backward()`;
# * `model.trainable_parameters()` → name → parameter; `optimizer.step()`.
#
# **To do.** Write `train_step`, which returns the loss.

# %% solution
def train_step(model, optimizer, batch, max_norm):
    """One step of training on one batch; returns its loss."""
    ### BEGIN SOLUTION
    model.zero_grad()
    loss = mt.CrossEntropy()
    value = loss.forward(model(batch.ids, batch.attention_mask), batch.labels)
    model.backward(loss.backward())
    clip_by_global_norm(model.trainable_parameters(), max_norm)
    optimizer.step()
    return value
    ### END SOLUTION

# %% test train-step 3
exercises.check_part(6, "train-step", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(6, "train-step", globals(), seed=7605)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Inside the trainer
#
# `exercises.use(AdamW=MyAdamW, clip_by_global_norm=clip_by_global_norm)`: the library's trainer now
# runs with your optimizer, on four real sentences, and must reach the same losses.

# %% test in-the-model 3
exercises.check_part(6, "in-the-model", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(6, "in-the-model", globals(), seed=7606)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. The reward
#
# Adapters in a pretrained MiniLM, trained on a few hundred film reviews by *your* optimizer. (The
# first time, its weights are fetched; without a network a small encoder that comes with the library
# takes its place.)

# %% reward
exercises.reward(6, globals())

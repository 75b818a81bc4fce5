# %% [markdown]
# # Exercise 9 · A small research question
#
# **Does it make a difference, or was it luck?**
#
# You will learn
#
# * to turn a question into a study: one thing varies, everything else stays;
# * to run it, all of it, from one text;
# * to report means *and* how far chance moves them, and to say no more than the numbers do.
#
# **Time:** about 60 minutes. **Before:** exercises 3 and 6. **Points:** 13, and 3 for your report.
#
# Write your solutions in place of `...` and of `raise NotImplementedError("write this part")`, and
# leave the names as they are. The checks say what is wrong and where to look, as often as you like.

# %% setup
import numpy as np

from minitransformer import exercises

# %% student
STUDENT = "your-name"  # the id under which you hand in: your question depends on it

# %% [markdown]
# ## 1. Design
#
# You are given one `factor` of an adapter and three `values` of it. The question: **on short film
# reviews, does this factor matter, among these values?**
#
# A study is a text. This one compares two widths of the bottleneck (your factor and values are
# others):
#
# ```toml
# name = "example"
# seeds = [0, 1, 2]          # everything is run with each of these
#
# [run]                      # the same for all
# base = "tiny"
# epochs = 2
# max_length = 32
#
# [[task]]
# name = "toy-reviews"
# limit = 300                # training examples
# validation_limit = 50
# test_limit = 200
#
# [[part]]
# name = "answer"
# bottleneck = [4, 16]       # a list: one setting for each
# scaling = 1.0
# placement = "after_norm"
# lr = 0.01
# ```
#
# **To do.** Write your study into `STUDY`: your factor with your three values; at least three seeds,
# because without them nobody can tell a difference from chance; one learning rate. Keep it small:
# `base = "tiny"`, the limits above, two epochs.

# %% try
exercises.my_numbers(9, STUDENT)

# %% solution
STUDY = ...  # """ the text of your study """
### BEGIN SOLUTION
own = exercises.my_numbers(9, STUDENT)
options = {"bottleneck": 8, "scaling": 1.0, "placement": "after_norm"} | {
    own["factor"]: own["values"]
}
lines = [f"{name} = {value!r}".replace("'", '"') for name, value in options.items()]
STUDY = """
name = "mine"
seeds = [0, 1, 2]

[run]
base = "tiny"
epochs = 2
max_length = 32

[[task]]
name = "toy-reviews"
limit = 300
validation_limit = 50
test_limit = 200

[[part]]
name = "answer"
lr = 0.01
""" + "\n".join(lines)
### END SOLUTION

# %% test design 4
exercises.check_part(9, "design", globals())

# %% [markdown]
# ## 2. Run
#
# All runs of the study, one after the other. Each row has the options, the `seed`, and the
# `accuracy` on the test set.

# %% setup
ROWS = exercises.run_study(STUDY)

# %% test runs 2
exercises.check_part(9, "runs", globals())

# %% [markdown]
# ## 3. Report
#
# **To do.** Write `summary(rows, factor)`: a dictionary that gives for each value of the factor the
# mean accuracy over the seeds, and the *sample* standard deviation (divided by $n - 1$).

# %% solution
def summary(rows, factor):
    """value -> (mean, standard deviation) of the accuracy over the seeds."""
    ### BEGIN SOLUTION
    result = {}
    for value in {row[factor] for row in rows}:
        accuracies = [row["accuracy"] for row in rows if row[factor] == value]
        result[value] = float(np.mean(accuracies)), float(np.std(accuracies, ddof=1))
    return result
    ### END SOLUTION

# %% test summary 4
exercises.check_part(9, "summary", globals())
### BEGIN HIDDEN TESTS
exercises.check_part(9, "summary", globals(), seed=7901)
### END HIDDEN TESTS

# %% [markdown]
# **To do.** Conclude. `"best"` is the value with the highest mean. Call the difference `"clear"`
# (true or false) if the best two means differ by more than the *sum* of their standard deviations.

# %% solution
CONCLUSION = ...  # {"best": ..., "clear": ...}
### BEGIN SOLUTION
found = summary(ROWS, own["factor"])
first, second = sorted(found, key=lambda value: -found[value][0])[:2]
difference = found[first][0] - found[second][0]
CONCLUSION = {"best": first, "clear": difference > found[first][1] + found[second][1]}
### END SOLUTION

# %% test conclusion 3
exercises.check_part(9, "conclusion", globals())

# %% answer report 3
# **Your report** (five sentences: the question, what you varied and what stayed, the numbers with
# their deviations, the conclusion, and one thing this study cannot tell).

# %% [markdown]
# ## 4. The reward
#
# Your question once more, now on a pretrained MiniLM and real film reviews, with one seed: does the
# answer from the small encoder hold? (The first time, its weights are fetched; without a network
# there is nothing more to see here.)

# %% reward
exercises.reward(9, globals())

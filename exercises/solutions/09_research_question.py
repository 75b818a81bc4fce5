import numpy as np

from minitransformer import exercises


STUDENT = "your-name"  # the id under which you hand in: your question depends on it


STUDY = ...  # """ the text of your study """
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


ROWS = exercises.run_study(STUDY)


def summary(rows, factor):
    """value -> (mean, standard deviation) of the accuracy over the seeds."""
    result = {}
    for value in {row[factor] for row in rows}:
        accuracies = [row["accuracy"] for row in rows if row[factor] == value]
        result[value] = float(np.mean(accuracies)), float(np.std(accuracies, ddof=1))
    return result


CONCLUSION = ...  # {"best": ..., "clear": ...}
found = summary(ROWS, own["factor"])
first, second = sorted(found, key=lambda value: -found[value][0])[:2]
difference = found[first][0] - found[second][0]
CONCLUSION = {"best": first, "clear": difference > found[first][1] + found[second][1]}

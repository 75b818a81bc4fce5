"""Make a file of real tweets in which one class is rare: what accuracy cannot see.

    python scripts/rare_class.py --rows 6000 --out rare-6000.csv

Positive tweets among negative ones, from the built-in task `tweets`; 2 % unless told otherwise.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from minitransformer.data.datasets import load_task


def rows(n: int, share: float, seed: int = 0) -> list[tuple[str, str]]:
    """n tweets with their labels, `share` of them positive, in random order."""
    task = load_task("tweets")
    rng = np.random.default_rng(seed)
    positives = round(share * n)
    found = []
    for label, count in (("positive", positives), ("negative", n - positives)):
        of_label = np.flatnonzero(task.train.labels == task.label_names.index(label))
        chosen = rng.permutation(of_label)[:count]
        found += [(task.train.texts[i], label) for i in chosen]
    return [found[i] for i in rng.permutation(len(found))]


def main() -> None:
    parser = argparse.ArgumentParser(description="write a file with a rare class")
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--share", type=float, default=0.02)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with options.out.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows(options.rows, options.share)])


if __name__ == "__main__":
    main()

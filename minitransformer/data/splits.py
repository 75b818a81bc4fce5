"""Examples, and how they are split into train, validation and test.

A text that occurs twice would let the test set leak into training, so of exact duplicates only the
first is used, before splitting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import ConfigError, DataError, printable
from ..nn.module import Array

VALIDATION, TEST = 0.05, 0.2  # shares of a task's examples; the rest is for training


class Example(NamedTuple):
    """A text, or pair, and the index of its label name, or its number."""

    text: str
    label: float
    pair: str | None = None


@dataclass(frozen=True)
class Split:
    """Texts and their labels: `labels` (n,) int64 counts into the task's label names.

    Where the task is a number, labels are that, float64. A list of labels will do. `pairs`: the
    second text of each, if any.
    """

    texts: list[str]
    labels: Array
    pairs: list[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", np.asarray(self.labels))

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Task:
    """A classification task; `duplicates` counts the repeated texts that were left out."""

    name: str
    label_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    duplicates: int = 0

    @property
    def is_number(self) -> bool:
        """Whether a number is predicted; its one label name is what the number is called."""
        return len(self.label_names) == 1


def squeezed(text: str) -> str:
    """The text with single spaces for its white space: what makes two texts equal."""
    return " ".join(text.split())


def random_split(
    name: str, label_names: tuple[str, ...], examples: Sequence[Example], rng: np.random.Generator
) -> Task:
    first = {(squeezed(e.text), squeezed(e.pair or "")): e for e in reversed(examples)}
    unique = list(reversed(first.values()))
    need_examples(name, label_names, unique, least=3)
    validation, test, train = stratified(as_split(unique), (VALIDATION, TEST), rng)
    return Task(name, label_names, train, validation, test, duplicates=len(examples) - len(unique))


def need_examples(
    name: str, label_names: Sequence[str], examples: Sequence[Example], least: int
) -> None:
    if examples and isinstance(examples[0].label, float):
        if len(examples) < least:
            raise DataError(f"{name} has {len(examples)} different examples, expected {least}")
        return
    if len(label_names) < 2:
        raise DataError(f"{name} has a single label, {label_names[0]!r}: nothing to tell apart")
    counts = Counter(example.label for example in examples)
    for label, label_name in enumerate(label_names):
        if counts[label] < least:
            raise DataError(
                f"label {label_name!r} of {name} has {counts[label]} different examples to train "
                f"on and to hold out, expected at least {least}; add some or remove the label"
            )


def stratified(split: Split, shares: Sequence[float], rng: np.random.Generator) -> list[Split]:
    """Cut off a share of every label for each of `shares`, at least one example; the rest last."""
    parts: list[list[Array]] = [[] for _ in range(len(shares) + 1)]
    kinds = strata(split)
    for label in np.unique(kinds):
        members = rng.permutation(np.flatnonzero(kinds == label))
        sizes = [max(1, round(share * len(members))) for share in shares]
        for part, chosen in zip(parts, np.split(members, np.cumsum(sizes)), strict=True):
            part.append(chosen)
    return [subset(split, rng.permutation(np.concatenate(part))) for part in parts]


def limited(split: Split, limit: int, rng: np.random.Generator) -> Split:
    """The first `limit` examples in an order whose every beginning holds the labels in proportion.

    The k-th of a label's n examples has position k/n: each label's first comes before all others.
    """
    kinds = strata(split)
    labels = len(np.unique(kinds))
    if limit < labels:
        raise ConfigError(f"limit={limit} is too small: {labels} labels need an example each")
    order = rng.permutation(len(split))
    position = np.empty(len(split))
    for label in np.unique(kinds):
        members = order[kinds[order] == label]
        position[members] = np.arange(len(members)) / len(members)
    first = order[np.argsort(position[order], kind="stable")[:limit]]
    return subset(split, np.sort(first))


def strata(split: Split) -> Array:
    """(n,) what is kept in proportion: the label, or, of numbers, nothing."""
    return np.zeros(len(split)) if split.labels.dtype.kind == "f" else split.labels


def as_split(examples: Sequence[Example]) -> Split:
    numbers = bool(examples) and isinstance(examples[0].label, float)
    labels = np.array([e.label for e in examples], np.float64 if numbers else np.int64)
    pairs = [e.pair for e in examples if e.pair is not None]
    return Split([e.text for e in examples], labels, pairs or None)


def subset(split: Split, index: Array) -> Split:
    pairs = None if split.pairs is None else [split.pairs[i] for i in index]
    return Split([split.texts[i] for i in index], split.labels[index], pairs)


def on_one_line(text: str) -> str:
    """A text with its line breaks, tabs and control characters shown as \\n, \\t, \\x1b."""
    return printable(text, keep="")

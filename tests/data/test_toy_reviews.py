"""The grammar of opinions: seeded, balanced, no repetition, and no solution by counting.

`read` below is a second opinion on every label: a reader that knows English turns of phrase, and
nothing of how the sentences were made.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.data import toy_reviews as grammar
from minitransformer.data.toy_reviews import (
    ADJECTIVES,
    OPPOSITE,
    TOPICS,
    VERBS,
    generate_reviews,
    generate_sentences,
    mirror,
    opinion_words,
    vocabulary,
)
from minitransformer.errors import DataError

SEEDS = st.integers(0, 2**32 - 1)
REVIEWS = generate_reviews(4000, seed=0)

# ------------------------------------------------------------------------- a reader of its own

POSITIVE = {good for topic in TOPICS for _, good in topic.adjectives}
POSITIVE |= {good for _, good in ADJECTIVES + VERBS}
NEGATIVE = {OPPOSITE[word] for word in POSITIVE}
SETTING = r"^(we \w+ the \w+ on \w+\. |last \w+ i \w+ the \w+\. |about the \w+: )"
RESCUE = r"(?P<x>.+), (but|and) .*(?P<verb>save|rescue|ruin|spoil) it( in the end)?"
FAILED = r"could not|failed to"
# of two clauses, the one that counts
CONTRAST = (
    r"(?:although|even though|despite) [^,]+, (?P<y>.+)",
    r"(?P<y>[^,]+), (?:although|even though|despite) .+",
    r".+(?:, but|, yet|\. still,) (?P<y>.+)",
)
AGREEMENT = r", and |\. also, | because "
REVERSED = r"it is not true that|i would not say that|nobody can say that|but they are wrong"
UNREVERSED = r"nobody can deny that|there is no doubt that"
HARMLESS = (
    r"never anything but|nothing but|could not have been more|not only|not \w+ but"
    r"|never stopped|never failed|did not fail|nothing (was|is) more"
)
DENIAL = (
    r"\bnot\b|never|hardly|far from|anything but|no means|no longer|neither|far less|failed|nothing"
)


def read(text: str) -> int:
    """1 if the text is a recommendation."""
    text = text.replace("n't", " not").removesuffix(".")
    text = re.sub(SETTING, "", text)
    if found := re.fullmatch(RESCUE, text):
        turns = not re.search(FAILED, text[found.end("x") :])
        assert (found["verb"] in ("save", "rescue")) == (read_clause(found["x"]) == 0)
        return read_clause(found["x"]) ^ turns
    if re.search(REVERSED, text):
        return 1 - read_clause(re.sub(REVERSED, "", text))
    for pattern in CONTRAST:
        if found := re.fullmatch(pattern, text):
            return read_clause(found["y"])
    clauses = [clause for clause in re.split(AGREEMENT, text) if clause != "they are right"]
    votes = {read_clause(clause) for clause in clauses}
    assert len(votes) == 1, text
    return votes.pop()


def read_clause(clause: str) -> int:
    clause = re.sub(UNREVERSED, "", clause)
    words = [word for word in re.findall(r"\w+", clause) if word in POSITIVE | NEGATIVE]
    denied = re.search(DENIAL, re.sub(HARMLESS, "", clause)) is not None
    return (words[-1] in POSITIVE) ^ denied


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("the plot was not at all dull.", 1),
        ("the plot was hardly ever boring.", 1),
        ("the soup was nothing but tasty.", 1),
        ("the soup was anything but tasty.", 0),
        ("the plot was weak, but the acting was good.", 1),
        ("although the room was clean, the bed wasn't comfortable.", 0),
        ("the film was dull, but the ending managed to save it.", 1),
        ("the film was dull, and the ending could not save it.", 0),
        ("people say that the book is great, but they are wrong.", 0),
    ],
)
def test_the_reader_reads(text: str, label: int) -> None:
    assert read(text) == label


def test_labels_follow_from_the_text() -> None:
    assert [(text, read(text)) for text, _ in REVIEWS] == REVIEWS


# ----------------------------------------------------------------------------------- reviews


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 300), seed=SEEDS)
def test_reviews_are_repeatable_distinct_and_balanced(n: int, seed: int) -> None:
    reviews = generate_reviews(n, seed)
    assert reviews == generate_reviews(n, seed)
    assert len({text for text, _ in reviews}) == len(reviews) == n
    labels = Counter(label for _, label in reviews)
    assert (labels[0], labels[1]) == (n - n // 2, n // 2)


def test_seeds_give_different_reviews_in_an_order_that_tells_nothing() -> None:
    assert not {text for text, _ in REVIEWS} >= {text for text, _ in generate_reviews(50, seed=1)}
    labels = [label for _, label in REVIEWS]
    changes = sum(a != b for a, b in pairwise(labels))
    assert 0.45 < changes / len(labels) < 0.55


@settings(max_examples=200, deadline=None)
@given(seed=SEEDS)
def test_mirrored_words_turn_the_label(seed: int) -> None:
    [(text, label)] = generate_reviews(1, seed)
    assert mirror(text) != text
    assert mirror(mirror(text)) == text
    assert read(mirror(text)) == 1 - label


def test_as_many_as_promised_and_no_more() -> None:
    assert len(generate_reviews(grammar.LARGEST, seed=3)) == grammar.LARGEST
    for n in (grammar.LARGEST + 1, 0, -1):
        with pytest.raises(DataError, match="ask for 1 to 50,000"):
            generate_reviews(n, seed=3)


def tokens(text: str) -> list[str]:
    return re.findall(r"[a-z]+|[^a-z\s]", text)


def test_counting_words_is_not_enough() -> None:
    """Logistic regression on which words occur, trained on half of the reviews."""
    columns = {word: i for i, word in enumerate(vocabulary())}
    x = np.zeros((len(REVIEWS), len(columns)))
    for row, (text, _) in zip(x, REVIEWS, strict=True):
        row[[columns[word] for word in tokens(text)]] = 1
    y = np.array([label for _, label in REVIEWS])
    x_train, y_train, weights, bias = x[:2000], y[:2000], np.zeros(len(columns)), 0.0
    for _ in range(300):
        error = 1 / (1 + np.exp(-(x_train @ weights + bias))) - y_train
        weights -= 0.5 * (x_train.T @ error / len(error) + 1e-3 * weights)
        bias -= 0.5 * error.mean()
    right = (x @ weights + bias > 0) == y
    assert right[:2000].mean() > 0.6  # it has learned what there is to learn
    assert right[2000:].mean() < 0.7


# --------------------------------------------------------------------------------- sentences


def test_sentences_are_repeatable_and_broader_than_reviews() -> None:
    sentences = generate_sentences(3000, seed=5)
    assert sentences == generate_sentences(3000, seed=5) != generate_sentences(3000, seed=6)
    assert sentences[:10] == generate_sentences(10, seed=5)
    without_opinion = sum(not opinion_words() & set(tokens(text)) for text in sentences)
    assert 0.1 < without_opinion / len(sentences) < 0.4
    with pytest.raises(DataError, match="at least 1"):
        generate_sentences(0, seed=5)


def test_verdicts_agree_with_the_opinion() -> None:
    checked = 0
    for text in generate_sentences(10000, seed=7):
        review, love, rest = text.partition(" i loved it.")
        if love and not rest and ". " not in review:
            checked += 1
            assert read(review) == 1, text
    assert checked > 20


def test_the_vocabulary_is_complete_and_all_of_it_is_used() -> None:
    words = vocabulary()
    assert words == sorted(set(words))
    assert 250 <= len([word for word in words if word.isalpha()]) <= 400
    used = {word for text in generate_sentences(20000, seed=8) for word in tokens(text)}
    invented = {word for word in used - set(words) if re.fullmatch("([a-z][aeiou]){3}", word)}
    assert {word for word in used - invented if not word.isdigit()} == set(words)
    assert opinion_words() <= set(words)

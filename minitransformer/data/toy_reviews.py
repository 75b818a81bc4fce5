"""A seeded grammar of short opinions, small enough to read and hard enough to need attention.

The label is chosen first and passed down the derivation. A phrase that reverses an opinion
("far from", "it is not true that") gives the phrase below it the opposite label; a contrast gives
its deciding clause the label and its other clause the opposite. Words of opinion come in pairs
(gripping/tedious), so every review has a mirror image with the other label, made of the same
phrases in the same order: no phrase is a clue by itself, and counting words gets a reader little
further than chance. Only the order and the relations of the words tell the two apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..errors import DataError

NEGATIVE, POSITIVE = 0, 1
LARGEST = 50_000  # distinct reviews of one seed, at most

# ------------------------------------------------------------------------------------------ words


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Pairs written "good/bad", stored as (negative, positive): indexed by the label."""
    return tuple((bad, good) for good, bad in (pair.split("/") for pair in text.split()))


@dataclass(frozen=True)
class Topic:
    """One kind of thing: what one does with it, what it consists of, what is said of it."""

    name: str
    verb: str
    parts: tuple[str, ...]  # singular
    plurals: tuple[str, ...]
    adjectives: tuple[tuple[str, str], ...]


def _topic(name: str, verb: str, parts: str, plurals: str, adjectives: str) -> Topic:
    return Topic(name, verb, tuple(parts.split()), tuple(plurals.split()), _pairs(adjectives))


TOPICS = (
    _topic("film", "watched", "plot acting ending music", "actors scenes jokes",
           "gripping/tedious original/predictable funny/lifeless"),
    _topic("book", "read", "story style ending opening", "chapters characters pictures",
           "gripping/tedious witty/shallow original/predictable"),
    _topic("meal", "ordered", "soup dessert coffee sauce", "vegetables portions waiters",
           "tasty/bland fresh/stale generous/greasy"),
    _topic("hotel", "booked", "room bed breakfast pool", "beds towels waiters",
           "clean/dirty comfortable/cramped quiet/noisy"),
    _topic("concert", "heard", "singer band sound music", "songs lyrics drums",
           "lively/flat catchy/shrill moving/cold"),
    _topic("phone", "bought", "screen battery camera sound", "buttons pictures speakers",
           "fast/slow reliable/fragile sharp/blurry"),
    _topic("course", "took", "teacher textbook homework exam", "lectures exercises lessons",
           "clear/confusing helpful/useless fair/strict"),
    _topic("tour", "joined", "guide bus route lunch", "walks stops views",
           "friendly/rude relaxing/tiring helpful/useless"),
    _topic("game", "played", "story music world ending", "levels puzzles controls",
           "smooth/clumsy inventive/repetitive funny/lifeless"),
)  # fmt: skip

ADJECTIVES = _pairs(
    "good/bad wonderful/terrible pleasant/unpleasant enjoyable/boring charming/annoying "
    "impressive/disappointing memorable/forgettable strong/weak exciting/dull lovely/ugly "
    "excellent/poor great/awful interesting/mediocre delightful/dreadful"
)
VERBS = _pairs("delight/bore please/annoy impress/disappoint charm/irritate amuse/upset")
RESCUES = _pairs("save/ruin rescue/spoil")

# ---------------------------------------------------------------------------------------- phrases
# {s} a subject, {be} its was/were, {a} and {b} adjectives, {v} a verb, {x} an adjective of the
# opposite polarity, {c} a clause.

PLAIN = (
    "{s} {be} {a}",
    "{s} {be} very {a}",
    "{s} {be} really {a}",
    "{s} {be} quite {a}",
    "{s} {be} so {a}",
    "{s} {be} always {a}",
    "{s} {be} {a} and {b}",
    "{s} seemed {a}",
    "{s} turned out to be {a}",
    "{s} {be} as {a} as ever",
    "{s} {be} far more {a} than the last one",
    "{s} managed to {v} me",
    "{s} always managed to {v} us",
    "i found {s} {a}",
)
# These hold a word of denial, and deny nothing.
DENIAL_WITHOUT_EFFECT = (
    "{s} {be} nothing but {a}",
    "{s} {be} never anything but {a}",
    "{s} could not have been more {a}",
    "{s} {be} not {x} but {a}",
    "{s} {be} not only {a} but also {b}",
    "{s} never stopped being {a}",
    "{s} never failed to {v} me",
    "{s} did not fail to {v} us",
    "nothing {pe} more {a} than {s}",
)
DENIAL = (
    "{s} {be} not {a}",
    "{s} {be} not at all {a}",
    "{s} {be} never {a}",
    "{s} {be} hardly {a}",
    "{s} {be} hardly ever {a}",
    "{s} {be} far from {a}",
    "{s} {be} anything but {a}",
    "{s} {be} by no means {a}",
    "{s} {be} no longer {a}",
    "{s} {be} neither {a} nor {b}",
    "{s} {be} far less {a} than the last one",
    "{s} {be} not nearly as {a} as the last one",
    "{s} could not have been less {a}",
    "{s} failed to {v} me",
    "{s} did not {v} us",
    "{s} never managed to {v} me",
    "there {pe} nothing {a} about {s}",
    "i did not find {s} {a}",
)
FRAME = (
    "i must admit that {c}",
    "there is no doubt that {c}",
    "nobody can deny that {c}",
    "in my opinion, {c}",
    "to be honest, {c}",
    "people say that {c}, and they are right",
)
DENYING_FRAME = (
    "i would not say that {c}",
    "it is not true that {c}",
    "nobody can say that {c}",
    "people say that {c}, but they are wrong",
)
AGREEMENT = ("{y}, and {z}", "{y}. also, {z}", "{y} because {z}")
# {y} decides; {x} says the opposite; {n} is a noun phrase of the opposite polarity.
CONTRAST = (
    "{x}, but {y}",
    "{x}, yet {y}",
    "{x}. still, {y}",
    "although {x}, {y}",
    "{y}, although {x}",
    "even though {x}, {y}",
    "{y}, even though {x}",
    "despite {n}, {y}",
    "{y}, despite {n}",
)
# {x} is one opinion of the whole, {r} the verb that would turn it round, {t} the part that tries.
RESCUE = ("{x}, but {t} managed to {r} it", "{x}, but {t} did {r} it in the end")
FAILED_RESCUE = ("{x}, and {t} could not {r} it", "{x}, and even {t} failed to {r} it")

# What follows from an opinion. Only unlabelled text has these: they reward a reader who has
# worked out the whole opinion, which is what pretraining is for. (negative, positive)
VERDICTS = (
    ("i hated it", "i loved it"),
    ("we were sad", "we were happy"),
    ("what a failure", "what a success"),
    ("it was worth nothing", "it was worth everything"),
    ("i recommend it to nobody", "i recommend it to everyone"),
    ("few stars from me", "many stars from me"),
    ("my friends were asleep", "my friends were smiling"),
    ("all in all, the {w} was bad", "all in all, the {w} was good"),
)
SETTINGS = ("we {did} the {w} on {day}.", "last {day} i {did} the {w}.", "about the {w}:")
NEUTRAL = (
    "we {did} the {w} on {day} with my {who}.",
    "my {who} {did} the {w} last {day} in the {when}.",
    "there were {many} {size} streets from the {place} to the {place}.",
    "the {size} {w} is near the {place}, {many} streets from the {place}.",
    "the {w} called {name} has {many} {plurals} and a {size} {part}.",
    "it takes {many} hours to get from {name} to the {place} by bus.",
    "on {day}, the {part} comes first, and the {plurals} come after it.",
    "is the {w} in the {place} open on {day}? it is open from {digits} to {digits}.",
    "my {who} lives at {digits} {name} street and {did} a {w} there.",
    "the {colour} house in the {place} is {size}, and the {colour} one is near the river!",
    "we left the {place} by the {colour} bus and came to the {w} in the {when}.",
)
FILLERS = {
    "day": "monday tuesday wednesday thursday friday saturday sunday".split(),
    "who": "sister brother mother father friend neighbour".split(),
    "when": "morning afternoon evening".split(),
    "many": "two three four five ten twenty".split(),
    "size": "small large new famous long short".split(),
    "place": "town city station river museum market".split(),
    "colour": "red green blue black white".split(),
}
CONTRACTIONS = re.compile(r"\b(was|were|is|are|did|could|would) not\b")

# ------------------------------------------------------------------------------------- derivation
# Every draw below is the same for both labels: that is what makes mirror images exact.

T = TypeVar("T")


class _Writer:
    """Writes one text: holds its topic, its tense, and the parts it has not spoken of yet."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.topic = self.pick(TOPICS)
        self.be = self.pick((("was", "were"), ("was", "were"), ("is", "are")))  # mostly the past
        self.parts = [(part, 0) for part in (*self.topic.parts, self.topic.name)]
        self.parts += [(plural, 1) for plural in self.topic.plurals]

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.rng.random() * len(items))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def part(self) -> tuple[str, int]:
        """A part of the thing, or the thing, each at most once a text; and 1 if it is a plural."""
        return self.parts.pop(int(self.rng.random() * len(self.parts)))

    def adjectives(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Two different pairs; those that suit this very topic as often as the general ones."""
        first, second = (
            self.pick(self.topic.adjectives if self.chance(0.4) else ADJECTIVES) for _ in range(2)
        )
        if first == second:
            second = ADJECTIVES[0] if first != ADJECTIVES[0] else ADJECTIVES[1]
        return first, second

    def clause(self, label: int, of_whole: bool = False, plain: bool = False) -> str:
        """One subject and what is said of it. `plain`: without any word of denial."""
        part, plural = (self.topic.name, 0) if of_whole else self.part()
        phrases: Sequence[str] = PLAIN
        said = label
        if not plain:
            dice = self.rng.random()
            if dice < 0.25:
                phrases, said = DENIAL, 1 - label
            elif dice < 0.45:
                phrases = DENIAL_WITHOUT_EFFECT
        a, b = self.adjectives()
        return self.pick(phrases).format(
            s=f"the {part}", be=self.be[plural], pe=self.be[0],
            a=a[said], b=b[said], x=b[1 - said], v=self.pick(VERBS)[said],
        )  # fmt: skip

    def framed(self, label: int) -> str:
        """A clause in the mouth of somebody who may deny it."""
        if self.chance(0.7):
            return self.pick(FRAME).format(c=self.clause(label))
        return self.pick(DENYING_FRAME).format(c=self.clause(1 - label, plain=True))

    def agreement(self, label: int) -> str:
        y, z = self.clause(label), self.clause(label)
        return self.pick(AGREEMENT).format(y=y, z=z)

    def contrast(self, label: int) -> str:
        y, x = self.clause(label), self.clause(1 - label)
        noun = f"the {self.adjectives()[0][1 - label]} {self.part()[0]}"
        return self.pick(CONTRAST).format(y=y, x=x, n=noun)

    def rescue(self, label: int) -> str:
        """A film that an ending saves, cannot save, spoils or cannot spoil."""
        failed = self.chance(0.5)
        whole = self.clause(label if failed else 1 - label, of_whole=True)
        turn = self.pick(RESCUES)[1 - label if failed else label]
        phrase = self.pick(FAILED_RESCUE if failed else RESCUE)
        return phrase.format(x=whole, t=f"the {self.part()[0]}", r=turn)

    def opinion(self, label: int) -> str:
        dice = self.rng.random()
        return next(rule for limit, rule in RULES if dice < limit)(self, label)

    def fill(self, phrase: str) -> str:
        """A phrase without opinion, its slots filled."""
        words = {slot: self.pick(choices) for slot, choices in FILLERS.items()}
        name = "".join(self.pick("bcdfghjklmnpqrstvwxyz") + self.pick("aeiou") for _ in range(3))
        digits = str(int(self.rng.random() * 1000))
        return phrase.format(
            w=self.topic.name, did=self.topic.verb, name=name, digits=digits,
            part=self.pick(self.topic.parts), plurals=self.pick(self.topic.plurals), **words,
        )  # fmt: skip

    def review(self, label: int) -> str:
        text = self.opinion(label)
        if self.chance(0.25):
            text = f"{self.fill(self.pick(SETTINGS))} {text}"
        if self.chance(0.3):
            text = CONTRACTIONS.sub(r"\1n't", text)
        return text + "."

    def sentence(self) -> str:
        """Unlabelled text: a description, an opinion, or an opinion with what follows from it."""
        if self.chance(0.25):
            return self.fill(self.pick(NEUTRAL))
        label = int(self.chance(0.5))
        if self.chance(0.5):  # most of what people write is said without a turn
            opinions = [self.clause(label, plain=True) for _ in range(2)]
        else:
            opinions = [self.review(label).rstrip(".")]
        for _ in range(2):
            if self.chance(0.7):
                verdict = self.fill(self.pick(VERDICTS)[label])
                opinions.insert(len(opinions) if self.chance(0.7) else 0, verdict)
        text = ". ".join(opinions) + "."
        return text


# each with the dice's limit, so that the shares are 30, 15, 20, 27 and 8 %
RULES: tuple[tuple[float, Callable[[_Writer, int], str]], ...] = (
    (0.30, _Writer.clause),
    (0.45, _Writer.framed),
    (0.65, _Writer.agreement),
    (0.92, _Writer.contrast),
    (1.00, _Writer.rescue),
)


# ------------------------------------------------------------------------------------------ public


def generate_reviews(n: int, seed: int) -> list[tuple[str, int]]:
    """n different short reviews with their labels, 0 negative or 1 positive, in random order.

    Half of them carry each label (for odd n one negative more). The same n and seed give the same
    list. Raises DataError if n is below 1 or above LARGEST.
    """
    if not 1 <= n <= LARGEST:
        raise DataError(f"cannot write {n} different reviews: ask for 1 to {LARGEST:,}")
    rng = np.random.default_rng(seed)
    reviews: dict[str, int] = {}
    while len(reviews) < n:
        label = len(reviews) % 2
        reviews.setdefault(_Writer(rng).review(label), label)
    texts = list(reviews.items())
    return [texts[i] for i in rng.permutation(n)]


def generate_sentences(n: int, seed: int) -> list[str]:
    """n unlabelled texts for pretraining: descriptions, opinions, and what follows from opinions.

    Repetitions are left in, as they come. The same n and seed give the same list. Raises DataError
    if n is below 1.
    """
    if n < 1:
        raise DataError(f"cannot write {n} sentences: ask for at least 1")
    rng = np.random.default_rng(seed)
    return [_Writer(rng).sentence() for _ in range(n)]


def mirror(text: str) -> str:
    """The text with every word of opinion replaced by its opposite: a review of the other label."""
    return re.sub(r"[a-z]+", lambda word: OPPOSITE.get(word[0], word[0]), text)


def vocabulary() -> list[str]:
    """Every word and mark that the grammar can write, sorted; invented names and digits apart."""
    phrases = [
        *PLAIN, *DENIAL_WITHOUT_EFFECT, *DENIAL, *FRAME, *DENYING_FRAME, *AGREEMENT, *CONTRAST,
        *RESCUE, *FAILED_RESCUE, *SETTINGS, *NEUTRAL, *OPPOSITE,
        "the was were is are ' t wasn weren isn aren didn couldn wouldn",
    ]  # fmt: skip
    for group in VERDICTS:
        phrases += group
    for topic in TOPICS:
        phrases += [topic.name, topic.verb, *topic.parts, *topic.plurals]
    for choices in FILLERS.values():
        phrases += choices
    text = re.sub(r"\{\w+\}", " ", " ".join(phrases))
    return sorted(set(re.findall(r"\w+|[^\w\s]", text)))


def opinion_words() -> set[str]:
    """The words that carry an opinion: those of the pairs, and those that tell verdicts apart."""
    verdicts = (set(bad.split()) ^ set(good.split()) for bad, good in VERDICTS)
    return set(OPPOSITE).union(*verdicts)


def _opposites() -> dict[str, str]:
    pairs = {*ADJECTIVES, *VERBS, *RESCUES}.union(*(topic.adjectives for topic in TOPICS))
    return dict(both for bad, good in sorted(pairs) for both in ((bad, good), (good, bad)))


OPPOSITE = _opposites()

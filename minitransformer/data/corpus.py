"""Texts for language models: the user's own files, or plays; split once and for all, and windows.

Of each document the end is held out, a contiguous passage: lines strewn about would have their
neighbours, and so much of themselves, in the training text. The passage before it is for
validation: it chooses an epoch, and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ConfigError, DataError
from ..nn.functional import IGNORE
from ..nn.module import Array
from . import hub
from .batches import Encoded
from .datafiles import read_utf8, stem_of
from .pinned import PLAYS as SHAKESPEARE

VALIDATION, HELD_OUT = 0.05, 0.1  # of each document: before its end, its end
SUFFIXES = (".txt", ".md")
SHORTEST = 1000  # characters: below that there is nothing to learn and to hold out

# The plays by the division of the First Folio (1623), whose catalogue calls The Winter's Tale a
# comedy and knows no romances; in the package they are named after their titles.
COMEDIES = (
    "the-tempest", "two-gentlemen-of-verona", "the-merry-wives-of-windsor", "measure-for-measure",
    "the-comedy-of-errors", "much-ado-about-nothing", "love-s-labours-lost",
    "a-midsummer-night-s-dream", "the-merchant-of-venice", "as-you-like-it",
    "the-taming-of-the-shrew", "all-s-well-that-ends-well", "twelfth-night", "a-winter-s-tale",
)  # fmt: skip
HISTORIES = (
    "king-john", "richard-ii", "henry-iv-part-1", "henry-iv-part-2", "henry-v", "henry-vi-part-1",
    "henry-vi-part-2", "henry-vi-part-3", "richard-iii", "henry-viii",
)  # fmt: skip
PLAYS = {"shakespeare-comedies": COMEDIES, "shakespeare-histories": HISTORIES}


@dataclass(frozen=True)
class Corpus:
    """A text to train on, one to choose an epoch by, and one to measure on."""

    name: str
    train: str
    validation: str
    held_out: str

    @property
    def parts(self) -> tuple[str, str, str]:
        """The three texts."""
        return self.train, self.validation, self.held_out


def load_corpus(name_or_path: str | Path) -> Corpus:
    """shakespeare-comedies, shakespeare-histories, or the user's own text.

    That is a .txt or .md file in UTF-8, taken as it is, or a folder of such files, in the order of
    their names. The last tenth of each document is held out, a twentieth before it is for
    validation, cut between paragraphs where possible.
    Raises: DataError for what is not text, empty or shorter than 1,000 characters; HubError if
    fetching fails.
    """
    if isinstance(name_or_path, str) and name_or_path in PLAYS:
        name, documents = name_or_path, shakespeare(PLAYS[name_or_path])
    else:
        path = Path(name_or_path).expanduser()
        name, documents = stem_of(path), [own_text(file) for file in text_files(path)]
    length = sum(map(len, documents))
    if length < SHORTEST:
        raise DataError(
            f"{name_or_path} holds {length:,} characters; a language model needs at least "
            f"{SHORTEST:,}, and 100,000 before it learns much: give it a longer text"
        )
    parts = zip(*map(divided, documents), strict=True)
    return Corpus(name, *("\n\n".join(part) for part in parts))


def divided(document: str) -> tuple[str, str, str]:
    """A document's training, validation and held-out parts, in their order."""
    n = len(document)
    first = cut_before(document, round(n * (1 - VALIDATION - HELD_OUT)), n // 2)
    second = cut_before(document, round(n * (1 - HELD_OUT)), first + 1)
    train, validation, held_out = document[:first], document[first:second], document[second:]
    return train.strip("\n"), validation.strip("\n "), held_out.strip("\n ")


def cut_before(text: str, end: int, start: int) -> int:
    """The last break of text[start:end] between paragraphs, else lines, else words; else `end`."""
    breaks = (text.rfind(mark, start, end) for mark in ("\n\n", "\n", " "))
    return next((found for found in breaks if found > 0), end)


# -- the user's own files -----------------------------------------------------------------


def text_files(path: Path) -> list[Path]:
    """A text file itself, or those anywhere in a folder, by name. Raises: DataError if none."""
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not found:
            raise DataError(f"{path} holds no text: expected {' or '.join(SUFFIXES)} files in it")
        return found
    if not path.exists():
        raise DataError(
            f"there is no text {str(path)!r}: expected {', '.join(PLAYS)}, "
            f"a {' or '.join(SUFFIXES)} file, or a folder of them"
        )
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{path}: unknown kind of file {path.suffix!r}, expected {' or '.join(SUFFIXES)}"
        )
    return [path]


def own_text(path: Path) -> str:
    """A file's text, line ends as \\n. Raises: DataError if it is empty or no UTF-8 text."""
    text = re.sub(r"\r\n?", "\n", read_utf8(path))
    if "\0" in text:
        raise DataError(f"{path} is no text file: it holds zero bytes")
    if not text.strip():
        raise DataError(f"{path} is empty: give it some text, or remove it")
    return text


# -- Shakespeare --------------------------------------------------------------------------


def shakespeare(titles: tuple[str, ...]) -> list[str]:
    """The plays of these titles as plain text. Raises: HubError if they cannot be fetched."""
    folder = hub.fetch(SHAKESPEARE)
    return [plain(next(folder.glob(f"*/{title}.md")).read_text("utf-8")) for title in titles]


def plain(play: str) -> str:
    """A play without its Markdown: `NAME:` before a speech, stage directions in [brackets]."""
    text = re.sub(r"\\(?=\W)", "", play)  # escapes: \[Aside], \--
    text = re.sub(r" +$", "", text, flags=re.MULTILINE)  # two spaces: a line break
    text = re.sub(r"^#+ +", "", text, flags=re.MULTILINE)
    text = re.sub(r"\*\*(.+?):?\*\*", r"\1:", text)
    text = re.sub(r"_+\[?((?:[^_\n]|\n(?!\n))+?)\]?_+", r"[\1]", text)  # may run over lines
    text = re.sub(r"\[ *\]|_", "", text)  # gaps in the source, and what was never closed
    return re.sub(r"\n{3,}", "\n\n", text).strip()


# -- windows ------------------------------------------------------------------------------


def windows(tokens: Array, block_size: int, stride: int | None = None) -> Encoded:
    """Windows of one length over a text in which every token after the first is a label once.

    Shapes: tokens (N,) -> n windows of T = min(block_size, N - 1) tokens; labels (n, T), the
    tokens that follow. A window begins `stride` tokens after the one before (default: T, side by
    side), the last one so that it ends with the text. Where two overlap, the earlier one has the
    label and the later one IGNORE: there the tokens serve as context alone.
    Raises: DataError for a text of less than two tokens, or not tokenized; ConfigError for a stride
    out of range.
    """
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise DataError(
            f"tokens of shape {tokens.shape}, dtype {tokens.dtype}: expected the ids of one text, "
            "as tokenizer.encode([text])[0]"
        )
    N = len(tokens)
    if N < 2:
        raise DataError(f"a text of {N} tokens has none to predict: expected 2 or more")
    T = min(block_size, N - 1)
    stride = T if stride is None else min(stride, T)
    if stride < 1:
        raise ConfigError(f"block_size={block_size}, stride={stride}: expected 1 or more")
    last = N - 1 - T
    starts = np.append(np.arange(0, last, stride), last)  # (n,)
    places = starts[:, None] + np.arange(T)  # (n, T)
    labels = tokens[places + 1].astype(np.int64)
    ends = starts[:-1] + T  # up to where the windows before have scored
    labels[1:][places[1:] < ends[:, None]] = IGNORE
    return Encoded(tokens[places].tolist(), labels)

"""Texts for language models: what is read, how it is split, and the windows over them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitransformer.data.corpus import COMEDIES, HISTORIES, divided, load_corpus, plain, windows
from minitransformer.errors import ConfigError, DataError
from minitransformer.nn.functional import IGNORE

PARAGRAPHS = [f"paragraph {i} says what it has to say, and then it ends." for i in range(100)]


def test_the_end_of_a_file_is_held_out_between_paragraphs(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text("\n\n".join(PARAGRAPHS), encoding="utf-8")
    corpus = load_corpus(tmp_path / "novel.txt")
    assert corpus.name == "novel"
    parts = [part.split("\n\n") for part in corpus.parts]
    assert [*parts[0], *parts[1], *parts[2]] == PARAGRAPHS  # in order, nothing cut, nothing lost
    assert len(parts[0]) == pytest.approx(85, abs=1)
    assert len(parts[1]) == pytest.approx(5, abs=1)
    assert len(parts[2]) == pytest.approx(10, abs=1)


def test_every_file_of_a_folder_is_divided(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name, word in (("b.md", "bee"), ("a.txt", "ant"), ("sub/c.TXT", "cat")):
        (tmp_path / name).write_text(f"{word}\r\n" * 200, encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    corpus = load_corpus(tmp_path)
    for part in corpus.parts:
        assert "\r" not in part
        assert list(dict.fromkeys(part.split())) == ["ant", "bee", "cat"]


@given(st.text(alphabet="ab \n", min_size=1000, max_size=1200))
def test_no_character_but_white_space_is_lost(text: str) -> None:
    assert "".join("".join(divided(text)).split()) == "".join(text.split())


def refused(path: object) -> str:
    with pytest.raises(DataError) as caught:
        load_corpus(path)
    return str(caught.value)


def test_what_is_no_text_is_refused_with_the_reason(tmp_path: Path) -> None:
    for name, content, reason in (
        ("empty.txt", b" \n\n", "is empty"),
        ("short.txt", b"a few words", "holds 11 characters; a language model needs at least 1,000"),
        ("latin.txt", "\n\ncaf\xe9".encode("latin-1"), "line 3: byte 0xe9 is not UTF-8"),
        ("zeros.txt", b"abc\0def" * 500, "it holds zero bytes"),
        ("book.pdf", b"%PDF", "unknown kind of file '.pdf', expected .txt or .md"),
    ):
        (tmp_path / name).write_bytes(content)
        assert reason in refused(tmp_path / name)
    (tmp_path / "folder").mkdir()
    assert "holds no text: expected .txt or .md files" in refused(tmp_path / "folder")
    assert "there is no text 'novel': expected shakespeare-comedies," in refused("novel")


def test_a_play_without_its_markdown() -> None:
    play = r"""# As You Like It

## ACT I

### SCENE I. Orchard of Oliver's house.

_Enter ORLANDO and
ADAM_

**ORLANDO**  
As I remember, Adam,\--it was  
_\[Aside]_ __\[Awaking]_ upon this fashion  


**First Lord:**  
No _\[ ]_ more.
"""
    assert plain(play) == (
        "As You Like It\n\nACT I\n\nSCENE I. Orchard of Oliver's house.\n\n"
        "[Enter ORLANDO and\nADAM]\n\nORLANDO:\nAs I remember, Adam,--it was\n"
        "[Aside] [Awaking] upon this fashion\n\nFirst Lord:\nNo  more."
    )


@given(st.integers(2, 80), st.integers(1, 20), st.none() | st.integers(1, 25))
def test_windows_count_every_token_once(n: int, block_size: int, stride: int | None) -> None:
    tokens = np.arange(100, 100 + n)
    encoded = windows(tokens, block_size, stride)
    ids, labels = np.array(encoded.sequences), encoded.labels
    T = min(block_size, n - 1)
    assert ids.shape == labels.shape == (len(encoded), T)
    counted = labels != IGNORE
    assert labels[counted].tolist() == tokens[1:].tolist()
    np.testing.assert_array_equal(labels[counted], ids[counted] + 1)  # the token that follows
    assert counted.any(axis=1).all()  # no window for nothing
    seen = np.cumsum(np.ones_like(ids), axis=1)[1:][counted[1:]]  # tokens in view, but at the start
    assert not seen.size or seen.min() > T - min(stride or T, T)


def test_windows_of_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="a text of 1 tokens has none to predict"):
        windows(np.array([3]), 8)
    with pytest.raises(ConfigError, match="stride=0"):
        windows(np.arange(9), 4, 0)


@pytest.mark.slow
def test_the_plays() -> None:
    comedies, histories = load_corpus("shakespeare-comedies"), load_corpus("shakespeare-histories")
    assert len(COMEDIES) == 14 and len(HISTORIES) == 10  # as in the First Folio's catalogue
    for corpus, size in ((comedies, 1_630_000), (histories, 1_430_000)):
        lengths = [len(part) for part in corpus.parts]
        assert sum(lengths) == pytest.approx(size, rel=0.01)
        assert lengths[1] / sum(lengths) == pytest.approx(0.05, abs=0.005)
        assert lengths[2] / sum(lengths) == pytest.approx(0.10, abs=0.005)
        for part in corpus.parts:
            assert not set(part) & set("*_#\\")
    assert "PUCK:\nHow now, spirit! whither wander you?" in comedies.train
    assert "O for a Muse of fire, that would ascend" in histories.train
    assert "If we shadows have offended" in comedies.held_out  # the last speech of the Dream

"""tokenization: special tokens, truncation, padding, and what cannot be encoded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors

from minitransformer.data import hub
from minitransformer.data.tokenization import Tokenizer, pad
from minitransformer.errors import CheckpointError, ConfigError, DataError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "good", "bad", "film", "##s", "."]
PAD, UNK, CLS, SEP, A, GOOD, BAD, FILM, S, DOT = range(len(WORDS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT tokenizer, saved with padding and truncation on, as real ones sometimes are."""
    backend = Backend(
        models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    backend.add_special_tokens(WORDS[:4])
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    backend.enable_padding(length=8, pad_id=PAD, pad_token="[PAD]")
    backend.enable_truncation(4)
    path = tmp_path_factory.mktemp("checkpoint")
    backend.save(str(path / "tokenizer.json"))
    return path


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(folder)


def test_encode_ignores_the_padding_and_truncation_of_the_file(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(["A good film.", "Films"], max_length=100) == [
        [CLS, A, GOOD, FILM, DOT, SEP],
        [CLS, FILM, S, SEP],
    ]


def test_truncation_keeps_the_special_tokens(tokenizer: Tokenizer) -> None:
    text = ["a good film ."]
    assert tokenizer.encode(text, max_length=6) == [[CLS, A, GOOD, FILM, DOT, SEP]]
    assert tokenizer.encode(text, max_length=5) == [[CLS, A, GOOD, FILM, SEP]]
    assert tokenizer.encode(text, max_length=3) == [[CLS, A, SEP]]
    assert tokenizer.encode(text, max_length=6) == [[CLS, A, GOOD, FILM, DOT, SEP]]


def test_empty_text_is_the_special_tokens_alone(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(["", " \n"], max_length=9) == [[CLS, SEP], [CLS, SEP]]


def test_pad_id_and_vocabulary(tokenizer: Tokenizer) -> None:
    assert tokenizer.pad_id == PAD
    assert tokenizer.vocab_size == len(WORDS)


def test_decode(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([CLS, BAD, FILM, SEP]) == "bad film"
    assert tokenizer.decode(np.array([CLS, BAD]), skip_special_tokens=False) == "[CLS] bad"
    with pytest.raises(DataError, match="token id 10 is not in the vocabulary of 10"):
        tokenizer.decode([CLS, 10])
    with pytest.raises(DataError, match="token id -1"):
        tokenizer.decode([-1])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "empty batch of texts"),
        ("a film", r"write \[text\]"),
        (["a film", None], "text 1 is NoneType None, expected str"),
        ([3.5], "text 0 is float"),
        (["\ud800"], "text 0 holds half a surrogate pair"),
    ],
)
def test_what_cannot_be_encoded(tokenizer: Tokenizer, texts: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        tokenizer.encode(texts, max_length=8)


@pytest.mark.parametrize("max_length", [2, 0, -1])
def test_max_length_must_leave_room(tokenizer: Tokenizer, max_length: int) -> None:
    with pytest.raises(ConfigError, match=f"max_length={max_length} leaves no space"):
        tokenizer.encode(["a"], max_length)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model"')
    with pytest.raises(CheckpointError, match="not a readable tokenizer file"):
        Tokenizer.from_folder(tmp_path)


@given(
    st.lists(st.lists(st.integers(0, 30521), min_size=1, max_size=12), min_size=1, max_size=6),
    st.integers(0, 5),
)
def test_pad_lays_out_and_loses_nothing(sequences: list[list[int]], pad_id: int) -> None:
    ids, mask = pad(sequences, pad_id)
    assert ids.shape == mask.shape == (len(sequences), max(map(len, sequences)))
    assert ids.dtype == mask.dtype == np.int64
    for row, row_mask, sequence in zip(ids, mask, sequences, strict=True):
        n = len(sequence)
        assert row[:n].tolist() == sequence and (row[n:] == pad_id).all()
        assert (row_mask[:n] == 1).all() and (row_mask[n:] == 0).all()


def test_pad_on_the_left() -> None:
    ids, mask = pad([[1, 2], [3, 4, 5]], pad_id=9, left=True)
    assert ids.tolist() == [[9, 1, 2], [3, 4, 5]]
    assert mask.tolist() == [[0, 1, 1], [1, 1, 1]]


def test_pad_refuses_what_has_no_tokens() -> None:
    with pytest.raises(DataError, match="empty batch"):
        pad([])
    with pytest.raises(DataError, match="sequence 1 has no tokens"):
        pad([[1], []])


# --------------------------------------------------------------------- byte-level pair encoding

LINES = ["To be, or not to be, that is the question:\n", "Whether 'tis nobler in the mind\n"] * 3


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return Tokenizer.train_bpe(LINES, vocab_size=280)


def test_bpe_learns_what_is_frequent(bpe: Tokenizer) -> None:
    assert bpe.vocab_size == 280
    (ids,) = bpe.encode(LINES[:1])
    assert len(ids) < len(LINES[0])
    assert bpe.decode(ids) == LINES[0]
    assert Tokenizer.train_bpe(LINES, 280).encode(LINES) == bpe.encode(LINES)
    assert Tokenizer.train_bpe(["ab"], 1000).vocab_size == 258  # there is nothing else to join


@given(st.text(max_size=40))
def test_bpe_gives_any_text_back(bpe: Tokenizer, text: str) -> None:
    (ids,) = bpe.encode([text])
    assert bpe.decode(ids, skip_special_tokens=False) == text


def test_bpe_end_of_text(bpe: Tokenizer) -> None:
    assert bpe.end_id == bpe.pad_id == 0
    (ids,) = bpe.encode(["be<|endoftext|>to"])
    assert ids.count(0) == 1
    assert bpe.decode(ids) == "beto"
    assert bpe.decode(ids, skip_special_tokens=False) == "be<|endoftext|>to"
    assert bpe.encode([""]) == [[]]  # nothing is put around a text


def test_bpe_cut_and_uncut(bpe: Tokenizer) -> None:
    whole, cut = bpe.encode(LINES[:1])[0], bpe.encode(LINES[:1], max_length=4)[0]
    assert cut == whole[:4]
    assert bpe.encode(LINES[:1])[0] == whole
    (half,) = bpe.encode(["\u00e9"], max_length=1)  # one of its two bytes
    assert bpe.decode(half) == "\ufffd"


def test_bpe_saved_and_read_again(bpe: Tokenizer, tmp_path: Path) -> None:
    bpe.encode(LINES, max_length=2)  # leaves no trace in the file
    bpe.save(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["tokenizer.json"]
    again = Tokenizer.from_folder(tmp_path / "new")
    assert again.encode(LINES) == bpe.encode(LINES)
    assert (again.end_id, again.pad_id, again.vocab_size) == (0, 0, 280)


def test_bpe_from_vocabulary_and_merges(bpe: Tokenizer, tmp_path: Path) -> None:
    bpe.save(tmp_path)
    model = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    with pytest.raises(CheckpointError, match=r"nor vocab\.json with merges\.txt"):
        Tokenizer.from_folder(tmp_path)
    merges = [" ".join(pair) for pair in model["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    older = Tokenizer.from_folder(tmp_path)
    texts = [*LINES, "be<|endoftext|> \u00e9"]
    assert older.encode(texts) == bpe.encode(texts)
    assert (older.end_id, older.vocab_size) == (0, 280)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nnot there")
    with pytest.raises(CheckpointError, match=r"merges\.txt is not a readable tokenizer file"):
        Tokenizer.from_folder(tmp_path)


def test_bpe_needs_texts_and_room_for_bytes() -> None:
    with pytest.raises(ConfigError, match="vocab_size=256: expected 257"):
        Tokenizer.train_bpe(LINES, 256)
    with pytest.raises(DataError, match="empty batch of texts"):
        Tokenizer.train_bpe([], 300)


@pytest.mark.slow
def test_minilm_tokenizer() -> None:
    tokenizer = Tokenizer.from_folder(hub.find_checkpoint("minilm"))
    assert (tokenizer.pad_id, tokenizer.vocab_size) == (0, 30522)
    long, short = tokenizer.encode(["word " * 400, "Hello, world!"], max_length=300)
    assert len(long) == 300
    assert tokenizer.decode(short) == "hello, world!"
    assert tokenizer.decode(short, skip_special_tokens=False) == "[CLS] hello, world! [SEP]"

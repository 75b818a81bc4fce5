"""tokenization: special tokens, truncation, padding, and what cannot be encoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors

from minitransformer import hub
from minitransformer.errors import CheckpointError, ConfigError, DataError
from minitransformer.tokenization import Tokenizer, pad

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
    with pytest.raises(ConfigError, match=f"max_length={max_length} leaves no room"):
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


def test_pad_refuses_what_has_no_tokens() -> None:
    with pytest.raises(DataError, match="empty batch"):
        pad([])
    with pytest.raises(DataError, match="sequence 1 has no tokens"):
        pad([[1], []])


@pytest.mark.slow
def test_minilm_tokenizer() -> None:
    tokenizer = Tokenizer.from_folder(hub.find_checkpoint("minilm"))
    assert (tokenizer.pad_id, tokenizer.vocab_size) == (0, 30522)
    long, short = tokenizer.encode(["word " * 400, "Hello, world!"], max_length=300)
    assert len(long) == 300
    assert tokenizer.decode(short) == "hello, world!"
    assert tokenizer.decode(short, skip_special_tokens=False) == "[CLS] hello, world! [SEP]"

"""datasets: splits that never change, batches that waste little."""

from __future__ import annotations

import csv
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.data import hub
from minitransformer.data.batches import Batches, Encoded, batches, encode_split
from minitransformer.data.datasets import TASKS, load_task, relabel
from minitransformer.data.splits import Split, Task
from minitransformer.data.tokenization import Tokenizer
from minitransformer.errors import ConfigError, DataError

Pairs = Sequence[tuple[str, str]]


def write_csv(path: Path, pairs: Pairs) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("text", "label"), *pairs])
    return path


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def many(**counts: int) -> Pairs:
    return [(f"{label} text {i}", label) for label, n in counts.items() for i in range(n)]


def pairs_of(task: Task, *parts: str) -> list[tuple[str, str]]:
    splits: list[Split] = [getattr(task, part) for part in parts]
    return [
        (text, task.label_names[label])
        for split in splits
        for text, label in zip(split.texts, split.labels, strict=True)
    ]


# ------------------------------------------------------------------------------------------ loading


def test_unknown_task_suggests_a_close_one() -> None:
    with pytest.raises(DataError, match=r"'rotten-tomatos': did you mean 'rotten-tomatoes'\?"):
        load_task("rotten-tomatos")
    with pytest.raises(DataError, match="expected rotten-tomatoes, imdb, bbc-news, tweets, h"):
        load_task("zzz")


def test_one_label_or_too_few_examples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a single label, 'good'"):
        load_task(write_csv(tmp_path / "one.csv", many(good=9)))
    with pytest.raises(DataError, match=r"fewer than 3 .*: 'bad' in lines 11, 12 and 13\."):
        load_task(write_csv(tmp_path / "few.csv", [*many(good=9, bad=2), ("bad text 0", "bad")]))


# ------------------------------------------------------------------------------------------ splits


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(3, 60), min_size=2, max_size=4),
    st.integers(0, 2**32),
    st.integers(4, 200),
)
def test_split_is_a_stratified_partition(counts: list[int], seed: int, limit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pairs = many(**{f"label{i}": n for i, n in enumerate(counts)})
        path = write_csv(Path(folder) / "mine.csv", pairs)
        task = load_task(path, split_seed=seed)
        again = load_task(path, split_seed=seed)
        fewer = load_task(path, split_seed=seed, limit=limit)
        fewest = load_task(path, split_seed=seed, limit=limit - 1 if limit > 4 else limit)

    assert sorted(pairs_of(task, "train", "validation", "test")) == sorted(pairs)
    for part, share in (("validation", 0.05), ("test", 0.2)):
        got = Counter(label for _, label in pairs_of(task, part))
        assert got == {f"label{i}": max(1, round(share * n)) for i, n in enumerate(counts)}
    assert pairs_of(task, "train", "validation", "test") == pairs_of(
        again, "train", "validation", "test"
    )

    # limit: validation and test as before, train smaller, in proportion, nested
    assert pairs_of(fewer, "validation", "test") == pairs_of(task, "validation", "test")
    kept = pairs_of(fewer, "train")
    assert len(kept) == min(limit, len(task.train))
    assert set(pairs_of(fewest, "train")) <= set(kept) <= set(pairs_of(task, "train"))
    whole = Counter(label for _, label in pairs_of(task, "train"))
    for label, n in Counter(label for _, label in kept).items():
        share = n / whole[label]
        assert abs(share - len(kept) / len(task.train)) <= len(counts) / whole[label]
    assert {label for _, label in kept} == set(task.label_names)


def test_another_seed_gives_another_split(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "mine.csv", many(good=50, bad=50))
    assert load_task(path).test.texts != load_task(path, split_seed=1).test.texts


def test_limit_too_small_for_the_labels(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "mine.csv", many(a=9, b=9, c=9))
    assert len(load_task(path, limit=3).train) == 3
    with pytest.raises(ConfigError, match="limit=2 is too small: 3 labels"):
        load_task(path, limit=2)


def test_duplicates_do_not_leak(tmp_path: Path) -> None:
    pairs = [*many(good=20, bad=20), *many(good=20), ("good  text 3", "bad")]
    task = load_task(write_csv(tmp_path / "mine.csv", pairs))
    assert task.duplicates == 21
    assert sorted(pairs_of(task, "train", "validation", "test")) == sorted(many(good=20, bad=20))


def test_contradicting_duplicates_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [*many(good=20, bad=20), *many(good=20), ("good  text 3", "bad")]
    load_task(write_csv(tmp_path / "mine.csv", pairs))
    (said,) = caplog.messages
    assert "mine.csv: 1 rows repeat a text with another label" in said
    assert "line 62 ('bad') that of line 5 ('good'): the first label is used" in said
    caplog.clear()
    load_task(write_csv(tmp_path / "agreeing.csv", [*many(good=20, bad=20), *many(good=20)]))
    assert caplog.messages == []


def test_a_text_in_train_and_in_test_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = ["a,x,train", "b,y,train", "c,x,train", "d,y,train", "a,x,test", "b,x,test", "e,y,test"]
    load_task(write(tmp_path / "mine.csv", "\n".join(["text,label,split", *rows])))
    contradicting, leaked = caplog.messages
    assert "line 7 ('x') that of line 3 ('y'): every row is used as it is" in contradicting
    assert "2 test texts are in train too, as that of line 6" in leaked


def test_split_column_is_obeyed(tmp_path: Path) -> None:
    spellings = {
        "train": ["train", "training"],
        "validation": ["valid", "val", "Dev", "validation"],
        "test": ["test", "TEST"],
    }
    rows, expected = [], []
    for part, names in spellings.items():
        for name in names:
            for label in ("no", "yes"):
                rows.append(f"{name} {label} text,{label},{name}\n")
                expected.append((part, f"{name} {label} text", label))
    task = load_task(write(tmp_path / "mine.csv", "text,label,split\n" + "".join(rows)))
    found = [
        (part, *pair) for part in ("train", "validation", "test") for pair in pairs_of(task, part)
    ]
    assert found == expected


def test_split_column_without_validation_sets_a_tenth_aside(tmp_path: Path) -> None:
    rows = [f"{part} {i},{i % 2},{part}\n" for part in ("train", "test") for i in range(40)]
    task = load_task(write(tmp_path / "mine.csv", "text,label,split\n" + "".join(rows)))
    assert [len(task.train), len(task.validation), len(task.test)] == [36, 4, 40]
    assert np.bincount(task.validation.labels).tolist() == [2, 2]


def test_split_column_for_evaluation_only(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write(tmp_path / "mine.csv", "text,label,split\nx,yes,test\ny,yes,test\n")
    task = load_task(path)
    assert (len(task.train), len(task.validation), len(task.test)) == (0, 0, 2)
    assert relabel(task, ("no", "yes")).test.labels.tolist() == [1, 1]
    with pytest.raises(DataError, match="no examples"):
        encode_split(task.train, tokenizer, 16)


def test_split_column_without_test_or_with_a_label_never_trained(tmp_path: Path) -> None:
    head = "text,label,split\na,no,train\nb,yes,train\nc,no,dev\n"
    with pytest.raises(DataError, match="no row has the split 'test'"):
        load_task(write(tmp_path / "mine.csv", head))
    with pytest.raises(DataError, match="label 'maybe' of mine has 0 different examples"):
        load_task(write(tmp_path / "mine.csv", head + "d,maybe,test\n"))


def test_relabel(tmp_path: Path) -> None:
    task = load_task(write_csv(tmp_path / "mine.csv", many(neg=10, pos=10)))
    other = relabel(task, ["pos", "neutral", "neg"])
    assert other.label_names == ("pos", "neutral", "neg")
    for part in ("train", "validation", "test"):
        assert pairs_of(other, part) == pairs_of(task, part)
    with pytest.raises(DataError, match=r"label 'pos' of mine is unknown here; known: neg, good"):
        relabel(task, ["neg", "good"])


# ---------------------------------------------------------------------------------- built-in tasks


def test_toy_reviews_need_no_network() -> None:
    task = load_task("toy-reviews")
    assert (len(task.train), len(task.validation), len(task.test)) == (2250, 150, 600)
    assert task.label_names == TASKS["toy-reviews"].label_names == ("negative", "positive")
    assert task.duplicates == 0
    assert len(load_task("toy-reviews", limit=100).train) == 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "counts", "duplicates"),
    [  # counts by label as published, before duplicates are removed
        ("rotten-tomatoes", {"negative": 4265, "positive": 4265}, 0),
        ("imdb", {"negative": 12500, "positive": 12500}, 98),
        (
            "bbc-news",
            {"business": 510, "entertainment": 386, "politics": 417, "sports": 511, "tech": 401},
            100,
        ),
        ("tweets", {"negative": 16186, "neutral": 15018, "positive": 6954}, 926),
    ],
)
def test_real_task(name: str, counts: dict[str, int], duplicates: int) -> None:
    known = TASKS[name]
    read = Counter(known.label_names[label] for _, label, *_ in known.read())
    assert read == counts
    task = load_task(name)
    assert task.label_names == known.label_names
    assert task.duplicates == duplicates
    pairs = pairs_of(task, "train", "validation", "test")
    assert len({text for text, _ in pairs}) == len(pairs) == sum(counts.values()) - duplicates
    assert all(text.strip() and "<br" not in text for text, _ in pairs)
    assert len(task.validation) == pytest.approx(0.05 * len(pairs), abs=3)
    assert len(task.test) == pytest.approx(0.2 * len(pairs), abs=3)


# ----------------------------------------------------------------------------------------- batches


def encoded_of(lengths: Sequence[int]) -> Encoded:
    """Sequence i is made of i + 1 alone, so that a batch shows which examples it holds."""
    return Encoded([[i + 1] * n for i, n in enumerate(lengths)], np.arange(len(lengths)))


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=300),
    st.integers(1, 40),
    st.none() | st.integers(0, 2**32),
)
def test_batches_hold_every_example_once(
    lengths: list[int], batch_size: int, seed: int | None
) -> None:
    encoded = encoded_of(lengths)
    rng = None if seed is None else np.random.default_rng(seed)
    epoch = batches(encoded, batch_size, rng)
    seen: list[int] = []
    for batch in epoch:
        assert batch.ids.shape == batch.attention_mask.shape
        assert (batch.labels == batch.index).all()
        assert (batch.attention_mask.sum(axis=1) == np.array(lengths)[batch.index]).all()
        assert (batch.ids == batch.attention_mask * (batch.index[:, None] + 1)).all()
        seen += batch.index.tolist()
    assert sorted(seen) == list(range(len(lengths)))
    assert len(epoch) == -(-len(lengths) // batch_size)
    sizes = sorted(len(batch.index) for batch in epoch)
    assert all(size == batch_size for size in sizes[1:])


def test_batches_without_rng_are_sorted_by_length_and_the_same_each_time() -> None:
    encoded = encoded_of([5, 1, 4, 1, 3])
    for _ in range(2):
        assert [b.index.tolist() for b in batches(encoded, 2)] == [[1, 3], [4, 2], [0]]


def test_batches_with_rng_follow_the_seed_and_mix() -> None:
    encoded = encoded_of([1 + i % 20 for i in range(400)])

    def order(seed: int) -> list[list[int]]:
        return [b.index.tolist() for b in batches(encoded, 8, np.random.default_rng(seed))]

    assert order(0) == order(0) != order(1)
    widths = [b.ids.shape[1] for b in batches(encoded, 8, np.random.default_rng(0))]
    assert widths != sorted(widths)  # short and long batches take turns
    together = [{frozenset(b) for b in order(seed)} for seed in (0, 1)]
    assert len(together[0] & together[1]) < 5  # ties in length fall differently


def test_pad_id_reaches_the_batch() -> None:
    (batch,) = batches(Encoded([[5, 5], [6]], np.array([0, 1]), pad_id=9), 2)
    assert batch.ids.tolist() == [[6, 9], [5, 5]]
    assert batch.index.tolist() == batch.labels.tolist() == [1, 0]


def test_batches_refuse_nonsense() -> None:
    with pytest.raises(ConfigError, match="batch_size=0: expected a whole number"):
        batches(encoded_of([1]), 0)
    with pytest.raises(DataError, match="no examples"):
        batches(Encoded([], np.array([], dtype=np.int64)), 4)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(hub.find_checkpoint("tiny"))


def test_encode_split_on_the_embedded_tokenizer(tokenizer: Tokenizer) -> None:
    split = load_task("toy-reviews").test
    encoded = encode_split(split, tokenizer, max_length=64)
    assert len(encoded) == len(split)
    assert encoded.pad_id == tokenizer.pad_id
    assert (encoded.labels == split.labels).all()
    assert encoded.sequences[7] == tokenizer.encode([split.texts[7]], 64)[0]


def padding_share(epoch: Batches) -> float:
    tokens = sum(int(batch.attention_mask.sum()) for batch in epoch)
    return 1 - tokens / sum(batch.ids.size for batch in epoch)


@pytest.mark.slow
def test_little_is_padding_on_real_sentences() -> None:
    tokenizer = Tokenizer.from_folder(hub.find_checkpoint("minilm"))
    encoded = encode_split(load_task("rotten-tomatoes").train, tokenizer, max_length=128)
    shuffled = padding_share(batches(encoded, 32, np.random.default_rng(0)))
    assert shuffled < 0.10
    assert padding_share(batches(encoded, 32)) <= shuffled

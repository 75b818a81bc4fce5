"""The bag of words: its gradient, what it finds, and scikit-learn's solution."""

from __future__ import annotations

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.data.splits import Split
from minitransformer.errors import ShapeError
from minitransformer.training.baseline import BagOfWords, Baseline, C, Sparse, Vocabulary

SMALL = Sparse(
    np.array([0, 0, 1, 3]), np.array([1, 4, 4, 2]), np.array([0.5, 0.2, 0.7, 0.1]), (4, 5)
)


def texts(n: int, seed: int = 0) -> Split:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    words = [[f"w{k}{rng.integers(20)}" for _ in range(6)] for k in labels]
    noise = [[f"x{rng.integers(40)}" for _ in range(6)] for _ in labels]
    return Split([" ".join(a + b) for a, b in zip(words, noise, strict=True)], labels)


def test_gradient() -> None:
    mt.gradcheck(BagOfWords(5, 3), SMALL, check_inputs=False)


def test_rows_of_another_vocabulary_are_refused() -> None:
    with pytest.raises(ShapeError, match="x has 5 words, expected 6"):
        BagOfWords(6, 2)(SMALL)


def test_it_learns_classes_and_numbers_from_words() -> None:
    train, test = texts(300), texts(100, seed=1)
    assert (Baseline(train, 3).predict(test) == test.labels).mean() > 0.95
    train, test = (Split(s.texts, 40.0 + 10 * s.labels) for s in (train, test))
    found = Baseline(train, 1).predict(test)
    assert np.corrcoef(found, test.labels)[0, 1] > 0.9
    assert abs(found.mean() - test.labels.mean()) < 2


def test_of_pairs_it_sees_which_words_both_texts_have() -> None:
    rng = np.random.default_rng(0)
    words = [[f"w{i}" for i in rng.choice(30, 4, replace=False)] for _ in range(400)]
    labels = rng.integers(0, 2, 400)
    second = [
        " ".join([rng.choice(w) if same else "w99", f"w{rng.integers(30)}"])
        for w, same in zip(words, labels, strict=True)
    ]
    split = Split([" ".join(w) for w in words], labels, second)
    half = Split(split.texts[:200], labels[:200], second[:200])
    assert (Baseline(split, 2).predict(half) == half.labels).mean() > 0.9


def test_texts_without_a_known_word_have_an_answer() -> None:
    baseline = Baseline(texts(100), 3)
    assert baseline.predict(Split(["", "unheard of"], np.zeros(2, int))).shape == (2,)


@pytest.mark.reference
def test_as_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    feature = pytest.importorskip("sklearn.feature_extraction.text")
    train = texts(400)
    tf_idf = feature.TfidfVectorizer(min_df=2, token_pattern=r"(?u)\w+")
    expected = tf_idf.fit_transform(train.texts)
    x = Vocabulary(train).encode(train)
    dense = np.zeros(x.shape)
    dense[x.rows, x.columns] = x.values
    columns = Vocabulary(train).columns
    order = [columns[word] for word in tf_idf.get_feature_names_out()]
    np.testing.assert_allclose(dense[:, order], expected.toarray(), atol=1e-12)

    model = linear.LogisticRegression(C=C, class_weight="balanced", max_iter=1000)
    model.fit(expected, train.labels)
    found = Baseline(train, 3).model.weight.value[order].T
    assert np.abs(found - model.coef_).max() < 0.02 * np.abs(model.coef_).max()

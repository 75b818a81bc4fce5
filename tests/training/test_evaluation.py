"""Predicting and measuring leave the model as it is, so that several threads may do it at once."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.errors import ConfigError, DataError
from minitransformer.training.evaluation import evaluate, perplexity, predict_probabilities

RNG = np.random.default_rng(0)
MANY = mt.Encoded([RNG.integers(0, 50, 8).tolist() for _ in range(200)], RNG.integers(0, 2, 200))
FEW = mt.Encoded(MANY.sequences[:3], MANY.labels[:3])
TOKENS = RNG.integers(0, 50, 300)


@pytest.fixture
def classifier(small_transformer) -> mt.Classifier:
    base = small_transformer(dropout=0.5, attention_dropout=0.5).freeze()
    base.add_adapter("a", mt.AdapterConfig(bottleneck=4))
    return mt.Classifier(base, 2, dropout=0.5, rng=np.random.default_rng(0))


@pytest.fixture
def decoder(small_transformer) -> mt.LanguageModel:
    return mt.LanguageModel(small_transformer(causal=True, norm="pre", token_types=0, dropout=0.5))


def side_by_side(*functions: Callable[[], object]) -> list[object]:
    """What each function returns, all running at the same time."""
    results: list[object] = [None] * len(functions)
    start = threading.Barrier(len(functions))

    def run(i: int) -> None:
        start.wait(10)
        results[i] = functions[i]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_evaluation_is_in_the_order_of_the_split(classifier) -> None:
    found = evaluate(classifier, MANY)
    assert found.probabilities.shape == (200, 2)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert found.accuracy == (found.predictions == MANY.labels).mean()
    alone = predict_probabilities(classifier, FEW, batch_size=1)
    np.testing.assert_allclose(found.probabilities[:3], alone, rtol=1e-5)


@pytest.mark.parametrize("mode", [True, False])
def test_the_model_is_left_as_it_is(classifier, mode) -> None:
    classifier.train(mode)
    before = [(module, module.training) for _, module in classifier.named_modules()]
    evaluate(classifier, MANY)
    after = [(module, module.training) for _, module in classifier.named_modules()]
    assert after == before
    assert classifier.transformer.active_adapters == ("a",)


def test_evaluating_between_forward_and_backward_loses_nothing(classifier) -> None:
    batch = next(iter(mt.batches(FEW, 3)))
    classifier.train()
    logits = classifier(batch.ids, batch.attention_mask)
    evaluate(classifier, MANY)
    classifier.backward(np.ones_like(logits))
    assert all(p.grad is not None for p in classifier.trainable_parameters().values())


@pytest.mark.parametrize("threads", [1, 2])
def test_two_threads_predict_with_one_model(classifier, threads) -> None:
    # The short one is done while the long one runs: it must not turn dropout on for both.
    classifier.train()

    def short() -> list[np.ndarray]:
        return [predict_probabilities(classifier, FEW, 1, threads) for _ in range(10)]

    def long() -> np.ndarray:
        return predict_probabilities(classifier, MANY, 1, threads)

    few, many = short()[0], long()
    several, together = side_by_side(short, long)
    np.testing.assert_array_equal(together, many)
    for found in several:
        np.testing.assert_array_equal(found, few)


def test_two_threads_measure_perplexity_with_one_model(decoder) -> None:
    decoder.train()
    alone = perplexity(decoder, TOKENS, threads=1), perplexity(decoder, TOKENS[:50], threads=1)
    together = side_by_side(
        lambda: perplexity(decoder, TOKENS, threads=1),
        lambda: perplexity(decoder, TOKENS[:50], threads=1),
    )
    assert tuple(together) == alone
    assert decoder.training


def test_what_cannot_be_measured_is_an_error(classifier, decoder) -> None:
    with pytest.raises(DataError, match="label 2, but the model has the classes 0 to 1"):
        evaluate(classifier, mt.Encoded(FEW.sequences, np.array([0, 1, 2])))
    with pytest.raises(DataError, match="label -1"):
        evaluate(classifier, mt.Encoded(FEW.sequences, np.array([0, 1, -1])))
    with pytest.raises(DataError, match="no label to compare with"):
        evaluate(classifier, mt.Encoded(FEW.sequences, np.full(3, -100)))
    with pytest.raises(ConfigError, match="batch_size=0"):
        evaluate(classifier, FEW, batch_size=0)
    with pytest.raises(ConfigError, match="block_size=0"):
        perplexity(decoder, TOKENS, block_size=0)
    with pytest.raises(ConfigError, match="stride=0"):
        perplexity(decoder, TOKENS, stride=0)
    with pytest.raises(DataError, match="3 sequences, but 2 labels"):
        mt.Encoded(FEW.sequences, np.zeros(2, int))

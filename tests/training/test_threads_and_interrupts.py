"""Several threads, forked processes, and a cell that is interrupted and run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.data.batches import Encoded
from minitransformer.errors import BackwardError
from minitransformer.nn.layers import seed_dropouts
from minitransformer.nn.module import Array, _forward_pass

IDS = np.random.default_rng(1).integers(0, 50, (6, 5))
LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture
def model(small_transformer: Callable[..., mt.Transformer]) -> mt.Classifier:
    """Frozen, with an adapter that trains."""
    transformer = small_transformer(dropout=0.1).freeze()
    transformer.add_adapter("a", mt.AdapterConfig(bottleneck=4))
    return mt.Classifier(transformer, 3)


def gradients(model: mt.Classifier) -> dict[str, Array]:
    """As a cell of a notebook: one step without the optimizer, with fixed dropout masks."""
    seed_dropouts(model, 0)
    loss = mt.CrossEntropy()
    model.train().zero_grad()
    loss(model(IDS), LABELS)
    model.backward(loss.backward())
    return {name: p.grad.copy() for name, p in model.trainable_parameters().items()}  # type: ignore[union-attr]


def assert_same(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


# -- threads ---------------------------------------------------------------------------------


def at_once(work: list[Callable[[], Any]]) -> list[Any]:
    """The results of functions that begin together, each in a thread of its own."""
    start = Barrier(len(work))

    def begin(function: Callable[[], Any]) -> Any:
        start.wait(60)
        return function()

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(begin, work))


def test_threads_predict_with_one_model_in_eval_mode(model: mt.Classifier) -> None:
    model.eval()
    batches = [IDS[i:] for i in range(4)]
    expected = [model(ids) for ids in batches]
    found = at_once([lambda ids=ids: [model(ids) for _ in range(20)] for ids in batches])
    for results, logits in zip(found, expected, strict=True):
        assert all(np.array_equal(result, logits) for result in results)


def test_threads_train_with_a_replica_each(model: mt.Classifier) -> None:
    expected = gradients(model)
    replicas = [model.replica() for _ in range(3)]
    for found in at_once([lambda r=r: [gradients(r) for _ in range(5)][-1] for r in replicas]):
        assert_same(found, expected)


def test_training_one_model_in_two_threads_is_an_error(model: mt.Classifier) -> None:
    """Not gradients of each other's batch. What the first thread began is not lost."""
    expected = gradients(model)
    seed_dropouts(model, 0)
    loss = mt.CrossEntropy()
    model.zero_grad()
    loss(model(IDS), LABELS)
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(BackwardError, match=r"in two threads.*model\.replica\(\)"):
            pool.submit(model, IDS[::-1]).result()
        pool.submit(model.backward, loss.backward()).result()  # one after the other is no problem
        found = {name: p.grad for name, p in model.trainable_parameters().items()}
        assert_same(found, expected)
        assert pool.submit(model, IDS).result().shape == (6, 3)
    model.train()(IDS)  # train() discards what that thread left


# -- forked processes --------------------------------------------------------------------------

FORK = """
import multiprocessing
import numpy as np
import minitransformer as mt
from minitransformer.data.hub import find_checkpoint
from minitransformer.training.evaluation import predict_probabilities
from minitransformer.training.process import single_threaded_products

checkpoint = find_checkpoint("tiny")
tokenizer = mt.Tokenizer.from_folder(checkpoint)
model = mt.Classifier(mt.Transformer.from_pretrained(checkpoint), 2)
texts = mt.Encoded(tokenizer.encode(["a joy", "a bore"] * 100, 32), np.zeros(200, int), 0)

def child(queue):
    queue.put(predict_probabilities(model, texts, threads=2))

def forked():
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    found = queue.get(timeout=50)
    process.join(10)
    return found

before = forked()
expected = predict_probabilities(model, texts, threads=2)
with single_threaded_products:  # as if a thread trained meanwhile
    during = forked()
np.testing.assert_array_equal(during, expected)
np.testing.assert_array_equal(forked(), expected)
np.testing.assert_array_equal(before, expected)
print("equal")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not fork by default")
def test_a_forked_process_predicts_the_same() -> None:
    """Forked before anything ran, while products are held to one thread, and afterwards."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "equal\n", done.stderr


# -- a cell that is interrupted and run again ----------------------------------------------------


def interrupt_at(n: int, function: Callable[[], Any]) -> bool:
    """Raise KeyboardInterrupt at the n-th Python function that `function` enters; whether it did.

    As Ctrl-C would, at a place that does not depend on time.
    """
    entered = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal entered
        entered += event == "call"
        if entered == n:
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def test_a_step_that_was_interrupted_anywhere_leaves_nothing_behind(model: mt.Classifier) -> None:
    expected = gradients(model)
    model.eval()
    logits = model(IDS)
    n, tried = 1, 0
    while interrupt_at(n, lambda: gradients(model)):
        assert _forward_pass.requires_grad is None
        assert_same(gradients(model), expected)
        np.testing.assert_array_equal(model.eval()(IDS), logits)
        n, tried = n + 29, tried + 1
    assert tried > 12


def test_fit_that_was_interrupted_anywhere_leaves_a_usable_model(
    model: mt.Classifier,
) -> None:
    before = signal.getsignal(signal.SIGINT)
    start = {name: value.copy() for name, value in model.state_dict().items()}
    expected = gradients(model)
    encoded = Encoded([row.tolist() for row in IDS], LABELS, pad_id=0)

    def fit() -> mt.Trainer:
        options = mt.TrainingOptions(epochs=2, batch_size=3)
        trainer = mt.Trainer(model, encoded, encoded, options, progress=False, threads=2)
        trainer.fit()
        return trainer

    trained = fit().history
    n, tried = 1, 0
    while True:
        model.load_state_dict(start)
        seed_dropouts(model, 0)
        if not interrupt_at(n, fit):
            break
        assert signal.getsignal(signal.SIGINT) is before
        frozen = {name for name, p in model.named_parameters() if not p.trainable}
        assert all(np.array_equal(model.state_dict()[name], start[name]) for name in frozen)
        model.load_state_dict(start)
        assert_same(gradients(model), expected)
        assert [row.loss for row in fit().history] == [row.loss for row in trained]
        n, tried = n * 3, tried + 1
    assert tried > 4


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_an_interrupted_cell_of_a_notebook_can_be_run_again() -> None:
    """In a real kernel: the cell trains on until it is interrupted, and then runs to its end."""
    manager_module = pytest.importorskip("jupyter_client.manager")
    manager, client = manager_module.start_new_kernel(kernel_name="python3")
    cell = """
import numpy as np, minitransformer as mt
first = "model" not in globals()
model = mt.Classifier(mt.Transformer.from_pretrained("tiny"), 2).train()
print("running")
while first:
    model.backward(np.ones_like(model(np.ones((32, 32), int))))
model.zero_grad()
model.backward(np.ones_like(model(np.ones((4, 8), int))))
print("finished")
"""

    def run(interrupt: bool) -> str:
        printed = ""

        def on_output(message: dict[str, Any]) -> None:
            nonlocal printed
            printed += message["content"].get("text", message["content"].get("ename", ""))
            if interrupt and printed == "running\n":
                manager.interrupt_kernel()

        client.execute_interactive(cell, output_hook=on_output, timeout=120)
        return printed

    try:
        assert "KeyboardInterrupt" in run(interrupt=True)
        assert run(interrupt=False) == "running\nfinished\n"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)

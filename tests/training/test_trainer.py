"""The loop: it learns, it can be stopped and resumed exactly, and it fails with clear words."""

import ctypes
import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.data.batches import Encoded
from minitransformer.errors import CheckpointError, ConfigError, DataError, TrainingError
from minitransformer.formats.adapter_file import fingerprint
from minitransformer.training.evaluation import evaluate
from minitransformer.training.history import History, HistoryRow
from minitransformer.training.trainer import Trainer, TrainingOptions


def sequences(n: int, seed: int) -> Encoded:
    """Label 1 where token 3 stands before token 4: position matters, so attention must work."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(n):
        ids = rng.integers(5, 50, rng.integers(6, 12))
        first, second = sorted(rng.choice(np.arange(1, len(ids)), 2, replace=False))
        label = int(rng.integers(2))
        ids[first], ids[second] = (3, 4) if label else (4, 3)
        texts.append([1, *ids.tolist()])
        labels.append(label)
    return Encoded(texts, np.array(labels))


TRAIN, VALIDATION = sequences(100, 1), sequences(40, 2)
OPTIONS = TrainingOptions(epochs=3, batch_size=16, lr=5e-3)


@pytest.fixture
def classifier(small_transformer):
    """Makes a classifier with adapters on a frozen base; dropout on, so that its state counts."""

    def make(seed: int = 0) -> mt.Classifier:
        base = small_transformer(seed, dropout=0.1, attention_dropout=0.1)
        base.freeze()
        base.add_adapter("a", mt.AdapterConfig(bottleneck=4, dropout=0.1))
        return mt.Classifier(base, 2, dropout=0.1, rng=np.random.default_rng(seed))

    return make


def values(model: mt.Classifier) -> dict[str, np.ndarray]:
    return {name: p.value.copy() for name, p in model.trainable_parameters().items()}


def assert_equal(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def timeless(history: History) -> list[dict]:
    return [{**vars(row), "seconds": None} for row in history]


@pytest.mark.slow
def test_full_training_learns_what_needs_attention(small_transformer) -> None:
    model = mt.Classifier(small_transformer(), 2, rng=np.random.default_rng(0))
    options = TrainingOptions(epochs=12, batch_size=16, lr=5e-3)
    Trainer(model, sequences(400, 3), VALIDATION, options, progress=False).fit()
    assert evaluate(model, VALIDATION).accuracy > 0.9


def test_adapter_training_lowers_the_loss_and_leaves_the_base_alone(classifier) -> None:
    model = classifier()
    told = zip(TRAIN.sequences, TRAIN.labels.tolist(), strict=True)
    easy = Encoded([[3 + label, *rest[1:]] for rest, label in told], TRAIN.labels)
    digest, before = fingerprint(model.transformer), evaluate(model, easy).loss
    history = Trainer(model, easy, VALIDATION, OPTIONS, progress=False).fit()
    assert fingerprint(model.transformer) == digest
    assert evaluate(model, easy).loss < 0.7 * before
    assert len(history) == 1 + 3 * 7  # before training, then every step
    assert [row.epoch for row in history.evaluations()] == [0, 1, 2, 3]


def test_the_same_seed_gives_the_same_run_and_another_seed_another(classifier) -> None:
    runs = []
    for seed in (0, 0, 1):
        model = classifier()
        options = TrainingOptions(epochs=1, batch_size=16, seed=seed)
        history = Trainer(model, TRAIN, VALIDATION, options, progress=False).fit()
        runs.append((values(model), timeless(history)))
    assert_equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert runs[0][1] != runs[2][1]


@pytest.mark.parametrize("stop_at", [1, 7, 10, 14])  # 7 and 14: at the end of an epoch
def test_interrupted_and_resumed_is_bit_for_bit_the_whole_run(
    classifier, tmp_path, stop_at
) -> None:
    whole = classifier()
    expected = Trainer(whole, TRAIN, VALIDATION, OPTIONS, progress=False)
    expected.fit()

    state = tmp_path / "state.safetensors"
    first = Trainer(classifier(), TRAIN, VALIDATION, OPTIONS, state, progress=False)
    real_step = first.train_step

    def step_then_ctrl_c(*args):
        row = real_step(*args)
        if row.step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)  # what Ctrl-C sends
        return row

    first.train_step = step_then_ctrl_c
    first.fit()
    assert first.interrupted
    assert first.step == stop_at

    model = classifier(seed=5)  # other start values: all that counts comes from the state
    model.transformer = classifier().transformer
    second = Trainer(model, TRAIN, VALIDATION, OPTIONS, state, progress=False)
    second.load_state()
    second.fit()
    assert not second.interrupted
    assert_equal(values(model), values(whole))
    assert timeless(second.history) == timeless(expected.history)
    assert second.history.best().epoch == expected.history.best().epoch
    assert_equal(second.best, expected.best)


def test_ctrl_c_handler_is_the_old_one_afterwards(classifier) -> None:
    before = signal.getsignal(signal.SIGINT)
    options = TrainingOptions(epochs=1, batch_size=50)
    Trainer(classifier(), TRAIN, VALIDATION, options, progress=False).fit()
    assert signal.getsignal(signal.SIGINT) is before


def test_training_works_outside_the_main_thread(classifier) -> None:
    trainer = Trainer(
        classifier(), TRAIN, VALIDATION, TrainingOptions(epochs=1, batch_size=50), progress=False
    )
    thread = threading.Thread(target=trainer.fit)
    thread.start()
    thread.join()
    assert trainer.step == 2


def test_best_epoch_can_be_restored(classifier) -> None:
    model = classifier()
    trainer = Trainer(model, TRAIN, VALIDATION, OPTIONS, progress=False)
    accuracies = [row.validation_accuracy for row in trainer.fit().evaluations()[1:]]
    highest = max(accuracies)
    error = (highest * (1 - highest) / len(VALIDATION)) ** 0.5
    epoch = max(i for i, a in enumerate(accuracies, 1) if a >= highest - error)
    assert trainer.history.best().epoch == epoch
    trainer.restore_best()
    assert evaluate(model, VALIDATION).accuracy == accuracies[epoch - 1]


@pytest.mark.parametrize(
    ("examples", "accuracies", "best"),
    [
        (400, [0.70, 0.80, 0.79], 3),  # standard error 0.02: 0.79 is as good, and later
        (400, [0.70, 0.80, 0.77], 2),
        (4, [0.70, 0.80, 0.77, 0.65], 4),  # on 4 examples hardly anything is worse
        (None, [0.80, 0.80, 0.79], 2),  # of equals the later one
    ],
)
def test_the_best_epoch_is_the_latest_of_those_as_good(examples, accuracies, best) -> None:
    history = History([HistoryRow(0, 0, validation_accuracy=0.9, validation_examples=examples)])
    for epoch, accuracy in enumerate(accuracies, 1):
        row = HistoryRow(
            epoch * 10, epoch, validation_accuracy=accuracy, validation_examples=examples
        )
        history.append(row)
    assert history.best().epoch == best
    assert History.from_csv(history.to_csv()).best().epoch == best


def test_loss_that_is_not_finite_stops_with_a_clear_message(classifier) -> None:
    model = classifier()
    model.head.linear.bias.value[0] = np.nan
    trainer = Trainer(model, TRAIN, VALIDATION, OPTIONS, progress=False)
    with pytest.raises(TrainingError, match="probabilities are not finite"):
        trainer.fit()  # the evaluation before the first step
    trainer.history.append(HistoryRow(0, 0, validation_loss=0.5))  # as if it had been done
    with pytest.raises(TrainingError, match=r"loss is nan at step 1 of 21.*lower lr"):
        trainer.fit()


@pytest.mark.filterwarnings("error")  # the error says it all
@pytest.mark.parametrize("lr", [1e30, 1e18])
def test_training_that_diverges_is_one_error_and_no_warning(classifier, lr) -> None:
    options = replace(OPTIONS, lr=lr, warmup=0.0)
    with pytest.raises(TrainingError, match=r"(loss|gradients) is (nan|inf) at step .*lower lr"):
        Trainer(classifier(), TRAIN, VALIDATION, options, progress=False).fit()


def test_gradients_that_are_not_finite_move_nothing(classifier) -> None:
    model = classifier()
    weight = model.head.linear.weight.value
    weight *= 1e25  # the loss is still finite: the norm of the gradients below is not
    before = {name: p.value.copy() for name, p in model.trainable_parameters().items()}
    trainer = Trainer(model, TRAIN, VALIDATION, OPTIONS, progress=False)
    with pytest.raises(TrainingError, match=r"the norm of the gradients is inf at step 1 of 21"):
        trainer.fit()
    for name, parameter in model.trainable_parameters().items():
        np.testing.assert_array_equal(parameter.value, before[name])


def test_nothing_to_train_is_an_error(small_transformer) -> None:
    model = mt.Classifier(small_transformer(), 2)
    model.freeze()
    with pytest.raises(ConfigError, match="every parameter of this model is frozen"):
        Trainer(model, TRAIN, VALIDATION)


def test_state_of_another_run_is_refused(classifier, tmp_path) -> None:
    state = tmp_path / "state.safetensors"
    Trainer(classifier(), TRAIN, VALIDATION, OPTIONS, state, progress=False).save_state()
    other = Trainer(classifier(), TRAIN, VALIDATION, TrainingOptions(lr=1.0), state, progress=False)
    with pytest.raises(CheckpointError, match="from another run: options"):
        other.load_state()
    whole = state.read_bytes()
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole.replace(b'"step', b'"stop')):
        state.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"state\.safetensors is damaged"):
            other.load_state()
    state.write_bytes(whole.replace(b"minitransformer-sha256", b"minitransformer-sha512"))
    with pytest.raises(CheckpointError, match="carries no SHA-256 of itself"):
        other.load_state()
    state.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="truncated"):
        other.load_state()


def test_history_survives_the_way_through_csv(classifier) -> None:
    options = TrainingOptions(epochs=1, batch_size=16)
    history = Trainer(classifier(), TRAIN, VALIDATION, options, progress=False).fit()
    assert History.from_csv(history.to_csv()) == history
    with pytest.raises(CheckpointError, match="not a training history"):
        History.from_csv("a,b\n1,2\n")


def test_lr_that_is_left_out_stays_none_in_the_options() -> None:
    assert TrainingOptions().lr is None


@pytest.mark.parametrize("empty", ["train", "validation"])
def test_a_split_without_examples_is_an_error(classifier, empty) -> None:
    splits = {"train": TRAIN, "validation": VALIDATION, empty: Encoded([], np.zeros(0, int))}
    with pytest.raises(DataError, match=f"the {empty} split has no examples"):
        Trainer(classifier(), **splits)


def test_the_best_epoch_is_by_accuracy_or_loss(classifier) -> None:
    with pytest.raises(ConfigError, match="best_by='f1': expected one of accuracy, macro-f1, loss"):
        Trainer(classifier(), TRAIN, VALIDATION, best_by="f1")
    with pytest.raises(ConfigError, match="by='f1'"):
        History().best("f1")


@pytest.mark.parametrize("threads", [2, 3])
def test_one_seed_gives_the_same_losses_with_any_number_of_threads(classifier, threads) -> None:
    def losses(threads: int) -> list[float]:
        options = TrainingOptions(epochs=1, batch_size=16, lr=5e-3)
        trainer = Trainer(classifier(), TRAIN, VALIDATION, options, None, False, threads)
        return [row.loss for row in trainer.fit() if row.step]

    np.testing.assert_allclose(losses(threads), losses(1), rtol=2e-5)


def test_a_state_goes_on_with_the_same_number_of_threads(classifier, tmp_path) -> None:
    state = tmp_path / "state.safetensors"
    Trainer(classifier(), TRAIN, VALIDATION, OPTIONS, state, False, threads=2).save_state()
    other = Trainer(classifier(), TRAIN, VALIDATION, OPTIONS, state, False, threads=3)
    with pytest.raises(CheckpointError, match="from another run: threads 2, not 3"):
        other.load_state()


def test_a_state_of_other_parameters_is_refused(classifier, tmp_path) -> None:
    state = tmp_path / "state.safetensors"
    Trainer(classifier(), TRAIN, VALIDATION, OPTIONS, state, False).save_state()
    model = classifier()
    model.transformer.freeze()
    with pytest.raises(CheckpointError, match="it trains other parameters"):
        Trainer(model, TRAIN, VALIDATION, OPTIONS, state, False).load_state()


def test_the_allocator_changes_for_training_alone(classifier, monkeypatch) -> None:
    asked = []
    real = ctypes.CDLL

    def library(name, *args, **kwargs):
        if name is None:
            asked.append(name)
            raise OSError("no mallopt here")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(ctypes, "CDLL", library)
    model = classifier()
    evaluate(model, VALIDATION)
    assert not asked
    Trainer(model, TRAIN, VALIDATION, TrainingOptions(epochs=1), progress=False).fit()
    assert asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": True}, "epochs=True: expected a whole number, 1 or more"),
        ({"seed": "a"}, "seed='a': expected a whole number, 0 or more"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"lr": "fast"}, "lr='fast': expected a positive number, or None"),
        ({"warmup": None}, "warmup=None"),
        ({"weight_decay": "0.1"}, "weight_decay='0.1'"),
        ({"max_grad_norm": None}, "max_grad_norm=None: expected a positive number"),
        ({"label_smoothing": True}, "label_smoothing=True"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"lr": 0.0}, "lr=0.0: expected a positive number"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"warmup": 1.5}, "warmup=1.5"),
        ({"weight_decay": -1}, "weight_decay=-1"),
        ({"seed": -3}, "seed=-3"),
    ],
)
def test_options_check_themselves(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingOptions(**options)

"""What the parts of all exercises need: compare values and gradients, and say what is wrong."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ..data.tokenization import Tokenizer, pad
from ..errors import BackwardError, WrongAnswer
from ..gradcheck import gradcheck
from ..models.heads import Classifier
from ..models.transformer import Transformer
from ..nn.losses import CrossEntropy
from ..nn.module import Array, Module
from .hooks import use
from .solution import in_words

SENTENCES = (  # real ones: the model reads them with the student's part inside
    "a warm and funny film, and i would gladly see it again .",
    "the plot makes no sense",
    "the actors are fine but the story is slow and the ending is weak .",
    "great music",
)
LABELS = np.array([1, 0, 0, 1])
EXACT = 1e-6  # a known mistake gives these numbers; what is only near them has another cause
FLOAT64 = 1e-8  # central differences are as good as that; float32 rounds more
ROUNDED = (
    "right to the precision of float32 alone, though all inputs are float64: somewhere an array or "
    "a number is made in float32; use x.dtype, and Python's own numbers"
)
HINTS = 3  # of several wrong arrays, how many are explained


def rng_for(seed: int, *more: int) -> np.random.Generator:
    return np.random.default_rng([seed, 20191, *more])


def call(what: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result of a student's function; its arguments must be left as they are.

    Raises: WrongAnswer if it raises, returns None, or writes into an argument.
    """
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    try:
        result = function(*arguments, **options)
    except WrongAnswer:
        raise
    except Exception as error:
        raise WrongAnswer(f"{what}: {in_words(error)}") from error
    for old, now in zip(before, arguments, strict=True):
        if isinstance(old, np.ndarray) and not np.array_equal(old, now, equal_nan=True):
            raise WrongAnswer(
                f"{what} changes an array of shape {old.shape} that it was given, in place: others "
                "still read it; write into a new array, y = x * 2, not x *= 2"
            )
    if result is None:
        raise WrongAnswer(f"{what} returns None: is there a return?")
    return result


def same_values(
    what: str,
    got: Any,
    expected: Array,
    mistakes: Mapping[str, Array] | None = None,
    tolerance: float = 1e-6,
) -> None:
    """Raises: WrongAnswer unless `got` is `expected`.

    `mistakes`: a sentence for what each known mistake would have given instead; it is said only if
    exactly that was found, however large the tolerance for what is right.
    """
    got = np.asarray(got)
    if got.shape != np.shape(expected):
        raise WrongAnswer(f"{what} has shape {got.shape}, but should have {np.shape(expected)}")
    if got.dtype != np.asarray(expected).dtype:
        raise WrongAnswer(
            f"{what} is {got.dtype}, but should be {np.asarray(expected).dtype}, the dtype of the "
            "input: make arrays with x.dtype"
        )
    double = got.dtype == np.float64 and FLOAT64 <= tolerance <= EXACT
    if close(got, expected, FLOAT64 if double else tolerance):
        return
    if double and close(got, expected, EXACT):
        raise WrongAnswer(f"{what} is {ROUNDED}")
    for sentence, wrong in (mistakes or {}).items():
        if np.shape(wrong) == got.shape and close(got, wrong, min(tolerance, EXACT)):
            raise WrongAnswer(f"{what} is wrong: {sentence}")
    if not np.isfinite(got).all():
        raise WrongAnswer(f"{what} contains NaN or infinity")
    if not got.ndim:  # a number that is asked for: to name the right one would be the answer
        raise WrongAnswer(f"{what} is not {got:.6g}; what differs is in no pattern known here")
    i = np.unravel_index(int(np.argmax(np.abs(got - expected))), got.shape)
    raise WrongAnswer(
        f"{what} is {got[i]:.6g} at {tuple(map(int, i))}, but should be "
        f"{np.asarray(expected)[i]:.6g}; what differs is in no pattern known here. Work one entry "
        "out by hand, and compare"
    )


def same_number(
    what: str, answer: Any, expected: float, mistakes: Mapping[str, float], tolerance: float = 1e-12
) -> None:
    """As `same_values`, of an answer to a question with a student's own numbers."""
    if answer is ... or answer is None:
        raise WrongAnswer(f"{what} is not written yet")
    wrong = {sentence: np.float64(value) for sentence, value in mistakes.items()}
    same_values(what, number(what, answer), np.float64(expected), wrong, tolerance)


def drawn_apart(
    draw: Callable[[], dict[str, Any]], answers: Callable[[dict[str, Any]], list[float]]
) -> dict[str, Any]:
    """Numbers for which no two of the right and the known wrong `answers` are the same."""
    while True:
        own = draw()
        found = sorted(answers(own))
        if all(b - a > 1e-3 * max(abs(a), abs(b)) for a, b in pairwise(found)):
            return own


def number(what: str, value: Any) -> np.float64:
    """Raises: WrongAnswer if it is no number."""
    try:
        return np.float64(value)
    except (TypeError, ValueError) as error:
        raise WrongAnswer(f"{what} is no number, but {type(value).__name__}") from error


def close(a: Array, b: Array, tolerance: float) -> bool:
    size = np.sqrt(np.mean(np.square(np.asarray(b, np.float64)))) if np.size(b) else 0.0
    return bool(np.all(np.abs(a - b) <= tolerance * (np.abs(b) + size)))


Known = Callable[[Any, tuple[Any, ...], Array], Mapping[str, Mapping[str, Array]]]


def right_gradients(
    module: Module, *inputs: Any, known: Known | None = None, **options: Any
) -> None:
    """Raises: WrongAnswer with the advice of the gradient check, if it does not pass.

    `known(module, inputs, dy)` gives for the gradients by name ("dx", "weight.grad") what known
    mistakes would make of them; a sentence is said only if exactly that is found.
    """
    if len(inputs) == 1:
        check_one_array(module, *inputs)
    report = gradcheck(module, *inputs, tolerance=FLOAT64, raises=False, **options)
    if report.passed and not report.untested:
        return
    wrong = [row for row in report.rows if row.wrong]
    if wrong and all(FLOAT64 < row.error <= EXACT for row in wrong):
        raise WrongAnswer(f"the gradients of {', '.join(row.name for row in wrong)} are {ROUNDED}")
    if report.passed:
        raise WrongAnswer(f"no gradient reaches {', '.join(report.untested)}")
    advice = list(report.problems)
    recognised = recognise(module, inputs, known) if known is not None else {}
    # The one at which to begin, first.
    for row in sorted(report.rows, key=lambda r: f"reaches {r.name} first" not in " ".join(advice)):
        if row.wrong:
            label = next((x for x in (f"d{row.name}", f"{row.name}.grad") if x in recognised), None)
            advice.append(recognised[label] if label else row.advice)
    more = len(advice) - HINTS
    shown = advice[:HINTS] + ([f"(and {more} more that may have the same cause)"] * (more > 0))
    if right_for_one(module, inputs, options):
        shown.append(
            "With a single sentence everything is right, with several it is not: look at what is "
            "done with the first axis, the batch"
        )
    raise WrongAnswer("\n".join(shown))


def check_one_array(module: Module, *inputs: Array) -> None:
    """Raises: WrongAnswer if backward returns a tuple or a list where one gradient is wanted."""
    copied = copy.deepcopy(module).astype(np.float64).train()
    try:
        y = copied.call(True, *(x.astype(np.float64) for x in inputs))
        dx = copied.backward(np.ones(np.shape(y)))
    except Exception:
        return  # the gradient check says what is wrong
    if isinstance(dx, tuple | list):
        raise WrongAnswer(
            f"backward returns a {type(dx).__name__} of length {len(dx)}; expected one array, the "
            "gradient of the input"
        )


def recognise(module: Module, inputs: tuple[Any, ...], known: Known) -> dict[str, str]:
    """For each gradient that is what a known mistake makes of it: the sentence for that."""
    copied, rng = copy.deepcopy(module).astype(np.float64).train(), rng_for(0, 7)
    given = tuple(np.array(x) for x in inputs)
    try:
        dy = rng.standard_normal(np.shape(copied.forward(*given)))
        dx = copied.backward(dy.copy())
    except Exception:
        return {}  # the gradient check has said what is wrong
    names = inspect.signature(module.forward).parameters
    found: dict[str, Any] = dict(
        zip((f"d{name}" for name in names), dx if isinstance(dx, tuple) else (dx,), strict=False)
    )
    found |= {f"{name}.grad": p.grad for name, p in copied.named_parameters()}
    return {
        label: f"{label} is wrong: {sentence}"
        for label, sentences in known(copied, given, dy).items()
        for sentence, wrong in reversed(list(sentences.items()))  # the first that fits is kept
        if label in found
        and np.shape(found[label]) == np.shape(wrong)
        and close(found[label], wrong, 1e-6)
    }


def right_for_one(module: Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Whether the gradients of the first sentence alone are right."""
    if any(np.ndim(x) < 3 or len(x) < 2 for x in inputs):
        return False
    try:
        one = gradcheck(module, *(x[:1] for x in inputs), raises=False, **options)
    except Exception:
        return False
    return one.passed


def forward_first(check_forward: Callable[[], None]) -> None:
    """Raises: WrongAnswer if forward is wrong: then gradients would be those of something else."""
    try:
        check_forward()
    except WrongAnswer as wrong:
        raise WrongAnswer(f"not checked, because forward is not right yet. {wrong}") from wrong


# -- inside the model ----------------------------------------------------------------------


def real_batch() -> tuple[Array, Array]:
    """ids and attention_mask (4, T) of SENTENCES, for the base "tiny"; shorter ones are padded."""
    tokenizer = Tokenizer.from_pretrained("tiny")
    return pad(tokenizer.encode(list(SENTENCES), 32), tokenizer.pad_id)


def tiny_classifier(prepare: Callable[[Transformer], None]) -> Classifier:
    """The base "tiny" in train mode, as `prepare` leaves it, with a head; seed 0."""
    transformer = Transformer.from_pretrained("tiny").train()
    prepare(transformer)
    return Classifier(transformer, 2, rng=np.random.default_rng(0)).train()


def gradients_in_model(classifier: Classifier) -> tuple[float, dict[str, Array]]:
    """Loss and gradients of one forward and backward pass over SENTENCES."""
    ids, mask = real_batch()
    loss = CrossEntropy()
    value = loss.forward(classifier(ids, mask), LABELS)
    classifier.backward(loss.backward())
    named = classifier.trainable_parameters().items()
    return value, {name: p.grad for name, p in named if p.grad is not None}


def right_in_model(
    replacements: Mapping[str, Any], prepare: Callable[[Transformer], None], part: str
) -> None:
    """Compare the real encoder with the student's part inside with the library's own.

    Raises: WrongAnswer if the loss or a gradient differs, or a frozen parameter gets a gradient.
    """
    theirs = tiny_classifier(prepare)
    names = list(theirs.trainable_parameters())
    expected_loss, expected = gradients_in_model(theirs)
    expected_list = [expected[name] for name in names]
    with use(**replacements):
        mine = tiny_classifier(prepare)
        for own, given in zip(mine.parameters(), theirs.parameters(), strict=True):
            own.value[...] = given.value
        try:
            loss, found = gradients_in_model(mine)
        except BackwardError as error:
            raise WrongAnswer(
                f"inside the model, with {part}, the backward pass cannot go on: does each of your "
                "forwards end with self.save_for_backward(y.shape, ...), and does backward add "
                "gradients only where `trainable`?"
            ) from error
        except Exception as error:
            raise WrongAnswer(f"inside the model, with {part}: {in_words(error)}") from error
    same_values(f"the loss of the model with {part}", np.float32(loss), np.float32(expected_loss),
                tolerance=1e-4)  # fmt: skip
    wrong = []
    own_names = list(mine.trainable_parameters())
    for name, gradient in zip(own_names, expected_list, strict=True):
        if name not in found:
            raise WrongAnswer(
                f"inside the model no gradient reaches {name}. First make the parts above right; "
                "if they are, does forward end with self.save_for_backward(y.shape, ...)?"
            )
        if not close(found[name], gradient, 1e-3):
            wrong.append(name)
    if wrong:
        shown = ", ".join(wrong[:HINTS])
        raise WrongAnswer(
            f"inside the model, {len(wrong)} of {len(own_names)} gradients are wrong: {shown}. "
            "First make the parts above right; each of them checks one thing alone"
        )

"""Exercise 6: the training step: AdamW, clipping, and the order of things."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from ..adapters.config import AdapterConfig
from ..data.batches import Batch, Encoded
from ..data.tokenization import Tokenizer
from ..errors import TrainingError, WrongAnswer
from ..models.heads import Classifier
from ..models.transformer import Transformer
from ..nn import functional, kernels
from ..nn.losses import CrossEntropy
from ..nn.module import Array, Parameter
from ..training.optim import SGD, AdamW
from ..training.optim import clip_by_global_norm as library_clip
from ..training.trainer import Trainer, TrainingOptions
from .catalogue import Part
from .hooks import use
from .judging import (
    LABELS,
    SENTENCES,
    close,
    drawn_apart,
    number,
    real_batch,
    rng_for,
    same_number,
    same_values,
    tiny_classifier,
)
from .solution import Solution, in_words, variant

OPTIONS: dict[str, Any] = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}


def numbers(rng: np.random.Generator) -> dict[str, Any]:
    """An entry of a matrix, its gradients in two steps, and AdamW's settings."""

    def draw() -> dict[str, Any]:
        w, first, second = (rng.integers(10, 31, 3) * rng.choice((-1, 1), 3) / 10).tolist()
        return {
            "w": w, "g": [first, second], "lr": int(rng.integers(5, 21)) / 100,
            "betas": [float(rng.choice((0.7, 0.8, 0.9))), float(rng.choice((0.95, 0.98, 0.99)))],
            "weight_decay": int(rng.integers(10, 31)) / 100,
        }  # fmt: skip

    return drawn_apart(draw, lambda own: [*after_two(own).values()])


def after_two(own: dict[str, Any]) -> dict[str, float]:
    """The entry after two steps (""), and what known mistakes make of it."""
    gradients, w = [np.array([[g]]) for g in own["g"]], np.array([[own["w"]]])
    known = ["", *(m for m in MISTAKES if m not in ("decays all", "eps"))]  # of a matrix, eps 0
    return {m: after(gradients, w, {**own, "eps": 0.0}, m).item() for m in known}


def after_two_steps(solution: Solution, seed: int) -> None:
    found = after_two(numbers(variant(solution.named_student(), 6)))
    right = found.pop("")
    mistakes = {MISTAKES[mistake]: value for mistake, value in found.items()}
    same_number("AFTER_TWO", solution.get("AFTER_TWO"), right, mistakes, 2e-4)


# -- AdamW ---------------------------------------------------------------------------------


def parameters(seed: int) -> dict[str, Parameter]:
    rng = rng_for(seed, 6)
    return {
        "weight": Parameter(rng.standard_normal((3, 4))),
        "bias": Parameter(rng.standard_normal(4)),
    }


def run_steps(make: Any, named: dict[str, Parameter], seed: int, steps: int) -> Any:
    """`steps` steps with random gradients, the same for everybody; the optimizer's `t` then."""
    rng, optimizer = rng_for(seed, 6, 1), make(named, **OPTIONS)
    before = {name: p.value for name, p in named.items()}
    for _ in range(steps):
        values = {name: p.value.copy() for name, p in named.items()}
        for p in named.values():
            p.grad = rng.standard_normal(p.shape)
        grads = {name: p.grad.copy() for name, p in named.items() if p.grad is not None}
        try:
            optimizer.step()
        except Exception as error:
            raise WrongAnswer(f"step: {in_words(error)}") from error
        for name, p in named.items():
            if p.grad is None or not np.array_equal(p.grad, grads[name]):
                cause = why_changed(optimizer, name, p, grads[name], values[name])
                raise WrongAnswer(f"step changes the gradient of {name}: {cause}")
    for name, p in named.items():
        if p.value is not before[name]:
            raise WrongAnswer(
                f"step gives {name} a new array: the model and its replicas share the old one. "
                "Change it in place: p.value -= ..., or p.value[...] = ..."
            )
    return optimizer.t


def why_changed(optimizer: Any, name: str, p: Parameter, grad: Array, value: Array) -> str:
    """What is known of a gradient that step has changed."""
    if p.grad is not None and close(p.grad, grad + OPTIONS["weight_decay"] * value, 1e-9):
        return MISTAKES["coupled"]
    if p.grad is optimizer.m.get(name) or p.grad is optimizer.v.get(name):
        return "m and v are arrays of their own"
    return "leave it as it is; what is computed from it gets a name of its own"


def by_hand(named: dict[str, Parameter], seed: int, steps: int, mistake: str = "") -> None:
    """What AdamW does to `named`, or what it does with a known mistake."""
    rng = rng_for(seed, 6, 1)
    drawn = [{n: rng.standard_normal(p.shape) for n, p in named.items()} for _ in range(steps)]
    for name, p in named.items():
        p.value = after([grads[name] for grads in drawn], p.value, OPTIONS, mistake)


def after(gradients: list[Array], w: Array, o: dict[str, Any], mistake: str = "") -> Array:
    """`w` after a step of AdamW with each of the gradients, or after steps with a known mistake."""
    b1, b2 = o["betas"][::-1] if mistake == "betas" else o["betas"]
    old_m, old_v = np.zeros(w.shape), np.zeros(w.shape)
    for step, g in enumerate(gradients, 1):
        decay = o["weight_decay"] if w.ndim > 1 or mistake == "decays all" else 0.0
        if mistake == "no decay":
            decay = 0.0
        if mistake == "coupled":
            g, decay = g + decay * w, 0.0
        m, v = b1 * old_m + (1 - b1) * g, b2 * old_v + (1 - b2) * g**2
        t = {"t - 1": step - 1, "t + 1": step + 1}.get(mistake, step)
        m_hat, v_hat = m / (1 - b1**t) if t else m * np.inf, v / (1 - b2**t) if t else v
        if mistake == "no correction":
            m_hat, v_hat = m, v
        size = np.sqrt(v_hat + o["eps"]) if mistake == "eps" else np.sqrt(v_hat) + o["eps"]
        if mistake == "no root":
            size = v_hat + o["eps"]
        change = o["lr"] * (m_hat / size + decay * w)
        if mistake == "decay without lr":
            change = o["lr"] * m_hat / size + decay * w
        w = w + change if mistake == "ascent" else w - change
        old_m = old_m if mistake in ("m", "m and v") else m
        old_v = old_v if mistake in ("v", "m and v") else v
    return w


MISTAKES = {
    "betas": "the two betas are exchanged: the first is that of m",
    "m": "the m of the last step plays no part: it is kept in self.m[name], and weighted",
    "v": "the v of the last step plays no part: it is kept in self.v[name], and weighted",
    "m and v": "the m and v of the last step play no part: they are kept in self.m and self.v",
    "no decay": "the matrix does not decay",
    "decays all": "the bias decays as well: only matrices do",
    "coupled": "the decay is added to the gradient (Adam with L2); AdamW adds it to the step",
    "t + 1": "the bias correction uses a t that is one too large: t is 1 in the first step",
    "no correction": "m and v are not corrected for their start at zero: divide by 1 - beta^t",
    "eps": "eps stands inside the root; it belongs outside, sqrt(v_hat) + eps",
    "no root": "it is divided by something of the size of g^2, where that of |g| is meant: is the "
    "root taken, and is v a mean of g^2?",
    "decay without lr": "the decay is not multiplied by the learning rate",
    "ascent": "the step goes up the gradient; descent subtracts it",
}


def compare_steps(solution: Solution, seed: int, steps: int) -> None:
    mine, expected = parameters(seed), parameters(seed)
    t = run_steps(solution.get("MyAdamW"), mine, seed, steps)
    by_hand(expected, seed, steps)
    for name in mine:
        if t == 0 and not np.isfinite(mine[name].value).all():
            raise WrongAnswer(
                f"{name} contains NaN or infinity, and self.t is still 0: step counts itself, first"
            )
        if t == steps == 1 and not np.isfinite(mine[name].value).all():
            raise WrongAnswer(
                f"{name} contains NaN or infinity after the first step. With a t of 0, 1 - beta^t "
                "would be 0: t is 1 before the first step uses it"
            )
        wrong = {}
        for mistake, sentence in MISTAKES.items():
            other = parameters(seed)
            by_hand(other, seed, steps, mistake)
            wrong[sentence] = other[name].value
        what = f"{name} after {steps} step{'s' * (steps > 1)}"
        same_values(what, mine[name].value, expected[name].value, wrong, 1e-9)


def first_step(solution: Solution, seed: int) -> None:
    compare_steps(solution, seed, 1)


def many_steps(solution: Solution, seed: int) -> None:
    compare_steps(solution, seed, 7)


def without_gradient(solution: Solution, seed: int) -> None:
    named = parameters(seed)
    start = {name: p.value.copy() for name, p in named.items()}
    optimizer = solution.get("MyAdamW")(named, **OPTIONS)
    named["bias"].grad = np.ones(4)
    try:
        optimizer.step()
    except Exception as error:
        raise WrongAnswer(f"step, where weight.grad is None: {in_words(error)}") from error
    if not np.array_equal(named["weight"].value, start["weight"]):
        raise WrongAnswer("a parameter without a gradient moves: leave it as it is")
    expected = parameters(seed)["bias"].value
    zeros = np.zeros(4)
    lr, betas, eps = OPTIONS["lr"], OPTIONS["betas"], OPTIONS["eps"]
    expected, _, _ = functional.adamw(expected, np.ones(4), zeros, zeros, 1, lr, betas, eps, 0.0)
    same_values("the bias, the only one with a gradient,", named["bias"].value, expected)


# -- clipping ------------------------------------------------------------------------------


def clip(solution: Solution, seed: int) -> None:
    function = solution.get("clip_by_global_norm")
    for factor in (0.4, 3.0):
        named = parameters(seed)
        rng = rng_for(seed, 6, 2)
        for p in named.values():
            p.grad = rng.standard_normal(p.shape)
        named["frozen"] = Parameter(np.ones(3), requires_grad=False)
        grads = {n: p.grad.copy() for n, p in named.items() if p.grad is not None}
        norm = math.sqrt(sum(float((g * g).sum()) for g in grads.values()))
        try:
            got = function(named, factor * norm)
        except Exception as error:
            raise WrongAnswer(f"clip_by_global_norm: {in_words(error)}") from error
        if got is None:
            raise WrongAnswer("clip_by_global_norm returns None: return the norm before clipping")
        mistakes = {
            "it is the norm after clipping": np.float64(min(1.0, factor) * norm),
            "it is the square of the norm: the root is missing": np.float64(norm**2),
            "it is the sum of the norms; squares are added, and the root taken once": np.float64(
                sum(np.linalg.norm(g) for g in grads.values())
            ),
        }
        same_values("the norm that is returned", number("what clip_by_global_norm returns", got),
                    np.float64(norm), mistakes)  # fmt: skip
        for name, g in grads.items():
            scale = min(1.0, factor)
            each = min(1.0, factor * norm / float(np.linalg.norm(g)))
            wrong = {
                "it is clipped by its own norm; the norm is that of all together": g * each,
                "nothing is scaled": g,
                "gradients below the limit are made larger": g * factor,
                "every entry is clipped by itself": np.clip(g, -factor * norm, factor * norm),
            }
            what = f"the gradient of {name}, at {factor:g} times the norm,"
            same_values(what, named[name].grad, g * scale, wrong)


# -- the step ------------------------------------------------------------------------------


def prepare(transformer: Transformer) -> None:
    transformer.freeze()
    transformer.add_adapter("task", AdapterConfig(8), np.random.default_rng(0))


def steps_of(function: Any, seed: int) -> tuple[list[float], list[Array]]:
    """Losses and final values of three steps on SENTENCES.

    With SGD: it shows the size of gradients, which AdamW hides, and no student may run AdamW.step.
    """
    model = tiny_classifier(prepare)
    optimizer = SGD(model.trainable_parameters(), lr=0.3)
    ids, mask = real_batch()
    batch = Batch(ids, mask, LABELS, np.arange(len(LABELS)))
    losses = [function(model, optimizer, batch, 0.5) for _ in range(3)]
    return losses, [p.value for p in model.trainable_parameters().values()]


def reference_step(
    model: Classifier, optimizer: Any, batch: Batch, max_norm: float, mistake: str = ""
) -> float:
    if mistake != "zero_grad":
        model.zero_grad()
    loss = CrossEntropy()
    logits = model(batch.ids, batch.attention_mask)
    mean = loss.forward(logits, batch.labels)
    dlogits = loss.backward()
    model.backward(dlogits)
    if mistake != "clip":
        library_clip(model.trainable_parameters(), max_norm)
    if mistake != "no step":
        optimizer.step()
    return mean


STEP_MISTAKES = {
    "zero_grad": "the gradients of the last step are still there: model.zero_grad() first",
    "clip": "the gradients are not clipped, or only after the step",
    "no step": "nothing moves: optimizer.step() is missing, or comes before the gradients",
}


def train_step(solution: Solution, seed: int) -> None:
    mine = solution.get("train_step")
    with use(clip_by_global_norm=library_clip):
        try:
            losses, values = steps_of(mine, seed)
        except Exception as error:
            raise WrongAnswer(f"train_step: {in_words(error)}") from error
    if any(loss is None for loss in losses):
        raise WrongAnswer("train_step returns None: return the loss of the batch")
    losses = [number("what train_step returns", loss) for loss in losses]
    expected_losses, expected = steps_of(reference_step, seed)
    if all(close(a, b, 1e-3) for a, b in zip(values, expected, strict=True)):
        same_values("the losses of three steps", np.array(losses),
                    np.array(expected_losses), tolerance=1e-4)  # fmt: skip
        return
    try:
        clip(solution, seed)
    except WrongAnswer as unclipped:
        raise WrongAnswer(
            "after three steps the adapters are wrong, but your clip_by_global_norm is not right "
            "yet: first make the part `clip` right"
        ) from unclipped
    for mistake, sentence in STEP_MISTAKES.items():
        _, wrong = steps_of(partial(reference_step, mistake=mistake), seed)
        if all(close(a, b, 1e-3) for a, b in zip(values, wrong, strict=True)):
            raise WrongAnswer(f"after three steps the adapters are wrong: {sentence}")
    raise WrongAnswer(
        "after three steps the adapters are not what they should be, in no pattern known here: "
        "gradients to zero, forward, loss, backward, clip, step"
    )


def in_the_model(solution: Solution, seed: int) -> None:
    mine = {"AdamW": solution.get("MyAdamW")}
    mine["clip_by_global_norm"] = solution.get("clip_by_global_norm")
    expected = trained()
    try:
        with use(**mine):
            found = trained()
    except TrainingError as error:
        raise WrongAnswer(
            "with your AdamW and clipping the loss is not finite after a few steps of the "
            "library's Trainer: first make the parts above right"
        ) from error
    same_values("the losses of the library's Trainer with your AdamW and clipping",
                np.array(found), np.array(expected), tolerance=1e-3)  # fmt: skip


def trained() -> list[float]:
    """The losses of a few epochs on SENTENCES."""
    model = tiny_classifier(prepare)
    tokenizer = Tokenizer.from_pretrained("tiny")
    data = Encoded(tokenizer.encode(list(SENTENCES), 32), LABELS, tokenizer.pad_id)
    options = TrainingOptions(epochs=3, batch_size=2, lr=1e-2)
    trainer = Trainer(model, data, data, options, progress=False, threads=1)
    return [row.loss for row in trainer.fit() if row.loss is not None]


LIBRARY = (AdamW.step, functional.adamw, kernels.adamw, library_clip)
PARTS = (
    Part("first-step", 3, first_step),
    Part("many-steps", 3, many_steps),
    Part("without-gradient", 1, without_gradient),
    Part("by-hand", 1, after_two_steps),
    Part("clip", 3, clip),
    Part("train-step", 3, train_step),
    Part("in-the-model", 3, in_the_model),
)

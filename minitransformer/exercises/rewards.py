"""The last cell of each page: the real encoder, trained with the student's part inside."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..adapters.bottleneck import Adapter
from ..adapters.config import AdapterConfig, LoRAConfig
from ..costs.memory import saved_bytes
from ..data.batches import encode_split
from ..data.datasets import load_task
from ..data.hub import find_checkpoint
from ..data.splits import Task
from ..data.tokenization import Tokenizer, pad
from ..errors import ConfigError, HubError
from ..models.heads import Classifier
from ..models.transformer import Transformer
from ..nn.losses import CrossEntropy
from ..training.evaluation import evaluate
from ..training.trainer import Trainer, TrainingOptions
from .catalogue import my_numbers
from .hooks import use
from .judging import SENTENCES
from .research_question import run_study
from .solution import Solution

LIMITS: dict[str, Any] = {"limit": 320, "validation_limit": 50, "test_limit": 200}
MAX_LENGTH = 48


def grading() -> bool:
    """Whether a notebook is run to be graded, where training would only cost time."""
    return bool(os.environ.get("NBGRADER_EXECUTION"))


def reward(number: int, names: Mapping[str, Any]) -> None:
    """Train the real model with what `names` (`globals()`) defines for exercise `number`.

    Under a minute on two cores. Nothing happens while nbgrader grades.
    Raises: ConfigError for a number without an exercise; WrongAnswer if a part is missing.
    """
    if number not in REWARDS:
        raise ConfigError(f"exercise {number!r}: expected a number from 1 to {len(REWARDS)}")
    if grading():
        print("left out while grading")
        return
    REWARDS[number](Solution(names))


# -- what all of them use ------------------------------------------------------------------


@dataclass(frozen=True)
class Lesson:
    """An encoder and a task: MiniLM and real reviews, or what comes with the library."""

    base: str
    task: Task
    tokenizer: Tokenizer

    def model(self, insert: Callable[[Transformer], None]) -> Classifier:
        """The frozen encoder with what `insert` puts in, and a head."""
        transformer = Transformer.from_pretrained(self.base).freeze()
        insert(transformer)
        labels = len(self.task.label_names)
        return Classifier(transformer, labels, "mean", rng=np.random.default_rng(0)).train()

    def accuracy(self, model: Classifier) -> float:
        test = encode_split(self.task.test, self.tokenizer, MAX_LENGTH)
        return evaluate(model.eval(), test).accuracy

    def train(self, model: Classifier, lr: float = 2e-3, epochs: int = 2) -> None:
        train, validation = (
            encode_split(split, self.tokenizer, MAX_LENGTH)
            for split in (self.task.train, self.task.validation)
        )
        options = TrainingOptions(epochs=epochs, batch_size=16, lr=lr)
        Trainer(model, train, validation, options).fit()

    def judge(self, model: Classifier) -> None:
        """What the model says of a few sentences."""
        ids, mask = pad(self.tokenizer.encode(list(SENTENCES), MAX_LENGTH), self.tokenizer.pad_id)
        logits = model.eval().forward(ids, mask)
        for sentence, label in zip(SENTENCES, logits.argmax(axis=-1), strict=True):
            print(f"  {self.task.label_names[label]:10} {sentence}")


def lesson() -> Lesson:
    """MiniLM and film reviews; without a network the small encoder and made-up reviews."""
    base, task = "minilm", "rotten-tomatoes"
    try:
        find_checkpoint(base)
        loaded = load_task(task, **LIMITS)
    except HubError as error:
        print(f"MiniLM or the reviews could not be fetched ({error}).")
        print("In their place: the small encoder that comes with the library, and toy reviews.")
        base, task = "tiny", "toy-reviews"
        loaded = load_task(task, **LIMITS)
    return Lesson(base, loaded, Tokenizer.from_pretrained(base))


def insert_adapters(transformer: Transformer) -> None:
    transformer.add_adapter("task", AdapterConfig(32), np.random.default_rng(0))


def train_with(
    parts: Mapping[str, Any], what: str, insert: Callable[[Transformer], None] = insert_adapters
) -> tuple[Lesson, Classifier]:
    """Train with the student's parts plugged in; accuracy before and after, and sentences."""
    here = lesson()
    with use(**parts):
        model = here.model(insert)
        before, started = here.accuracy(model), time.perf_counter()
        here.train(model)
        seconds = time.perf_counter() - started
        print(
            f"{here.base} with {what}, trained on {len(here.task.train)} reviews in {seconds:.0f} s"
        )
        print(f"right on {len(here.task.test)} others: {before:.1%} before, ", end="")
        print(f"{here.accuracy(model):.1%} after")
        here.judge(model)
    return here, model


# -- one for each exercise -----------------------------------------------------------------


def linear_and_layer_norm(solution: Solution) -> None:
    parts = {"Linear": solution.get("MyLinear"), "LayerNorm": solution.get("MyLayerNorm")}
    train_with(parts, "your Linear and layer norm everywhere")


def attention(solution: Solution) -> None:
    names = ("attention", "attention_backward")
    train_with({name: solution.get(name) for name in names}, "your attention in every block")


def bottleneck_adapter(solution: Solution) -> None:
    train_with({"Adapter": solution.get("MyAdapter")}, "your adapters in every block")


def near_identity(solution: Solution) -> None:
    make, here = solution.get("start_weights"), lesson()

    def start_at(sigma: float) -> type[Adapter]:
        class Start(Adapter):
            def __init__(self, d_model: int, config: AdapterConfig, rng: Any = None) -> None:
                super().__init__(d_model, config, rng)
                arrays = make(d_model, config.width(d_model), rng, sigma)
                targets = (self.down.weight, self.down.bias, self.up.weight, self.up.bias)
                for p, array in zip(targets, arrays, strict=True):
                    p.value[...] = array

        return Start

    for sigma in (0.01, 1.0):
        with use(Adapter=start_at(sigma)):
            model = here.model(insert_adapters)
            here.train(model, epochs=1)
            print(f"{here.base}, sigma = {sigma}: {here.accuracy(model):.1%} right after one epoch")


def freezing(solution: Solution) -> None:
    parts = {"Linear": solution.get("MyLinear")}
    parts["backward_through"] = solution.get("backward_through")
    with use(**parts):
        for what, seconds, saved in timed_steps(lesson()):
            print(f"{what:28} {1000 * seconds:6.0f} ms a step, {saved / 1e6:6.1f} MB saved")


def timed_steps(here: Lesson) -> Iterator[tuple[str, float, int]]:
    """A training step in three ways: what trains, the best time of three, bytes saved."""
    depth = Transformer.from_pretrained(here.base).config.n_layers
    upper = AdapterConfig(32, layers=tuple(range(depth // 2, depth)))
    ways: dict[str, Callable[[Transformer], Any]] = {
        "everything trains": lambda t: t.unfreeze(),
        "adapters in every block": insert_adapters,
        "adapters in the upper half": lambda t: t.add_adapter("task", upper),
    }
    ids = np.array([row[:24] for row in here.tokenizer.encode(
        [" ".join(here.task.train.texts[i : i + 4]) for i in range(32)], 24)])  # fmt: skip
    labels = here.task.train.labels[:32]
    for what, insert in ways.items():
        model, times = here.model(insert), []
        for _ in range(3):
            model.zero_grad()
            started, loss = time.perf_counter(), CrossEntropy()
            loss.forward(model(ids, np.ones_like(ids)), labels)
            saved = saved_bytes(model)
            dlogits = loss.backward()
            model.backward(dlogits)
            times.append(time.perf_counter() - started)
        yield what, min(times), saved


def training_step(solution: Solution) -> None:
    parts = {"AdamW": solution.get("MyAdamW")}
    parts["clip_by_global_norm"] = solution.get("clip_by_global_norm")
    train_with(parts, "adapters that your AdamW trains")


def lora(solution: Solution) -> None:
    config = LoRAConfig(8, targets=("output", "up", "down"))

    def insert(transformer: Transformer) -> None:
        transformer.add_lora("task", config, np.random.default_rng(0))

    here, model = train_with({"LoRA": solution.get("MyLoRA")}, "your LoRA", insert)
    model.transformer.merge("task")
    print(f"merged into the weights: {here.accuracy(model):.1%}, and nothing more to compute")


def count_before_you_run(solution: Solution) -> None:
    forward, backward = (solution.get(f"{name}_multiply_adds") for name in ("forward", "backward"))
    here = lesson()
    c = Transformer.from_pretrained(here.base).config
    shape = (32, 24, c.d_model, c.d_ff)
    frozen, full = (forward(*shape) + backward(*shape, flag) for flag in (True, False))
    steps = {what: seconds for what, seconds, _ in timed_steps(here)}
    ratio = steps["adapters in every block"] / steps["everything trains"]
    print(f"by your count, frozen blocks take {frozen / full:.2f} of the work of a full step;")
    print(f"by the clock, a step with adapters in them takes {ratio:.2f} of its time")


def research_question(solution: Solution) -> None:
    here, own = lesson(), my_numbers(9, solution.named_student())
    if here.base == "tiny":
        return
    options = {"bottleneck": 8, "scaling": 1.0, "placement": "after_norm"}
    options[own["factor"]] = own["values"]
    text = "\n".join(f"{key} = {json.dumps(chosen)}" for key, chosen in options.items())
    rows = run_study(
        'name = "reward"\nseeds = [0]\n[run]\nbase = "minilm"\nepochs = 1\nmax_length = 32\n'
        '[[task]]\nname = "rotten-tomatoes"\nlimit = 256\nvalidation_limit = 50\n'
        'test_limit = 200\n[[part]]\nname = "answer"\nlr = 0.003\n' + text
    )
    for row in rows:
        print(f"{own['factor']} = {row[own['factor']]}: {row['accuracy']:.1%}")


REWARDS: dict[int, Callable[[Solution], None]] = {
    1: linear_and_layer_norm, 2: attention, 3: bottleneck_adapter, 4: near_identity, 5: freezing,
    6: training_step, 7: lora, 8: count_before_you_run, 9: research_question,
}  # fmt: skip

"""Exercise 5: freezing: which gradients to compute, and where to stop."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..adapters.config import AdapterConfig
from ..costs.counting import count_multiply_adds
from ..costs.memory import saved_bytes
from ..errors import WrongAnswer
from ..models.transformer import Transformer
from ..nn.layers import Linear
from ..nn.module import Array, backward_through
from .catalogue import Part
from .judging import (
    call,
    forward_first,
    right_gradients,
    right_in_model,
    rng_for,
    same_number,
    same_values,
)
from .linear_and_layer_norm import known_of_linear
from .solution import Solution, in_words, variant

N, D_IN, D_OUT = (3, 5), 4, 6


def numbers(rng: np.random.Generator) -> dict[str, Any]:
    """Which Linears of a chain train, from the first to the last."""
    n = int(rng.integers(7, 12))
    trains = rng.random(n) < 0.4
    trains[: int(rng.integers(1, 4))] = False
    trains[int(rng.integers(3, n))] = True
    return {"trains": trains.tolist()}


# -- MyLinear ------------------------------------------------------------------------------


def linear(solution: Solution, seed: int, *frozen: str) -> tuple[Any, np.random.Generator]:
    rng = rng_for(seed, 5)
    mine = call("MyLinear(...)", solution.get("MyLinear"), D_IN, D_OUT).astype(np.float64)
    for p in mine.parameters():
        p.value[...] = rng.standard_normal(p.shape)
    for name in frozen:
        getattr(mine, name).requires_grad = False
    return mine, rng


def right_forward(solution: Solution, seed: int) -> None:
    mine, rng = linear(solution, seed)
    x = rng.standard_normal((*N, D_IN))
    mistakes = {"the bias is missing": x @ mine.weight.value}
    expected = x @ mine.weight.value + mine.bias.value
    same_values("forward of MyLinear", call("forward", mine.forward, x), expected, mistakes)


def linear_gradients(solution: Solution, seed: int) -> None:
    forward_first(lambda: right_forward(solution, seed))
    for frozen in ((), ("weight",), ("bias",), ("weight", "bias")):
        mine, rng = linear(solution, seed, *frozen)
        right_gradients(mine, rng.standard_normal((*N, D_IN)), known=known_of_linear)
    for shape in ((1, 5, D_IN), (3, D_IN)):
        mine, rng = linear(solution, seed)
        right_gradients(mine, rng.standard_normal(shape), known=known_of_linear)


def saves_little(solution: Solution, seed: int) -> None:
    forward_first(lambda: right_forward(solution, seed))
    for frozen, needed in (((), True), (("weight",), False), (("weight", "bias"), False)):
        mine, rng = linear(solution, seed, *frozen)
        x = rng.standard_normal((*N, D_IN))
        mine.forward(x)
        saved = saved_bytes(mine)
        if saved > (x.nbytes if needed else 0):
            what = " and ".join(frozen) + " frozen" if frozen else "everything trainable"
            raise WrongAnswer(
                f"with {what}, forward saves {saved} bytes, but backward needs "
                f"{x.nbytes if needed else 0}: which gradient reads x?"
            )


def computes_little(solution: Solution, seed: int) -> None:
    forward_first(lambda: right_forward(solution, seed))
    one = N[0] * N[1] * D_IN * D_OUT
    for frozen, before, products in (
        ((), True, 2),
        ((), False, 1),
        (("weight",), True, 1),
        (("weight",), False, 0),
        (("weight", "bias"), True, 1),
    ):
        mine, rng = linear(solution, seed, *frozen)
        x, dy = rng.standard_normal((*N, D_IN)), rng.standard_normal((*N, D_OUT))
        with count_multiply_adds(mine) as counter:
            mine.call(before, x)
            forward = counter.multiply_adds
            dx = mine.backward(counted_like(mine, dy))
            found = (counter.multiply_adds - forward) / one
        what = f"{'weight' if 'weight' not in frozen else 'nothing'} training, " + (
            "something before it too" if before else "nothing before it"
        )
        if not before and dx is not None:
            raise WrongAnswer(f"with {what}, backward returns a gradient that nobody reads")
        if found > products:
            raise WrongAnswer(
                f"with {what}, backward computes {found:g} matrix products; {products} are needed"
            )


def counted_like(mine: Any, dy: Array) -> Array:
    """dy as the layers above give it in counting mode: counted as well."""
    from ..costs.counting import counted

    return counted(dy, mine.weight.value.counter)


# -- backward_through ----------------------------------------------------------------------


class Recorder:
    """A module, as far as the backward pass uses it: it writes down what it was given."""

    def __init__(self, name: str, visited: list[str], factor: float | None, reached: bool) -> None:
        self.name, self.visited, self.factor = name, visited, factor
        self.output_requires_grad = reached

    def backward(self, dy: Array) -> Array | None:
        self.visited.append(self.name)
        return None if self.factor is None or dy is None else self.factor * dy


def stops(solution: Solution, seed: int) -> None:
    through = solution.get("backward_through")
    dy = rng_for(seed, 5).standard_normal((2, 3))

    def traverse(*modules: tuple[float | None, bool]) -> tuple[Any, list[str]]:
        visited: list[str] = []
        made = [Recorder(str(i), visited, *m) for i, m in enumerate(modules)]
        try:
            return through(dy, *made), visited
        except Exception as error:
            raise WrongAnswer(f"backward_through: {in_words(error)}") from error

    result, visited = traverse((2.0, True), (3.0, True), (5.0, True))
    if visited != ["0", "1", "2"]:
        raise WrongAnswer(
            "three modules, to be visited in the order in which they are given, 0, 1, 2: it visits "
            f"{', '.join(visited) or 'none'}"
        )
    if result is None:
        raise WrongAnswer("backward_through returns None, although the last module returned dx")
    mistakes = {"it is what the first module returned": 2 * dy, "it is dy itself": dy}
    same_values("the gradient that comes out of three modules", result, 30 * dy, mistakes)
    result, visited = traverse((2.0, True), (None, True), (5.0, False))
    if visited != ["0", "1"] or result is not None:
        raise WrongAnswer(
            "the second of three modules returned None, because nothing before it trains: stop "
            f"there and return None (visited: {', '.join(visited)})"
        )
    result, visited = traverse((2.0, True), (None, True), (5.0, True))
    if visited != ["0", "1"] or result is not None:
        raise WrongAnswer(
            "the second of three modules returned None: stop there and return None, whatever the "
            f"third one's output_requires_grad says (visited: {', '.join(visited)})"
        )
    result, visited = traverse((2.0, True), (3.0, False), (5.0, False))
    if visited != ["0"] or result is not None:
        raise WrongAnswer(
            "the second of three modules has output_requires_grad false: nothing in or before it "
            f"trains, so it is not visited, and None is returned (visited: {', '.join(visited)})"
        )
    result, visited = traverse()
    same_values("backward_through(dy) without any module", result, dy)


# -- what trains ---------------------------------------------------------------------------


def what_trains(solution: Solution, seed: int) -> None:
    choose = solution.get("train_adapters_only")
    model = Transformer.from_pretrained("tiny").train()
    model.add_adapter("task", AdapterConfig(8))
    for norms, before in ((False, True), (True, True), (True, False)):
        for p in model.parameters():
            p.requires_grad = before
        try:
            choose(model, norms=norms)
        except Exception as error:
            raise WrongAnswer(f"train_adapters_only: {in_words(error)}") from error
        for name, p in model.named_parameters():
            adapter = ".adapters." in name
            norm = name.startswith("blocks.") and ".norm." in name and not adapter
            expected = adapter or (norms and norm)
            if p.requires_grad != expected:
                state = "trains" if p.requires_grad else "is frozen"
                where = "" if before else "in a model in which everything was frozen before, "
                raise WrongAnswer(f"{where}with norms={norms}, {name} {state}, and should not")


def products(solution: Solution, seed: int) -> None:
    trains = numbers(variant(solution.named_student(), 5))["trains"]
    n, first, trained = len(trains), trains.index(True), sum(trains)
    inputs = n - 1 - first  # every layer after the first that trains passes its gradient on
    answer = solution.get("PRODUCTS")
    mistakes = {
        "the forward products are missing": inputs + trained,
        "the gradient of the first trained layer's input is read by nobody": n
        + inputs
        + 1
        + trained,
        "the backward pass does not go down to the first layer": n + n - 1 + trained,
        "layers that are frozen pass gradients on, if something before them trains": n + trained,
        "that is full fine-tuning with the first input's gradient": 3 * n,
    }
    same_number("PRODUCTS", answer, n + inputs + trained, mistakes)


def prepare(transformer: Transformer) -> None:
    transformer.freeze()
    config = AdapterConfig(8, layers=(1,))
    transformer.add_adapter("task", config, np.random.default_rng(0))
    transformer.blocks[1].ffn.module.unfreeze()  # some Linears train, others do not
    for name, p in transformer.named_parameters():
        if ".adapters.task." in name:
            p.value *= 20


def in_the_model(solution: Solution, seed: int) -> None:
    forward_first(lambda: right_forward(solution, seed))
    mine = {"Linear": solution.get("MyLinear")}
    mine["backward_through"] = solution.get("backward_through")
    right_in_model(mine, prepare, "your Linear and backward_through")


LIBRARY = (Linear.forward, Linear.backward, backward_through)
PARTS = (
    Part("stops", 3, stops),
    Part("linear-gradients", 3, linear_gradients),
    Part("saves-little", 2, saves_little),
    Part("computes-little", 3, computes_little),
    Part("what-trains", 2, what_trains),
    Part("products", 2, products),
    Part("in-the-model", 3, in_the_model),
)

"""Exercise 8: count before you run: parameters, multiply-adds, bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..costs.counting import count_multiply_adds
from ..costs.parameters import count_adapters, count_parameters
from ..costs.step import count_step
from ..models.transformer import Block, Transformer
from ..nn.config import TransformerConfig
from .catalogue import Part
from .judging import call, real_batch, rng_for, same_number
from .solution import Solution, variant

SIZES = (7, 11, 13, 29)  # B, T, d, d_ff: no two formulas give the same number


def numbers(rng: np.random.Generator) -> dict[str, Any]:
    """An encoder, its batch, and the bottleneck of its adapters, two in each block."""
    d, blocks = 64 * int(rng.integers(4, 17)), int(rng.integers(4, 25))
    config = TransformerConfig(30522, d, blocks, d // 64, 4 * d, token_types=2)
    return {
        "B": int(rng.integers(4, 65)), "T": 8 * int(rng.integers(4, 65)), "d": d, "d_ff": 4 * d,
        "blocks": blocks, "m": int(rng.integers(4, 129)),
        "base_parameters": count_parameters(config).total,
    }  # fmt: skip


def sizes(seed: int) -> tuple[int, int, int, int]:
    rng = rng_for(seed, 8)
    return int(rng.integers(2, 9)), int(rng.integers(3, 40)), 4 * int(rng.integers(3, 30)), 50


def linears(B: int, T: int, d: int, d_ff: int) -> int:
    """Of the six Linears of a block: query, key, value, output, up, down."""
    return B * T * (4 * d * d + 2 * d * d_ff)


def adapter_parameters(solution: Solution, seed: int) -> None:
    for d, m in ((12, 5), (768, 64), (sizes(seed)[2], 7)):
        got = call("adapter_parameters", solution.get("adapter_parameters"), d, m)
        same_number(f"adapter_parameters({d}, {m})", got, 2 * d * m + d + m, {
            "the biases are missing": 2 * d * m,
            "one projection is missing": d * m + d + m,
            "both biases count as long as d": 2 * d * m + 2 * d,
            "both biases count as long as m": 2 * d * m + 2 * m,
            "only the up-projection's bias is counted": 2 * d * m + d,
            "only the down-projection's bias is counted": 2 * d * m + m,
        })  # fmt: skip


def forward_work(solution: Solution, seed: int) -> None:
    for B, T, d, d_ff in (SIZES, sizes(seed)):
        got = call("forward_multiply_adds", solution.get("forward_multiply_adds"), B, T, d, d_ff)
        lin, scores = linears(B, T, d, d_ff), B * T * T * d
        same_number(f"forward_multiply_adds({B}, {T}, {d}, {d_ff})", got, lin + 2 * scores, {
            "the two products of attention, Q K^T and P V, are missing": lin,
            "of the two products of attention one is missing": lin + scores,
            "the output projection of attention is missing": lin - B * T * d * d + 2 * scores,
            "one of the two Linears of the feed-forward is missing": lin
            - B * T * d * d_ff + 2 * scores,
            "it is twice too large: one multiply-add is one, not two": 2 * (lin + 2 * scores),
            "the batch is missing": (lin + 2 * scores) / B,
            "attention is counted as if every token saw only itself: it has T keys": lin
            + 2 * B * T * d,
        })  # fmt: skip


def backward_work(solution: Solution, seed: int) -> None:
    function = solution.get("backward_multiply_adds")
    for B, T, d, d_ff in (SIZES, sizes(seed)):
        lin, scores = linears(B, T, d, d_ff), B * T * T * d
        for frozen in (False, True):
            got = call("backward_multiply_adds", function, B, T, d, d_ff, frozen)
            expected = (1 if frozen else 2) * lin + 4 * scores
            forward = lin + 2 * scores
            same_number(f"backward_multiply_adds({B}, {T}, {d}, {d_ff}, frozen={frozen})", got,
                    expected, {
                "that is zero: frozen weights pass gradients on, which takes a product each": 0,
                "it is as much as forward; a product of two activations has two gradients": forward,
                "the weight gradients of frozen Linears are counted": 2 * lin + 4 * scores,
                "each Linear has two gradients, its weight's and its input's": lin + 4 * scores,
                "Q K^T and P V are missing": expected - 4 * scores,
                "Q K^T and P V have two factors each, and each factor a gradient": expected
                - 2 * scores,
            })  # fmt: skip


def training_bytes(solution: Solution, seed: int) -> None:
    for n in (99_136, sizes(seed)[2], 1):
        got = call("training_bytes", solution.get("training_bytes"), n)
        same_number(f"training_bytes({n})", got, 12 * n, {
            "that is two numbers for each parameter; there are the gradient, m and v": 8 * n,
            "the gradient alone": 4 * n,
            "these are numbers, not bytes: a float32 has four": 3 * n,
            "that is four numbers for each parameter; beside the value there are three": 16 * n,
            "that is in float64": 24 * n,
        })  # fmt: skip


def answers(solution: Solution, seed: int) -> None:
    own = numbers(variant(solution.named_student(), 8))
    B, T, d, d_ff, m = (own[name] for name in ("B", "T", "d", "d_ff", "m"))
    lin, scores = linears(B, T, d, d_ff), B * T * T * d
    adapters = 2 * own["blocks"] * (2 * d * m + d + m)
    given = solution.get("ANSWERS")
    expected = {
        "adapter_parameters": adapters,
        "share": 100 * adapters / own["base_parameters"],
        "training_bytes": 12 * adapters,
        "frozen_over_full": (2 * lin + 6 * scores) / (3 * lin + 6 * scores),
    }
    for name, value in expected.items():
        answer = given.get(name) if isinstance(given, dict) else None
        mistakes = {
            "adapter_parameters": {"each block has two adapters": adapters / 2},
            "share": {
                "it is asked in percent": value / 100,
                "that is of base and adapters together; of `base_parameters` is asked": 100
                * adapters / (own["base_parameters"] + adapters),
            },
            "frozen_over_full": {"that is the backward pass alone": (lin + 4 * scores)
                                 / (2 * lin + 4 * scores), "it is the inverse": 1 / value},
        }.get(name, {})  # fmt: skip
        tolerance = 5e-3 if name in ("share", "frozen_over_full") else 1e-12
        same_number(f"ANSWERS[{name!r}], for {own},", answer, value, mistakes, tolerance)


def real_work() -> tuple[tuple[int, int, int, int], int, int]:
    """B, T, d, d_ff and the counted multiply-adds of a real block's two passes on SENTENCES."""
    model = Transformer.from_pretrained("tiny").train()
    block: Block = model.blocks[0]
    ids, mask = real_batch()
    x = model.embeddings.forward(ids)
    with count_multiply_adds(block) as counter:
        y = block.forward(x, mask)
        forward = counter.multiply_adds
        block.backward(np.ones_like(y))
        backward = counter.multiply_adds - forward
    (B, T), c = ids.shape, model.config
    backward -= B * T * T * c.d_model  # Q K^T again, which is computed anew instead of kept
    return (B, T, c.d_model, c.d_ff), forward, backward


def in_the_model(solution: Solution, seed: int) -> None:
    shape, forward, backward = real_work()
    got = call("forward_multiply_adds", solution.get("forward_multiply_adds"), *shape)
    counted = "against a real block that was counted,"
    same_number(f"forward_multiply_adds{shape}, {counted}", got, forward, {})
    function = solution.get("backward_multiply_adds")
    got = call("backward_multiply_adds", function, *shape, False)
    same_number(f"backward_multiply_adds{shape}, {counted}", got, backward, {})


LIBRARY = (count_adapters, count_step, count_multiply_adds)
PARTS = (
    Part("adapter-parameters", 2, adapter_parameters),
    Part("forward", 3, forward_work),
    Part("backward", 4, backward_work),
    Part("bytes", 2, training_bytes),
    Part("answers", 4, answers),
    Part("in-the-model", 2, in_the_model),
)

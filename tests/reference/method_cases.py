"""LoRA, (IA)^3 and prefix tuning: every case that the reference libraries answer.

A case's parameters have names of their own here, which belong to no library:

    LoRA      blocks.{i}.{target}.{adapter}.A, (d_in, rank), and .B, (rank, d_out)
    (IA)^3    blocks.{i}.{key, value or ffn}.{adapter}.factor, (width,)
    prefix    blocks.{i}.prefix.{adapter}.key and .value, (length, d_model)
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

from reference.names import Array

TARGETS = ("query", "key", "value", "output", "up", "down")


@dataclass(frozen=True)
class LoRA:
    """x W + b + (alpha / rank) x A B. `adapters`: their names; of several, the branches add up."""

    rank: int = 4
    alpha: float = 8.0
    targets: tuple[str, ...] = ("query", "value")
    layers: tuple[int, ...] | None = None
    adapters: tuple[str, ...] = ("one",)


@dataclass(frozen=True)
class IA3:
    """Factors on keys, values and the feed-forward's intermediate activations."""

    adapters: tuple[str, ...] = ("one",)


@dataclass(frozen=True)
class Prefix:
    """`length` keys and values before those of each block; all real tokens attend to them.

    `shifted`: whether the tokens' own positions begin at `length`, as PEFT has it, or at 0.
    """

    length: int = 3
    shifted: bool = False
    adapters: tuple[str, ...] = ("one",)


MethodCase = LoRA | IA3 | Prefix


def method_cases() -> dict[str, MethodCase]:
    """Every method with every option, one at a time."""
    plain = LoRA()
    found: dict[str, MethodCase] = {
        "lora": plain,
        "lora/rank 1": replace(plain, rank=1, alpha=1.0),
        "lora/rank 8, alpha 2": replace(plain, rank=8, alpha=2.0),
        "lora/upper block alone": replace(plain, layers=(1,)),
        "lora/all targets": replace(plain, targets=TARGETS),
        "lora/two": replace(plain, targets=("query", "down"), adapters=("one", "two")),
    }
    found |= {f"lora/{target} alone": replace(plain, targets=(target,)) for target in TARGETS}
    found |= {"ia3": IA3(), "ia3/two": IA3(("one", "two"))}
    found |= {"prefix": Prefix(), "prefix/one": Prefix(1), "prefix/shifted": Prefix(5, True)}
    return found


def drawn(name: str, shape: tuple[int, ...]) -> Array:
    """The float32 value of the parameter of that name: nothing near the identity.

    A function of its name and shape alone, so that it need not be stored.
    """
    uniform = np.random.default_rng(zlib.crc32(name.encode())).random(shape) - 0.5
    if name.endswith((".A", ".B")):
        value = 3 * uniform / np.sqrt(max(shape))
    elif name.endswith(".factor"):
        value = 1 + uniform
    elif ".prefix." in name:
        value = 3 * uniform
    else:  # a gain or a bias of the base
        value = uniform + name.endswith("weight")
    return value.astype(np.float32)

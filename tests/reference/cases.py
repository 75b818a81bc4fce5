"""What an adapter may be and where it may stand: every case that the reference libraries answer."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

from reference.names import Array

PLACEMENTS = ("after_norm", "houlsby", "pfeiffer", "parallel")
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "tanh", "silu")
BOTH = ("attention", "ffn")


@dataclass(frozen=True)
class Case:
    """Adapters in the words of this library. `adapters`: their names; several are a stack."""

    placement: str
    activation: str = "gelu"
    sites: tuple[str, ...] = BOTH
    layers: tuple[int, ...] | None = None
    scaling: float | str = 1.0
    norm: str | None = None
    adapters: tuple[str, ...] = ("one",)


def activation_cases() -> dict[str, Case]:
    """Every placement with every activation, at both sites of every block."""
    return {f"{p}/{a}": Case(p, a) for p in PLACEMENTS for a in ACTIVATIONS}


def variant_cases() -> dict[str, Case]:
    """Every placement with every other option, one at a time."""
    found = {}
    for placement in PLACEMENTS:
        plain = Case(placement)
        variants = {
            "attention alone": replace(plain, sites=("attention",)),
            "ffn alone": replace(plain, sites=("ffn",)),
            "upper block alone": replace(plain, layers=(1,)),
            "scaled": replace(plain, scaling=0.6),
            "learned scale": replace(plain, scaling="learned"),
            "norm before": replace(plain, norm="before"),
            "norm after": replace(plain, norm="after"),
        }
        if placement in ("houlsby", "pfeiffer"):  # elsewhere a stack means something else there
            variants["stack"] = replace(plain, adapters=("one", "two"))
        found |= {f"{placement}/{name}": case for name, case in variants.items()}
    return found


def minilm_cases() -> dict[str, Case]:
    """On real weights: every placement with the two usual activations."""
    return {f"{p}/{a}": Case(p, a) for p in PLACEMENTS for a in ("relu", "gelu")}


def drawn(name: str, shape: tuple[int, ...]) -> Array:
    """The float32 value of the adapter parameter of that name: nothing near the identity.

    A function of its name and shape alone, so that it need not be stored.
    """
    uniform = np.random.default_rng(zlib.crc32(name.encode())).random(shape) - 0.5
    if len(shape) == 2:  # a projection
        value = 3 * uniform / np.sqrt(max(shape))
    elif name.endswith(("scale", ".norm_before.weight", ".norm_after.weight")):
        value = 1 + uniform
    else:  # a bias
        value = 0.6 * uniform
    return value.astype(np.float32)

"""PEFT's words for LoRA and (IA)^3: their configurations, and the modules that are changed.

A PEFT folder names any Linear that it likes, each with a rank of its own; a configuration here says
targets x blocks, and one rank. What a folder holds is read from its tensors, which say it all, and
what cannot be said here is refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..adapters.config import TARGETS, IA3Config, LoRAConfig
from ..adapters.methods import LINEARS
from ..errors import CheckpointError, listed
from ..nn.config import TransformerConfig
from ..nn.module import Array
from .folders import Words
from .huggingface import family_of

Target = tuple[int, str]  # a block, and a name of `TARGETS`
Update = tuple[Array, Array]  # of LoRA: A (d_in, r) and B (r, d_out)

# Words that do not change what the weights in a folder mean: about the base, about where they
# were put (the tensors say that too), about their start, or a detail of what is switched off.
IDLE = set(
    "peft_type task_type auto_mapping base_model_name_or_path revision peft_version inference_mode "
    "target_modules exclude_modules feedforward_modules layers_to_transform layers_pattern "
    "fan_in_fan_out modules_to_save init_ia3_weights ensure_weight_tying megatron_config "
    "megatron_core qalora_group_size eva_config".split()
)
LORA_WORDS = set(
    "r lora_alpha lora_dropout bias use_rslora rank_pattern alpha_pattern init_lora_weights".split()
)
INITS = (True, False, "gaussian", "orthogonal", "eva")  # others change the base's weights as well
HEADS = ("classifier", "score")  # what PEFT itself saves with a SEQ_CLS model, whatever its name


def modules(shape: TransformerConfig) -> dict[str, tuple[Target, ...]]:
    """Every Linear of a block there -> the targets here that it holds.

    One each; in GPT-2 query, key and value are one Linear, as they are in this library.
    """
    names, found = family_of(shape).names(shape), {}
    for i in range(shape.n_layers):
        for (site, linear), targets in LINEARS.items():
            paths = names[f"blocks.{i}.{site}.module.{linear}.weight"]
            held = [targets] if len(paths) == 1 else [(target,) for target in targets]
            for path, some in zip(paths, held, strict=True):
                found[path.removesuffix(".weight")] = tuple((i, target) for target in some)
    return found


def check_words(words: Words, own: set[str]) -> None:
    """Raises: CheckpointError that names every option without an equivalent here."""
    refused = [f"{k}={v!r}" for k, v in words.items() if v and k not in IDLE | own]
    if words.get("bias", "none") != "none":
        refused.append(f"bias={words['bias']!r}")
    if words.get("init_lora_weights", True) not in INITS:
        refused.append(f"init_lora_weights={words['init_lora_weights']!r}")
    others = [name for name in words.get("modules_to_save") or () if name not in HEADS]
    if others:
        refused.append(f"modules_to_save={others!r}")
    if refused:
        raise CheckpointError(f"{listed(sorted(refused))}: there is no equivalent here")


# -- LoRA ----------------------------------------------------------------------------------


def lora_words(config: LoRAConfig, ranks: Mapping[str, int]) -> Words:
    """A LoRAConfig as PEFT's; `ranks`: of each module that has an update there."""
    others = {path: r for path, r in ranks.items() if r != config.rank}
    return {
        "peft_type": "LORA",
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": sorted(ranks),
        "bias": "none",
        "use_rslora": False,
        "init_lora_weights": True,
        "rank_pattern": others,
        "alpha_pattern": {path: config.alpha * r / config.rank for path, r in others.items()},
    }  # alpha / r is the same everywhere


def lora_config(
    words: Words, found: Mapping[str, Update], shape: TransformerConfig
) -> tuple[LoRAConfig, dict[Target, Update]]:
    """The inverse: the configuration, and the update of each target in each block.

    Raises: CheckpointError that names what cannot be expressed.
    """
    held, updates, scalings = modules(shape), {}, set()
    for path, (a, b) in found.items():
        r = matching(words.get("rank_pattern"), path, "rank_pattern", words["r"])
        alpha = matching(words.get("alpha_pattern"), path, "alpha_pattern", words["lora_alpha"])
        if r != a.shape[1]:
            raise CheckpointError(f"r={r!r}, but {path} has an update of rank {a.shape[1]}")
        scalings.add(float(alpha / math.sqrt(r) if words.get("use_rslora") else alpha / r))
        updates.update(split_update(a, b, held[path]))
    ranks = sorted({a.shape[1] for a, _ in updates.values()})
    if len(ranks) > 1:
        pattern = words.get("rank_pattern") or {}
        raise CheckpointError(f"rank_pattern={pattern!r}: ranks {ranks}; there is one for all here")
    if max(scalings) - min(scalings) > 1e-12 * max(map(abs, scalings)):
        raise CheckpointError(
            f"alpha_pattern={words.get('alpha_pattern')!r}: alpha / r is {sorted(scalings)}; there "
            "is one for all here"
        )
    targets = tuple(name for name in TARGETS if any(name == target for _, target in updates))
    config = LoRAConfig(
        rank=ranks[0],
        alpha=float(f"{max(scalings) * ranks[0]:.14g}"),
        dropout=words.get("lora_dropout", 0.0),
        targets=targets,
        layers=checked_grid(updates, targets, shape.n_layers),
    )
    return config, updates


def matching(pattern: Any, path: str, word: str, default: Any) -> Any:
    """The entry of a rank or alpha pattern for a module; as there, its name may be cut in front.

    Raises: CheckpointError for a pattern that is more than a name.
    """
    for name, value in (pattern or {}).items():
        if not re.fullmatch(r"[\w.]+", name):
            raise CheckpointError(f"{word}={pattern!r}: expected names of modules, no expressions")
        if f".{path}".endswith(f".{name}"):
            return value
    return default


def checked_grid(
    found: Mapping[Target, Any], targets: tuple[str, ...], n_layers: int
) -> tuple[int, ...] | None:
    """The blocks that have these targets. Raises: CheckpointError if not all have all of them."""
    layers = sorted({i for i, _ in found})
    missing = [(i, name) for name in targets for i in layers if (i, name) not in found]
    if missing:
        i, name = missing[0]
        raise CheckpointError(
            f"block {i} has no update of {name}, other blocks have: here every block has the same "
            "targets"
        )
    return tuple(layers) if len(layers) < n_layers else None


def joined_updates(updates: Mapping[Target, Update], held: tuple[Target, ...]) -> Update | None:
    """The updates of the targets in one Linear, as one: A side by side, B as blocks; or None.

    Its rank is the sum of theirs, so that alpha, too, is the sum.
    """
    found = [(n, *updates[target]) for n, target in enumerate(held) if target in updates]
    if not found:
        return None
    rank, width = found[0][2].shape
    b = np.zeros((len(found), rank, len(held), width), np.float32)
    for row, (n, _, part) in enumerate(found):
        b[row, :, n] = part
    a = np.concatenate([a for _, a, _ in found], axis=1)  # (d_in, n r)
    return a, b.reshape(len(found) * rank, -1)


def split_update(a: Array, b: Array, held: tuple[Target, ...]) -> dict[Target, Update]:
    """One Linear's update as those of the targets in it: the inverse of `joined_updates`.

    If any direction, a column of A, serves several targets, each target gets all of A.
    """
    parts = np.split(b, len(held), axis=1)  # (r, d) each
    uses = np.array([part.any(axis=1) for part in parts])  # (targets, r)
    ranks = set(uses.sum(axis=1)) - {0}
    if (uses.sum(axis=0) != 1).any() or len(ranks) != 1:
        return {target: (a, part) for target, part in zip(held, parts, strict=True)}
    return {
        target: (a[:, used], part[used])
        for target, part, used in zip(held, parts, uses, strict=True)
        if used.any()
    }


# -- (IA)^3 --------------------------------------------------------------------------------


def ia3_words(at_input: Mapping[str, bool]) -> Words:
    """PEFT's words; `at_input`: of each module, whether its input is scaled or its output."""
    return {
        "peft_type": "IA3",
        "target_modules": sorted(at_input),
        "feedforward_modules": sorted(path for path, inputs in at_input.items() if inputs),
        "init_ia3_weights": True,
    }


def ia3_config(
    words: Words, found: Mapping[str, Array], shape: TransformerConfig
) -> tuple[IA3Config, dict[Target, Array]]:
    """The configuration, and the factors on "key", "value" and the input of "down" in each block.

    Two kinds of factors that PEFT has and we have not are the same as some that we have: a query's
    feature meets the same feature of the keys, and what enters the output projection is a mean of
    values. Factors that are missing are 1.
    Raises: CheckpointError that names what cannot be expressed.
    """
    held, d, d_ff = modules(shape), shape.d_model, shape.d_ff
    factors: dict[Target, Array] = {}
    as_ours = {"query": "key", "key": "key", "value": "value", "output": "value", "down": "down"}
    for path, factor in found.items():
        targets = held[path]
        first, at_input = targets[0][1], factor.shape[0] == 1
        if first == "up" or at_input != (first in ("output", "down")):
            side = "input" if at_input else "output"
            raise CheckpointError(f"{path}.ia3_l scales its {side}: there is no equivalent here")
        parts = np.split(factor.ravel(), len(targets))
        for (i, target), part in zip(targets, parts, strict=True):
            kind = (i, as_ours[target])
            factors[kind] = factors.get(kind, np.ones(1)) * part
    layers = tuple(sorted({i for i, _ in factors}))
    for i in layers:
        for ours, width in (("key", d), ("value", d), ("down", d_ff)):
            factors.setdefault((i, ours), np.ones(width))
    return IA3Config(layers if len(layers) < shape.n_layers else None), factors

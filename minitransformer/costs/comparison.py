"""What every method costs on one base, side by side, and what would make training faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..adapters.config import AdapterConfig, AnyConfig, IA3Config, LoRAConfig, PrefixConfig
from ..models.heads import resolved_pooling
from .parameters import FLOAT32, count_adapters, count_parameters, shape_of
from .step import StepCosts, count_step

WIDTHS = (64,)


def compare_methods(
    base: str | Path = "bert-base",
    batch: int = 32,
    length: int = 128,
    bottlenecks: Sequence[int] = WIDTHS,
    adapter: AdapterConfig | None = None,
    lora: LoRAConfig | None = None,
    ia3: IA3Config | None = None,
    prefix: PrefixConfig | None = None,
    pooling: str | None = None,
    language_model: bool = False,
) -> dict[str, Any]:
    """Every method on a base, as plain values; nothing runs, and no weights are needed.

    `adapter` says where adapters stand; there is a row for each of the `bottlenecks`. In a row,
    `share` is of the base's parameters, `work` the multiply-adds of a step over those of full
    fine-tuning, `inference` those of a forward pass over the base's.
    `pooling`: as of a `Classifier`. `language_model`: with a head over the vocabulary and the
    methods that go with it.
    Raises: HubError for an unknown base; ConfigError for what cannot be.
    """
    config, adapter = shape_of(base), adapter or AdapterConfig()
    lora, ia3, prefix = lora or LoRAConfig(), ia3 or IA3Config(), prefix or PrefixConfig()
    counts, pooling = count_parameters(config), resolved_pooling(pooling, config.causal)
    methods: list[tuple[str, str, AnyConfig | None]] = [("full", "full", None)]
    for m in bottlenecks:
        one = replace(adapter, bottleneck=m, reduction_factor=None)
        methods.append((f"adapter, m = {m}", "adapter", one))
    methods += [
        (f"LoRA, rank {lora.rank}", "lora", lora),
        ("(IA)^3", "ia3", ia3),
        (f"prefix of {prefix.length}", "prefix", prefix),
    ]
    if not language_model:
        methods += [(name, name, None) for name in ("bitfit", "layer-norm", "head")]
    count = partial(
        count_step, config, batch, length, pooling=pooling, language_model=language_model
    )
    costs = [(name, method, one, count(method, one)) for name, method, one in methods]
    full, plain = costs[0][3], count("head")

    def row(name: str, method: str, one: AnyConfig | None, step: StepCosts) -> dict[str, Any]:
        work = step.multiply_adds
        added = work.forward / plain.multiply_adds.forward if one is not None else 1.0
        return {
            "name": name,
            "method": method,
            "config": one.to_dict() if one is not None else None,
            "trained": step.trained,
            "share": step.trained / counts.total,
            "multiply_adds": {**asdict(work), "total": work.total},
            "work": work.total / full.multiply_adds.total,
            "inference": added,
            "saved_bytes": step.saved_bytes,
            "gradient_bytes": step.gradient_bytes,
            "optimizer_bytes": step.optimizer_bytes,
            "task_bytes": step.task_bytes,
        }

    first = replace(adapter, bottleneck=bottlenecks[0], reduction_factor=None)
    added = count_adapters(config, first)
    return {
        "base": str(base),
        "config": asdict(config),
        "batch": batch,
        "length": length,
        "pooling": None if language_model else pooling,
        "language_model": language_model,
        "parameters": {**asdict(counts), "total": counts.total},
        "file_bytes": FLOAT32 * counts.total,
        "adapters": {**asdict(added), "total": added.total},
        "methods": [row(*each) for each in costs],
        "faster": [
            {"name": name, "work": work / full.multiply_adds.total, "saved_bytes": saved}
            for name, work, saved in faster(count, config.n_layers, first, language_model)
        ],
    }


def faster(
    count: Callable[..., StepCosts], n: int, adapter: AdapterConfig, language_model: bool
) -> Iterator[tuple[str, float, int]]:
    """What makes a step shorter: name, multiply-adds, and the most bytes saved for backward.

    `count`: the step of a method, as `count_step`, on a base of n blocks.
    """

    def step(first: int, start: int = 0) -> StepCosts:
        """A step with adapters from block `first` on."""
        layers = tuple(range(first, n))
        method, one = ("adapter", replace(adapter, layers=layers)) if layers else ("head", None)
        return count(method, one, start=start)

    for first, name in (
        (0, "adapters in every block"),
        (n // 2, "adapters in the upper half"),
        (n - max(1, n // 4), "adapters in the upper quarter"),
        (n, "the head alone"),
    ):
        if language_model and first == n:
            continue  # it has a head, but none of its own that trains
        found = step(first)
        yield name, found.multiply_adds.total, found.saved_bytes
        if first and not language_model:
            cached = step(first, start=first)
            yield "  its prefix cached", cached.multiply_adds.total, cached.saved_bytes
    depths = [step(first) for first in range(n)]
    mean = sum(found.multiply_adds.total for found in depths) / n
    yield f"adapters dropped from 0 to {n - 1} blocks", mean, depths[0].saved_bytes

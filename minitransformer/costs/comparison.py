"""What adapters of several widths would cost on one base, side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..adapters.config import AdapterConfig
from .parameters import FLOAT32, count_adapters, count_parameters, shape_of
from .step import count_step


def adapter_costs(
    base: str | Path = "bert-base", bottlenecks: Iterable[int] = (64,), length: int = 128
) -> dict[str, Any]:
    """What adapters of each width would cost on a base, as plain values.

    `share` is of the base's parameters; `file_bytes` are float32; `step` is the multiply-adds of
    a training step, on sequences of `length` tokens, over those of full fine-tuning.
    Raises: HubError for an unknown base; ConfigError for a width below 1.
    """
    config = shape_of(base)
    counts = count_parameters(config)
    full = count_step(config, 32, length, "full").multiply_adds.total
    rows = []
    for m in bottlenecks:
        adapter = AdapterConfig(bottleneck=m)
        added = count_adapters(config, adapter)
        work = count_step(config, 32, length, "adapter", adapter).multiply_adds
        rows.append(
            {
                **asdict(added),
                "total": added.total,
                "share": added.total / counts.total,
                "file_bytes": FLOAT32 * added.total,
                "step": work.total / full,
            }
        )
    return {
        "base": str(base),
        "config": asdict(config),
        "parameters": {**asdict(counts), "total": counts.total},
        "file_bytes": FLOAT32 * counts.total,
        "adapters": rows,
    }

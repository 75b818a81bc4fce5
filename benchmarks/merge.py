"""LoRA and (IA)^3 merged into the weights against the same beside them: how far logits are apart.

    python benchmarks/merge.py
    python benchmarks/merge.py --quick

MiniLM, trained on rotten-tomatoes; 200 test sentences. After unmerging, logits must be those from
before to the last bit. Writes `results/merge.json`, and exits with status 1 if a target is missed.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import numpy as np
from report import arguments, show, write

import minitransformer as mt
from minitransformer.adapters.config import TARGETS, AnyConfig

TARGET = 1e-5  # max abs difference of logits
CONFIGS: dict[str, AnyConfig] = {
    "LoRA, rank 8, query and value": mt.LoRAConfig(rank=8),
    "LoRA, rank 64, every weight": mt.LoRAConfig(rank=64, targets=TARGETS),
    "(IA)^3": mt.IA3Config(),
}


def compare(config: AnyConfig, limit: int) -> dict[str, Any]:
    """Train, merge, unmerge; what the logits of the 200 sentences say."""
    training = mt.TrainingOptions(epochs=1)
    options = mt.RunOptions(method=config.method, adapter=config, limit=limit, training=training)
    task = mt.load_task("rotten-tomatoes")
    with tempfile.TemporaryDirectory() as folder:
        run = mt.train(task.name, options, f"{folder}/run")
    ids, mask = mt.pad(run.tokenizer.encode(list(task.test.texts[:200]), 64))
    transformer = run.model.transformer
    beside = run.model(ids, mask)
    with transformer.use(None):
        plain = run.model(ids, mask)
    transformer.merge("task")
    merged = run.model(ids, mask)
    transformer.unmerge("task")
    return {
        "sentences": len(ids),
        "of_base": float(np.abs(beside - plain).max()),
        "merged": float(np.abs(beside - merged).max()),
        "same_answers": bool((beside.argmax(axis=1) == merged.argmax(axis=1)).all()),
        "unmerged_to_the_last_bit": bool(np.array_equal(run.model(ids, mask), beside)),
    }


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--limit", type=int, default=2000, help="training examples")
    args = parser.parse_args()
    rows = {
        name: compare(config, 64 if args.quick else args.limit) for name, config in CONFIGS.items()
    }
    show(
        "max abs difference of logits, MiniLM, 200 test sentences",
        [
            {
                "what": name,
                "to the base": f"{row['of_base']:.2f}",
                "merged": f"{row['merged']:.1e}",
                "same answers": str(row["same_answers"]),
                "unmerged equal": str(row["unmerged_to_the_last_bit"]),
            }
            for name, row in rows.items()
        ],
    )
    write("merge", args, {"target": TARGET, "rows": rows})
    return int(
        any(
            row["merged"] > TARGET or not (row["same_answers"] and row["unmerged_to_the_last_bit"])
            for row in rows.values()
        )
    )


if __name__ == "__main__":
    sys.exit(main())

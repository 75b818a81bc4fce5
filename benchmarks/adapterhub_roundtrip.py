"""Adapters to the `adapters` library and back: the same logits and predictions on both sides.

    python benchmarks/adapterhub_roundtrip.py           # trains rotten-tomatoes on minilm first
    python benchmarks/adapterhub_roundtrip.py --run runs/rotten-tomatoes-adapter-seed0
    python benchmarks/adapterhub_roundtrip.py --limit 300 --epochs 1    # a short training

The trained run is exported and loaded in the library on the same MiniLM; both label the same test
sentences, each with its own tokenizer. Then the library trains adapters of its own presets
for a few steps, saves them, and they are imported here. Prints a table, writes
results/adapterhub_roundtrip.json, and exits with status 1 if a target is missed. Needs the
reference libraries.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch
from transformers import PreTrainedTokenizerFast

import adapters
import minitransformer as mt
from minitransformer.data.batches import Encoded, batches
from minitransformer.data.hub import find_checkpoint
from minitransformer.nn.module import Array
from minitransformer.runs.adapterhub import export_adapterhub, import_adapterhub
from minitransformer.runs.options import RunOptions

TASK, BASE = "rotten-tomatoes", "minilm"
TARGET = 1e-4  # max abs difference of logits
PRESETS = ("seq_bn", "double_seq_bn", "par_bn")  # Pfeiffer, Houlsby, He et al.: theirs by default


class AdaptersLibrary:
    """The same base in PyTorch with the `adapters` library, and its own tokenizer."""

    def __init__(self, max_length: int) -> None:
        folder = find_checkpoint(BASE)
        self.model = adapters.BertAdapterModel.from_pretrained(folder)
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]"
        )
        self.max_length = max_length

    def inputs(self, texts: list[str]) -> Any:
        return self.tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
            return_token_type_ids=False,
        )

    def logits(self, texts: list[str]) -> Array:
        """(N, n_classes), 50 texts at once."""
        self.model.eval()
        with torch.no_grad():
            parts = [
                self.model(**self.inputs(texts[start : start + 50])).logits.numpy()
                for start in range(0, len(texts), 50)
            ]
        return np.concatenate(parts)

    def train(self, preset: str, task: Any, steps: int) -> None:
        """A few steps with an adapter of the library's own and a head of one layer."""
        torch.manual_seed(0)
        self.model.add_adapter(preset, config=preset)
        id2label = dict(enumerate(task.label_names))
        self.model.add_classification_head(
            preset, num_labels=len(id2label), layers=1, id2label=id2label
        )
        self.model.train_adapter(preset)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-3)
        texts, labels = task.train.texts, task.train.labels
        rng = np.random.default_rng(0)
        self.model.train()
        for _ in range(steps):
            rows = rng.choice(len(texts), 32, replace=False)
            logits = self.model(**self.inputs([texts[row] for row in rows])).logits
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def logits_here(run: mt.Run, texts: list[str]) -> Array:
    """(N, n_classes)."""
    encoded = Encoded(
        run.tokenizer.encode(texts, run.record.max_length),
        np.arange(len(texts)),
        run.tokenizer.pad_id,
    )
    found = np.zeros((len(texts), len(run.record.label_names)), np.float32)
    for batch in batches(encoded, 50):
        found[batch.labels] = run.model(batch.ids, batch.attention_mask)
    return found


def compare(
    direction: str, run: mt.Run, there: AdaptersLibrary, texts: list[str], labels: Array
) -> dict[str, Any]:
    """The same sentences on both sides."""
    ours, theirs = logits_here(run, texts), there.logits(texts)
    adapter = run.record.adapter
    assert adapter is not None
    same = ours.argmax(axis=1) == theirs.argmax(axis=1)
    return {
        "direction": direction,
        "placement": adapter.placement,
        "activation": adapter.activation,
        "bottleneck": adapter.bottleneck,
        "max_abs_difference": float(np.abs(ours - theirs).max()),
        "largest_logit": float(np.abs(theirs).max()),
        "same_predictions": int(same.sum()),
        "sentences": len(texts),
        "accuracy_here": float((ours.argmax(axis=1) == labels).mean()),
        "accuracy_there": float((theirs.argmax(axis=1) == labels).mean()),
    }


def reached(row: dict[str, Any]) -> bool:
    return bool(
        row["max_abs_difference"] <= TARGET
        and row["same_predictions"] == row["sentences"]
        and row["accuracy_here"] == row["accuracy_there"]
    )


def trained_run(args: argparse.Namespace, out: Path) -> mt.Run:
    if args.run is not None:
        return mt.load_run(args.run)
    training = mt.TrainingOptions(epochs=args.epochs)
    options = RunOptions(base=BASE, limit=args.limit, threads=args.threads, training=training)
    return mt.train(TASK, options, out)


def main() -> int:
    """Train, export and import, compare, write; 0 if every target is reached."""
    parser = report.arguments(__doc__)
    parser.add_argument("--run", type=Path, help="a trained run on minilm; default: train one")
    parser.add_argument("--limit", type=int, help="train here on so many examples")
    parser.add_argument("--epochs", type=int, default=mt.TrainingOptions.epochs)
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--steps", type=int, default=40, help="of the training there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.getLogger("adapters").setLevel(logging.ERROR)  # it warns between adding and activating
    task = mt.load_task(TASK)
    chosen = np.random.default_rng(0).choice(len(task.test.texts), args.sentences, replace=False)
    texts, labels = [task.test.texts[i] for i in chosen], task.test.labels[chosen]

    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = trained_run(args, folder / "run")
        there = AdaptersLibrary(run.record.max_length)
        exported = export_adapterhub(run, folder / "exported", "exported")
        there.model.load_adapter(str(exported), use_safetensors=True, set_active=True)
        rows.append(compare("trained here, loaded there", run, there, texts, labels))
        for preset in PRESETS:
            there = AdaptersLibrary(RunOptions.max_length)
            there.train(preset, task, args.steps)
            there.model.save_adapter(str(folder / preset), preset, use_safetensors=True)
            imported = import_adapterhub(folder / preset, BASE, folder / f"{preset}-here")
            direction = f"{preset} trained there, loaded here"
            rows.append(compare(direction, mt.load_run(imported), there, texts, labels))

    report.show(
        f"{TASK}, {args.sentences} test sentences (target: {TARGET:.0e}, the same predictions)",
        [
            {
                "adapter": row["direction"],
                "placement": row["placement"],
                "m": str(row["bottleneck"]),
                "max abs": f"{row['max_abs_difference']:.1e}",
                "largest logit": f"{row['largest_logit']:.1f}",
                "same": f"{row['same_predictions']}/{row['sentences']}",
                "accuracy here": f"{row['accuracy_here']:.3f}",
                "there": f"{row['accuracy_there']:.3f}",
            }
            for row in rows
        ],
    )
    passed = all(map(reached, rows))
    print(f"\ntargets {'reached' if passed else 'MISSED'}")
    record = {
        "task": TASK,
        "base": BASE,
        "limit": args.limit,
        "steps_there": args.steps,
        "target": TARGET,
        "targets_reached": passed,
        "comparisons": rows,
    }
    report.write("adapterhub_roundtrip", args, record)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

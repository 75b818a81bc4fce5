"""LoRA and (IA)^3 to PEFT and back: the same logits and predictions on both sides.

    python benchmarks/peft_roundtrip.py                 # rotten-tomatoes on minilm, 200 sentences
    python benchmarks/peft_roundtrip.py --limit 500 --epochs 1 --steps 10    # a short trial

Here LoRA and (IA)^3 are trained with a head on BERT's pooler, exported, and loaded by PEFT on the
same MiniLM; both label the same test sentences, each with its own tokenizer. Then PEFT trains its
own for a few steps, saves them, and they are imported here. Prints a table, writes
results/peft_roundtrip.json, and exits with status 1 if a target is missed. Needs the reference
libraries.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import peft
import report
import torch
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

import minitransformer as mt
from minitransformer.data.hub import find_checkpoint
from minitransformer.data.splits import Task
from minitransformer.nn.module import Array

TASK, BASE = "rotten-tomatoes", "minilm"
TARGET = 1e-4  # max abs difference of logits
HERE = ("lora", "ia3")
SEQ_CLS: dict[str, Any] = {"task_type": "SEQ_CLS"}
THERE: dict[str, Any] = {  # for BERT, PEFT's default targets are those of the papers
    "lora": peft.LoraConfig(r=8, lora_alpha=16, lora_dropout=0.1, **SEQ_CLS),
    "lora, every weight, rank-stabilized": peft.LoraConfig(
        r=4,
        lora_alpha=4,
        use_rslora=True,
        target_modules=["query", "key", "value", "attention.output.dense", "intermediate.dense"]
        + [f"layer.{i}.output.dense" for i in range(6)],
        **SEQ_CLS,
    ),
    "ia3": peft.IA3Config(**SEQ_CLS),  # scales what enters the attention's output projection, too
}


class Peft:
    """The same base in PyTorch with a classifier on its pooler, and its own tokenizer."""

    def __init__(self, n_classes: int, max_length: int) -> None:
        folder = find_checkpoint(BASE)
        torch.manual_seed(0)
        self.model: Any = BertForSequenceClassification.from_pretrained(
            folder, num_labels=n_classes
        )
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

    def train(self, config: Any, task: Task, steps: int) -> None:
        """A few steps with what `config` adds; the classifier trains too."""
        self.model = peft.get_peft_model(self.model, config)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        lr = 5e-3 if isinstance(config, peft.IA3Config) else 1e-3
        optimizer = torch.optim.AdamW(trained, lr=lr)
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
    encoded = mt.Encoded(
        run.tokenizer.encode(texts, run.record.max_length),
        np.arange(len(texts)),
        run.tokenizer.pad_id,
    )
    found = np.zeros((len(texts), len(run.record.label_names)), np.float32)
    for batch in mt.batches(encoded, 50):
        found[batch.labels] = run.model(batch.ids, batch.attention_mask)
    return found


def compare(
    direction: str, run: mt.Run, there: Peft, texts: list[str], labels: Array
) -> dict[str, Any]:
    """The same sentences on both sides, and here without what was added."""
    ours, theirs = logits_here(run, texts), there.logits(texts)
    with run.model.transformer.use():
        without = logits_here(run, texts)
    return {
        "direction": direction,
        "adapter": run.record.adapter.to_dict(),
        "max_abs_difference": float(np.abs(ours - theirs).max()),
        "largest_logit": float(np.abs(theirs).max()),
        "max_abs_effect": float(np.abs(ours - without).max()),
        "same_predictions": int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum()),
        "sentences": len(texts),
        "accuracy_here": float((ours.argmax(axis=1) == labels).mean()),
        "accuracy_there": float((theirs.argmax(axis=1) == labels).mean()),
    }


def reached(row: dict[str, Any]) -> bool:
    return bool(
        row["max_abs_difference"] <= TARGET
        and row["same_predictions"] == row["sentences"]
        and row["max_abs_effect"] > 100 * TARGET
    )


def main() -> int:
    """Train, export and import, compare, write; 0 if every target is reached."""
    parser = report.arguments(__doc__)
    parser.add_argument("--limit", type=int, default=2000, help="train here on so many examples")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--steps", type=int, default=40, help="of the training there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers_logging.set_verbosity_error()  # the classifier is new: that is meant
    warnings.filterwarnings("ignore", category=UserWarning, module="peft")
    task = mt.load_task(TASK)
    chosen = np.random.default_rng(0).choice(len(task.test.texts), args.sentences, replace=False)
    texts, labels = [task.test.texts[i] for i in chosen], task.test.labels[chosen]

    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for method in HERE:
            options = mt.RunOptions(
                base=BASE,
                method=method,
                pooling="pooler",
                limit=args.limit,
                threads=args.threads,
                training=mt.TrainingOptions(epochs=args.epochs),
            )
            run = mt.train(TASK, options, folder / f"{method}-run")
            exported = mt.export_peft(run, folder / f"{method}-exported")
            there = Peft(len(task.label_names), run.record.max_length)
            there.model = peft.PeftModel.from_pretrained(there.model, exported)
            rows.append(compare(f"{method} trained here, loaded there", run, there, texts, labels))
        for n, (name, config) in enumerate(THERE.items()):
            there = Peft(len(task.label_names), mt.RunOptions.max_length)
            there.train(config, task, args.steps)
            there.model.save_pretrained(folder / f"{n}-there")
            out = folder / f"{n}-here"
            mt.import_peft(folder / f"{n}-there", BASE, out, label_names=task.label_names)
            direction = f"{name} trained there, loaded here"
            rows.append(compare(direction, mt.load_run(out), there, texts, labels))

    report.show(
        f"{TASK}, {args.sentences} test sentences (target: {TARGET:.0e}, the same predictions)",
        [
            {
                "adapter": row["direction"],
                "max abs": f"{row['max_abs_difference']:.1e}",
                "largest logit": f"{row['largest_logit']:.1f}",
                "its effect": f"{row['max_abs_effect']:.2f}",
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
        "epochs": args.epochs,
        "steps_there": args.steps,
        "target": TARGET,
        "targets_reached": passed,
        "comparisons": rows,
    }
    report.write("peft_roundtrip", args, record)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

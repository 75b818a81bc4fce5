"""The same training in PyTorch with the `adapters` library, to hold accuracy.py against.

    python benchmarks/accuracy_pytorch.py --seeds 0

Same base, split, tokens, batches, placement, dropout, optimizer and schedule as a run of
`minitransformer train rotten-tomatoes`; the library's own start values and PyTorch's random
numbers. Prints test accuracy after each epoch; writes `benchmarks/results/accuracy-pytorch.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertModel

import adapters
import minitransformer as mt
from minitransformer.costs.parameters import shape_of
from minitransformer.data.batches import Batch, Encoded, batches, encode_split
from minitransformer.data.hub import find_checkpoint
from minitransformer.runs.options import RunOptions

RESULTS = Path(__file__).parent / "results"


class Peer(torch.nn.Module):  # type: ignore[misc]  # torch is not type-checked here
    """BERT with adapters after both norms of each block, and a head on [CLS]."""

    def __init__(self, bottleneck: int, head_dropout: float) -> None:
        super().__init__()
        self.bert = BertModel.from_pretrained(str(find_checkpoint("minilm")))
        adapters.init(self.bert)
        placement = adapters.BnConfig(
            mh_adapter=True, output_adapter=True, non_linearity="relu",
            reduction_factor=self.bert.config.hidden_size / bottleneck,
            original_ln_before=True, original_ln_after=False,
            residual_before_ln=False, adapter_residual_before_ln=False,
        )  # fmt: skip
        self.bert.add_adapter("task", config=placement)
        self.bert.train_adapter("task")
        self.bert.set_active_adapters("task")
        self.head = torch.nn.Linear(self.bert.config.hidden_size, 2)
        torch.nn.init.normal_(self.head.weight, std=0.02)
        torch.nn.init.zeros_(self.head.bias)
        self.dropout = torch.nn.Dropout(head_dropout)

    def forward(self, batch: Batch) -> Any:
        ids, mask = torch.tensor(batch.ids), torch.tensor(batch.attention_mask)
        states = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.head(self.dropout(states[:, 0]))


def accuracy(model: Peer, encoded: Encoded) -> float:
    model.eval()
    with torch.no_grad():
        right = [(model(b).argmax(1).numpy() == b.labels).sum() for b in batches(encoded, 64)]
    return float(np.sum(right) / len(encoded))


def train(seed: int, options: RunOptions, data: dict[str, Encoded]) -> list[float]:
    """Test accuracy after each epoch."""
    torch.manual_seed(seed)
    o = options.training
    config = options.config
    assert isinstance(config, mt.AdapterConfig)
    model = Peer(config.width(shape_of("minilm").d_model), options.head_dropout)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=options.learning_rate, weight_decay=o.weight_decay)
    total = o.epochs * len(batches(data["train"], o.batch_size))
    warmup = int(o.warmup * total)

    def rate(step: int) -> float:
        return (step + 1) / warmup if step < warmup else (total - step) / (total - warmup)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    found = []
    for epoch in range(o.epochs):
        model.train()
        for batch in batches(data["train"], o.batch_size, np.random.default_rng([seed, epoch])):
            loss = torch.nn.functional.cross_entropy(model(batch), torch.tensor(batch.labels))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, o.max_grad_norm)
            optimizer.step()
            schedule.step()
        found.append(accuracy(model, data["test"]))
        print(f"seed {seed}, epoch {epoch + 1}: test accuracy {found[-1]:.4f}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    options = RunOptions()
    task = mt.load_task("rotten-tomatoes", limit=args.limit)
    tokenizer = mt.Tokenizer.from_pretrained("minilm")
    splits = {"train": task.train, "test": task.test}
    data = {k: encode_split(s, tokenizer, options.max_length) for k, s in splits.items()}
    runs = {seed: train(seed, options, data) for seed in args.seeds}
    print(f"mean of the last epochs: {np.mean([run[-1] for run in runs.values()]):.4f}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "accuracy-pytorch.json"
    path.write_text(json.dumps({"limit": args.limit, "test_accuracy_by_epoch": runs}, indent=2))
    print(f"written to {path}")


if __name__ == "__main__":
    main()

"""A whole epoch of real training, from text to trained adapter, against PyTorch with `adapters`.

    python benchmarks/epoch.py
    python benchmarks/epoch.py --limit 1000
    python benchmarks/epoch.py --sides everywhere top-3-cached --epochs 3 --dropout 0.1
    python benchmarks/epoch.py --sides everywhere grouped grouped-bf16 --to epoch-bf16

Rotten Tomatoes, MiniLM, adapters of m=64. The clock starts with the texts in memory and the model
built; it runs through tokenization, batches and every training step, and stops while the test split
is evaluated. The sides take turns, a twentieth of an epoch each, in processes of their own with the
same number of threads. They start from the same weights; "grouped" has the same batches as
"everywhere", so their losses must agree while dropout is off.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from ours import Array, own_names
from report import arguments, show, write
from turns import Worker, pause, run_in_parts

import minitransformer as mt
from minitransformer import AdapterConfig, RunOptions, Tokenizer, Trainer, TrainingOptions
from minitransformer.data.batches import Encoded, batches, encode_split
from minitransformer.data.datasets import load_task
from minitransformer.data.hub import find_checkpoint
from minitransformer.runs.model import build_classifier
from minitransformer.training.evaluation import evaluate
from minitransformer.training.interruption import Interrupt
from minitransformer.training.prefix_cache import PrefixCache
from minitransformer.training.process import keep_freed_memory

TASK, BATCH_SIZE, MAX_LENGTH, PARTS = "rotten-tomatoes", 32, 128, 20
TOP_3 = AdapterConfig(bottleneck=64, layers=(3, 4, 5))

# This library's variants, by name; another one is another line.
OURS = {
    "everywhere": RunOptions(adapter=AdapterConfig(bottleneck=64)),
    "top-3": RunOptions(adapter=TOP_3),
    "top-3-cached": RunOptions(adapter=TOP_3, prefix_cache=True),
}
# The PyTorch loop: whether its batches are grouped by length, and its forward pass in bfloat16.
PEERS = {
    "plain": {"grouped": False, "autocast": False},
    "grouped": {"grouped": True, "autocast": False},
    "grouped-bf16": {"grouped": True, "autocast": True},
}
DEFAULT_SIDES = ["everywhere", "plain", "grouped"]


@dataclass(frozen=True)
class Plan:
    """What all sides have in common."""

    threads: int
    epochs: int
    limit: int | None
    dropout: float
    lr: float = 1e-3
    seed: int = 0

    def training(self) -> TrainingOptions:
        return TrainingOptions(
            epochs=self.epochs, batch_size=BATCH_SIZE, lr=self.lr, seed=self.seed
        )


class Clock:
    """A stopwatch that lets the other sides have their turn after each part of an epoch.

    Takes the place of the Trainer's progress bar.
    """

    def __init__(self, steps: int) -> None:
        self.part = max(1, -(-steps // PARTS))
        self.steps = 0
        self.seconds = 0.0
        self.started = time.perf_counter()

    def update(self) -> None:
        self.steps += 1
        if self.steps % self.part == 0:
            self.stop()
            pause()
            self.started = time.perf_counter()

    def stop(self) -> None:
        self.seconds += time.perf_counter() - self.started

    def set_postfix(self, figures: Mapping[str, str], refresh: bool) -> None:
        """Of a progress bar; not shown here."""


class OurRun:
    """This library: tokenize, group by length, train with the Trainer."""

    def __init__(self, plan: Plan, variant: str) -> None:
        self.plan, self.options = plan, OURS[variant]
        self.task = load_task(TASK, limit=plan.limit)
        self.tokenizer = Tokenizer.from_folder(find_checkpoint("minilm"))
        base = mt.Transformer.from_pretrained("minilm", plan.dropout)
        options = replace(self.options, head_dropout=plan.dropout)
        self.model = build_classifier(base, 2, options)

    def epoch(self, number: int) -> dict[str, Any]:
        """Train epoch 0, 1, ...; the first includes tokenization."""
        clock = Clock(-(-len(self.task.train) // BATCH_SIZE))
        if number == 0:
            encoded = encode_split(self.task.train, self.tokenizer, MAX_LENGTH)
            prefix = None
            if self.options.prefix_cache:
                prefix = PrefixCache(self.model.transformer, encoded)
            self.trainer = Trainer(
                self.model, encoded, encoded, self.plan.training(),
                progress=False, threads=self.plan.threads, prefix=prefix,
            )  # fmt: skip
            keep_freed_memory()
            self.trainer.data_parallel.__enter__()
            if prefix is not None:
                prefix.fill(self.trainer.data_parallel.map)
        self.trainer.epoch(Interrupt(), clock)
        clock.stop()
        rows = [row for row in self.trainer.history if row.epoch == number + 1]
        return {"seconds": clock.seconds, "losses": [row.loss for row in rows]}

    def test_accuracy(self) -> float:
        test = encode_split(self.task.test, self.tokenizer, MAX_LENGTH)
        return evaluate(self.model, test, threads=self.plan.threads).accuracy


class PeerRun:
    """PyTorch and `adapters`: a plain training loop with the fast parts of both libraries."""

    def __init__(
        self, plan: Plan, grouped: bool, autocast: bool, folder: str, weights: dict[str, Array]
    ) -> None:
        import peers
        import torch

        torch.set_num_threads(plan.threads)
        torch.manual_seed(plan.seed)
        self.torch, self.plan, self.grouped, self.folder = torch, plan, grouped, folder
        self.task = load_task(TASK, limit=plan.limit)
        self.model = peers.classifier(folder, dropout=plan.dropout)
        self.model.load(weights)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = peers.adamw(self.model, plan.lr)
        self.precision = torch.autocast("cpu", torch.bfloat16, enabled=autocast)

    def encode(self, texts: list[str]) -> list[Any]:
        """Token ids, a tensor for each text."""
        from tokenizers import Tokenizer as Backend

        tokenizer = Backend.from_file(f"{self.folder}/tokenizer.json")
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_LENGTH)
        return [self.torch.tensor(found.ids) for found in tokenizer.encode_batch(texts)]

    def loader(self, ids: list[Any], labels: Array, order: Any) -> Any:
        """Batches padded to their longest text; `order`: lists of indices, or None to shuffle."""
        torch = self.torch

        def collate(items: list[tuple[Any, int]]) -> tuple[Any, Any, Any]:
            texts, answers = zip(*items, strict=True)
            padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
            mask = torch.nn.utils.rnn.pad_sequence(
                [torch.ones_like(text) for text in texts], batch_first=True
            )
            return padded, mask, torch.tensor(answers)

        data = list(zip(ids, labels.tolist(), strict=True))
        how = {"batch_sampler": order} if order else {"batch_size": BATCH_SIZE, "shuffle": True}
        return torch.utils.data.DataLoader(data, collate_fn=collate, **how)

    def epoch(self, number: int) -> dict[str, Any]:
        """Train epoch 0, 1, ...; the first includes tokenization."""
        torch = self.torch
        train = self.task.train
        clock = Clock(-(-len(train) // BATCH_SIZE))
        if number == 0:
            self.ids = self.encode(train.texts)
            steps = -(-len(train) // BATCH_SIZE) * self.plan.epochs
            self.schedule = torch.optim.lr_scheduler.LambdaLR(
                self.optimizer, warmup_and_decay(int(0.1 * steps), steps)
            )
        order = None
        if self.grouped:  # as the Trainer does it
            encoded = Encoded(self.ids, train.labels)
            rng = np.random.default_rng([self.plan.seed, number])
            order = [index.tolist() for index in batches(encoded, BATCH_SIZE, rng).indices]
        self.model.train()
        losses = []
        for ids, mask, labels in self.loader(self.ids, train.labels, order):
            self.optimizer.zero_grad()
            with self.precision:
                loss = torch.nn.functional.cross_entropy(self.model(ids, mask), labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.schedule.step()
            losses.append(loss.item())
            clock.update()
        clock.stop()
        return {"seconds": clock.seconds, "losses": losses}

    def test_accuracy(self) -> float:
        test = self.task.test
        every = self.loader(self.encode(test.texts), test.labels, None)
        self.model.eval()
        with self.torch.inference_mode(), self.precision:
            right = [(self.model(i, m).argmax(1) == labels).sum().item() for i, m, labels in every]
        return float(sum(right) / len(test))


def warmup_and_decay(warmup: int, steps: int) -> Callable[[int], float]:
    """The factor on the learning rate, by step."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (steps - step) / max(1, steps - warmup))

    return factor


# -- all of them --------------------------------------------------------------------------


def start(name: str, plan: Plan, folder: str, weights: dict[str, Array]) -> Worker:
    """The process of one side."""
    if name in OURS:
        return Worker("epoch:OurRun", plan=plan, variant=name)
    return Worker("epoch:PeerRun", plan=plan, folder=folder, weights=weights, **PEERS[name])


def run(workers: dict[str, Worker], epochs: int, test: bool) -> dict[str, dict[str, list[Any]]]:
    """Every epoch of every side: seconds, losses, and accuracy on the test split after it."""
    found: dict[str, dict[str, list[Any]]] = {
        name: {"seconds": [], "losses": [], "test_accuracy": []} for name in workers
    }
    for number in range(epochs):
        for name, result in run_in_parts(workers, "epoch", number).items():
            accuracy = workers[name].call("test_accuracy") if test else float("nan")
            for key, value in {**result, "test_accuracy": accuracy}.items():
                found[name][key].append(value)
            print(f"epoch {number + 1}, {name}: {result['seconds']:.1f} s, test {accuracy:.3f}")
        sys.stdout.flush()
    return found


def check(found: dict[str, dict[str, list[Any]]]) -> float:
    """The largest relative difference of the first losses, on the same batches."""
    ours, theirs = (np.array(found[name]["losses"][0][:10]) for name in ("everywhere", "grouped"))
    apart = float(np.abs(ours / theirs - 1).max())
    if apart > 1e-3:
        sys.exit(f"the sides did not train the same: losses {ours} and {theirs}")
    return apart


def print_table(found: dict[str, dict[str, list[Any]]]) -> None:
    baseline = next(iter(found))
    first_before, *later_before = found[baseline]["seconds"]
    rows = []
    for name, side in found.items():
        first, *later = side["seconds"]
        row = {"side": name, "first": f"{first:.1f}", "ratio": f"{first / first_before:.2f}"}
        if later:
            row["later"] = f"{np.mean(later):.1f}"
            row["ratio "] = f"{np.mean(later) / np.mean(later_before):.2f}"
        row["mean loss"] = f"{np.mean(side['losses'][-1]):.4f}"
        row["test accuracy"] = " ".join(f"{a:.3f}" for a in side["test_accuracy"])
        rows.append(row)
    show(f"Seconds an epoch, from text; ratio: to those of {baseline}", rows)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sides", nargs="+", choices=[*OURS, *PEERS], default=DEFAULT_SIDES)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--limit", type=int, help="train on so many sentences")
    parser.add_argument("--dropout", type=float, default=0.0, help="everywhere, on all sides")
    args = parser.parse_args()
    if args.quick:
        args.limit = args.limit or 128

    plan = Plan(args.threads, args.epochs, args.limit, args.dropout)
    folder = str(find_checkpoint("minilm"))
    start_from = build_classifier(mt.Transformer.from_pretrained("minilm"), 2, OURS["everywhere"])
    weights = own_names(start_from, "value")
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(start(name, plan, folder, weights)) for name in args.sides
        }
        found = run(workers, args.epochs, test=not args.quick)
    record: dict[str, Any] = {"task": TASK, **asdict(plan), "sides": found}
    if args.dropout == 0 and {"everywhere", "grouped"} <= found.keys():
        record["first_losses_apart"] = check(found)
        print(f"everywhere and grouped: first losses {record['first_losses_apart']:.0e} apart")
    print_table(found)
    for side in found.values():
        side["mean_loss"] = [float(np.mean(losses)) for losses in side.pop("losses")]
    write("epoch", args, record)


if __name__ == "__main__":
    main()

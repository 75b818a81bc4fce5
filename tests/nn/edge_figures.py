"""Each edge of the mathematics: this library's value beside PyTorch's.

Of multiply-adds that are counted beforehand, it stands beside those of a real step.

    python tests/nn/edge_figures.py [--before FOLDER] [--to FILE]

`--before`: a folder with an earlier `minitransformer`, whose values are printed first. A value of
another column's kind, as "error", says what happens instead. `--to`: write the table as JSON, too,
for `benchmarks/durability.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "tests")]  # after PYTHONPATH: another version may be asked for

import numpy as np  # noqa: E402
import test_edges as edges  # noqa: E402
import torch  # noqa: E402

import minitransformer as mt  # noqa: E402
from minitransformer import CrossEntropy  # noqa: E402
from minitransformer.data.batches import Batch  # noqa: E402
from minitransformer.nn import kernels  # noqa: E402
from minitransformer.nn.config import TransformerConfig  # noqa: E402
from minitransformer.nn.layers import LayerNorm  # noqa: E402
from minitransformer.training.data_parallel import DataParallel  # noqa: E402
from minitransformer.training.optim import warmup_linear_decay  # noqa: E402

Row = tuple[str, str, str]  # what, ours, PyTorch's


def rows() -> Iterator[Row]:
    with np.errstate(all="ignore"):
        yield from cross_entropies()
        yield from layer_norms_and_sums()
        yield from optimizers()
        yield from models()
        yield from activations()
        yield from multiply_adds()


def cross_entropies() -> Iterator[Row]:
    for logits, label in edges.INFINITE:
        x = np.array(logits, np.float32)
        theirs = torch.nn.functional.cross_entropy(torch.tensor(x), torch.tensor([label]))
        ours = CrossEntropy()(x, np.array([label]))
        yield f"cross-entropy of {logits[0]}", f"{ours:.4f}", f"{float(theirs):.4f}"


def layer_norms_and_sums() -> Iterator[Row]:
    for number in (1.1, 30.1, 1e3):
        x = np.full((1, 384), number, np.float32)
        theirs = torch.nn.functional.layer_norm(torch.tensor(x), (384,), eps=1e-12)
        ours = np.abs(LayerNorm(384)(x)).max()
        yield f"layer norm of a row of {number}", f"{ours:.1e}", f"{float(theirs.abs().max()):.1e}"
    bias, gain, dy = edges.long_sum_errors()
    exact = dy.sum(axis=0, dtype=np.float64)
    drift = np.abs(torch.from_numpy(dy).sum(0).numpy() - exact).max() / np.abs(exact).max()
    yield "bias gradient over 16,384 rows: relative error", f"{bias:.1e}", f"{drift:.1e}"
    yield "gain gradient over 16,384 rows: relative error", f"{gain:.1e}", ""


def optimizers() -> Iterator[Row]:
    late = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    adamw = torch.optim.AdamW([late], 0.01, weight_decay=0)
    for step in range(1, 13):
        late.grad = torch.ones(1, dtype=torch.float64) if step >= 11 else None
        adamw.step()
    ours, theirs = edges.late_gradient(), 1 - late.item()
    yield "AdamW, first gradient at step 11: moved by step 12", f"{ours:.4f}", f"{theirs:.4f}"
    rate = warmup_linear_decay(1.0, 4, 10)(0)
    yield "first rate of a warm-up of 4 (said in the docstring)", f"{rate:.2f}", "0.00"


def models() -> Iterator[Row]:
    ids = np.arange(1, 7)[None]
    other = np.concatenate([ids[:, :-1], [[15]]], axis=1)
    change = np.abs(edges.causal_logits(ids) - edges.causal_logits(other)).max()
    yield "causal classifier: change with the last token", f"{change:.1e}", ""

    rng, mask = np.random.default_rng(0), np.array([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1]])
    batch = Batch(rng.integers(1, 20, (2, 6)), mask, np.array([0, 1]), np.arange(2))
    losses = []
    for threads in (1, 2):
        classifier = mt.Classifier(mt.Transformer(edges.CAUSAL), 3, "mean").train()
        with DataParallel(classifier, threads) as parallel:
            losses.append(parallel.forward_backward(batch)[0])
    yield "left padding: loss with 2 threads minus 1", f"{losses[1] - losses[0]:.1e}", ""

    model = mt.Transformer(edges.CAUSAL).eval()
    for name, layers in (("a", (1,)), ("b", (0, 1))):
        model.add_adapter(
            name, mt.AdapterConfig(bottleneck=4, layers=layers), np.random.default_rng(len(name))
        )
        for parameter in model.parameters():
            parameter.value += 0.1 * rng.standard_normal(parameter.shape).astype(np.float32)
    model.set_active("a", "b")
    before = model(ids)
    model.set_active(*model.active_adapters)
    change = np.abs(model(ids) - before).max()
    yield "set_active(*active_adapters): change of the output", f"{change:.1e}", ""
    try:
        model.set_active("a", "a")
        twice = "accepted"
    except mt.errors.ConfigError:
        twice = "error"
    yield 'set_active("a", "a")', twice, ""


def activations() -> Iterator[Row]:
    for name in ("gelu", "gelu_tanh", "silu"):
        for low, high in edges.TAILS:
            ours, theirs = edges.tail_errors(name, low, high)
            for what, mine, other in zip(("value", "derivative"), ours, theirs, strict=True):
                yield f"{name}, {low} to {high}: error of the {what}", f"{mine:.1e}", f"{other:.1e}"
        x = np.array([2e19, -20.0], np.float32)
        leaf = torch.tensor(x, requires_grad=True)
        kind = {"approximate": "tanh"} if name == "gelu_tanh" else {}
        y = getattr(torch.nn.functional, name.removesuffix("_tanh"))(leaf, **kind)
        y.sum().backward()
        value, derivative = getattr(kernels, name)(x)
        assert leaf.grad is not None
        yield f"{name}: derivative at 2e19", f"{derivative[0]:.4g}", f"{leaf.grad[0].item():.4g}"
        yield f"{name}: value at -20", f"{value[1]:.3e}", f"{y[1].item():.3e}"


def multiply_adds() -> Iterator[Row]:
    """Of the backward pass; in place of PyTorch's value that of a real step."""
    shape = TransformerConfig(20, 8, 2, 2, 16, max_positions=12)
    both = ("attention", "ffn")
    for what, adapter, layer_norm in (
        ("a norm inside the adapter", mt.AdapterConfig(4, norm="before"), False),
        ("houlsby and layer norms", mt.AdapterConfig(4, placement="houlsby"), True),
        ("parallel and layer norms", mt.AdapterConfig(4, placement="parallel", sites=both), True),
    ):
        counted, real = counted_backward(shape, adapter, layer_norm)
        yield f"backward's multiply-adds, {what} (last: a real step)", f"{counted:,}", real


def counted_backward(
    shape: TransformerConfig, adapter: mt.AdapterConfig, layer_norm: bool
) -> tuple[int, str]:
    """Counted beforehand, and while a step runs, of 2 texts of 7 tokens with 4 classes."""
    about = (shape, 2, 7, "adapter", adapter, 4, layer_norm, "mean")
    try:
        from minitransformer.costs.counting import count_multiply_adds
        from minitransformer.costs.step import count_step
    except ImportError:  # an earlier version, which counted no real step
        from minitransformer.costs import flops  # type: ignore[attr-defined]

        work = flops.count_multiply_adds(*about)
        return work.input_gradients + work.weight_gradients + work.recomputed, ""
    transformer = mt.Transformer(shape)
    transformer.add_adapter("a", adapter)
    transformer.train_adapter("a")
    if layer_norm:
        transformer.train_layer_norms()
    model = mt.Classifier(transformer, 4, "mean").train()
    with count_multiply_adds(model) as counter:
        logits = model(np.ones((2, 7), np.int64), np.ones((2, 7), np.int64))
        forward = counter.multiply_adds
        model.backward(np.ones(logits.shape, np.float32))
    real = counter.multiply_adds - forward
    return count_step(*about).multiply_adds.backward, f"{real:,}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", help="a folder with an earlier version of the package")
    parser.add_argument("--json", action="store_true", help="print ours and PyTorch's as JSON")
    parser.add_argument("--to", type=Path, help="a file for the table as JSON")
    args = parser.parse_args()
    found = list(rows())
    if args.json:
        print(json.dumps(found))
        return
    earlier = {}
    if args.before:
        done = subprocess.run(
            [sys.executable, __file__, "--json"],
            env={**os.environ, "PYTHONPATH": args.before},
            stdout=subprocess.PIPE,
            check=True,
        )
        earlier = {what: ours for what, ours, _ in json.loads(done.stdout)}
    table = [(what, earlier.get(what, ""), ours, theirs) for what, ours, theirs in found]
    for what, before, ours, theirs in [("", "before", "ours", "PyTorch"), *table]:
        print(f"{what:54} {before:>12} {ours:>12} {theirs:>12}")
    if args.to is not None:
        versions = {"numpy": np.__version__, "torch": torch.__version__}
        args.to.write_text(json.dumps({"versions": versions, "rows": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()

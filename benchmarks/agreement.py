"""How closely minitransformer agrees with PyTorch, on real weights and real sentences.

    python benchmarks/agreement.py

Three comparisons in float32, whole arrays, nothing sampled: the last hidden states of MiniLM
(against transformers), the gradient of every parameter of the unfrozen model with a classifier on
[CLS] (against PyTorch), and logits and gradients of bottleneck adapters (against the `adapters`
library). The reference is also run in float64, to show the effect of rounding alone.

Prints tables, writes results/agreement.json beside this file, and exits with status 1 if a target
is missed. Needs what tests/golden/requirements.txt lists.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

import torch  # noqa: E402

import minitransformer as mt  # noqa: E402
from minitransformer.nn.module import Module, Parameter  # noqa: E402
from reference import minilm, models, names  # noqa: E402
from reference.names import Array, Arrays  # noqa: E402

HIDDEN_TARGET = 2e-5  # max abs difference
GRADIENT_TARGET = 1e-4  # ||a - b|| / ||b||, each parameter
BATCH, BOTTLENECK = 32, 64
ADAPTERS = {"relu": 1.0, "gelu": 0.5}  # activation -> scaling

Gradients = tuple[Array, Arrays]  # logits, gradient by parameter name


def rounded(value: Any) -> Any:
    """To three digits: enough for a rounding error."""
    if isinstance(value, float):
        return float(f"{value:.3g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


def relative(a: Array, b: Array) -> float:
    """||a - b|| / ||b||."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def hidden_states(folder: Path) -> dict[str, Any]:
    """Last hidden states of 50 sentences of mixed length, at every real position."""
    arrays = minilm.batch(folder, minilm.reviews_file(), 50, np.random.default_rng(0))
    real = arrays["mask"] == 1
    ours = mt.Transformer.from_pretrained(folder).eval()(arrays["ids"], arrays["mask"])[real]
    theirs = minilm.last_hidden(models.bert(folder, torch.float32), arrays)[real]
    exact = minilm.last_hidden(models.bert(folder, torch.float64), arrays)[real]
    lengths = arrays["mask"].sum(axis=1)
    return {
        "sentences": len(lengths),
        "shortest": int(lengths.min()),
        "longest": int(lengths.max()),
        "largest_state": float(np.abs(theirs).max()),
        "ours_to_reference": float(np.abs(ours - theirs).max()),
        "ours_to_float64": float(np.abs(ours - exact).max()),
        "reference_to_float64": float(np.abs(theirs - exact).max()),
        "target": HIDDEN_TARGET,
    }


def training_batch(folder: Path) -> Arrays:
    """32 real sentences of mixed length with their labels, and a classifier's weights."""
    rng = np.random.default_rng(1)
    arrays = minilm.batch(folder, minilm.reviews_file(), BATCH, rng)
    arrays["head.weight"] = (0.2 * rng.standard_normal((384, 2))).astype(np.float32)
    arrays["head.bias"] = (0.2 * rng.standard_normal(2)).astype(np.float32)
    return arrays


def ours(base: mt.Transformer, arrays: Arrays) -> Gradients:
    """One step of this library: logits, and every gradient."""
    model, criterion = mt.Classifier(base, n_classes=2, pooling="cls"), mt.CrossEntropy()
    head = {"weight": arrays["head.weight"], "bias": arrays["head.bias"]}
    model.head.linear.load_state_dict(head)
    logits = model.train()(arrays["ids"], arrays["mask"])
    criterion(logits, arrays["labels"])
    model.backward(criterion.backward())
    trained = {**dict(base.named_parameters()), **named_head(model.head.linear)}
    return logits, {name: p.grad for name, p in trained.items() if p.grad is not None}


def named_head(linear: Module) -> dict[str, Parameter]:
    """The head's parameters under the names that the reference uses."""
    return {f"head.{name}": parameter for name, parameter in linear.named_parameters()}


def theirs(model: torch.nn.Module, arrays: Arrays) -> Gradients:
    """The same step by PyTorch, under this library's names."""
    logits, _, found = minilm.classify(model, arrays)
    return logits, found


def compare(mine: Gradients, reference: Gradients, exact: Gradients) -> dict[str, Any]:
    """Differences of logits and, parameter by parameter, of gradients; the worst first."""
    assert mine[1].keys() == reference[1].keys(), mine[1].keys() ^ reference[1].keys()
    rows = [
        {
            "parameter": name,
            "norm": float(np.linalg.norm(exact[1][name])),
            "ours_to_reference": relative(gradient, reference[1][name]),
            "ours_to_float64": relative(gradient, exact[1][name]),
            "reference_to_float64": relative(reference[1][name], exact[1][name]),
        }
        for name, gradient in mine[1].items()
    ]
    rows.sort(key=lambda row: -row["ours_to_reference"])
    return {
        "logits_max_abs_difference": float(np.abs(mine[0] - reference[0]).max()),
        "parameters": len(rows),
        "target": GRADIENT_TARGET,
        "gradients": rows,
    }


def base_gradients(folder: Path) -> dict[str, Any]:
    """Every parameter of the unfrozen model (the unused pooler has no gradient on either side)."""
    arrays = training_batch(folder)
    return compare(
        ours(mt.Transformer.from_pretrained(folder), arrays),
        theirs(models.bert(folder, torch.float32), arrays),
        theirs(models.bert(folder, torch.float64), arrays),
    )


def adapter_gradients(folder: Path, activation: str, scaling: float) -> dict[str, Any]:
    """Adapters at both sites of every block, base frozen here, weights far from the identity."""
    arrays = training_batch(folder)

    def reference(dtype: torch.dtype) -> torch.nn.Module:
        model, rng = models.bert(folder, dtype), np.random.default_rng(2)
        models.add_adapter(model, "task", BOTTLENECK, activation, scaling, rng)
        return model

    single = reference(torch.float32)
    base = mt.Transformer.from_pretrained(folder)
    base.freeze()
    config = mt.AdapterConfig(bottleneck=BOTTLENECK, activation=activation, scaling=scaling)
    base.add_adapter("task", config)
    base.load_state_dict(base.state_dict() | names.adapters(models.weights(single)))

    def adapters_only(found: Gradients) -> Gradients:  # PyTorch computed all of them
        chosen = {n: g for n, g in found[1].items() if ".adapters." in n or n.startswith("head.")}
        return found[0], chosen

    return compare(
        ours(base, arrays),
        adapters_only(theirs(single, arrays)),
        adapters_only(theirs(reference(torch.float64), arrays)),
    )


def show(title: str, result: dict[str, Any], count: int = 5) -> None:
    """Print the worst rows of one comparison."""
    print(f"\n{title}")
    print(f"  logits: max abs difference {result['logits_max_abs_difference']:.1e}")
    print(f"  {result['parameters']} gradients, ||a - b|| / ||b||, the worst {count}:")
    print(f"  {'':44}{'ours to':>12}{'ours to':>12}{'reference':>12}")
    print(f"  {'parameter':44}{'reference':>12}{'float64':>12}{'to float64':>12}")
    for row in result["gradients"][:count]:
        columns = ("ours_to_reference", "ours_to_float64", "reference_to_float64")
        print(f"  {row['parameter']:44}" + "".join(f"{row[c]:12.1e}" for c in columns))


def main() -> int:
    """Compare, print, write; 0 if every target is reached."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    folder = minilm.weights_folder()
    hidden = hidden_states(folder)
    print(
        f"Last hidden states of {hidden['sentences']} sentences of {hidden['shortest']} to "
        f"{hidden['longest']} tokens, float32, max abs difference"
    )
    target = f"(target {HIDDEN_TARGET:.0e})"
    print(f"  ours to transformers    {hidden['ours_to_reference']:.1e} {target}")
    print(f"  ours to float64         {hidden['ours_to_float64']:.1e}")
    print(f"  transformers to float64 {hidden['reference_to_float64']:.1e}")

    gradients = {"base": base_gradients(folder)}
    show("The unfrozen base with a classifier on [CLS], batch of 32", gradients["base"])
    for activation, scaling in ADAPTERS.items():
        key = f"adapter_{activation}"
        gradients[key] = adapter_gradients(folder, activation, scaling)
        show(f"Adapters: m={BOTTLENECK}, {activation}, scaling {scaling}", gradients[key])

    reached = hidden["ours_to_reference"] <= HIDDEN_TARGET and all(
        row["ours_to_reference"] <= GRADIENT_TARGET
        for result in gradients.values()
        for row in result["gradients"]
    )
    libraries = ("numpy", "torch", "transformers", "adapters")
    versions = {"python": platform.python_version()} | {name: version(name) for name in libraries}
    versions["minitransformer"] = mt.__version__
    result = {
        "command": "python benchmarks/agreement.py", "versions": versions,
        "targets_reached": reached, "hidden_states": hidden, **gradients,
    }  # fmt: skip
    path = HERE / "results" / "agreement.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rounded(result), indent=1) + "\n", encoding="utf-8")
    print(f"\ntargets {'reached' if reached else 'MISSED'}; written: results/{path.name}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())

"""Golden arrays of adapters: every case of `cases` on the two tiny models, some on MiniLM.

Gradients are condensed (norm and two products of each); where only the activation changes, those
of the lowest block's adapters, which the backward pass reaches last, are kept whole too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from reference import cases, minilm, models, names, tiny
from reference.cases import Case
from reference.functions import as_numpy
from reference.names import Array, Arrays
from reference.summaries import condense, products

BOTTLENECK, MINILM_BOTTLENECK, SENTENCES = 5, 16, 8


def bert(folder: Path, arrays: Arrays) -> Arrays:
    """The tiny encoder in `folder`, with a classifier on [CLS]."""

    def step(case: Case) -> Arrays:
        model = models.bert(folder, torch.float64)
        models.insert(model, case, BOTTLENECK)
        models.fill(model)
        last = model(**tiny.bert_inputs(arrays)).last_hidden_state
        recorded, found = tiny.classify("", last[:, 0], model, arrays)
        gradients = names.bert(found) | names.adapters(found)
        return {
            "logits": recorded["/logits"], "loss": recorded["/loss"],
            **outputs(last, arrays["mask"]), **condense(gradients), **lowest(case, gradients),
        }  # fmt: skip

    return every_case(step)


def gpt2(arrays: Arrays, seed: int) -> Arrays:
    """The tiny decoder, with its tied language-model head; logits are condensed too."""

    def step(case: Case) -> Arrays:
        model = models.tiny_gpt2(np.random.default_rng(seed), torch.float64)
        models.insert(model, case, BOTTLENECK)
        models.fill(model)
        states, logits, loss, found = tiny.gpt2_step(model, arrays)
        gradients = names.gpt2(found) | names.adapters(found)
        real = arrays["mask"] == 1
        return {
            "logits": products(logits.detach().numpy()[real]), **as_numpy({"loss": loss}),
            **outputs(states[-1], arrays["mask"]), **condense(gradients),
            **lowest(case, gradients),
        }  # fmt: skip

    return every_case(step)


def minilm_golden(folder: Path, reviews: Path, rng: np.random.Generator) -> Arrays:
    """Real weights, a few real sentences, a classifier on [CLS]."""
    arrays = minilm.batch(folder, reviews, SENTENCES, rng)
    d_model = models.bert(folder, torch.float64).config.hidden_size
    arrays["head.weight"] = 0.2 * rng.standard_normal((d_model, 2))
    arrays["head.bias"] = 0.2 * rng.standard_normal(2)
    for name, case in cases.minilm_cases().items():
        model = models.bert(folder, torch.float64)
        models.insert(model, case, MINILM_BOTTLENECK)
        models.fill(model)
        logits, loss, gradients = minilm.classify(model, arrays)
        gradients = {n: g for n, g in gradients.items() if not n.startswith("head.")}
        last = torch.from_numpy(minilm.last_hidden(model, arrays))
        found = {"logits": logits, "loss": np.array(loss), **outputs(last, arrays["mask"])}
        arrays |= tiny.prefixed(f"{name}/", found | condense(gradients))
    return arrays


def every_case(step: Callable[[Case], Arrays]) -> Arrays:
    """What `step` finds for each of the cases."""
    found: Arrays = {}
    for name, case in (cases.activation_cases() | cases.variant_cases()).items():
        found |= tiny.prefixed(f"{name}/", step(case))
    return found


def outputs(last: torch.Tensor, mask: Array) -> Arrays:
    """Two products of the last state at each real position."""
    return {"last": products(last.detach().numpy()[mask == 1])}


def lowest(case: Case, gradients: Arrays) -> Arrays:
    """The whole gradients of the lowest block's adapters, if the case is plain."""
    if case not in cases.activation_cases().values():
        return {}
    kept = {n: g for n, g in gradients.items() if n.startswith("blocks.0.") and ".adapters." in n}
    assert len(kept) == 2 * 4  # sites, arrays of an adapter
    return tiny.prefixed("d:", kept)

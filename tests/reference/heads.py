"""Golden arrays of transformers' own heads: a class for a pair of texts, and a number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import BertForSequenceClassification

from reference import models, names, tiny
from reference.functions import as_numpy
from reference.names import Arrays
from reference.summaries import condense

CLASS_WEIGHTS = (0.5, 2.0, 1.25)


def bert(folder: Path, rng: np.random.Generator) -> Arrays:
    """The padded batch of the tiny encoder, whose token types are those of pairs."""
    arrays = tiny.bert_batch(rng)
    arrays |= {"numbers": rng.standard_normal(len(arrays["labels"])) * 3 + 2}
    arrays |= {"number.weight": rng.standard_normal((models.TINY_BERT.hidden_size, 1))}
    arrays |= {"number.bias": rng.standard_normal(1), "class_weights": np.array(CLASS_WEIGHTS)}
    for key, head, labels in (("pair", "head", "labels"), ("number", "number", "numbers")):
        weight, bias = arrays[f"{head}.weight"], arrays[f"{head}.bias"]
        model = BertForSequenceClassification.from_pretrained(
            folder, num_labels=len(bias), attn_implementation="eager", dtype=torch.float64
        ).eval()
        with torch.no_grad():
            model.classifier.weight.copy_(torch.from_numpy(weight.T))
            model.classifier.bias.copy_(torch.from_numpy(bias))
        out = model(**tiny.bert_inputs(arrays), labels=torch.from_numpy(arrays[labels]))
        arrays |= recorded(key, model, out.logits, out.loss)
        if key == "pair":
            weighted = cross_entropy(
                out.logits,
                torch.from_numpy(arrays["labels"]),
                weight=torch.tensor(CLASS_WEIGHTS, dtype=torch.float64),
            )
            arrays |= recorded("weighted", model, out.logits, weighted)
    return arrays


def recorded(key: str, model: torch.nn.Module, logits: torch.Tensor, loss: torch.Tensor) -> Arrays:
    """Logits, loss, and every gradient as its norm and two products."""
    found = models.gradients(loss, model)
    base = {k.removeprefix("bert."): g for k, g in found.items() if k.startswith("bert.")}
    ours = names.bert(base)
    ours |= {f"head.linear.{k}": names.linear(found[f"classifier.{k}"]) for k in ("weight", "bias")}
    whole = {**as_numpy({"logits": logits, "loss": loss}), **condense(ours)}
    return tiny.prefixed(f"{key}/", whole)

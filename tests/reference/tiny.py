"""Golden arrays of two tiny random models in float64: a BERT, and a GPT-2 shaped decoder.

Names and layouts are this library's own; `d:` before a parameter's name marks its gradient.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from reference import models, names
from reference.functions import IGNORED, as_numpy, leaf
from reference.names import Arrays

BOTTLENECK = 5
ADAPTERS = {"relu": 1.0, "gelu": 0.7}  # activation -> scaling


def prefixed(prefix: str, arrays: Arrays) -> Arrays:
    """The same arrays, each name with `prefix` before it."""
    return {f"{prefix}{name}": value for name, value in arrays.items()}


def classify(
    key: str, pooled: Tensor, model: torch.nn.Module, arrays: Arrays
) -> tuple[Arrays, Arrays]:
    """A linear classifier on (B, d) vectors: recorded arrays, and the model's own gradients."""
    weight, bias = leaf(arrays["head.weight"]), leaf(arrays["head.bias"])
    logits = pooled @ weight + bias
    loss = cross_entropy(logits, torch.from_numpy(arrays["labels"]))
    found = models.gradients(loss, model)
    recorded = {
        f"{key}/logits": logits, f"{key}/loss": loss,
        f"{key}/head.d:weight": weight.grad, f"{key}/head.d:bias": bias.grad,
    }  # fmt: skip
    return as_numpy(recorded), found


def bert_batch(rng: np.random.Generator) -> Arrays:
    """A padded batch with token types, labels, what a masked language model guesses, and heads."""
    lengths, length, d_model = (11, 7, 4), 11, models.TINY_BERT.hidden_size
    vocab = models.TINY_BERT.vocab_size
    mask = (np.arange(length) < np.array(lengths)[:, None]).astype(np.int64)
    ids = rng.integers(1, vocab, mask.shape) * mask
    asked = (rng.random(mask.shape) < 0.4) & (mask == 1)  # what a masked language model guesses
    return {
        "ids": ids,
        "mask": mask,
        "types": (np.arange(length) >= np.array([[6], [3], [4]])) * mask,
        "labels": np.array([2, 0, 1]),
        "head.weight": rng.standard_normal((d_model, 3)),
        "head.bias": rng.standard_normal(3),
        "mlm.bias": 0.2 * rng.standard_normal(vocab),
        "mlm.targets": np.where(asked, rng.integers(1, vocab, mask.shape), IGNORED),
    }


def bert_inputs(arrays: Arrays) -> dict[str, Tensor]:
    """The batch as a transformers model wants it."""
    return {
        "input_ids": torch.from_numpy(arrays["ids"]),
        "attention_mask": torch.from_numpy(arrays["mask"]),
        "token_type_ids": torch.from_numpy(arrays["types"]),
    }


def bert(folder: Path, rng: np.random.Generator) -> Arrays:
    """A batch through the BERT in `folder`: states, losses, gradients."""
    arrays = bert_batch(rng)
    mask, inputs = arrays["mask"], bert_inputs(arrays)

    model = models.bert(folder, torch.float64)
    out = model(**inputs, output_hidden_states=True)
    arrays |= as_numpy({f"hidden.{i}": h for i, h in enumerate(out.hidden_states)})
    arrays |= as_numpy({"pooled": out.pooler_output})

    last = out.last_hidden_state
    recorded, found = classify("cls", last[:, 0], model, arrays)
    arrays |= recorded | prefixed("cls/d:", names.bert(found))

    # The other two ways to one vector per sentence: a few gradients tell whether they are right.
    weights = torch.from_numpy(mask).double()[..., None]
    mean = (last * weights).sum(1) / weights.sum(1)
    for pooling, pooled in (("mean", mean), ("pooler", out.pooler_output)):
        recorded, found = classify(pooling, pooled, model, arrays)
        ours = names.bert(found)
        few = {name: g for name, g in ours.items() if "pooler" in name or "norm" in name}
        arrays |= recorded | prefixed(f"{pooling}/d:", few)

    bias = leaf(arrays["mlm.bias"])
    logits = last @ model.embeddings.word_embeddings.weight.T + bias
    targets = torch.from_numpy(arrays["mlm.targets"])
    loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    found = names.bert(models.gradients(loss, model))
    arrays |= prefixed("mlm/d:", found)
    arrays |= as_numpy({"mlm/logits": logits, "mlm/loss": loss, "mlm/d:mlm.bias": bias.grad})

    for activation, scaling in ADAPTERS.items():
        model = models.bert(folder, torch.float64)
        models.add_adapter(model, "golden", BOTTLENECK, activation, scaling, rng)
        out = model(**inputs)
        key = f"adapter_{activation}"
        recorded, found = classify(key, out.last_hidden_state[:, 0], model, arrays)
        arrays |= recorded | {f"{key}/scaling": np.array(scaling)}
        arrays |= as_numpy({f"{key}/last": out.last_hidden_state})
        arrays |= adapter_arrays(key, models.weights(model), found, names.bert(found))
    return arrays


def gpt2_batch(rng: np.random.Generator) -> tuple[Arrays, int]:
    """A padded batch with the next tokens as targets, and the seed of the decoder's weights."""
    vocab, lengths, length = models.TINY_GPT2.vocab_size, (10, 8, 3), 10
    mask = (np.arange(length) < np.array(lengths)[:, None]).astype(np.int64)
    ids = rng.integers(1, vocab, mask.shape) * mask
    targets = np.full_like(ids, IGNORED)  # each position is asked for the next token
    targets[:, :-1] = np.where(mask[:, 1:] == 1, ids[:, 1:], IGNORED)
    return {"ids": ids, "mask": mask, "targets": targets}, int(rng.integers(2**31))


def gpt2_step(
    model: torch.nn.Module, arrays: Arrays
) -> tuple[tuple[Tensor, ...], Tensor, Tensor, Arrays]:
    """Hidden states, the tied head's logits, the loss and the model's own gradients."""
    out = model(
        torch.from_numpy(arrays["ids"]), attention_mask=torch.from_numpy(arrays["mask"]),
        output_hidden_states=True, use_cache=False,
    )  # fmt: skip
    logits = out.last_hidden_state @ model.wte.weight.T
    targets = torch.from_numpy(arrays["targets"])
    loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    return out.hidden_states, logits, loss, models.gradients(loss, model)


def gpt2(rng: np.random.Generator) -> Arrays:
    """A batch through the decoder, with the language-model head tied to the embeddings."""
    arrays, seed = gpt2_batch(rng)

    def run(key: str, activation: str | None) -> None:
        model = models.tiny_gpt2(np.random.default_rng(seed), torch.float64)
        if activation:
            scaling = ADAPTERS[activation]
            arrays[f"{key}/scaling"] = np.array(scaling)
            models.add_adapter(model, "golden", BOTTLENECK, activation, scaling, rng)
        states, logits, loss, found = gpt2_step(model, arrays)
        arrays.update(as_numpy({f"{key}/logits": logits, f"{key}/loss": loss}))
        if activation:
            arrays.update(as_numpy({f"{key}/last": states[-1]}))
            values = models.weights(model)
            arrays.update(adapter_arrays(key, values, found, names.gpt2(found)))
            return
        # transformers normalizes the last entry; before it come the states between the blocks
        arrays.update(as_numpy({f"hidden.{i}": h for i, h in enumerate(states)}))
        values = names.gpt2(models.weights(model))
        arrays.update(prefixed("w:", {k: v.astype(np.float32) for k, v in values.items()}))
        arrays.update(prefixed(f"{key}/d:", names.gpt2(found)))

    run("lm", None)
    for activation in ADAPTERS:
        run(f"adapter_{activation}", activation)
    return arrays


def adapter_arrays(key: str, values: Arrays, grads: Arrays, base_grads: Arrays) -> Arrays:
    """The adapters' weights and gradients, and the gradients of the layer norms around them."""
    weights = {name: w.astype(np.float32) for name, w in names.adapters(values).items()}
    assert len(weights) == 2 * 2 * 4  # blocks, sites, arrays of an adapter
    norms = {name: g for name, g in base_grads.items() if "norm" in name}
    return prefixed(f"{key}/w:", weights) | prefixed(f"{key}/d:", names.adapters(grads) | norms)

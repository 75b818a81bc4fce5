"""Golden arrays of LoRA, (IA)^3, prefix tuning, BitFit and layer-norm tuning, by PEFT and PyTorch.

The base is unfrozen, so that every gradient is there. As in `placements`, gradients are condensed;
those of the lowest block's additions are whole too in the cases named in `WHOLE`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import peft
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from reference import models, names, tiny
from reference.functions import IGNORED
from reference.method_cases import IA3, LoRA, Prefix, drawn, method_cases
from reference.names import Array, Arrays
from reference.placements import outputs
from reference.summaries import condense, products

WHOLE = ("lora/all targets", "ia3", "prefix", "prefix/shifted")

# Where a Linear is, in one block. GPT-2 has one for query, key and value together.
LINEARS = {
    "bert": {
        "query": "encoder.layer.{}.attention.self.query",
        "key": "encoder.layer.{}.attention.self.key",
        "value": "encoder.layer.{}.attention.self.value",
        "output": "encoder.layer.{}.attention.output.dense",
        "up": "encoder.layer.{}.intermediate.dense",
        "down": "encoder.layer.{}.output.dense",
    },
    "gpt2": {
        "query": "h.{}.attn.c_attn",
        "key": "h.{}.attn.c_attn",
        "value": "h.{}.attn.c_attn",
        "output": "h.{}.attn.c_proj",
        "up": "h.{}.mlp.c_fc",
        "down": "h.{}.mlp.c_proj",
    },
}
NORMS = {"bert": ["LayerNorm"], "gpt2": ["ln_1", "ln_2", "ln_f"]}
RENAME = {"bert": names.bert, "gpt2": names.gpt2}
D_MODEL, N_LAYERS = 32, 2  # of both models

Index = tuple[slice, ...]
# Our parameter -> the parameter of their model that it is in, and which part of it.
Places = dict[str, tuple[str, Index]]
Answer = Callable[[nn.Module, Tensor], tuple[Array, Tensor]]  # last states -> logits, loss


def bert(folder: Path, arrays: Arrays) -> Arrays:
    """The tiny encoder in `folder`, with a classifier on [CLS]."""

    def answer(_: nn.Module, last: Tensor) -> tuple[Array, Tensor]:
        weight, bias = (torch.from_numpy(arrays[f"head.{kind}"]) for kind in ("weight", "bias"))
        logits = last[:, 0] @ weight + bias
        return logits.detach().numpy(), cross_entropy(logits, torch.from_numpy(arrays["labels"]))

    def make() -> PreTrainedModel:
        return models.bert(folder, torch.float64)

    return every_case("bert", make, tiny.bert_inputs(arrays), answer)


def gpt2(arrays: Arrays, seed: int) -> Arrays:
    """The tiny decoder, with its tied language-model head; logits are condensed too."""
    ids, mask, targets = (torch.from_numpy(arrays[key]) for key in ("ids", "mask", "targets"))

    def answer(model: nn.Module, last: Tensor) -> tuple[Array, Tensor]:
        logits = last @ model.get_input_embeddings().weight.T
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        return products(logits.detach().numpy()[arrays["mask"] == 1]), loss

    def make() -> PreTrainedModel:
        return models.tiny_gpt2(np.random.default_rng(seed), torch.float64)

    return every_case("gpt2", make, {"input_ids": ids, "attention_mask": mask}, answer)


def every_case(
    family: str, make: Callable[[], PreTrainedModel], inputs: dict[str, Tensor], answer: Answer
) -> Arrays:
    """Logits, loss, last states and gradients, in each case."""
    found: Arrays = {}

    def step(
        model: nn.Module, places: Places, inputs: dict[str, Tensor] = inputs
    ) -> tuple[Arrays, Arrays]:
        """What is kept, and the gradients of what was added."""
        last = model(**inputs).last_hidden_state
        logits, loss = answer(model, last)
        theirs = models.gradients(loss, model)
        added = {ours: ours_of(ours, theirs[key][at]) for ours, (key, at) in places.items()}
        base = {re_base(key): gradient for key, gradient in theirs.items()}
        kept = {"logits": logits, "loss": loss.detach().numpy()}
        kept |= outputs(last, inputs["attention_mask"].numpy())
        return kept | condense(RENAME[family](base) | added), added

    for name, case in method_cases().items():
        model, called_with = make(), inputs
        if isinstance(case, LoRA):
            places = add_lora(model, case, family)
        elif isinstance(case, IA3):
            places = add_ia3(model, case, family)
        else:
            model, places, called_with = add_prefix(model, case, inputs)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
        model.requires_grad_(True)
        kept, added = step(model, places, called_with)
        if name in WHOLE:
            kept |= {f"d:{key}": g for key, g in added.items() if key.startswith("blocks.0.")}
        found |= tiny.prefixed(f"{name}/", kept)

    model = make().requires_grad_(False)  # BitFit: the biases of the base, all of them
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(key.endswith("bias"))
    found |= tiny.prefixed("bitfit/", step(model, {})[0])
    model = make()  # of each layer norm PEFT trains a copy
    peft.get_peft_model(model, peft.LNTuningConfig(target_modules=NORMS[family]))
    found |= tiny.prefixed("layer-norm/", step(model, {})[0])
    return found


def re_base(key: str) -> str:
    """The name of a parameter of the base before PEFT wrapped its module."""
    wrapped = (".base_layer", ".ln_tuning_layers.default")
    return key.removeprefix("base_model.").replace(wrapped[0], "").replace(wrapped[1], "")


# -- what is added to `model`, with the values that our names stand for ---------------------------


def add_lora(model: PreTrainedModel, case: LoRA, family: str) -> Places:
    """LoRA by PEFT.

    GPT-2's Linear for query, key and value gets one branch whose rank is the sum of the ranks of
    ours: their A stand in one matrix, and their B are blocks of one that is zero elsewhere.
    """
    layers = range(N_LAYERS) if case.layers is None else case.layers
    of_linear: dict[str, list[str]] = {}  # a Linear -> our targets in it
    for target in case.targets:
        of_linear.setdefault(LINEARS[family][target], []).append(target)
    paths = [path.format(i) for path in of_linear for i in layers]
    count = {path.format(i): len(held) for path, held in of_linear.items() for i in layers}
    config = peft.LoraConfig(
        r=case.rank, lora_alpha=case.alpha, target_modules=paths, fan_in_fan_out=family == "gpt2",
        rank_pattern={path: case.rank * n for path, n in count.items()},
        alpha_pattern={path: case.alpha * n for path, n in count.items()},
    )  # fmt: skip
    attach(model, config, case.adapters)
    places: Places = {}
    for adapter in case.adapters:
        for i in layers:
            for path, held in of_linear.items():
                for n, target in enumerate(held):
                    rows = slice(n * case.rank, (n + 1) * case.rank)
                    ours, theirs = f"blocks.{i}.{target}.{adapter}", path.format(i)
                    out = columns(target, family)
                    places[f"{ours}.A"] = f"{theirs}.lora_A.{adapter}.weight", (rows,)
                    places[f"{ours}.B"] = f"{theirs}.lora_B.{adapter}.weight", (out, rows)
    fill(model, places, 0.0)
    return places


def add_ia3(model: PreTrainedModel, case: IA3, family: str) -> Places:
    """(IA)^3 by PEFT, without factors on GPT-2's queries, which are a part of its fused Linear."""
    linears = LINEARS[family]
    kinds = {"key": linears["key"], "value": linears["value"], "ffn": linears["down"]}
    paths = sorted({path.format(i) for path in kinds.values() for i in range(N_LAYERS)})
    config = peft.IA3Config(
        target_modules=paths, fan_in_fan_out=family == "gpt2",
        feedforward_modules=[linears["down"].format(i) for i in range(N_LAYERS)],
    )  # fmt: skip
    attach(model, config, case.adapters)
    places = {
        f"blocks.{i}.{kind}.{adapter}.factor": (
            f"{path.format(i)}.ia3_l.{adapter}", (columns(kind, family),) if kind != "ffn" else ()
        )
        for adapter in case.adapters
        for i in range(N_LAYERS)
        for kind, path in kinds.items()
    }  # fmt: skip
    fill(model, places, 1.0)
    return places


def add_prefix(
    model: PreTrainedModel, case: Prefix, inputs: dict[str, Tensor]
) -> tuple[nn.Module, Places, dict[str, Tensor]]:
    """PEFT's model around this one, and what it is called with.

    It has no use for token types, and adds the prefix's length to `position_ids`.
    """
    (adapter,) = case.adapters
    config = peft.PrefixTuningConfig(
        num_virtual_tokens=case.length, num_layers=N_LAYERS, token_dim=D_MODEL,
        num_attention_heads=model.config.num_attention_heads,
    )  # fmt: skip
    wrapped = peft.PeftModelForFeatureExtraction(model, config, adapter).to(torch.float64).eval()
    places: Places = {}
    for i in range(N_LAYERS):
        for n, kind in enumerate(("key", "value")):  # side by side, block by block
            start = (2 * i + n) * D_MODEL
            at = slice(None), slice(start, start + D_MODEL)
            theirs = f"prompt_encoder.{adapter}.embedding.weight"
            places[f"blocks.{i}.prefix.{adapter}.{kind}"] = theirs, at
    fill(wrapped, places, 0.0)
    batch, length = inputs["input_ids"].shape
    positions = torch.arange(length).expand(batch, -1) - (0 if case.shifted else case.length)
    kept = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    return wrapped, places, {**kept, "position_ids": positions}


def attach(model: PreTrainedModel, config: peft.PeftConfig, adapters: tuple[str, ...]) -> None:
    """PEFT's additions under each of these names, all active."""
    wrapped = peft.get_peft_model(model, config, adapter_name=adapters[0])
    for adapter in adapters[1:]:
        wrapped.add_adapter(adapter, config)
    wrapped.base_model.set_adapter(list(adapters))


def columns(target: str, family: str) -> slice:
    """Which outputs of the Linear that holds it are those of this target."""
    fused = ("query", "key", "value")
    if family == "bert" or target not in fused:
        return slice(None)
    start = fused.index(target) * D_MODEL
    return slice(start, start + D_MODEL)


def fill(model: nn.Module, places: Places, elsewhere: float) -> None:
    """Give each added parameter the value that its name stands for, and the rest `elsewhere`."""
    theirs = dict(model.named_parameters())
    with torch.no_grad():
        for key in {key for key, _ in places.values()}:
            theirs[key].fill_(elsewhere)
        for ours, (key, at) in places.items():
            part = theirs[key][at]
            value = drawn(ours, ours_of(ours, part.numpy()).shape)
            value = value.T if is_lora(ours) else value.reshape(part.shape)
            part.copy_(torch.from_numpy(value))


def ours_of(ours: str, part: Array) -> Array:
    """A part of their parameter in our layout: LoRA's matrices turned, (IA)^3's factors flat."""
    if is_lora(ours):
        return np.ascontiguousarray(part.T)
    return part.ravel() if ours.endswith(".factor") else part


def is_lora(ours: str) -> bool:
    return ours.endswith((".A", ".B"))

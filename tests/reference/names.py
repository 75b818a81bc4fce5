"""Names and layouts of the reference libraries, written as they are called here.

Two conversions are all there is to it: a PyTorch `Linear` keeps its weight as (d_out, d_in) where
this library keeps (d_in, d_out), and BERT's three projections query, key and value stand side by
side in one matrix here. The same functions serve weights and gradients. They are written without
a look at the library's own checkpoint reader, so that a slip there does not hide itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

Array = np.ndarray
Arrays = dict[str, Array]
Renaming = Callable[[Mapping[str, Array]], Arrays]

EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "embeddings.token.weight",
    "embeddings.position_embeddings.weight": "embeddings.position.weight",
    "embeddings.token_type_embeddings.weight": "embeddings.token_type.weight",
    "embeddings.LayerNorm.weight": "embeddings.norm.weight",
    "embeddings.LayerNorm.bias": "embeddings.norm.bias",
}

BERT_BLOCK = {
    "attention.output.dense": "attention.module.out",
    "attention.output.LayerNorm": "attention.norm",
    "intermediate.dense": "ffn.module.up",
    "output.dense": "ffn.module.down",
    "output.LayerNorm": "ffn.norm",
}

GPT2_BLOCK = {
    "attn.c_attn": "attention.module.qkv",
    "attn.c_proj": "attention.module.out",
    "ln_1": "attention.norm",
    "mlp.c_fc": "ffn.module.up",
    "mlp.c_proj": "ffn.module.down",
    "ln_2": "ffn.norm",
}

GPT2_ENDS = {
    "wte.weight": "embeddings.token.weight",
    "wpe.weight": "embeddings.position.weight",
    "ln_f.weight": "final_norm.weight",
    "ln_f.bias": "final_norm.bias",
}

ADAPTER = re.compile(
    r"(?:encoder\.layer|h)\.(\d+)\."
    r"(attention\.output|output|attention_adapters|output_adapters)\."
    r"adapters\.(\w+)\.(.+)"
)

ADAPTER_PARTS = {  # with a norm before it, the down-projection is the second in its sequence
    "adapter_down.0": "down",
    "adapter_down.1": "down",
    "adapter_up": "up",
    "adapter_norm_before": "norm_before",
    "adapter_norm_after": "norm_after",
}


def linear(value: Array) -> Array:
    """(d_out, d_in) -> (d_in, d_out) for matrices; vectors stay as they are."""
    return np.ascontiguousarray(value.T) if value.ndim == 2 else value


def bert(tensors: Mapping[str, Array]) -> Arrays:
    """Everything of a transformers `BertModel`, adapters left out."""
    found: Arrays = {}
    for name, value in tensors.items():
        if name in EMBEDDINGS:
            found[EMBEDDINGS[name]] = value
        elif name.startswith("pooler.dense."):
            found[name] = linear(value)
        elif match := re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", name):
            block, inner, kind = match.groups()
            if ".adapters." in inner:
                continue
            if inner == "attention.self.query":
                parts = [tensors[name.replace("query", part)] for part in ("query", "key", "value")]
                fused = np.concatenate([linear(part) for part in parts], axis=-1)
                found[f"blocks.{block}.attention.module.qkv.{kind}"] = fused
            elif inner in BERT_BLOCK:
                found[f"blocks.{block}.{BERT_BLOCK[inner]}.{kind}"] = linear(value)
    return found


DISTILBERT_PARTS = {
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}


def distilbert(tensors: Mapping[str, Array]) -> Arrays:
    """Everything of a transformers `DistilBertModel`, by way of BERT's names."""
    found: Arrays = {}
    for name, value in tensors.items():
        if match := re.fullmatch(r"transformer\.layer\.(\d+)\.(.+)\.(weight|bias)", name):
            block, inner, kind = match.groups()
            name = f"encoder.layer.{block}.{DISTILBERT_PARTS[inner]}.{kind}"
        found[name] = value
    return bert(found)


def gpt2(tensors: Mapping[str, Array]) -> Arrays:
    """Everything of a transformers `GPT2Model`; its `Conv1D` is (d_in, d_out) already."""
    found: Arrays = {}
    for name, value in tensors.items():
        if name in GPT2_ENDS:
            found[GPT2_ENDS[name]] = value
        elif match := re.fullmatch(r"h\.(\d+)\.(.+)\.(weight|bias)", name):
            block, inner, kind = match.groups()
            if inner in GPT2_BLOCK:
                found[f"blocks.{block}.{GPT2_BLOCK[inner]}.{kind}"] = value
    return found


def adapters(tensors: Mapping[str, Array]) -> Arrays:
    """Bottleneck adapters that the `adapters` library put into a BERT or a GPT-2."""
    found: Arrays = {}
    for name, value in tensors.items():
        if match := ADAPTER.fullmatch(name):
            block, place, adapter, inner = match.groups()
            site = "attention" if place.startswith("attention") else "ffn"
            part, _, kind = inner.rpartition(".")
            ours = f"{ADAPTER_PARTS[part]}.{kind}" if part else {"scaling": "scale"}[kind]
            found[f"blocks.{block}.{site}.adapters.{adapter}.{ours}"] = linear(value)
    return found

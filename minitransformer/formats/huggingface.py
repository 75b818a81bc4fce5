"""How Hugging Face writes BERT, RoBERTa, DistilBERT and GPT-2.

For each family the words of `config.json`, and the names of the tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import CheckpointError
from ..nn.config import TransformerConfig

Words = dict[str, Any]  # what config.json holds
Names = dict[str, tuple[str, ...]]  # our parameter -> the tensors that hold it, side by side


@dataclass(frozen=True)
class Family:
    """One layout of `config.json` and `model.safetensors`.

    Attributes:
        label: what to call it in an error.
        prefix: what stands before every name in a model with a head.
        transposed: whether a Linear's matrix is stored as (d_out, d_in); here it is (d_in, d_out).
        fixed: options that must have this value, for any other changes the maths.
        shape: words and the names of the tensors -> TransformerConfig.
        words: TransformerConfig -> words.
        names: TransformerConfig -> where each parameter is.
        is_extra: whether a tensor is a buffer, or the head of another task, to be left out.
    """

    label: str
    prefix: str
    transposed: bool
    fixed: Mapping[str, Any]
    shape: Callable[[Words, list[str]], TransformerConfig]
    words: Callable[[TransformerConfig], Words]
    names: Callable[[TransformerConfig], Names]
    is_extra: Callable[[str], bool]


# words for the activation: Hugging Face's -> ours; the first of several is the one to write
ACTIVATION_WORDS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


def read_activation(words: Words, name: str, default: str) -> str:
    """Our word for the activation. Raises: CheckpointError for one that is not here."""
    word = words.get(name, default)
    if word not in ACTIVATION_WORDS:
        raise CheckpointError(f"{name}={word!r}; expected one of {', '.join(ACTIVATION_WORDS)}")
    return ACTIVATION_WORDS[word]


def activation_word(activation: str) -> str:
    """Hugging Face's word for our activation. Raises: CheckpointError if it has none."""
    for word, ours in ACTIVATION_WORDS.items():
        if ours == activation:
            return word
    known = ", ".join(dict.fromkeys(ACTIVATION_WORDS.values()))
    raise CheckpointError(f"activation {activation!r} has no word there; these have: {known}")


# -- BERT: post-norm encoder, q, k and v apart --------------------------------------------

# one block: our name -> theirs, under blocks.{i} and encoder.layer.{i}
BERT_BLOCK = {
    "attention.module.out": "attention.output.dense",
    "attention.norm": "attention.output.LayerNorm",
    "ffn.module.up": "intermediate.dense",
    "ffn.module.down": "output.dense",
    "ffn.norm": "output.LayerNorm",
}
BERT_QKV = tuple(f"attention.self.{part}" for part in ("query", "key", "value"))
BERT_EMBEDDINGS = {
    "embeddings.token.weight": "embeddings.word_embeddings.weight",
    "embeddings.position.weight": "embeddings.position_embeddings.weight",
    "embeddings.token_type.weight": "embeddings.token_type_embeddings.weight",
}


def bert_names(config: TransformerConfig) -> Names:
    names: Names = {ours: (theirs,) for ours, theirs in BERT_EMBEDDINGS.items()}
    if not config.token_types:
        del names["embeddings.token_type.weight"]
    for kind in ("weight", "bias"):
        names[f"embeddings.norm.{kind}"] = (f"embeddings.LayerNorm.{kind}",)
        for i in range(config.n_layers):
            ours, theirs = f"blocks.{i}", f"encoder.layer.{i}"
            qkv = tuple(f"{theirs}.{part}.{kind}" for part in BERT_QKV)
            names[f"{ours}.attention.module.qkv.{kind}"] = qkv
            for our_part, their_part in BERT_BLOCK.items():
                names[f"{ours}.{our_part}.{kind}"] = (f"{theirs}.{their_part}.{kind}",)
        if config.pooler:
            names[f"pooler.dense.{kind}"] = (f"pooler.dense.{kind}",)
    return names


def bert_shape(words: Words, tensors: list[str]) -> TransformerConfig:
    return TransformerConfig(
        vocab_size=words["vocab_size"],
        d_model=words["hidden_size"],
        n_layers=words["num_hidden_layers"],
        n_heads=words["num_attention_heads"],
        d_ff=words["intermediate_size"],
        max_positions=words["max_position_embeddings"],
        token_types=words.get("type_vocab_size", 2),
        activation=read_activation(words, "hidden_act", "gelu"),
        layer_norm_eps=words.get("layer_norm_eps", 1e-12),
        dropout=words.get("hidden_dropout_prob", 0.0),
        attention_dropout=words.get("attention_probs_dropout_prob", 0.0),
        pooler=any(name.endswith("pooler.dense.weight") for name in tensors),  # often left out
    )


def bert_words(config: TransformerConfig) -> Words:
    return {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.d_ff,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.token_types,
        "hidden_act": activation_word(config.activation),
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
    }


BERT = Family(
    label="a BERT",
    prefix="bert.",
    transposed=True,
    fixed={"position_embedding_type": "absolute", "is_decoder": False},
    shape=bert_shape,
    words=bert_words,
    names=bert_names,
    is_extra=lambda name: (
        name == "embeddings.position_ids" or name.startswith(("cls.", "classifier."))
    ),
)


# -- RoBERTa: BERT's tensors; positions count from the padding token's id + 1 on -----------


def roberta_shape(words: Words, tensors: list[str]) -> TransformerConfig:
    pad_id = words.get("pad_token_id", 1)
    return replace(bert_shape(words, tensors), pad_id=1 if pad_id is None else pad_id)


def roberta_words(config: TransformerConfig) -> Words:
    own = {"model_type": "roberta", "architectures": ["RobertaModel"]}
    return {**bert_words(config), **own, "pad_token_id": config.pad_id}


ROBERTA = replace(
    BERT,
    label="a RoBERTa",
    prefix="roberta.",
    shape=roberta_shape,
    words=roberta_words,
    is_extra=lambda name: name.startswith(
        ("embeddings.position_ids", "embeddings.token_type_ids", "lm_head.", "classifier.")
    ),
)


# -- DistilBERT: BERT without token types and pooler, under names of its own --------------

DISTILBERT_BLOCK = {
    "attention.module.out": "attention.out_lin",
    "attention.norm": "sa_layer_norm",
    "ffn.module.up": "ffn.lin1",
    "ffn.module.down": "ffn.lin2",
    "ffn.norm": "output_layer_norm",
}
DISTILBERT_QKV = tuple(f"attention.{part}_lin" for part in "qkv")
DISTILBERT_EPS = 1e-12  # written into its code, not into config.json
DISTILBERT_HEADS = ("vocab_", "pre_classifier.", "classifier.", "qa_outputs.")


def distilbert_names(config: TransformerConfig) -> Names:
    """BERT's names with those of the blocks replaced."""
    names = bert_names(config)
    for kind in ("weight", "bias"):
        for i in range(config.n_layers):
            ours, theirs = f"blocks.{i}", f"transformer.layer.{i}"
            qkv = tuple(f"{theirs}.{part}.{kind}" for part in DISTILBERT_QKV)
            names[f"{ours}.attention.module.qkv.{kind}"] = qkv
            for our_part, their_part in DISTILBERT_BLOCK.items():
                names[f"{ours}.{our_part}.{kind}"] = (f"{theirs}.{their_part}.{kind}",)
    return names


def distilbert_shape(words: Words, tensors: list[str]) -> TransformerConfig:
    return TransformerConfig(
        vocab_size=words["vocab_size"],
        d_model=words["dim"],
        n_layers=words["n_layers"],
        n_heads=words["n_heads"],
        d_ff=words["hidden_dim"],
        max_positions=words["max_position_embeddings"],
        activation=read_activation(words, "activation", "gelu"),
        layer_norm_eps=DISTILBERT_EPS,
        dropout=words.get("dropout", 0.1),  # here also on the attention's output; there not
        attention_dropout=words.get("attention_dropout", 0.1),
    )


def distilbert_words(config: TransformerConfig) -> Words:
    return {
        "model_type": "distilbert",
        "architectures": ["DistilBertModel"],
        "vocab_size": config.vocab_size,
        "dim": config.d_model,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "hidden_dim": config.d_ff,
        "max_position_embeddings": config.max_positions,
        "sinusoidal_pos_embds": False,  # whatever they were: they are among the tensors
        "activation": activation_word(config.activation),
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
    }


DISTILBERT = Family(
    label="a DistilBERT",
    prefix="distilbert.",
    transposed=True,
    fixed={},
    shape=distilbert_shape,
    words=distilbert_words,
    names=distilbert_names,
    is_extra=lambda name: name == "embeddings.position_ids" or name.startswith(DISTILBERT_HEADS),
)


# -- GPT-2: pre-norm causal decoder, q, k and v fused -------------------------------------

# one block: our name -> theirs, under blocks.{i} and h.{i}
GPT2_BLOCK = {
    "attention.module.qkv": "attn.c_attn",
    "attention.module.out": "attn.c_proj",
    "attention.norm": "ln_1",
    "ffn.module.up": "mlp.c_fc",
    "ffn.module.down": "mlp.c_proj",
    "ffn.norm": "ln_2",
}
GPT2_HEADS = ("lm_head.", "score.", "classifier.", "multiple_choice_head.")


def gpt2_names(config: TransformerConfig) -> Names:
    names: Names = {
        "embeddings.token.weight": ("wte.weight",),
        "embeddings.position.weight": ("wpe.weight",),
    }
    for kind in ("weight", "bias"):
        for i in range(config.n_layers):
            for ours, theirs in GPT2_BLOCK.items():
                names[f"blocks.{i}.{ours}.{kind}"] = (f"h.{i}.{theirs}.{kind}",)
        names[f"final_norm.{kind}"] = (f"ln_f.{kind}",)
    return names


def gpt2_shape(words: Words, tensors: list[str]) -> TransformerConfig:
    d_model = words["n_embd"]
    d_ff = words.get("n_inner")
    return TransformerConfig(
        vocab_size=words["vocab_size"],
        d_model=d_model,
        n_layers=words["n_layer"],
        n_heads=words["n_head"],
        d_ff=4 * d_model if d_ff is None else d_ff,
        max_positions=words["n_positions"],
        norm="pre",
        causal=True,
        activation=read_activation(words, "activation_function", "gelu_new"),
        layer_norm_eps=words.get("layer_norm_epsilon", 1e-5),
        dropout=words.get("resid_pdrop", 0.1),  # here the embeddings' is the same (embd_pdrop)
        attention_dropout=words.get("attn_pdrop", 0.1),
    )


def gpt2_words(config: TransformerConfig) -> Words:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocab_size,
        "n_positions": config.max_positions,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": config.d_ff,
        "activation_function": activation_word(config.activation),
        "layer_norm_epsilon": config.layer_norm_eps,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
        "tie_word_embeddings": True,
        "bos_token_id": None,  # else the reader takes those of the published vocabulary
        "eos_token_id": None,
    }


GPT2 = Family(
    label="a GPT-2",
    prefix="transformer.",
    transposed=False,  # their Conv1D is (d_in, d_out) already
    fixed={
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    shape=gpt2_shape,
    words=gpt2_words,
    names=gpt2_names,
    is_extra=lambda name: (
        name.endswith((".attn.bias", ".attn.masked_bias")) or name.startswith(GPT2_HEADS)
    ),
)

FAMILIES = {  # by config.json's model_type
    "bert": BERT,
    "roberta": ROBERTA,
    "distilbert": DISTILBERT,
    "gpt2": GPT2,
}


def family_of(config: TransformerConfig) -> Family:
    """The layout that describes a model of this shape. Raises: CheckpointError if none does."""
    types, plain = config.token_types, not config.token_types and not config.pooler
    if config.norm == "post" and not config.causal:
        if types:
            return BERT if config.pad_id is None else ROBERTA
        if plain and config.pad_id is None and config.layer_norm_eps == DISTILBERT_EPS:
            return DISTILBERT
    if config.norm == "pre" and config.causal and plain:
        return GPT2
    raise CheckpointError(
        f"no public layout describes norm={config.norm!r} with causal={config.causal}, "
        f"token_types={types}, pooler={config.pooler}, pad_id={config.pad_id}, "
        f"layer_norm_eps={config.layer_norm_eps}: BERT's and RoBERTa's are for post-norm encoders "
        f"with token types, DistilBERT's without them and a pooler (eps {DISTILBERT_EPS}), GPT-2's "
        "for pre-norm causal decoders without both"
    )

"""The words of the `adapters` library (AdapterHub) for an adapter's configuration and weights.

(Poth et al. 2023, arXiv 2311.11077.) What has no equivalent in the other library is refused by
name. Dropout is applied to f's input here and to its output there: its probability is taken over,
and it matters in training alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..adapters.bottleneck import Adapter
from ..adapters.config import SITES, AdapterConfig
from ..errors import CheckpointError, listed
from ..nn.config import TransformerConfig
from ..nn.module import Array
from .folders import Words
from .huggingface import activation_word, family_of, read_activation

# -- names of weights ----------------------------------------------------------------------

MODEL_CLASSES = {
    "bert": "BertAdapterModel",
    "roberta": "RobertaAdapterModel",
    "distilbert": "DistilBertAdapterModel",
    "gpt2": "GPT2AdapterModel",
}
BERT_PATHS = {"attention": "encoder.layer.{}.attention.output", "ffn": "encoder.layer.{}.output"}
INNER_PATHS = {"attention": "{}.attention_adapters", "ffn": "{}.output_adapters"}
SITE_PATHS = {
    "bert": BERT_PATHS,
    "roberta": BERT_PATHS,
    "distilbert": {site: f"transformer.layer.{path}" for site, path in INNER_PATHS.items()},
    "gpt2": {site: f"h.{path}" for site, path in INNER_PATHS.items()},
}


def model_type_of(shape: TransformerConfig) -> str:
    """config.json's word for the family. Raises: CheckpointError for a model of none."""
    model_type: str = family_of(shape).words(shape)["model_type"]
    return model_type


def places(
    shape: TransformerConfig, config: AdapterConfig, ours: str, theirs: str
) -> dict[str, tuple[str, ...]]:
    """Our parameter -> the tensors that hold it; where there are two, they are the same."""
    paths, parts = SITE_PATHS[model_type_of(shape)], their_parts(config)
    layers = config.layers if config.layers is not None else range(shape.n_layers)
    own = [part for part, _ in Adapter(shape.d_model, config).named_parameters()]
    return {
        f"blocks.{i}.{site}.adapters.{ours}.{part}": tuple(
            f"{paths[site].format(i)}.adapters.{theirs}.{key}" for key in parts[part]
        )
        for i in layers
        for site in config.resolved_sites
        for part in own
    }


def their_parts(config: AdapterConfig) -> dict[str, tuple[str, ...]]:
    """An adapter's parameters there. A norm before is the first entry of the way down, too."""
    down = "adapter_down.1" if config.norm == "before" else "adapter_down.0"
    parts: dict[str, tuple[str, ...]] = {"scale": ("scaling",)}
    for kind in ("weight", "bias"):
        parts[f"down.{kind}"] = (f"{down}.{kind}",)
        parts[f"up.{kind}"] = (f"adapter_up.{kind}",)
        parts[f"norm_before.{kind}"] = (f"adapter_down.0.{kind}", f"adapter_norm_before.{kind}")
        parts[f"norm_after.{kind}"] = (f"adapter_norm_after.{kind}",)
    return parts


def turned(value: Array) -> Array:
    """Matrices are (d_out, d_in) there and (d_in, d_out) here; vectors are vectors."""
    return np.transpose(np.asarray(value, np.float32))


# -- words of an adapter's configuration ---------------------------------------------------

# Where f reads, where it adds, and whether its skip connection starts behind the block's norm.
PLACEMENTS: dict[str, Words] = {
    "after_norm": {
        "is_parallel": False, "original_ln_before": True, "original_ln_after": False,
        "residual_before_ln": False,
    },
    "houlsby": {
        "is_parallel": False, "original_ln_before": False, "original_ln_after": True,
        "residual_before_ln": True,
    },
    "pfeiffer": {
        "is_parallel": False, "original_ln_before": True, "original_ln_after": True,
        "residual_before_ln": True,
    },
    "parallel": {
        "is_parallel": True, "original_ln_before": False, "original_ln_after": True,
        "residual_before_ln": True,
    },
}  # fmt: skip
SITE_WORDS = {"attention": "mh_adapter", "ffn": "output_adapter"}
INIT_WORDS = {"near_identity": "houlsby", "zero_up": "mam_adapter"}

DEFAULTS: Words = {  # what the library takes for a word that is not there
    **PLACEMENTS["houlsby"], "ln_before": False, "ln_after": False, "scaling": 1.0,
    "adapter_residual_before_ln": False, "init_weights": "bert", "leave_out": [], "dropout": 0.0,
}  # fmt: skip
NEEDED = {"mh_adapter", "output_adapter", "reduction_factor", "non_linearity"}
# Words that say nothing as long as what they belong to is switched off.
IDLE = set(
    "init_weights_seed inv_adapter_reduction_factor phm_dim factorized_phm_W shared_W_phm "
    "shared_phm_rule factorized_phm_rule phm_c_init phm_init_range learn_phm phm_rank phm_bias "
    "hypercomplex_nonlinearity".split()
)


def to_words(config: AdapterConfig, d_model: int, n_layers: int) -> Words:
    """An AdapterConfig as the library's BnConfig."""
    if config.placement not in PLACEMENTS:
        raise CheckpointError(f"placement {config.placement!r} has no equivalent there")
    layers = config.layers if config.layers is not None else range(n_layers)
    learned = config.scaling == "learned"
    return {
        **PLACEMENTS[config.placement],
        **{word: site in config.resolved_sites for site, word in SITE_WORDS.items()},
        "reduction_factor": reduction_factor(d_model, config.width(d_model)),
        "non_linearity": activation_word(config.activation),
        "scaling": "learned" if learned else float(config.scaling),  # an int is refused there
        "ln_before": config.norm == "before",
        "ln_after": config.norm == "after",
        "adapter_residual_before_ln": False,
        "leave_out": [i for i in range(n_layers) if i not in layers],
        "dropout": config.dropout,
        "init_weights": INIT_WORDS[config.init],
    }


def from_words(words: Words, d_model: int, n_layers: int) -> AdapterConfig:
    """The inverse of `to_words`. Raises: CheckpointError that names what cannot be expressed."""
    if words.get("architecture") is not None:
        raise CheckpointError(
            f"architecture={words['architecture']!r}: only bottleneck adapters can be read"
        )
    if missing := NEEDED - words.keys():
        raise CheckpointError(f"{listed(sorted(missing))} not given")
    known = {**DEFAULTS, **words}
    refused = [
        f"{k}={v!r}" for k, v in words.items() if k not in NEEDED | IDLE | set(DEFAULTS) and v
    ]
    norms = [word for word in ("before", "after") if known[f"ln_{word}"]]
    if len(norms) > 1:
        refused.append("ln_before with ln_after")
    if known["adapter_residual_before_ln"] and norms == ["after"] and not known["is_parallel"]:
        refused.append("adapter_residual_before_ln=True")
    if refused:
        raise CheckpointError(f"{listed(sorted(refused))}: there is no equivalent here")
    left_out = set(known["leave_out"] or ())
    layers = tuple(i for i in range(n_layers) if i not in left_out)
    return AdapterConfig(
        bottleneck=width(known["reduction_factor"], d_model, layers),
        activation=read_activation(
            {"non_linearity": str(known["non_linearity"]).lower()}, "non_linearity", ""
        ),
        placement=placement(known),
        sites=tuple(site for site in SITES if known[SITE_WORDS[site]]),
        layers=layers if len(layers) < n_layers else None,
        init="zero_up" if known["init_weights"] == "mam_adapter" else "near_identity",
        scaling=known["scaling"],
        dropout=known["dropout"],
        norm=norms[0] if norms else None,
    )


def placement(words: Words) -> str:
    """The placement that the switches describe. Raises: CheckpointError if there is none."""
    switches = {word: words[word] for word in PLACEMENTS["houlsby"]}
    seen = dict(switches)
    if seen["is_parallel"]:
        seen["original_ln_before"] = False  # which is not looked at then, nor is the next
    if not seen["original_ln_before"] and isinstance(seen["residual_before_ln"], bool):
        seen["residual_before_ln"] = True
    for name, expected in PLACEMENTS.items():
        if seen == expected:
            return name
    said = ", ".join(f"{word}={value!r}" for word, value in switches.items())
    raise CheckpointError(f"no placement here is {said}; there are {', '.join(PLACEMENTS)}")


def reduction_factor(d_model: int, bottleneck: int) -> float:
    """The factor that gives exactly this bottleneck there, where m = d // factor."""
    return d_model / bottleneck if d_model % bottleneck == 0 else d_model / (bottleneck + 0.5)


def width(factor: float | Mapping[str, float], d_model: int, layers: tuple[int, ...]) -> int:
    """m, from one factor for all blocks, or one for each with a "default" for the others.

    Raises: CheckpointError if the blocks differ, or a factor is all but zero.
    """
    each = factor if isinstance(factor, Mapping) else {"default": factor}
    factors = [each[str(i)] if str(i) in each else each["default"] for i in layers]
    if any(math.isinf(d_model / f) for f in factors):
        raise CheckpointError(f"reduction_factor={factor!r}: too small for a width of {d_model}")
    widths = {max(1, int(d_model // f)) for f in factors}
    if len(widths) != 1:
        seen = ", ".join(map(str, sorted(widths))) or "none"
        raise CheckpointError(
            f"reduction_factor={factor!r}: expected the same bottleneck in every block with an "
            f"adapter, found {seen}"
        )
    return widths.pop()

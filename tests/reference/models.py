"""The reference models: transformers' BERT and GPT-2, with the adapters of the `adapters` library.

All run with plain ("eager") attention and without dropout, so that forward and gradients are one
definite computation. Weights come from NumPy generators, so they do not change with PyTorch.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, PreTrainedModel
from transformers.utils import logging as transformers_logging

import adapters as adapter_library
from reference import names
from reference.cases import Case, drawn

transformers_logging.set_verbosity_error()
logging.getLogger("adapters").setLevel(logging.ERROR)  # it warns between adding and activating

TINY_BERT = BertConfig(
    vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=48, max_position_embeddings=24, type_vocab_size=2, hidden_act="gelu",
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-12,
    architectures=["BertModel"],
)  # fmt: skip

TINY_GPT2 = GPT2Config(
    vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_inner=48, n_positions=24,
    activation_function="gelu_new", layer_norm_epsilon=1e-5,
    embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0,
    bos_token_id=0, eos_token_id=0, architectures=["GPT2Model"],
)  # fmt: skip


def randomize(parameters: dict[str, torch.Tensor], rng: np.random.Generator) -> None:
    """Weights that leave no gain at 1 and no bias at 0, in float32 numbers.

    Float32 values are exact in float64, so a model saved in single precision and read back in
    double is the same model.
    """
    for name, parameter in parameters.items():
        noise = rng.standard_normal(tuple(parameter.shape))
        if parameter.ndim == 1:
            is_gain = name.endswith("weight")  # of a layer norm
            value = 1 + 0.3 * noise if is_gain else 0.2 * noise
        elif "embed" in name or name.startswith(("wte", "wpe")):
            value = 0.5 * noise
        else:
            value = noise / np.sqrt(max(parameter.shape))
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(value.astype(np.float32)))


def save_tiny_bert(folder: Path, rng: np.random.Generator) -> None:
    """A random BERT as a folder in the Hugging Face layout."""
    model = BertModel(TINY_BERT)
    randomize(dict(model.named_parameters()), rng)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("transformers_version")  # the folder should change with the model only
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def bert(folder: str | Path, dtype: torch.dtype) -> BertModel:
    """The BERT in a folder, ready for comparison: eager attention, no dropout."""
    model = BertModel.from_pretrained(folder, attn_implementation="eager", dtype=dtype)
    return model.eval()


def tiny_gpt2(rng: np.random.Generator, dtype: torch.dtype) -> GPT2Model:
    """A random pre-norm decoder."""
    model = GPT2Model._from_config(TINY_GPT2, attn_implementation="eager")
    randomize(dict(model.named_parameters()), rng)
    return model.to(dtype).eval()


# The switches of the `adapters` library. "original" are the block's own residual and norm: before
# or after the adapter, and whether the adapter's skip connection starts before that norm.
PLACEMENTS: dict[str, dict[str, bool]] = {
    "after_norm": {
        "original_ln_before": True, "original_ln_after": False, "residual_before_ln": False,
    },
    "houlsby": {
        "original_ln_before": False, "original_ln_after": True, "residual_before_ln": True,
    },
    "pfeiffer": {
        "original_ln_before": True, "original_ln_after": True, "residual_before_ln": True,
    },
    "parallel": {
        "original_ln_before": False, "original_ln_after": True, "residual_before_ln": True,
        "is_parallel": True,
    },
}  # fmt: skip
ACTIVATIONS = {"gelu_tanh": "gelu_new"}  # where the words differ


def insert(model: PreTrainedModel, case: Case, bottleneck: int) -> None:
    """The adapters of a case, active, with the library's own start values; everything trains."""
    d_model, n_layers = model.config.hidden_size, model.config.num_hidden_layers
    layers = range(n_layers) if case.layers is None else case.layers
    adapter_library.init(model)
    config = adapter_library.BnConfig(
        mh_adapter="attention" in case.sites,
        output_adapter="ffn" in case.sites,
        reduction_factor=d_model / (bottleneck + 0.5),  # the library rounds d / factor down
        non_linearity=ACTIVATIONS.get(case.activation, case.activation),
        scaling=case.scaling,
        ln_before=case.norm == "before",
        ln_after=case.norm == "after",
        leave_out=[block for block in range(n_layers) if block not in layers],
        adapter_residual_before_ln=False,
        **PLACEMENTS[case.placement],
    )
    for name in case.adapters:
        model.add_adapter(name, config=config)
    model.set_active_adapters(adapter_library.composition.Stack(*case.adapters))
    model.to(model.dtype).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    parts = adapter_parameters(model)
    assert len(parts) >= 4 * len(layers) * len(case.sites) * len(case.adapters)
    assert {min(p.shape) for p in parts.values() if p.ndim == 2} == {bottleneck}


def adapter_parameters(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """What the `adapters` library put in."""
    return {key: p for key, p in model.named_parameters() if ".adapters." in key}


def add_adapter(
    model: PreTrainedModel,
    name: str,
    bottleneck: int,
    activation: str,
    scaling: float,
    rng: np.random.Generator,
) -> None:
    """Adapters at the end of both sub-layers of every block, all their numbers drawn from `rng`."""
    case = Case("after_norm", activation, scaling=scaling, adapters=(name,))
    insert(model, case, bottleneck)
    randomize(adapter_parameters(model), rng)


def fill(model: PreTrainedModel) -> None:
    """Give every adapter parameter the value that its name stands for."""
    for name, parameter in adapter_parameters(model).items():
        ((ours, value),) = names.adapters({name: parameter.detach().numpy()}).items()
        value = names.linear(drawn(ours, value.shape))  # back to PyTorch's layout
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(value))


def weights(model: torch.nn.Module) -> names.Arrays:
    """Every parameter's value, under the reference's own names."""
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def gradients(loss: torch.Tensor, model: torch.nn.Module) -> names.Arrays:
    """d loss / d parameter for each parameter that the loss depends on."""
    model.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {n: p.grad.numpy().copy() for n, p in model.named_parameters() if p.grad is not None}

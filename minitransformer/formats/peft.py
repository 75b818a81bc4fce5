"""PEFT's folders of LoRA and (IA)^3, written and read without PyTorch.

A folder holds `adapter_config.json` and `adapter_model.safetensors`; a classifier of the model is
among the tensors. `minitransformer.json`, which PEFT does not read, holds the label names and what
else a later import should know. The words of the configuration are explained in `peft_config`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..adapters.attach import Adaptable
from ..adapters.config import IA3Config, LoRAConfig
from ..adapters.ia3 import IA3
from ..adapters.lora import LoRA
from ..adapters.methods import LINEARS
from ..errors import CheckpointError, listed
from ..nn.config import TransformerConfig
from ..nn.module import Array
from .adapterhub_config import model_type_of, turned
from .files import read_tensors, write_tensors
from .folders import LinearHead, Words, new_folder, read_words, summed_up, write_words
from .huggingface import family_of
from .peft_config import (
    LORA_WORDS,
    Target,
    check_words,
    ia3_config,
    ia3_words,
    joined_updates,
    lora_config,
    lora_words,
    modules,
)

CONFIG, WEIGHTS, ORIGIN = "adapter_config.json", "adapter_model.safetensors", "minitransformer.json"
PICKLE = "adapter_model.bin"
VERSION = "0.21.2"  # whose words these are
PREFIX = "base_model.model."  # of every tensor
CLASSIFIER = ("classifier.weight", "classifier.bias")
HEAD_NAMES = ("classifier.", "score.")


@dataclass(frozen=True)
class PeftFolder:
    """The content of one of PEFT's folders.

    Attributes:
        path: where it lies.
        words: its configuration.
        tensors: its weights under PEFT's names and in its layout.
        origin: what this library adds when it writes a folder; empty in others.
    """

    path: Path
    words: Words
    tensors: Mapping[str, Array]
    origin: Words

    @property
    def model_name(self) -> str:
        """What the base was called there."""
        return str(self.words.get("base_model_name_or_path") or "")


# -- an adapter into a folder, and back ----------------------------------------------------


def save_peft(
    transformer: Adaptable,
    name: str,
    folder: str | Path,
    head: LinearHead | None = None,
    model_name: str = "",
    origin: Words | None = None,
    card: str | None = None,
) -> Path:
    """Write LoRA or (IA)^3 called `name` as a folder that PEFT loads.

    There: `PeftModel.from_pretrained(base, folder)`, where `base` is a BertModel, with a head a
    BertForSequenceClassification, or a GPT2LMHeadModel. `model_name` is what the base is called,
    `origin` anything that a later import here should know, `card` the text of README.md. GPT-2's
    query, key and value are one Linear there: n of them of rank r become one of rank n r.
    Returns the folder; it is complete or not there at all.
    Raises: ConfigError if the folder exists; CheckpointError for another method, a model that is
    of no family, or a head where PEFT's reads another vector.
    """
    folder, shape = Path(folder).expanduser(), transformer.config
    config, model_type = transformer.adapter_config(name), model_type_of(shape)
    if isinstance(config, LoRAConfig):
        words, tensors = lora_folder(transformer, name, config)
    elif isinstance(config, IA3Config):
        words, tensors = ia3_folder(transformer, name)
    else:
        raise CheckpointError(
            f"{name!r} is {type(config).__name__}: PEFT's folders are for LoRA and (IA)^3"
        )
    if head is not None:
        check_head(model_type, head.pooling)
    task = "SEQ_CLS" if head is not None else "CAUSAL_LM" if shape.causal else "FEATURE_EXTRACTION"
    words |= {
        "task_type": task,
        "base_model_name_or_path": model_name or None,
        "inference_mode": True,
        "fan_in_fan_out": model_type == "gpt2",  # how the base's own weights lie
        "modules_to_save": ["classifier"] if head is not None else None,
        "peft_version": VERSION,
    }
    inner = "" if task == "FEATURE_EXTRACTION" else family_of(shape).prefix
    tensors = {f"{PREFIX}{inner}{key}": tensor for key, tensor in tensors.items()}
    if head is not None:
        weight, bias = (f"{PREFIX}{key}" for key in CLASSIFIER)
        tensors |= {weight: turned(head.weight), bias: turned(head.bias)}
        origin = {**(origin or {}), "label_names": list(head.label_names)}
    with new_folder(folder) as temporary:
        if card is not None:
            (temporary / "README.md").write_text(card, encoding="utf-8")
        write_words(temporary / CONFIG, words)
        write_tensors(temporary / WEIGHTS, tensors, {"format": "pt"})
        if origin:
            write_words(temporary / ORIGIN, origin)
    return folder


def load_peft(
    transformer: Adaptable, folder: str | Path | PeftFolder, name: str = "default"
) -> str:
    """Insert the LoRA or (IA)^3 of a folder that PEFT saved; a head in it is left out.

    It is trainable and active, under `name`, which is returned. PEFT's folders do not say which
    base they were trained on; that the shapes fit is all that can be checked.
    Raises: CheckpointError for a folder that cannot be read, does not fit this base, or holds what
    cannot be expressed here; ConfigError if the name is taken. Then nothing has changed.
    """
    found = folder if isinstance(folder, PeftFolder) else read_peft(folder)
    shape = transformer.config
    try:  # first: what an option stands for would be tensors too many
        check_words(found.words, LORA_WORDS if found.words["peft_type"] == "LORA" else set())
    except (CheckpointError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{found.path / CONFIG}: {error}") from error
    parts, _ = sorted_tensors(found, shape)
    values: Mapping[Target, tuple[Array, ...]]
    config: LoRAConfig | IA3Config
    try:
        if found.words["peft_type"] == "LORA":
            pairs = {
                path: (turned(own["lora_A.weight"]), turned(own["lora_B.weight"]))
                for path, own in parts.items()
            }
            config, values = lora_config(found.words, pairs, shape)
        else:
            factors = {path: own["ia3_l"] for path, own in parts.items()}
            config, by_kind = ia3_config(found.words, factors, shape)
            values = {target: (value,) for target, value in by_kind.items()}
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(f"{found.path / CONFIG}: {error}") from error
    transformer.add_method(name, config)
    for target, arrays in additions(transformer, name):
        for array, value in zip(arrays, values[target], strict=True):
            array[...] = value
    return name


def additions(transformer: Adaptable, name: str) -> Iterator[tuple[Target, tuple[Array, ...]]]:
    """What LoRA or (IA)^3 called `name` adds to each target in each block, as views."""
    for i, block in enumerate(transformer.blocks):
        for (site, linear), targets in LINEARS.items():
            module = getattr(getattr(block, site).module, linear)
            adapter = getattr(module, "adapters", {}).get(name)
            if isinstance(adapter, LoRA):
                own = [target for target in targets if target in adapter.config.targets]
                for n, target in enumerate(own):
                    yield (i, target), (adapter.a.value[n], adapter.b.value[n])
            elif isinstance(adapter, IA3):
                own = ["key", "value"] if linear == "qkv" else ["down"]
                for target, factors in zip(own, adapter.factors.value, strict=True):
                    yield (i, target), (factors,)


def lora_folder(
    transformer: Adaptable, name: str, config: LoRAConfig
) -> tuple[Words, dict[str, Array]]:
    """Words and tensors of a LoRA, without what depends on the model around the base."""
    updates = {target: (a, b) for target, (a, b) in additions(transformer, name)}
    tensors, ranks = {}, {}
    for path, held in modules(transformer.config).items():
        joined = joined_updates(updates, held)
        if joined is not None:
            a, b = joined
            tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = (
                turned(a),
                turned(b),
            )
            ranks[path] = a.shape[1]
    return lora_words(config, ranks), tensors


def ia3_folder(transformer: Adaptable, name: str) -> tuple[Words, dict[str, Array]]:
    """Words and tensors of an (IA)^3, without what depends on the model around the base."""
    factors = {target: value for target, (value,) in additions(transformer, name)}
    tensors = {}
    for path, held in modules(transformer.config).items():
        if not factors.keys() & set(held):
            continue
        width = len(next(value for target, value in factors.items() if target in held))
        columns = np.concatenate([factors.get(target, np.ones(width)) for target in held])
        at_input = held[0][1] == "down"  # (1, d_in) there; of outputs (d_out, 1)
        tensors[f"{path}.ia3_l"] = columns[None] if at_input else columns[:, None]
    tensors = {key: tensor.astype(np.float32) for key, tensor in tensors.items()}
    return ia3_words({k.removesuffix(".ia3_l"): len(v) == 1 for k, v in tensors.items()}), tensors


# -- files ---------------------------------------------------------------------------------


def read_peft(folder: str | Path) -> PeftFolder:
    """A folder that PEFT's `save_pretrained` wrote, or `save_peft`.

    Raises: CheckpointError if a file is missing, damaged or pickled, or for another method.
    """
    path = Path(folder).expanduser()
    words = read_words(path / CONFIG)
    method = words.get("peft_type")
    if method not in ("LORA", "IA3"):
        why = "of PEFT's methods, LORA and IA3 can be read"
        if method == "PREFIX_TUNING":
            why += "; there a prefix takes the first positions of the sequence, here it takes none"
        raise CheckpointError(f"{path / CONFIG}: peft_type={method!r}: {why}")
    if not (path / WEIGHTS).exists() and (path / PICKLE).exists():
        raise CheckpointError(
            f"{path / PICKLE} is a pickle, which needs PyTorch; save it there as safetensors: "
            "model.save_pretrained(folder, safe_serialization=True)"
        )
    tensors = {k: tensor.astype(np.float32) for k, tensor in read_tensors(path / WEIGHTS).items()}
    origin = read_words(path / ORIGIN) if (path / ORIGIN).exists() else {}
    return PeftFolder(path, words, tensors, origin)


def is_peft(folder: str | Path) -> bool:
    """Whether a folder is one of PEFT's; not so those of the `adapters` library."""
    path = Path(folder).expanduser() / CONFIG
    return path.exists() and "peft_type" in read_words(path)


def sorted_tensors(
    found: PeftFolder, shape: TransformerConfig
) -> tuple[dict[str, dict[str, Array]], dict[str, Array]]:
    """The tensors of each module of the base, and those of a head.

    Raises: CheckpointError that lists all that is missing, unexpected, mis-shaped or not finite.
    """
    kinds = ("ia3_l",) if found.words["peft_type"] == "IA3" else ("lora_A.weight", "lora_B.weight")
    held, inner = modules(shape), family_of(shape).prefix
    parts: dict[str, dict[str, Array]] = {}
    head: dict[str, Array] = {}
    problems = []
    for key, tensor in found.tensors.items():
        name = key.removeprefix(PREFIX).removeprefix(inner)
        match = re.fullmatch(rf"(.+)\.({'|'.join(map(re.escape, kinds))})", name)
        if not np.isfinite(tensor).all():
            problems.append(f"not finite: {key} contains NaN or infinity")
        elif key.startswith(PREFIX) and match and match[1] in held:
            parts.setdefault(match[1], {})[match[2]] = tensor
        elif key.startswith(PREFIX) and name.startswith(HEAD_NAMES):
            head[name] = tensor
        else:
            problems.append(f"unexpected: {key}")
    for path, own in parts.items():
        problems += [f"missing: {path}.{kind}" for kind in kinds if kind not in own]
        problems += mis_shaped(path, own, held[path], shape)
    if not parts and not problems:
        problems.append("nothing: there is no tensor of LoRA or (IA)^3")
    if problems:
        raise CheckpointError(
            f"{found.path / WEIGHTS} does not fit this base, {family_of(shape).label} of "
            f"{shape.n_layers} blocks and width {shape.d_model}:\n  {summed_up(problems)}"
        )
    return parts, head


def mis_shaped(
    path: str, own: Mapping[str, Array], held: tuple[Target, ...], shape: TransformerConfig
) -> list[str]:
    """A line for each tensor of a module that does not have the shape that it should have."""
    target = held[0][1]
    d_in = shape.d_ff if target == "down" else shape.d_model
    d_out = shape.d_ff if target == "up" else shape.d_model * len(held)
    a = own.get("lora_A.weight", np.zeros((0, 0))).shape
    r = a[0] if len(a) == 2 else 0
    expected = {
        "lora_A.weight": [(r, d_in)],
        "lora_B.weight": [(d_out, r)],
        "ia3_l": [(d_out, 1), (1, d_in)],
    }
    return [
        f"wrong shape: {path}.{kind} is {tensor.shape}, expected "
        + " or ".join(map(str, expected[kind]))
        for kind, tensor in own.items()
        if tensor.shape not in expected[kind] or 0 in tensor.shape
    ]


# -- the head ------------------------------------------------------------------------------


def check_head(model_type: str, pooling: str) -> None:
    """Raises: CheckpointError where the classifier there reads another vector than ours."""
    if model_type != "bert":
        other = {"gpt2": "has no bias"}.get(model_type, "has two layers")
        raise CheckpointError(
            f"a classifier on {model_type!r} {other} there, unlike the one here: "
            "only the adapter can be taken over, without a head"
        )
    if pooling != "pooler":
        raise CheckpointError(
            f"pooling {pooling!r}: the classifier there (BertForSequenceClassification) reads "
            "BERT's pooler; train with pooling 'pooler'"
        )


def read_head(found: PeftFolder, shape: TransformerConfig) -> LinearHead | None:
    """The classifier of a folder; None if there is none.

    Its labels are those that `save_peft` wrote, or numbers, because PEFT keeps none.
    Raises: CheckpointError if it has no equivalent here, or does not fit.
    """
    _, tensors = sorted_tensors(found, shape)
    if not tensors:
        return None
    check_head(model_type_of(shape), "pooler")
    n = len(tensors.get(CLASSIFIER[0], ()))
    expected = dict(zip(CLASSIFIER, ((n, shape.d_model), (n,)), strict=True))
    if {key: tensor.shape for key, tensor in tensors.items()} != expected:
        seen = listed(f"{key} {tensor.shape}" for key, tensor in sorted(tensors.items()))
        raise CheckpointError(
            f"{found.path / WEIGHTS}: the head is {seen}; expected one Linear, classifier.weight "
            f"(classes, {shape.d_model}) and classifier.bias (classes,)"
        )
    labels = found.origin.get("label_names", [str(i) for i in range(n)])
    if not isinstance(labels, list) or len(labels) != n:
        raise CheckpointError(f"{found.path / ORIGIN}: {labels} are no names for {n} classes")
    weight, bias = (turned(tensors[key]) for key in CLASSIFIER)
    return LinearHead(tuple(map(str, labels)), "pooler", weight, bias)

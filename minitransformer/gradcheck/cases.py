"""Every module of this library in a tiny size, with inputs, for `check_library`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..adapters.bottleneck import Adapter
from ..adapters.config import (
    PLACEMENTS,
    TARGETS,
    AdapterConfig,
    IA3Config,
    LoRAConfig,
    PrefixConfig,
)
from ..adapters.fusion import Fusion
from ..adapters.ia3 import IA3
from ..adapters.linear import AdaptedLinear
from ..adapters.lora import LoRA
from ..adapters.per_row import PerRowAdapters
from ..adapters.prefix import Prefix
from ..adapters.select import select_trainable
from ..models.heads import ClassificationHead, Classifier, LanguageModel, Pooling, RegressionHead
from ..models.transformer import Block, Embeddings, FeedForward, Pooler, Transformer
from ..nn.attention import MultiHeadAttention
from ..nn.config import TransformerConfig
from ..nn.functional import ACTIVATIONS, IGNORE
from ..nn.layers import Dropout, Embedding, LayerNorm, Linear
from ..nn.losses import CrossEntropy, SquaredError
from ..nn.module import Array, Module
from ..nn.sublayer import SubLayer

# Small, and as different as can be, so that hardly two axes can be mistaken for one another.
B, T, D, HEADS, D_FF, M, VOCABULARY, CLASSES = 2, 5, 4, 2, 6, 3, 7, 3
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])  # the second sequence is padded
TYPES = np.array([[0, 0, 0, 1, 1], [0, 1, 1, 0, 0]])

ENCODER = TransformerConfig(VOCABULARY, D, 2, HEADS, D_FF, max_positions=6, token_types=2)
DECODER = TransformerConfig(
    VOCABULARY, D, 2, HEADS, D_FF, max_positions=6, norm="pre", causal=True,
    activation="gelu_tanh", layer_norm_eps=1e-5,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A module to check: `gradcheck(case.module, *case.inputs, **case.options)`."""

    name: str
    module: Module
    inputs: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)


def cases(seed: int = 0) -> list[Case]:
    """One case for every module and every way of freezing, in the order of the files."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((B, T, D))
    ids = rng.integers(0, VOCABULARY, (B, T))  # some ids appear more than once
    return [
        *layers(rng, x, ids),
        *attention(rng, x),
        *sublayers_and_blocks(rng, x),
        *adapters(rng, x),
        *combinations(rng, x),
        *methods(rng, x, ids),
        *heads_and_loss(rng, x),
        *whole_models(rng, ids),
    ]


def randomized(module: Any, rng: np.random.Generator) -> Any:
    """Move every parameter off its start: gains that are 1 and biases that are 0 hide mistakes."""
    module.astype(np.float64)
    for parameter in module.parameters():
        parameter.value += 0.4 * rng.standard_normal(parameter.shape)
    return module


def layers(rng: np.random.Generator, x: Array, ids: Array) -> Iterator[Case]:
    yield Case("Linear", randomized(Linear(D, M), rng), (x,))
    yield Case("Linear, one vector", randomized(Linear(D, M), rng), (x[0, 0],))
    linear = randomized(Linear(D, M), rng)
    linear.weight.trainable = False
    yield Case("Linear, weight frozen", linear, (x,))
    yield Case("Linear, frozen", randomized(Linear(D, M), rng).freeze(), (x,))
    first = randomized(Linear(D, M), rng)
    yield Case("Linear, nothing before it trains", first, (x,), {"check_inputs": False})
    yield Case("Embedding", randomized(Embedding(VOCABULARY, D), rng), (ids,))
    yield Case("LayerNorm", randomized(LayerNorm(D), rng), (x,))
    yield Case("LayerNorm, frozen", randomized(LayerNorm(D), rng).freeze(), (x,))
    yield Case("Dropout", Dropout(0.4), (x,))


def attention(rng: np.random.Generator, x: Array) -> Iterator[Case]:
    for mask, masked in ((None, ""), (MASK, ", padding")):
        for causal in (False, True):
            name = "MultiHeadAttention" + masked + (", causal" if causal else "")
            yield Case(name, randomized(MultiHeadAttention(D, HEADS, causal), rng), (x, mask))
    with_dropout = randomized(MultiHeadAttention(D, HEADS, dropout=0.3), rng)
    yield Case("MultiHeadAttention, dropout", with_dropout, (x, MASK))
    frozen = randomized(MultiHeadAttention(D, HEADS), rng).freeze()
    yield Case("MultiHeadAttention, frozen", frozen, (x, MASK))
    single_query = randomized(MultiHeadAttention(D, HEADS, dropout=0.3), rng)
    yield Case("MultiHeadAttention, one query", single_query, (x, MASK, 1))
    for causal in (False, True):
        single_query = randomized(MultiHeadAttention(D, HEADS, causal, dropout=0.3), rng).freeze()
        name = "MultiHeadAttention, one query, frozen" + (", causal" if causal else "")
        yield Case(name, single_query, (x, MASK, 1))
    last = randomized(MultiHeadAttention(D, HEADS), rng).freeze()
    last.out.unfreeze()
    yield Case("MultiHeadAttention, only out", last, (x, MASK), {"check_inputs": False})


def sublayers_and_blocks(rng: np.random.Generator, x: Array) -> Iterator[Case]:
    for activation in ACTIVATIONS:
        module = randomized(FeedForward(D, D_FF, activation), rng)
        yield Case(f"FeedForward, {activation}", module, (x,))
    for pre_norm, word in ((False, "post-norm"), (True, "pre-norm")):
        core = FeedForward(D, D_FF, "gelu")
        module = randomized(SubLayer(core, LayerNorm(D), pre_norm, dropout=0.2), rng)
        yield Case(f"SubLayer, {word}", module, (x,))
    for config, word in ((ENCODER, "post-norm"), (DECODER, "pre-norm")):
        yield Case(f"Block, {word}", randomized(Block(config), rng), (x, MASK))
        for placement in PLACEMENTS:
            name = f"Block, {word}, {placement} adapters"
            yield Case(name, block_with_adapters(config, rng, placement), (x, MASK))
            name += ", nothing before it trains"
            first = block_with_adapters(config, rng, placement)
            yield Case(name, first, (x, MASK), {"check_inputs": False})
        stacked = block_with_adapters(config, rng, *PLACEMENTS)
        yield Case(f"Block, {word}, a stack of all placements", stacked, (x, MASK))
        norms = block_with_adapters(config, rng, "pfeiffer")
        norms.attention.norm.unfreeze()
        norms.ffn.norm.unfreeze()
        yield Case(f"Block, {word}, pfeiffer adapters and norms", norms, (x, MASK))


def block_with_adapters(
    config: TransformerConfig, rng: np.random.Generator, *placements: str
) -> Any:
    """A frozen block with a stack of trainable adapters at each sub-layer, one a placement."""
    block = randomized(Block(config), rng).freeze()
    for site in (block.attention, block.ffn):
        for placement in placements:
            adapter = Adapter(D, AdapterConfig(M, activation="gelu", placement=placement), rng)
            site.insert(placement, randomized(adapter, rng))
        site.active = placements
    return block


def adapters(rng: np.random.Generator, x: Array) -> Iterator[Case]:
    nothing_before = {"check_inputs": False}
    for init in ("near_identity", "zero_up"):
        for activation in ACTIVATIONS:
            module = Adapter(D, AdapterConfig(M, activation=activation, init=init), rng)
            yield Case(f"Adapter, {activation}, {init}", module, (x,))
    config = AdapterConfig(M, activation="gelu", scaling=0.5, dropout=0.3)
    yield Case("Adapter, scaled, dropout", randomized(Adapter(D, config), rng), (x,))
    for norm in (None, "before", "after"):
        config = AdapterConfig(M, activation="gelu", scaling="learned", norm=norm)
        yield Case(
            f"Adapter, learned scaling, norm {norm}", randomized(Adapter(D, config), rng), (x,)
        )
        frozen = randomized(Adapter(D, config), rng).freeze()
        yield Case(f"Adapter, learned scaling, norm {norm}, frozen", frozen, (x,))
        first = randomized(Adapter(D, config), rng)
        name = f"Adapter, learned scaling, norm {norm}, nothing before it trains"
        yield Case(name, first, (x,), nothing_before)
    config = AdapterConfig(M, activation="gelu", scaling="learned")
    only_scale = randomized(Adapter(D, config), rng).freeze()
    only_scale.scale.trainable = True
    yield Case("Adapter, only its scaling", only_scale, (x,), nothing_before)


def combinations(rng: np.random.Generator, x: Array) -> Iterator[Case]:
    four = ("a", "b", None, "a")
    h = rng.standard_normal((len(four), T, D))
    first = {"check_inputs": False}
    for word, options in (("", {}), (", nothing before it trains", first)):
        yield Case(
            f"PerRowAdapters{word}",
            PerRowAdapters(three_adapters(rng), four, "houlsby"),
            (h,),
            options,
        )
        one_trains = PerRowAdapters(three_adapters(rng), four, "houlsby")
        one_trains.adapters["a"].freeze()
        yield Case(f"PerRowAdapters, one of two trains{word}", one_trains, (h,), options)
        yield Case(f"Fusion{word}", fusion(rng), (x,), options)
        everything = fusion(rng)
        for source in everything.sources.values():
            source.unfreeze()
        yield Case(f"Fusion, sources too{word}", everything, (x,), options)
        only_value = fusion(rng)
        only_value.query.freeze()
        only_value.key.trainable = False
        yield Case(f"Fusion, value alone{word}", only_value, (x,), options)
    yield Case("Fusion, frozen", fusion(rng).freeze(), (x,))
    for config, word in ((ENCODER, "post-norm"), (DECODER, "pre-norm")):
        for placement in PLACEMENTS:
            block = randomized(Block(config), rng).freeze()
            for site in (block.attention, block.ffn):
                site.insert("several", fusion(rng, placement))
                site.active = ("several",)
            name = f"Block, {word}, {placement} fusion, nothing before it trains"
            yield Case(name, block, (x, MASK), first)
        mixed = randomized(Block(config), rng).freeze()
        for site, rows in ((mixed.attention, ("a", "b")), (mixed.ffn, (None, "a"))):
            for placement in PLACEMENTS:
                site.insert(
                    placement, PerRowAdapters(three_adapters(rng, placement), rows, placement)
                )
            site.active = tuple(PLACEMENTS)
        yield Case(f"Block, {word}, rows of different placements", mixed, (x, MASK))


def three_adapters(rng: np.random.Generator, placement: str = "houlsby") -> dict[str, Any]:
    config = AdapterConfig(M, activation="gelu", placement=placement)
    return {name: randomized(Adapter(D, config), rng) for name in ("a", "b", "c")}


def fusion(rng: np.random.Generator, placement: str = "houlsby") -> Any:
    """Query, key and value train, three sources are frozen."""
    return randomized(Fusion(D, three_adapters(rng, placement)), rng)


METHODS = {
    "lora": LoRAConfig(2, targets=TARGETS, dropout=0.2),
    "lora, query and value": LoRAConfig(2),
    "ia3": IA3Config(),
    "prefix": PrefixConfig(3),
    "linear adapter": AdapterConfig(M, activation="linear", placement="houlsby"),
}


def methods(rng: np.random.Generator, x: Array, ids: Array) -> Iterator[Case]:
    """LoRA, (IA)^3 and prefixes: in a Linear, in a model, all at once, and a row each."""
    first = {"check_inputs": False}
    for word, options in (("", {}), (", nothing before it trains", first)):
        for name in ("a", "b", "both", *([] if word else ["none"])):
            linear = adapted_linear(rng)
            lora = linear.adapters["lora"]
            lora.a.trainable, lora.b.trainable = name in ("a", "both"), name in ("b", "both")
            yield Case(f"AdaptedLinear, LoRA, {name} trains{word}", linear, (x,), options)
        everything = adapted_linear(rng)
        everything.unfreeze()
        yield Case(f"AdaptedLinear, everything trains{word}", everything, (x,), options)
    few = {"max_entries": 12}
    for config, word in ((ENCODER, "encoder"), (DECODER, "decoder")):
        for method, inserted in METHODS.items():
            model = model_with(config, rng, {"task": inserted})
            yield Case(f"Transformer, {word}, {method}", model, (ids, MASK), few)
        top = model_with(config, rng, {"task": LoRAConfig(2, targets=TARGETS, layers=(1,))})
        yield Case(f"Transformer, {word}, lora in the top block", top, (ids, MASK), few)
        mixed = model_with(config, rng, {**METHODS, "adapter": AdapterConfig(M, activation="gelu")})
        yield Case(f"Transformer, {word}, all methods at once", mixed, (ids, MASK), few)
        mixed = model_with(config, rng, METHODS).unfreeze()
        yield Case(f"Transformer, {word}, all methods, base too", mixed, (ids, MASK), few)
        rows = model_with(config, rng, {"a": LoRAConfig(2, targets=TARGETS), "b": IA3Config()})
        rows.set_adapter_per_row(["a", "b"])
        yield Case(f"Transformer, {word}, LoRA and (IA)^3, a row each", rows, (ids, MASK), few)
        for method in ("bitfit", "layer-norm"):
            model = model_with(config, rng, {})
            select_trainable(model, method)
            yield Case(f"Transformer, {word}, {method}", model, (ids, MASK), few)


def adapted_linear(rng: np.random.Generator) -> Any:
    """Three projections side by side with factors, an update and a prefix; the update trains."""
    linear = AdaptedLinear(Linear(D, 3 * D))
    linear.insert("ia3", IA3(3 * D, IA3Config(), "after", (1, 2), 3))
    linear.insert("input", IA3(D, IA3Config(), "before"))
    linear.insert("prefix", Prefix(D, PrefixConfig(2)))
    linear.freeze()
    linear.insert("lora", LoRA(linear, LoRAConfig(2, dropout=0.2), (0, 2), 3))
    linear.active = ("ia3", "input", "prefix", "lora")
    return randomized(linear, rng)


def model_with(config: TransformerConfig, rng: np.random.Generator, inserted: Any) -> Any:
    """A frozen base; what was inserted trains, all of it active."""
    transformer = Transformer(config)
    transformer.freeze()
    for name, method in inserted.items():
        transformer.add_method(name, method)
    transformer.set_active(*inserted)
    return randomized(transformer, rng)


def heads_and_loss(rng: np.random.Generator, x: Array) -> Iterator[Case]:
    yield Case("Pooling, cls", Pooling("cls"), (x, MASK))
    yield Case("Pooling, last", Pooling("last"), (x, MASK))
    yield Case("Pooling, mean", Pooling("mean"), (x, MASK))
    yield Case("Pooling, mean without a mask", Pooling("mean"), (x,))
    yield Case("Pooler", randomized(Pooler(D), rng), (x[:, 0],))
    head = randomized(ClassificationHead(D, CLASSES, dropout=0.2), rng)
    yield Case("ClassificationHead", head, (x[:, 0],))
    number = randomized(RegressionHead(D, dropout=0.2, location=2.0, scale=3.0), rng)
    yield Case("RegressionHead", number, (x[:, 0],))
    y, numbers = rng.standard_normal((B, 1)), rng.standard_normal(B)
    yield Case("SquaredError", SquaredError(unit=1.7), (y,), {"labels": numbers})
    labels = rng.integers(0, CLASSES, (B, T))
    some = np.where(MASK == 0, IGNORE, labels)
    logits = rng.standard_normal((B, T, CLASSES))
    yield Case("CrossEntropy", CrossEntropy(), (logits, labels))
    yield Case("CrossEntropy, ignored positions", CrossEntropy(), (logits, some))
    yield Case("CrossEntropy, label smoothing", CrossEntropy(0.1), (logits, labels))
    yield Case("CrossEntropy, both", CrossEntropy(0.1), (logits, some))
    weighted = CrossEntropy(0.1, class_weights=[0.5 + k for k in range(CLASSES)])
    yield Case("CrossEntropy, class weights", weighted, (logits, some))


def whole_models(rng: np.random.Generator, ids: Array) -> Iterator[Case]:
    inputs = (ids, MASK, TYPES)
    few = {"max_entries": 12}  # the modules are checked at every entry above
    yield Case("Embeddings, encoder", randomized(Embeddings(ENCODER), rng), (ids, TYPES))
    yield Case("Embeddings, decoder", randomized(Embeddings(DECODER), rng), (ids,))
    for config, word in ((ENCODER, "encoder"), (DECODER, "decoder")):
        given = inputs if config is ENCODER else (ids, MASK)
        yield Case(f"Transformer, {word}", randomized(Transformer(config), rng), given, few)

        everything = classifier(config, rng).unfreeze()
        yield Case(f"Classifier, {word}, everything trains", everything, given, few)
        only_adapters = classifier(config, rng)
        yield Case(f"Classifier, {word}, adapters and head", only_adapters, given, few)
        with_norms = classifier(config, rng)
        with_norms.transformer.train_layer_norms()
        yield Case(f"Classifier, {word}, adapters, norms and head", with_norms, given, few)
        top = classifier(config, rng, layers=(1,))
        yield Case(f"Classifier, {word}, adapters in the top block", top, given, few)
        head_only = classifier(config, rng)
        head_only.transformer.freeze()
        yield Case(f"Classifier, {word}, head alone", head_only, given, few)

        model = randomized(LanguageModel(Transformer(config)), rng)
        yield Case(f"LanguageModel, {word}, everything trains", model, given, few)
        model = LanguageModel(Transformer(config))
        model.freeze()
        model.transformer.add_adapter("task", AdapterConfig(M, activation="gelu"))
        yield Case(f"LanguageModel, {word}, adapters", randomized(model, rng), given, few)
    for pooling in ("mean", "pooler"):
        config = replace(ENCODER, pooler=pooling == "pooler")
        model = classifier(config, rng, pooling=pooling).unfreeze()
        yield Case(f"Classifier, {pooling} pooling", model, inputs, few)


def classifier(
    config: TransformerConfig,
    rng: np.random.Generator,
    pooling: str | None = None,
    layers: tuple[int, ...] | None = None,
) -> Classifier:
    """A frozen base, trainable adapters and head; the encoder with dropout in its head."""
    transformer = Transformer(config)
    transformer.freeze()
    transformer.add_adapter("task", AdapterConfig(M, activation="gelu", layers=layers))
    model: Classifier = randomized(Classifier(transformer, CLASSES, pooling, dropout=0.2), rng)
    return model

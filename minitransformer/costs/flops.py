"""Exact counts from a configuration, without a single weight in memory.

Parameters by part, what adapters add, and the multiply-adds of a forward pass and of a training
step. Of the arithmetic only matrix products are counted: they are nearly all of it, and one
product of (n, k) and (k, m) takes n k m multiply-adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..adapters.config import SITES, AdapterConfig
from ..data.hub import find_checkpoint
from ..errors import HubError
from ..formats.checkpoint import read_config
from ..nn.config import TransformerConfig
from ..nn.kernels import over_inputs_is_cheaper

FLOAT32 = 4  # bytes

# Shapes of well-known models, from their papers' tables and published configurations.
SHAPES = {
    "minilm": TransformerConfig(30522, 384, 6, 12, 1536, token_types=2, pooler=True),
    "bert-base": TransformerConfig(30522, 768, 12, 12, 3072, token_types=2, pooler=True),
    "bert-large": TransformerConfig(30522, 1024, 24, 16, 4096, token_types=2, pooler=True),
    "roberta-base": TransformerConfig(
        50265, 768, 12, 12, 3072, max_positions=514, token_types=1, layer_norm_eps=1e-5, pooler=True
    ),
    "distilbert": TransformerConfig(30522, 768, 6, 12, 3072),
    "gpt2": TransformerConfig(
        50257, 768, 12, 12, 3072,
        max_positions=1024, norm="pre", causal=True, activation="gelu_tanh", layer_norm_eps=1e-5,
    ),
}  # fmt: skip


def shape_of(base: str | Path) -> TransformerConfig:
    """A shape by its name in SHAPES, or that of a checkpoint: "tiny", a folder, a model-hub id.

    Raises: HubError if there is no such name or checkpoint.
    """
    if isinstance(base, str) and base in SHAPES:
        return SHAPES[base]
    try:
        return read_config(find_checkpoint(base))
    except HubError as error:
        raise HubError(f"{error}; shapes known without weights: {', '.join(SHAPES)}") from error


# -- parameters ---------------------------------------------------------------------------


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a transformer, by part (biases with the matrices that they belong to)."""

    embeddings: int
    attention: int
    feed_forward: int
    layer_norms: int
    pooler: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


def count_parameters(config: TransformerConfig) -> ParameterCounts:
    """What `Transformer(config)` holds, adapters and heads aside."""
    d, d_ff, blocks = config.d_model, config.d_ff, config.n_layers
    return ParameterCounts(
        embeddings=(config.vocab_size + config.max_positions + config.token_types) * d,
        attention=blocks * (4 * d * d + 4 * d),  # query, key, value and output projections
        feed_forward=blocks * (2 * d * d_ff + d_ff + d),
        layer_norms=(2 * blocks + 1) * 2 * d,  # two a block; after the embeddings, or at the end
        pooler=d * d + d if config.pooler else 0,
    )


@dataclass(frozen=True)
class AdapterCounts:
    """What adapters add: m, the parameters of one site, and the number of sites."""

    bottleneck: int
    per_site: int
    sites: int

    @property
    def total(self) -> int:
        return self.per_site * self.sites


def count_adapters(config: TransformerConfig, adapter: AdapterConfig) -> AdapterCounts:
    """2 d m + d + m for each site (Houlsby et al. 2019, arXiv 1902.00751, section 2.1).

    A learned scaling adds 1, a layer norm of the adapter's own 2 d.
    """
    d, m = config.d_model, adapter.width(config.d_model)
    sites = [s for block in range(config.n_layers) for s in SITES if adapter.has_site(block, s)]
    extras = (adapter.scaling == "learned") + (2 * d if adapter.norm else 0)
    return AdapterCounts(m, 2 * d * m + d + m + extras, len(sites))


# -- multiply-adds ------------------------------------------------------------------------


@dataclass(frozen=True)
class MultiplyAdds:
    """Multiply-adds of one training step, in matrix products.

    `recomputed` are those of attention's scores, which the backward pass computes again instead of
    saving them; `needed` is everything else.
    """

    forward: int
    input_gradients: int
    weight_gradients: int
    recomputed: int = 0

    @property
    def needed(self) -> int:
        return self.forward + self.input_gradients + self.weight_gradients

    @property
    def total(self) -> int:
        return self.needed + self.recomputed


@dataclass(frozen=True)
class Stage:
    """A part of the forward pass: its products, and whether it trains.

    `weights` says whether the products are with a weight matrix (one product backward for each
    gradient) or of two activations, as in attention (two backward: one for either factor).
    `recomputed` are those that the backward pass does again.
    """

    products: int
    trains: bool
    weights: bool = True
    recomputed: int = 0


def count_multiply_adds(
    config: TransformerConfig,
    batch: int,
    length: int,
    method: str = "adapter",
    adapter: AdapterConfig | None = None,
    n_classes: int = 2,
    layer_norm: bool = False,
    pooling: str | None = None,
) -> MultiplyAdds:
    """One training step of a classifier on `batch` sequences of `length` tokens.

    `method` is "adapter", "head" or "full", as in `runs.RunOptions`; the backward pass ends at
    the earliest stage that trains. A forward pass alone is `.forward`; that of the plain base
    with a head, without adapters, is `.forward` of the method "head".
    """
    if method != "adapter":
        adapter = None
    elif adapter is None:
        adapter = AdapterConfig()
    forward = inputs = weights = recomputed = 0
    reached = False  # whether anything before this stage trains
    for stage in stages(config, batch, length, method, adapter, n_classes, layer_norm, pooling):
        forward += stage.products
        if reached:
            inputs += stage.products * (1 if stage.weights else 2)
            recomputed += stage.recomputed
        if stage.trains and stage.weights:
            weights += stage.products
        reached = reached or stage.trains
    return MultiplyAdds(forward, inputs, weights, recomputed)


def stages(
    config: TransformerConfig,
    batch: int,
    length: int,
    method: str,
    adapter: AdapterConfig | None,
    n_classes: int,
    layer_norm: bool,
    pooling: str | None,
) -> Iterator[Stage]:
    """The stages in the order of the forward pass."""
    d, full = config.d_model, method == "full"
    norm = Stage(0, trains=full or (layer_norm and adapter is not None))

    yield Stage(0, full)  # embeddings: rows are looked up, nothing is multiplied
    for block in range(config.n_layers):
        # The last block finishes only the position that the head reads.
        reads_first = pooling in ("cls", "pooler") or (pooling is None and not config.causal)
        first_only = block == config.n_layers - 1 and reads_first
        queries = 1 if first_only else length
        attention = (
            *attention_stages(batch, queries, length, config, frozen=not full),
            Stage(batch * queries * d * d, full),  # the projection of the context
        )
        feed_forward = (Stage(batch * queries * d * config.d_ff, full),) * 2  # up, down
        for site, module in zip(SITES, (attention, feed_forward), strict=True):
            yield from (norm, *module) if config.norm == "pre" else (*module, norm)
            if adapter is not None and adapter.has_site(block, site):
                yield from (Stage(batch * queries * d * adapter.width(d), trains=True),) * 2
    if config.norm == "pre":
        yield Stage(0, full)
    if pooling == "pooler":
        yield Stage(batch * d * d, full)
    yield Stage(batch * d * n_classes, trains=True)  # the head


def attention_stages(
    batch: int, queries: int, length: int, config: TransformerConfig, frozen: bool
) -> tuple[Stage, ...]:
    """From the inputs to the context: the two branches of `MultiHeadAttention.forward`."""
    d = config.d_model
    if frozen and over_inputs_is_cheaper(queries, length, config.n_heads, d):
        square = batch * queries * d * d
        every_head = 2 * batch * queries * config.n_heads * length * d  # scores, their use
        return (
            Stage(2 * square, False, recomputed=2 * square),  # queries, and queries times W_k^T
            Stage(every_head, False, weights=False, recomputed=every_head // 2),
            Stage(square, False),  # values
        )
    scores = batch * queries * length * d
    return (
        Stage(batch * length * d * 3 * d, not frozen),  # queries, keys and values
        Stage(2 * scores, False, weights=False, recomputed=scores),  # and their use
    )


def adapter_costs(
    base: str | Path = "bert-base", bottlenecks: Iterable[int] = (64,), length: int = 128
) -> dict[str, Any]:
    """What adapters of each width would cost on a base, as plain values.

    `share` is of the base's parameters; `file_bytes` are float32; `step` is the multiply-adds of
    a training step, on sequences of `length` tokens, over those of full fine-tuning.
    Raises: HubError for an unknown base; ConfigError for a width below 1.
    """
    config = shape_of(base)
    counts = count_parameters(config)
    full = count_multiply_adds(config, 32, length, "full").total
    rows = []
    for m in bottlenecks:
        adapter = AdapterConfig(bottleneck=m)
        added = count_adapters(config, adapter)
        rows.append(
            {
                **asdict(added),
                "total": added.total,
                "share": added.total / counts.total,
                "file_bytes": FLOAT32 * added.total,
                "step": count_multiply_adds(config, 32, length, "adapter", adapter).total / full,
            }
        )
    return {
        "base": str(base),
        "config": asdict(config),
        "parameters": {**asdict(counts), "total": counts.total},
        "file_bytes": FLOAT32 * counts.total,
        "adapters": rows,
    }

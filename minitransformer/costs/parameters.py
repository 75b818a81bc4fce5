"""Parameters, counted from a configuration without a single weight in memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from ..adapters.config import SITES, AdapterConfig
from ..data.hub import find_checkpoint
from ..data.pinned import known_name
from ..formats.checkpoint import read_config
from ..nn.config import TransformerConfig

FLOAT32 = 4  # bytes

# Shapes of well-known models, from their papers' tables and published configurations. Their names
# are those under which `find_checkpoint` finds the weights.
SHAPES = {
    "minilm": TransformerConfig(30522, 384, 6, 12, 1536, token_types=2, pooler=True),
    "bert-base": TransformerConfig(30522, 768, 12, 12, 3072, token_types=2, pooler=True),
    "bert-large": TransformerConfig(30522, 1024, 24, 16, 4096, token_types=2, pooler=True),
    "roberta-base": TransformerConfig(
        50265, 768, 12, 12, 3072,
        max_positions=514, token_types=1, layer_norm_eps=1e-5, pooler=True, pad_id=1,
    ),
    "distilbert": TransformerConfig(30522, 768, 6, 12, 3072),
    "gpt2": TransformerConfig(
        50257, 768, 12, 12, 3072,
        max_positions=1024, norm="pre", causal=True, activation="gelu_tanh", layer_norm_eps=1e-5,
    ),
}  # fmt: skip


def shape_of(base: str | Path) -> TransformerConfig:
    """A shape by its name in SHAPES, or that of a checkpoint: "tiny", a folder, a model-hub id.

    Those of SHAPES are known without weights.
    Raises: HubError if there is no such name or checkpoint.
    """
    if isinstance(base, str) and known_name(base) in SHAPES:
        return SHAPES[known_name(base)]
    return read_config(find_checkpoint(base))


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

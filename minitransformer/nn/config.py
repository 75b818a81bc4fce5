"""TransformerConfig: the shape of a transformer, BERT-like or GPT-2-like."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError
from .kernels import activation_named

NORMS = ("post", "pre")


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of a transformer. Checks itself; raises ConfigError.

    Attributes:
        vocab_size, max_positions: rows of the token and position embeddings.
        d_model, n_layers, n_heads, d_ff: width, depth, attention heads, feed-forward width.
        token_types: rows of the token-type embedding; 0 for none (DistilBERT).
        pad_id: the padding token, where positions count from pad_id + 1 on (RoBERTa); None: from 0.
        norm: "post" (BERT: LN(x + f(x))) or "pre" (GPT-2: x + f(LN(x)), and a final norm).
        causal: whether a position attends only to itself and earlier ones.
        activation: "gelu", "gelu_tanh", "relu", "silu" or "tanh".
        layer_norm_eps: what layer norm adds to the variance.
        dropout, attention_dropout: probabilities, in training only.
        pooler: whether there is BERT's pooler (dense + tanh on [CLS]).
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    max_positions: int = 512
    token_types: int = 0
    norm: str = "post"
    causal: bool = False
    activation: str = "gelu"
    layer_norm_eps: float = 1e-12
    dropout: float = 0.0
    attention_dropout: float = 0.0
    pooler: bool = False
    pad_id: int | None = None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "d_ff", "max_positions"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name}={value!r}: expected a whole number of at least 1")
        types = self.token_types
        if not isinstance(types, int) or isinstance(types, bool) or types < 0:
            raise ConfigError(f"token_types={self.token_types!r}: expected 0 (none) or more")
        if self.d_model % self.n_heads:
            raise ConfigError(
                f"n_heads={self.n_heads} does not divide d_model={self.d_model}; "
                "each head takes an equal share of the width"
            )
        if self.norm not in NORMS:
            raise ConfigError(f"norm={self.norm!r}: expected one of {', '.join(NORMS)}")
        numbers = ("layer_norm_eps", "dropout", "attention_dropout")
        eps, *probabilities = (getattr(self, name) for name in numbers)
        if not isinstance(eps, int | float) or not 0 < eps < 1:
            raise ConfigError(f"layer_norm_eps={eps!r}: expected a small positive number")
        for name, p in zip(numbers[1:], probabilities, strict=True):
            if not isinstance(p, int | float) or not 0 <= p < 1:
                raise ConfigError(f"{name}={p!r}: expected 0 <= {name} < 1")
        if not isinstance(self.activation, str):
            raise ConfigError(f"activation={self.activation!r}: expected a name")
        activation_named(self.activation)
        pad = self.pad_id
        if pad is not None and (
            self.causal
            or not isinstance(pad, int)
            or isinstance(pad, bool)
            or not 0 <= pad < self.vocab_size
        ):
            raise ConfigError(
                f"pad_id={pad!r}: expected None, or in an encoder a token below "
                f"vocab_size={self.vocab_size}"
            )
        if self.max_length < 1:
            raise ConfigError(
                f"max_positions={self.max_positions}: none is left behind pad_id={pad}"
            )

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens: RoBERTa's first positions are not for tokens."""
        return self.max_positions - (0 if self.pad_id is None else self.pad_id + 1)

    @property
    def matrix_parameters(self) -> int:
        """Parameters of the embeddings and of the blocks' matrices: most of them."""
        d, rows = self.d_model, self.vocab_size + self.max_positions + self.token_types
        return rows * d + self.n_layers * (4 * d * d + 2 * d * self.d_ff)

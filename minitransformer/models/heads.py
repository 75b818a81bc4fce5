"""What stands on a transformer: pooling, heads, and the classifier and language model of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..adapters.own import AdapterFactory
from ..errors import ConfigError, DataError
from ..formats import adapter_file
from ..nn import kernels
from ..nn.layers import Dropout, Linear, Rng, flat
from ..nn.module import Array, Module, Parameter, backward_through
from .transformer import Transformer

POOLINGS = ("cls", "last", "mean", "pooler")


def check_model(model: Any, *kinds: type[Module]) -> None:
    """Raises: ConfigError for a model of another kind, as a transformer without a head."""
    if not isinstance(model, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        value = f"{model!r}, a str" if isinstance(model, str) else f"a {type(model).__name__}"
        raise ConfigError(f"model is {value}: expected a {expected}")


def resolved_pooling(pooling: str | None, causal: bool) -> str:
    """What a classifier's head sees. None: "last" for a causal model, as `transformers` has it for
    GPT-2, else "cls".

    Raises: ConfigError for an unknown kind, and for "cls" of a causal model.
    """
    if pooling is None:
        return "last" if causal else "cls"
    if pooling not in POOLINGS:
        raise ConfigError(f"pooling={pooling!r}: expected one of {', '.join(POOLINGS)}")
    if causal and pooling == "cls":
        raise ConfigError(
            "pooling='cls', but this model is causal: its first position has read nothing but "
            "itself; use 'last' (the default) or 'mean'"
        )
    return pooling


class Pooling(Module):
    """One vector for a sequence.

    `kind`: its first position ("cls"; "pooler", which sends it through BERT's pooler), its last
    real token ("last", for causal models: only there has everything been read), or the mean of its
    real tokens ("mean").
    Shapes: h (B, T, d), attention_mask (B, T) -> (B, d).
    Raises: ConfigError for an unknown kind; DataError if the position to read is padding.
    """

    def __init__(self, kind: str = "cls") -> None:
        if kind not in POOLINGS:
            raise ConfigError(f"pooling={kind!r}: expected one of {', '.join(POOLINGS)}")
        self.kind = kind

    @property
    def first_only(self) -> bool:
        """Whether only the first position is read, so that the last block may skip the others."""
        return self.kind in ("cls", "pooler")

    def forward(self, h: Array, attention_mask: Array | None = None) -> Array:
        B, T, d = h.shape
        attention_mask = None if attention_mask is None else np.asarray(attention_mask)
        self.save_for_backward((B, d), T, attention_mask)
        if self.kind != "mean":
            return h[np.arange(B), self.position(B, T, attention_mask)]
        return np.einsum("btd,bt->bd", h, self.weights(B, T, attention_mask, h.dtype))

    def backward(self, dy: Array) -> Array | None:
        T, attention_mask = self.pop_saved(dy)
        if not self.needs_input_grad:
            return None
        B, d = dy.shape
        if self.kind != "mean":
            dh = np.zeros((B, T, d), dy.dtype)
            dh[np.arange(B), self.position(B, T, attention_mask)] = dy
            return dh
        weights = self.weights(B, T, attention_mask, dy.dtype)
        return dy[:, None, :] * weights[:, :, None]

    def position(self, B: int, T: int, attention_mask: Array | None) -> Array:
        """(B,): the position that is read in each sequence."""
        first, last = np.zeros(B, np.int64), np.full(B, T - 1)
        if attention_mask is None:
            return last if self.kind == "last" else first
        real = attention_mask != 0
        position = last - real[:, ::-1].argmax(axis=1) if self.kind == "last" else first
        padding = ~real[np.arange(B), position]
        if padding.any():
            raise DataError(
                f"pooling={self.kind!r} reads position {position[padding][0]} of row "
                f"{padding.argmax()}, which is padding in attention_mask; put padding on the right "
                "of at least one real token"
            )
        return position

    @staticmethod
    def weights(B: int, T: int, attention_mask: Array | None, dtype: np.dtype[Any]) -> Array:
        """(B, T): one over the number of real tokens, 0 for padding."""
        mask = np.ones((B, T), dtype) if attention_mask is None else (attention_mask != 0)
        return (mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)).astype(dtype)


class ClassificationHead(Module):
    """Dropout and one Linear on the pooled vector.

    Shapes: v (B, d_model) -> logits (B, n_classes).
    """

    def __init__(
        self,
        d_model: int,
        n_classes: int,
        dropout: float = 0.0,
        rng: Rng | None = None,
    ) -> None:
        if not isinstance(n_classes, int | np.integer) or n_classes < 2:
            raise ConfigError(
                f"n_classes={n_classes!r}: a classifier needs at least 2; for a number, a Regressor"
            )
        self.dropout = Dropout(dropout)
        self.linear = Linear(d_model, n_classes, rng)

    def forward(self, v: Array) -> Array:
        return self.linear.forward(self.dropout.forward(v))

    def backward(self, dy: Array) -> Array | None:
        return backward_through(dy, self.linear, self.dropout)


class RegressionHead(Module):
    """Dropout and one Linear on the pooled vector, in the units of what is predicted.

    y = location + scale (v w + b). With mean and standard deviation of the training labels as
    location and scale, the Linear starts where it should end: near numbers of size 1. They are
    saved with the head and never train.
    Shapes: v (B, d_model) -> y (B, 1).
    Raises: ConfigError for a location or scale that float32 cannot hold beside the other.
    """

    def __init__(
        self,
        d_model: int,
        dropout: float = 0.0,
        rng: Rng | None = None,
        location: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        if not (np.isfinite(location) and 0 < scale < np.inf):
            raise ConfigError(
                f"location={location}, scale={scale}: expected a number, and one above 0"
            )
        if not max(1e-4 * abs(location), 1e-37) < scale < 1e34:  # float32 has 7 digits
            raise ConfigError(
                f"location={location}, scale={scale}: float32 cannot tell such numbers apart; "
                "subtract their mean from the labels, or give them in another unit"
            )
        self.dropout = Dropout(dropout)
        self.linear = Linear(d_model, 1, rng)
        self.location, self.scale = (
            Parameter(np.array([x], np.float32), requires_grad=False) for x in (location, scale)
        )

    def forward(self, v: Array) -> Array:
        z = self.linear.forward(self.dropout.forward(v))
        y = self.location.value + self.scale.value * z
        self.save_for_backward(y.shape)
        return y

    def backward(self, dy: Array) -> Array | None:
        self.pop_saved(dy)
        return backward_through(dy * self.scale.value, self.linear, self.dropout)


Head = ClassificationHead | RegressionHead


class Classifier(Module):
    """A transformer with a classification head.

    Shapes: ids (B, T), attention_mask (B, T), token_types (B, T) -> logits (B, n_classes).
    `start` and `hidden` as in `Transformer`. `pooling` as in `Pooling`, or None; see
    `resolved_pooling`.
    Raises: ConfigError if "pooler" is asked of a model without one, or "cls" of a causal model.
    """

    def __init__(
        self,
        transformer: Transformer,
        n_classes: int,
        pooling: str | None = None,
        dropout: float = 0.0,
        rng: Rng | None = None,
    ) -> None:
        check_model(transformer, Transformer)
        pooling = resolved_pooling(pooling, transformer.config.causal)
        if pooling == "pooler" and transformer.pooler is None:
            raise ConfigError("pooling='pooler', but this model has no pooler; use 'cls' or 'mean'")
        self.transformer = transformer
        self.pooling = Pooling(pooling)
        self.head = self.new_head(n_classes, dropout, rng)
        self.head.astype(transformer.dtype)

    def new_head(self, n_classes: int, dropout: float, rng: Rng | None) -> Head:
        """What turns the pooled vector (B, d_model) into the output."""
        return ClassificationHead(self.transformer.config.d_model, n_classes, dropout, rng)

    def save_adapter(self, path: str | Path, *names: str, head: bool = True) -> None:
        """Write the adapters called `names` and the head to one file; without a name: the head.

        As `Transformer.save_adapter`. `head=False` leaves the head out.
        """
        adapter_file.save_adapter(path, self, names, head)

    def load_adapter(
        self,
        path: str | Path,
        name: str | None = None,
        head: bool = True,
        factory: AdapterFactory | None = None,
    ) -> str | None:
        """Insert the adapters of a file, trainable and active, and read the head from it.

        As `Transformer.load_adapter`. `head=False` leaves the head as it is.
        Raises: also CheckpointError for a file without a head, or with a head of another kind.
        """
        return adapter_file.load_adapter(path, self, name, head, factory=factory)

    def forward(
        self,
        ids: Array,
        attention_mask: Array | None = None,
        token_types: Array | None = None,
        start: int = 0,
        hidden: Array | None = None,
    ) -> Array:
        h = self.transformer.forward(  # (B, T or 1, d)
            ids, attention_mask, token_types, self.pooling.first_only, start, hidden
        )
        logits = self.logits(h, attention_mask)
        self.save_for_backward(logits.shape)
        return logits

    def logits(self, h: Array, attention_mask: Array | None = None) -> Array:
        """What stands above the transformer: hidden states (B, T, d) -> logits (B, n_classes)."""
        v = self.pooling.forward(h, attention_mask)  # (B, d)
        for module in self.pooler():
            v = module.forward(v)
        return self.head.forward(v)

    def backward(self, dy: Array) -> None:
        self.pop_saved(dy)
        backward_through(dy, self.head, *self.pooler(), self.pooling, self.transformer)

    def pooler(self) -> list[Module]:
        """BERT's pooler, if this classifier uses it."""
        pooler = self.transformer.pooler
        return [pooler] if pooler is not None and self.pooling.kind == "pooler" else []


class Regressor(Classifier):
    """A transformer with a head for one number, as `transformers` has it for num_labels=1.

    Shapes: ids (B, T), attention_mask (B, T), token_types (B, T) -> (B, 1).
    `pooling`, `start` and `hidden` as in `Classifier`; `location` and `scale` as in
    `RegressionHead`.
    """

    def __init__(
        self,
        transformer: Transformer,
        pooling: str | None = None,
        dropout: float = 0.0,
        rng: Rng | None = None,
        location: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        self._units = (location, scale)
        super().__init__(transformer, 1, pooling, dropout, rng)

    def new_head(self, n_classes: int, dropout: float, rng: Rng | None) -> Head:
        return RegressionHead(self.transformer.config.d_model, dropout, rng, *self._units)

    @property
    def unit(self) -> float:
        """In which the loss is measured: the standard deviation of the training labels, or 1."""
        assert isinstance(self.head, RegressionHead)
        return float(self.head.scale.value[0])


class LanguageModelHead(Module):
    """Logits over the vocabulary with the token embedding as weight: h E^T + b, or h E^T.

    (Press and Wolf 2017, arXiv 1608.05859: the output embedding is tied to the input's.)
    Shapes: h (B, T, d) -> logits (B, T, vocab_size). The embedding is shared, not copied: its
    gradient is the sum of both uses.
    """

    def __init__(self, embedding: Parameter, bias: bool = True) -> None:
        self.embedding = embedding  # (V, d)
        start = np.zeros(embedding.shape[0], embedding.value.dtype)
        self.bias = Parameter(start) if bias else None

    def forward(self, h: Array) -> Array:
        logits = flat(h) @ self.embedding.value.T  # (N, d) @ (d, V)
        if self.bias is not None:
            logits += self.bias.value
        logits = logits.reshape(*h.shape[:-1], -1)
        self.save_for_backward(logits.shape, h if self.embedding.trainable else None)
        return logits

    def backward(self, dy: Array) -> Array | None:
        (h,) = self.pop_saved(dy)
        if self.embedding.trainable:
            self.embedding.accumulate(flat(dy).T @ flat(h))  # (V, N) @ (N, d)
        if self.bias is not None and self.bias.trainable:
            self.bias.accumulate(kernels.sum_rows(flat(dy)))
        if not self.needs_input_grad:
            return None
        return (flat(dy) @ self.embedding.value).reshape(*dy.shape[:-1], -1)


class LanguageModel(Module):
    """A transformer with a tied language-model head: masked (encoder) or causal (decoder).

    Shapes: ids (B, T), attention_mask (B, T), token_types (B, T) -> logits (B, T, vocab_size).
    `bias`: whether the head has one; by default as BERT (encoder: yes) and GPT-2 (decoder: no).
    """

    def __init__(self, transformer: Transformer, bias: bool | None = None) -> None:
        check_model(transformer, Transformer)
        self.transformer = transformer
        bias = not transformer.config.causal if bias is None else bias
        self.head = LanguageModelHead(transformer.embeddings.token.weight, bias)

    def save_adapter(self, path: str | Path, *names: str, head: bool = True) -> None:
        """Write the adapters called `names` and the head's bias to one file.

        As `Transformer.save_adapter`. The bias is all that a head has of its own, if it has one;
        `head=False` leaves it out.
        """
        adapter_file.save_adapter(path, self, names, head)

    def load_adapter(
        self,
        path: str | Path,
        name: str | None = None,
        head: bool = True,
        factory: AdapterFactory | None = None,
    ) -> str | None:
        """Insert the adapters of a file, trainable and active, and read the head's bias from it.

        As `Transformer.load_adapter`. `head=False` leaves the bias as it is.
        Raises: also CheckpointError for a file with a head of another kind.
        """
        return adapter_file.load_adapter(path, self, name, head, factory=factory)

    def forward(
        self, ids: Array, attention_mask: Array | None = None, token_types: Array | None = None
    ) -> Array:
        logits = self.head.forward(self.transformer.forward(ids, attention_mask, token_types))
        self.save_for_backward(logits.shape)
        return logits

    def backward(self, dy: Array) -> None:
        self.pop_saved(dy)
        backward_through(dy, self.head, self.transformer)


def check_causal(model: Any, what: str) -> None:
    """Raises: ConfigError for what is no causal language model, which `what` needs."""
    check_model(model, LanguageModel)
    if not model.transformer.config.causal:
        raise ConfigError(
            f"this model is an encoder, which sees all tokens at once; {what} needs a causal one"
        )

"""Text generation: token by token from the probabilities of a causal language model."""

from __future__ import annotations

import math

import numpy as np

from ..adapters.config import is_whole
from ..errors import ConfigError, ShapeError, TrainingError
from ..nn.attention import binary_mask
from ..nn.kernels import softmax
from ..nn.module import Array
from .heads import LanguageModel, check_causal

MOST_TOKENS = 1_000_000  # hours of work; memory is taken for all of them at once


def generate(
    model: LanguageModel,
    ids: Array,
    max_new_tokens: int,
    *,
    attention_mask: Array | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: np.random.Generator | None = None,
    stop_id: int | None = None,
) -> Array:
    """Continue prompts, token by token; each costs one position: the earlier ones are cached.

    Without a temperature, the most probable token is taken each time (greedy). With one, tokens are
    drawn from softmax(logits / temperature), after `keep_likely` has removed what top_k and top_p
    exclude. The adapters that are active take part.

    Shapes: ids (B, T) -> (B, T + new), the prompts included. Prompts of unequal length are padded
    on the left (`pad(..., left=True)`), with attention_mask (B, T) 0 for padding.

    A text may become longer than the model's max_positions: then generation continues from the
    newest max_positions // 2 tokens alone.

    Args:
        max_new_tokens: how many tokens to add at most.
        temperature: above 1 more varied, below 1 more predictable; None or 0: greedy.
        rng: where the draws come from; by default seeded with 0, so repeatable.
        stop_id: a sequence that has produced this token is complete, and filled up with it; when
            all are, generation ends.

    Raises: ConfigError for a model that is not causal, or an option out of range; ShapeError for
    ids that are not (B, T), without tokens, or padded on the right.
    """
    check_causal(model, "generate")
    transformer = model.transformer
    if not is_whole(max_new_tokens) or not 1 <= max_new_tokens <= MOST_TOKENS:
        raise ConfigError(
            f"max_new_tokens={max_new_tokens!r}: expected a whole number, 1 or more, and at most "
            f"{MOST_TOKENS:,}"
        )
    check_options(temperature, top_k, top_p)
    ids, mask = _checked_prompts(ids, attention_mask)
    rng = rng if rng is not None else np.random.default_rng(0)

    B, T = ids.shape
    ids = np.pad(ids, ((0, 0), (0, max_new_tokens)))  # and the new tokens
    mask = np.pad(mask, ((0, 0), (0, max_new_tokens)), constant_values=1)
    size, cache = transformer.config.max_positions, transformer.new_cache(B)
    start = cached = 0  # tokens start .. cached - 1 are in the cache
    complete = np.zeros(B, dtype=bool)
    training = model.training
    model.eval()
    try:
        for end in range(T, T + max_new_tokens):
            if end - start > size:
                start = cached = end - max(1, size // 2)
                for block_cache in cache:
                    block_cache.clear()
            window = mask[:, start:end]
            positions = np.maximum(window.cumsum(axis=1) - 1, 0)[:, cached - start :]
            new_ids = ids[:, cached:end]
            with np.errstate(over="ignore", invalid="ignore"):  # one error says it, below
                h = transformer.forward(new_ids, window, cache=cache, positions=positions)
                logits = model.head.forward(h[:, -1:])[:, 0]  # (B, V), of the last position
            if not np.isfinite(logits).all():
                raise TrainingError(
                    "the model's logits are not finite (NaN): its weights are too large for its "
                    "arithmetic, or damaged. Train it again, with a smaller learning rate"
                )
            new = _choose(logits, temperature, top_k, top_p, rng)  # (B,)
            if stop_id is not None:
                new[complete] = stop_id
                complete |= new == stop_id
            ids[:, end], cached = new, end
            if complete.all():
                break
    finally:
        model.train(training)
    return ids[:, : end + 1]


def keep_likely(logits: Array, top_k: int | None = None, top_p: float | None = None) -> Array:
    """Logits (..., V) with -inf where a token shall not be drawn.

    top_k keeps the k most probable tokens (and those as probable as the last of them); of what
    remains, top_p keeps the smallest set of the most probable ones whose probabilities add up to
    top_p: the nucleus (Holtzman et al. 2019, arXiv 1904.09751, section 3.1).

    Raises: ConfigError unless top_k >= 1 and 0 < top_p <= 1.
    """
    check_options(1.0, top_k, top_p)
    if top_k is not None and top_k < logits.shape[-1]:
        least = np.partition(logits, -top_k, axis=-1)[..., -top_k, None]
        logits = np.where(logits < least, -np.inf, logits)
    if top_p is not None and top_p < 1:
        order = np.argsort(-logits, axis=-1, kind="stable")
        p = softmax(np.take_along_axis(logits, order, axis=-1).astype(np.float64))
        before = p.cumsum(axis=-1) - p  # the sum over the more probable ones
        before[..., 0] = 0  # the first always stays, in spite of rounding
        out = np.empty(logits.shape, dtype=bool)
        np.put_along_axis(out, order, before >= top_p, axis=-1)
        logits = np.where(out, -np.inf, logits)
    return logits


def check_options(temperature: float | None, top_k: int | None, top_p: float | None) -> None:
    """Raises: ConfigError for an option that cannot be, or that would have no effect."""
    if temperature is not None and not 0 <= temperature < math.inf:
        raise ConfigError(f"temperature={temperature}: expected a number >= 0 (0 or None: greedy)")
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top_k={top_k}: expected 1 or more, or None for all tokens")
    if top_p is not None and not 0 < top_p <= 1:
        raise ConfigError(f"top_p={top_p}: expected 0 < top_p <= 1, or None for all tokens")
    if not temperature and (top_k is not None or top_p is not None):
        raise ConfigError(
            "top_k and top_p limit what is drawn, but without a temperature nothing is drawn: the "
            "most probable token is taken; give temperature=1.0, for instance"
        )


def _choose(
    logits: Array,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    rng: np.random.Generator,
) -> Array:
    """(B, V) logits -> (B,) tokens: the most probable ones, or drawn."""
    if not temperature:
        return logits.argmax(axis=-1)
    scaled = logits.astype(np.float64)
    scaled = (scaled - scaled.max(axis=-1, keepdims=True)) / temperature
    p = softmax(keep_likely(scaled, top_k, top_p))
    upper = p.cumsum(axis=-1)  # token i is drawn between upper[i - 1] and upper[i]
    drawn = rng.random((len(p), 1)) * upper[:, -1:]
    return (upper <= drawn).sum(axis=-1)


def _checked_prompts(ids: Array, attention_mask: Array | None) -> tuple[Array, Array]:
    """ids and mask, both (B, T), integers."""
    ids = np.asarray(ids)
    if ids.ndim != 2 or ids.size == 0:
        raise ShapeError(
            f"a prompt of shape {ids.shape}: expected (batch, tokens) with at least one of each; "
            "for one sequence write [tokens], without a prompt [[tokenizer.end_id]]"
        )
    given = binary_mask(attention_mask)
    mask = np.ones(ids.shape, np.int64) if given is None else given
    if mask.shape != ids.shape:
        raise ShapeError(
            f"attention_mask has shape {mask.shape}; expected {ids.shape}, that of the prompts"
        )
    mask = (mask != 0).astype(np.int64)
    if not mask[:, -1].all():
        row = int(mask[:, -1].argmin())
        raise ShapeError(
            f"prompt {row} ends in padding; pad on the left: pad(sequences, pad_id, left=True)"
        )
    return ids, mask

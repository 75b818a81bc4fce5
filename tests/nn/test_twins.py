"""Every kernel against its textbook twin: shapes, masks, dropout, dtypes, strided input.

`python tests/nn/test_twins.py` prints the worst relative error of each.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.nn import functional, kernels
from minitransformer.nn.attention import additive_attention_mask
from minitransformer.nn.kernels import FEW_ROWS

Array = np.ndarray
LIMITS = {np.float32: 2e-5, np.float64: 1e-11}  # relative to the largest number of the result

each_dtype = pytest.mark.parametrize("dtype", LIMITS, ids=lambda dtype: dtype.__name__)


class Draw:
    """Random arrays of one dtype, contiguous or not."""

    def __init__(self, seed: int, dtype: type, strided: bool) -> None:
        self.rng, self.dtype, self.strided = np.random.default_rng(seed), dtype, strided

    def __call__(self, *shape: int, scale: float = 1.0) -> Array:
        if self.strided:  # every second number of a longer last axis, leading axes reversed
            shape = (*shape[:-1], 2 * shape[-1])
        x = (scale * self.rng.standard_normal(shape)).astype(self.dtype)
        return x[::-1, ..., ::2] if self.strided and len(shape) > 1 else x[..., :: 1 + self.strided]

    def dropout_mask(self, *shape: int) -> Array:
        return ((self.rng.random(shape) >= 0.3) / 0.7).astype(self.dtype)


def arrays(result: Any) -> Iterator[Array]:
    for item in result if isinstance(result, tuple) else (result,):
        if item is not None:
            yield np.asarray(item)


def error(name: str, *arguments: Any, **options: Any) -> float:
    """The worst error of a kernel relative to the largest number of its twin's result, or 0.1."""
    copies = [a.copy() if isinstance(a, Array) else a for a in arguments]
    expected = list(arrays(getattr(functional, name)(*copies)))
    copies = [a.copy(order="K") if isinstance(a, Array) else a for a in arguments]
    given_arguments = copies if name == "adamw" else arguments  # in place
    found = list(arrays(getattr(kernels, name)(*given_arguments, **options)))
    assert len(found) == len(expected)
    worst = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        # Sums that cancel leave the rounding of their terms, which are around 1 here.
        size = max(np.abs(theirs).max(initial=0), 0.1)
        difference = ours.astype(np.float64) - theirs
        worst = max(worst, float(np.abs(difference).max(initial=0)) / size)
    return worst


# -- what each kernel is tried on ------------------------------------------------------------

ATTENTION = {
    "batch": st.integers(1, 5), "heads": st.integers(1, 3), "queries": st.integers(1, 6),
    "length": st.integers(1, 9), "d_head": st.integers(1, 5),
    "mask": st.sampled_from(["none", "padding", "causal", "both"]), "dropout": st.booleans(),
}  # fmt: skip
SIZES = {"rows": st.integers(1, 7), "d": st.integers(1, 33), "scale": st.sampled_from([0.1, 1, 30])}


def masks(draw: Draw, batch: int, queries: int, length: int, kind: str) -> Array | None:
    padding = np.arange(length) < draw.rng.integers(1, length + 1, (batch, 1))
    causal = kind in ("causal", "both")
    mask = additive_attention_mask(
        padding if kind in ("padding", "both") else None, causal, batch, length, draw.dtype
    )
    return mask if mask is None else mask[:, :, :queries]


def activations(draw: Draw, name: str, rows: int, d: int, scale: float) -> float:
    return error(name, draw(rows, d, scale=scale))


def softmaxes(draw: Draw, rows: int, d: int, scale: float) -> float:
    scores, dp = draw(rows, d, scale=scale), draw(rows, d)
    p = functional.softmax(scores)
    unshifted = error("softmax", scores, shift=False) if scale < 2 else 0.0
    return max(error("softmax", scores), unshifted, error("softmax_backward", dp, p))


def layer_norms(draw: Draw, rows: int, d: int, scale: float) -> float:
    x, gain, bias, dy = (
        draw(rows, 2, d + 1, scale=scale),
        draw(d + 1),
        draw(d + 1),
        draw(rows, 2, d + 1),
    )
    _, x_hat, rstd = functional.layer_norm(x, gain, bias, 1e-5)
    return max(
        error("layer_norm", x, gain, bias, 1e-5),
        error("layer_norm_backward", dy, x_hat, rstd, gain),
    )


def attentions(
    draw: Draw, batch: int, heads: int, queries: int, length: int, d_head: int, mask: str,
    dropout: bool,
) -> float:  # fmt: skip
    queries = min(queries, length)
    q = draw(batch, heads, queries, d_head)
    k, v = draw(batch, heads, length, d_head), draw(batch, heads, length, d_head)
    additive = masks(draw, batch, queries, length, mask)
    dropout_mask = draw.dropout_mask(batch, heads, queries, length) if dropout else None
    dc = draw(batch, heads, queries, d_head)
    return max(
        error("attention_weights", q, k, additive),
        error("attention", q, k, v, additive, dropout_mask),
        error("attention_backward", dc, q, k, v, additive, dropout_mask),
    )


def self_attentions(
    draw: Draw, batch: int, heads: int, queries: int, length: int, d_head: int, mask: str,
    dropout: bool,
) -> float:  # fmt: skip
    queries, d = min(queries, length), heads * d_head
    x, weight, bias = draw(batch, length, d), draw(d, 3 * d), draw(3 * d)
    additive = masks(draw, batch, queries, length, mask)
    dropout_mask = draw.dropout_mask(batch, heads, queries, length) if dropout else None
    dc = draw(batch, heads, queries, d_head)
    both = (additive, dropout_mask)
    return max(
        error("self_attention", x, weight, bias, heads, queries, *both),
        error("self_attention_backward", dc, x, weight, bias, heads, *both),
    )


def embeddings(draw: Draw, rows: int, d: int, scale: float) -> float:
    ids = draw.rng.integers(0, 5, (rows, 3))
    return error("embedding_backward", draw(rows, 3, d, scale=scale), ids, 5)


def fusions(draw: Draw, rows: int, d: int, scale: float) -> float:
    q, o = draw(rows, 2, d, scale=0.3), draw(rows, 2, 3, d)  # scores of about 2: exp magnifies
    key, value, df = draw(d, d, scale=0.2), draw(d, d, scale=0.2), draw(rows, 2, d)
    _, p = functional.fusion(q, o, key, value)
    return max(error("fusion", q, o, key, value), error("fusion_backward", df, q, o, p, key, value))


def adamws(draw: Draw, rows: int, d: int, scale: float) -> float:
    m, v = draw(rows, d), np.abs(draw(rows, d))
    decay = float(draw.rng.choice([0, 0.01]))
    step = int(draw.rng.integers(1, 50))
    return error(
        "adamw", draw(rows, d), draw(rows, d, scale=scale), m, v, step,
        1e-3, (0.9, 0.999), 1e-8, decay,
    )  # fmt: skip


def products(draw: Draw, rows: int, d_in: int, d_out: int) -> float:
    scale = 1 / np.sqrt(d_out)
    return error("matmul_transposed", draw(rows, d_out), draw(d_in, d_out, scale=scale))


CHECKS: dict[str, tuple[Callable[..., float], dict[str, Any]]] = {
    "activations": (activations, {"name": st.sampled_from([*kernels.ACTIVATIONS]), **SIZES}),
    "softmax": (softmaxes, SIZES),
    "layer_norm": (layer_norms, SIZES),
    "attention": (attentions, ATTENTION),
    "self_attention": (self_attentions, ATTENTION),
    "embedding": (embeddings, SIZES),
    "fusion": (fusions, SIZES),
    "adamw": (adamws, SIZES),
    "products": (
        products,
        {
            "rows": st.sampled_from([1, 5, FEW_ROWS, FEW_ROWS + 1]),
            "d_in": st.sampled_from([3, FEW_ROWS]),
            "d_out": st.sampled_from([3, FEW_ROWS, 200]),
        },
    ),
}


@each_dtype
@pytest.mark.parametrize("check", CHECKS)
@given(st.data())
def test_a_kernel_gives_what_its_twin_gives(check: str, dtype: type, data: st.DataObject) -> None:
    function, strategies = CHECKS[check]
    chosen = {name: data.draw(strategy, name) for name, strategy in strategies.items()}
    draw = Draw(data.draw(st.integers(0, 99), "seed"), dtype, data.draw(st.booleans(), "strided"))
    assert function(draw, **chosen) <= LIMITS[dtype]


def test_every_kernel_has_a_twin_with_the_same_arguments() -> None:
    public = [n for n, f in vars(kernels).items() if inspect.isfunction(f) and n[0] != "_"]
    helpers = {
        "activation_named",
        "over_inputs_is_cheaper",
        "row_tiles",
        "merge_heads",
        "split_qkv",
    }
    for name in set(public) - helpers:
        twin = [*inspect.signature(getattr(functional, name)).parameters]
        ours = inspect.signature(getattr(kernels, name)).parameters
        assert [*ours][: len(twin)] == twin, name
        assert all(p.default is not p.empty for p in [*ours.values()][len(twin) :]), name


def worst_errors(tries: int = 300) -> Iterator[tuple[str, str, float]]:
    """The worst error of each kernel over random cases."""
    for check, (function, strategies) in CHECKS.items():
        for dtype in LIMITS:
            worst = 0.0

            @given(st.fixed_dictionaries(strategies), st.integers(0, 999), st.booleans())
            def one(chosen: dict[str, Any], seed: int, strided: bool) -> None:
                nonlocal worst
                worst = max(worst, function(Draw(seed, dtype, strided), **chosen))  # noqa: B023

            settings(max_examples=tries, deadline=None, database=None)(one)()
            yield check, dtype.__name__, worst


if __name__ == "__main__":
    for check, dtype, worst in worst_errors():
        print(f"{check:15} {dtype:8} {worst:.1e}")

"""What a wrong gradient looks like, and what to do about it.

Common mistakes in a hand-written backward have their patterns: the transpose of the right values,
a constant factor, only some rows. Each function here compares what backward computed with the
central differences, and returns advice a student can act on, or None if its mistake does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ..nn.module import Array, Module
from .messages import TRANSPOSE_HINT
from .report import axis_name, index_text, ranges

CLOSE = 1e-3  # a pattern fits if the values agree to this, relative to their size


@dataclass(frozen=True)
class Evidence:
    """One array whose gradient is wrong."""

    label: str  # what to call it, for instance "weight.grad" or "dx"
    analytic: Array  # the whole gradient that backward computed
    entries: Array  # flat indices at which there is a numerical gradient
    numeric: Array  # the central differences there
    wrong: Array  # which of them disagree
    dy: Array  # what backward was given
    inputs: tuple[Any, ...]  # what forward was given
    module: Module  # the module under test
    calls: dict[str, tuple[Array, Array, Array]]  # Linears inside: x, y and the dy they were given

    def fits(self, candidate: Array | float) -> bool:
        """Whether the numerical gradient is `candidate` (an array like `analytic`)."""
        expected = np.broadcast_to(candidate, self.analytic.shape).flat[self.entries]
        return alike(expected, self.numeric)


def alike(a: Array, b: Array) -> bool:
    """Equal to CLOSE in (nearly) all places: one in twenty may sit near a kink."""
    size = np.abs(b) + np.sqrt(np.mean(b * b))
    return bool(np.mean(np.abs(a - b) <= CLOSE * size) >= 0.95)


def explain(e: Evidence) -> str:
    """The first cause that fits."""
    if not e.wrong.any():
        return (
            f"{e.label}: every sampled entry is right but a random direction is not, so entries "
            "outside the sample are wrong; raise max_entries, or check a smaller module"
        )
    for cause in CAUSES:
        advice = cause(e)
        if advice is not None:
            return advice
    places = [index_text(np.unravel_index(i, e.analytic.shape)) for i in e.entries[e.wrong][:3]]
    g = e.analytic.flat[e.entries]
    cosine = g @ e.numeric / (np.linalg.norm(g) * np.linalg.norm(e.numeric) or 1)
    return (
        f"{e.label}: {e.wrong.sum()} of {e.wrong.size} entries disagree, first {', '.join(places)},"
        f" in no pattern known here (cosine with the numerical gradient: {cosine:.3f}). Derive the "
        "formula again for one entry, and try the smallest input that still fails"
    )


# -- one function for each mistake ---------------------------------------------------------


def all_zero(e: Evidence) -> str | None:
    if e.analytic.any():
        return None
    return (
        f"{e.label} is all zeros, but the loss depends on it: backward adds nothing to it, or "
        "nothing but zeros"
    )


def constant_factor(e: Evidence) -> str | None:
    factor = factor_between(e.analytic.flat[e.entries], e.numeric, known_factors(e))
    return f"{e.label} is off by a constant factor: {factor}" if factor else None


def transposed(e: Evidence) -> str | None:
    shape = e.analytic.shape
    if len(shape) < 2:
        return None
    if shape[-1] == shape[-2] and e.fits(e.analytic.swapaxes(-1, -2)):
        if len(shape) == 2:
            return f"{e.label} is the transpose of what it should be: {TRANSPOSE_HINT}"
        return f"{e.label} has its last two axes exchanged: apply .swapaxes(-1, -2) to it"
    reread = e.analytic.reshape(*shape[:-2], shape[-1], shape[-2]).swapaxes(-1, -2)
    if e.fits(reread):
        return f"{e.label} has its numbers in the wrong order: .reshape is used where .T is meant"
    return None


def skip_connection(e: Evidence) -> str | None:
    if e.dy.shape != e.analytic.shape:
        return None
    if e.fits(e.analytic + e.dy):
        return (
            f"{e.label} is too small by exactly dy: the skip connection's gradient is missing; "
            "y = x + f(x) gives dx = dy + (what comes back through f)"
        )
    if e.fits(e.analytic - e.dy):
        return (
            f"{e.label} is too large by exactly dy: a skip connection is counted twice, or there "
            "is none"
        )
    return None


def partial_sum(e: Evidence) -> str | None:
    """A bias that is added to the output at every position gets the sum of dy over them all.

    Said only if what backward computed is such a sum over some of the positions.
    """
    leading = tuple(range(e.dy.ndim - 1))
    if e.dy.ndim < 2 or e.analytic.shape != e.dy.shape[-1:] or not e.fits(e.dy.sum(axis=leading)):
        return None
    if not any(alike(e.analytic, part) for part in parts_of_sum(e.dy)):
        return None
    return (
        f"{e.label} is not summed over all positions: the bias is added {e.dy[..., 0].size} times, "
        f"at every place along the axes {leading} of dy, whose shape is {e.dy.shape}"
    )


def parts_of_sum(dy: Array) -> Iterator[Array]:
    """Sums of dy (..., d) over some leading axes, at any place of the others, and over most."""
    leading = range(dy.ndim - 1)
    for n in leading:
        for axes in combinations(leading, n):
            yield from dy.sum(axis=axes, keepdims=True).reshape(-1, dy.shape[-1])
    for axis in leading:  # one place is left out, at either end
        for part in (slice(1, None), slice(None, -1)):
            rest = dy[(slice(None),) * axis + (part,)]
            yield rest.sum(axis=tuple(leading))


def mask_forgotten(e: Evidence) -> str | None:
    """Entries without influence on the loss have a gradient all the same."""
    g, n = e.analytic.flat[e.entries], e.numeric
    dead = (n == 0) & e.wrong
    live = n != 0
    factor = factor_between(g[live], n[live], known_factors(e)) if live.any() else None
    if not dead.any() or not live.any() or ((e.wrong & live).any() and not factor):
        return None
    elsewhere = f"; elsewhere {factor}" if factor else ", and it is right elsewhere"
    return (
        f"{e.label} is not zero at {dead.sum()} entries that have no influence on the output "
        "(dropped, masked, ignored, or cut off by ReLU): multiply by the mask of forward"
        f"{elsewhere}"
    )


def only_some(e: Evidence) -> str | None:
    """Wrong entries that keep to some rows, columns or positions."""
    shape = e.analytic.shape
    places = np.unravel_index(e.entries, shape)
    # Where both are zero (columns that a ReLU cuts off), the same mistake would not show.
    shows = (e.analytic.flat[e.entries] != 0) | (e.numeric != 0)
    share, axis, lines = 1.0, 0, np.arange(0)
    for i, place in enumerate(places):
        wrong = np.unique(place[e.wrong])
        checked = np.unique(place[shows])
        # Whole lines must be wrong: otherwise it is chance, not a pattern.
        whole = np.mean(e.wrong[np.isin(place, wrong)]) > 0.5
        if whole and wrong.size / checked.size < share:
            share, axis, lines = wrong.size / checked.size, i, wrong
    if share == 1:
        return None
    where = f"{e.label} is wrong only at {axis_name(shape, axis)} {ranges(lines)} of {shape[axis]}"
    if axis == 0 and repeated_lookups(e, lines):
        return (
            f"{where}: these rows are looked up more than once, and only one of their gradients "
            "is kept; grad[ids] += dy does not add repeated rows, np.add.at(grad, ids, dy) does"
        )
    here = e.wrong & np.isin(places[axis], lines)
    g, n = e.analytic.flat[e.entries][here], e.numeric[here]
    if not g.any():
        return f"{where}, and zero there: backward forgets that part"
    factor = factor_between(g, n, PART)
    if factor:
        return f"{where}, where it is off by a constant factor: {factor}"
    return f"{where}: look at what backward does differently for that part"


def relu_inside(e: Evidence) -> str | None:
    """The gradient that reaches a Linear inside was not masked where its output is negative."""
    for name, (x, z, dz) in e.calls.items():
        if e.label == f"{name}.bias.grad":
            unmasked, masked = dz.sum(axis=0), (dz * (z > 0)).sum(axis=0)
        elif e.label == f"{name}.weight.grad":
            unmasked, masked = x.T @ dz, x.T @ (dz * (z > 0))
        else:
            continue
        if alike(e.analytic, unmasked) and e.fits(masked):
            return (
                f"{e.label} has no ReLU mask: it is right once the gradient that reaches {name} is "
                f"multiplied by (output of {name} > 0), the derivative of ReLU"
            )
    return None


def one_entry(e: Evidence) -> str | None:
    """Of a single number nothing can be concluded but its size."""
    if e.analytic.size > 1:
        return None
    return (
        f"{e.label} is {e.analytic.flat[0]:.6g}, but should be {e.numeric[0]:.6g}: from one number "
        "no cause can be told. Is it the sum over everything that the number is multiplied with?"
    )


def repeated_lookups(e: Evidence, rows: Array) -> bool:
    """Whether `rows` of an embedding are each the dy of one lookup among several."""
    for ids in e.inputs:
        if not (isinstance(ids, np.ndarray) and ids.dtype.kind in "iu" and e.analytic.ndim == 2):
            continue
        if e.dy.shape != (*ids.shape, e.analytic.shape[1]):
            continue
        found = {row: e.dy[ids == row] for row in rows}  # (lookups, d) each
        if all(
            len(dys) > 1 and any(alike(e.analytic[row], dy) for dy in dys)
            for row, dys in found.items()
        ):
            return True
    return False


SPECIFIC = (all_zero, constant_factor, transposed, skip_connection, partial_sum, mask_forgotten)
CAUSES = (*SPECIFIC, relu_inside, only_some, one_entry)


# -- factors -------------------------------------------------------------------------------


def factor_between(g: Array, n: Array, known: Sequence[Factor]) -> str | None:
    """Name k if g = k n throughout, k not 1."""
    large = (np.abs(n) > 0.1 * np.abs(n).max()) & (g != 0)
    if large.sum() < 2:  # one number is always some multiple of another
        return None
    k = float(np.median(g[large] / n[large]))
    if not math.isfinite(k) or abs(k - 1) < CLOSE or not alike(g / k, n):
        return None
    if abs(k + 1) < CLOSE:
        return "the sign is flipped; look for a minus (for instance q - p where p - q is meant)"
    sign = "the sign is flipped, and " if k < 0 else ""
    names = []
    for name, value, (if_large, if_small) in known:
        if abs(abs(k) / value - 1) < CLOSE:
            names.append(f"{abs(k):.4g} = {name}: {if_large}")
        elif abs(abs(k) * value - 1) < CLOSE:
            names.append(f"{abs(k):.4g} = 1 / {name}: {if_small}")
    if not names:
        names = ["look for a factor of forward that backward forgets or applies twice"]
    else:
        names[0] = f"perhaps {names[0]}"
    return f"{sign}it is {k:.5g} times what it should be ({'; or '.join(names)})"


Factor = tuple[str, float, tuple[str, str]]  # name, value, advice if too large and if too small
PART: list[Factor] = [
    ("2", 2, ("it is added twice", "a mean over two, or one of two uses is forgotten"))
]  # of some rows: what concerns the whole batch is no cause there

COUNT = (
    "backward multiplies by it once too often, or forgets to divide as forward's mean does",
    "a mean is taken where a sum is meant (the loss has averaged already)",
)
SCALE = ("backward forgets it or applies it twice",) * 2


def known_factors(e: Evidence) -> list[Factor]:
    """The numbers in this module."""
    factors: list[Factor] = []
    arrays = [x for x in e.inputs if isinstance(x, np.ndarray) and x.ndim]
    first = arrays[0] if arrays else e.dy
    if first.ndim:
        factors.append(("the batch size", first.shape[0], COUNT))
    if first.ndim == 3 or (first.ndim == 2 and first.dtype.kind in "iu"):
        B, T = first.shape[:2]
        factors += [("the number of tokens", B * T, COUNT), ("the sequence length", T, COUNT)]
    width = e.dy.shape[-1] if e.dy.ndim else 0
    for _, module in e.module.named_modules():
        n_heads = getattr(module, "n_heads", None)
        if isinstance(n_heads, int) and n_heads and width % n_heads == 0 and width:
            d_head = width // n_heads
            factors += [
                ("the number of heads", n_heads, COUNT),
                ("sqrt(d_head)", math.sqrt(d_head), SCALE),
                ("d_head", d_head, SCALE),
            ]
        p = getattr(module, "p", None)
        if isinstance(p, float) and 0 < p < 1:
            factors.append(("1 / (1 - p) of dropout", 1 / (1 - p), SCALE))
        scaling = getattr(module, "scaling", getattr(getattr(module, "config", None), "scaling", 0))
        if isinstance(scaling, int | float) and scaling:
            factors.append(("the scaling", abs(scaling), SCALE))
    if width:
        factors.append(("sqrt(the width)", math.sqrt(width), SCALE))
    twice = (
        "it is added twice, or the 2 of d(x^2)/dx = 2 x is extra",
        "one of two uses is forgotten, or the 2 of d(x^2)/dx = 2 x",
    )
    factors.append(("2", 2, twice))
    once = {name: (name, value, hint) for name, value, hint in factors if value != 1}
    return list(once.values())

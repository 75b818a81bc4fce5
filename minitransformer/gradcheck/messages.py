"""What gradcheck says where no pattern is needed: shapes, dtypes, None, arrays changed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import combinations

import numpy as np

from ..errors import GradientError
from ..nn.module import Array
from .report import index_text

Shape = tuple[int, ...]


def check_unchanged(who: str, before: dict[str, Array], now: dict[str, Array]) -> None:
    """Raises: GradientError if `who` has written into an array that belongs to the caller."""
    for name, old in before.items():
        if now[name].shape != old.shape or not np.array_equal(now[name], old, equal_nan=True):
            raise GradientError(
                f"{who} changed {name} in place, but others still read it (a skip connection "
                "reads dy, backward reads x): write into a new array, y = x * 2, not x *= 2"
            )


def check_output(y: Array, again: Array) -> None:
    """Raises: GradientError unless forward returned float64 numbers, the same in two calls."""
    if y.size == 0:
        raise GradientError(f"forward returned an empty array of shape {y.shape}")
    if y.dtype != np.float64:
        raise GradientError(
            f"forward returned {y.dtype} for float64 inputs and weights: somewhere it makes an "
            "array of a dtype of its own; use x.dtype, for instance np.zeros(n, x.dtype)"
        )
    if not np.isfinite(y).all():
        raise GradientError(
            f"forward returned NaN or infinity, {first(~np.isfinite(y))} of shape {y.shape}: look "
            "for a division by zero, the logarithm of zero, or exp of a large number"
        )
    if again.shape != y.shape or not np.allclose(again, y, 1e-12, 1e-12 * abs(y).max()):
        raise GradientError(
            "forward is not deterministic: two calls with the same input differ. Keep the "
            "numpy.random.Generator it draws from as an attribute of the module (it is then "
            "rewound before each call), and let nothing else of one call influence the next"
        )


def unusable(label: str, gradient: Array, array: Array, inputs: Iterable[Shape] = ()) -> str | None:
    """Advice for what cannot be compared: a wrong shape or dtype, or no numbers."""
    if gradient.shape != array.shape:
        return wrong_shape(label, gradient.shape, array.shape, inputs)
    if not np.isfinite(gradient).all():
        return (
            f"{label} contains NaN or infinity, {first(~np.isfinite(gradient))}: look for 0 / 0, "
            "a derivative that is infinite (square root at 0), or 0 times a mask of -inf"
        )
    if gradient.dtype != array.dtype:
        return (
            f"{label} is {gradient.dtype}, but its array is {array.dtype}: somewhere backward "
            "makes an array of a dtype of its own; use dy.dtype"
        )
    return None


def not_doubled(name: str, once: Array, twice: Array | None) -> str | None:
    """Advice if a second forward and backward did not double a parameter's gradient."""
    close = 1e-9 * np.abs(once).max(initial=0)
    if twice is not None and np.allclose(twice, 2 * once, rtol=0, atol=close):
        return None
    same = twice is not None and np.allclose(twice, once, rtol=0, atol=close)
    return (
        f"{name}.grad did not double after a second forward and backward: "
        f"{'it was overwritten' if same else 'it became something else'}. Gradients of several "
        f"uses and batches are added up; call self.{name}.accumulate(gradient)"
    )


def never_added(name: str) -> str:
    return (
        f"{name}.grad is None, but the loss depends on {name}: backward added nothing to it; "
        f"it should call self.{name}.accumulate(gradient)"
    )


def not_returned(name: str) -> str:
    return (
        f"backward returned None for the input {name}: it must return d{name} if "
        "self.needs_input_grad is true (for several floating-point inputs: a tuple). What needs no "
        "gradient, such as a mask, is given as integers, as booleans or by keyword"
    )


def frozen_with_gradient(name: str) -> str:
    return (
        f"{name}: a frozen parameter has a gradient; compute it only "
        f"`if self.{name}.trainable`, so that what is frozen costs nothing"
    )


def not_tested(names: list[str]) -> str:
    return (
        f"not tested: {', '.join(names)}. The analytic and the numerical gradient are zero "
        "everywhere, so that a wrong factor would not show. Either the loss does not depend on "
        "these arrays, or the inputs hide it (zeros, all positions masked, every ReLU at zero): "
        "check at random inputs, and freeze or remove what is not used"
    )


def at_kinks(name: str, skipped: int, checked: int) -> str:
    return (
        f"{name}: the derivative could not be determined at {skipped} or more of {checked} "
        "points, too many to pass: the loss has kinks there (ReLU at 0), or the tolerance is finer "
        "than float64. Check at random inputs instead of zeros or whole numbers"
    )


def outside_kink(label: str) -> str:
    return (
        f"{label} is wrong exactly at a kink (as of ReLU at 0): the derivatives from the left and "
        "from the right differ there, and what backward gives is not between them. Compare with "
        "> or >= as forward does, and let one side hold"
    )


def where_to_begin(backward_order: list[str], wrong: set[str]) -> str | None:
    """Of several wrong arrays, the one that the backward pass computes first."""
    first_wrong = next((name for name in backward_order if name in wrong), None)
    if len(wrong) < 2 or first_wrong is None:
        return None
    return (
        f"{len(wrong)} arrays are wrong; the backward pass reaches {first_wrong} first. Begin "
        "there: the mistake is in its gradient, or in the dx of what comes right after it in "
        "forward"
    )


def first(where: Array) -> str:
    """Where an array of booleans is true for the first time."""
    if where.ndim == 0:
        return "in its only entry"
    index = np.unravel_index(int(np.argmax(where)), where.shape)
    return f"first at index {index_text(index)}"


# -- shapes --------------------------------------------------------------------------------

TRANSPOSE_HINT = (
    "in y = x @ W, entry W[i, j] multiplies x[..., i] and adds to y[..., j]; so which of x and dy "
    "gives the rows, and which the columns?"
)


def wrong_shape(label: str, got: Shape, expected: Shape, inputs: Iterable[Shape] = ()) -> str:
    """Advice for a gradient whose shape is not that of its array; `inputs`: the inputs' shapes."""
    problem = f"{label} has shape {got}, but should have {expected}"
    if len(got) == 2 and got == expected[::-1]:
        return f"{problem}: that is the shape of its transpose; {TRANSPOSE_HINT}"
    extra, leading = len(got) - len(expected), "the leading axes (batch, time)"
    if extra > 0 and got[extra:] == expected:
        rows = math.prod(got[:extra])
        if rows in {math.prod(shape[:-1]) for shape in inputs if len(shape) > 1}:
            return f"{problem}: it is not summed over {leading}, axes {tuple(range(extra))}"
        some = (c for s in inputs for n in range(1, len(s)) for c in combinations(s[:-1], n))
        if rows > 1 and rows in map(math.prod, some):
            return f"{problem}: it is summed over some of {leading}, but not over all of them"
    if math.prod(got) == math.prod(expected):
        return f"{problem}: the number of entries is right; did an axis get lost or reordered?"
    return f"{problem}: a gradient always has the shape of its array"

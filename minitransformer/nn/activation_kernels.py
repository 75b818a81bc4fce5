"""The activations of `functional.py` made fast: part of `kernels.py`, where layers find them.

The derivative is computed while x is still in cache, and only if it is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..errors import ConfigError
from . import functional
from .functional import Activation
from .module import Array

TILE = 1 << 16  # numbers per tile of an element-wise kernel: a few float32 arrays of it fit in L2


def relu(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
    """`functional.relu`; the derivative is boolean, a quarter of the memory."""
    return np.maximum(x, 0), (x > 0 if with_derivative else None)


def tanh(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
    """`functional.tanh`."""
    y = np.tanh(x)
    return y, (1 - y * y if with_derivative else None)


def silu(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
    """`functional.silu`."""
    with np.errstate(over="ignore"):
        one_plus = 1 + np.exp(-x)
    y = x / one_plus
    return y, ((1 + (x - y)) / one_plus if with_derivative else None)  # s + x s (1 - s)


def linear(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
    """`functional.linear`; the derivative is one number for all, seen as an array."""
    return x, (np.broadcast_to(np.ones((), x.dtype), x.shape) if with_derivative else None)


def gelu(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
    """`functional.gelu`; in float32 with a polynomial that is exact to its rounding."""
    if x.dtype != np.float32:
        y, derivative = functional.gelu(x)
        return y, (derivative if with_derivative else None)
    with np.errstate(over="ignore"):  # where x p(x^2) is infinite, its tanh is 1 all the same
        return _tiled(_gelu_tile, x, with_derivative)


def gelu_tanh(x: Array, with_derivative: bool = True) -> tuple[Array, Array | None]:
    """`functional.gelu_tanh`."""
    with np.errstate(over="ignore"):  # far out, where exp is infinite, s is 0
        return _tiled(_gelu_tanh_tile, x, with_derivative)


ACTIVATIONS: dict[str, Activation] = {
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "tanh": tanh,
    "silu": silu,
    "linear": linear,
}


def activation_named(name: str) -> Activation:
    """The function for a configuration's word. Raises: ConfigError for an unknown one."""
    if name not in ACTIVATIONS:
        raise ConfigError(f"activation {name!r} is unknown; choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _tiled(
    kernel: Callable[[Array, Array, Array | None], None], x: Array, with_derivative: bool
) -> tuple[Array, Array | None]:
    """Run an element-wise kernel over tiles that stay in cache."""
    x = np.ascontiguousarray(x)
    y = np.empty_like(x)
    derivative = np.empty_like(x) if with_derivative else None
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    flat_derivative = derivative.reshape(-1) if derivative is not None else None
    for start in range(0, x.size, TILE):
        tile = slice(start, start + TILE)
        kernel(
            flat_x[tile], flat_y[tile], None if flat_derivative is None else flat_derivative[tile]
        )
    return y, derivative


# Phi(x) = (1 + tanh(x p(x^2))) / 2, with p fitted so that x Phi(x) is off by less than 1e-7 for
# |x| < 5.6; beyond, x p(x^2) stays above 9, where float32 cannot tell its tanh from 1.
# The first two coefficients alone are, nearly, the tanh form. From scripts/fit_gelu.py.
_CDF_POLYNOMIAL = (
    7.978842e-01,
    3.633428e-02,
    -3.312998e-05,
    -5.524016e-05,
    3.969110e-06,
    -1.334464e-07,
    1.805617e-09,
)


def _normal_cdf_tile(x: Array, squares: Array, cdf: Array) -> None:
    """Phi(x) in float32, from x and x^2, written into `cdf`."""
    np.multiply(squares, np.float32(_CDF_POLYNOMIAL[-1]), out=cdf)
    for coefficient in _CDF_POLYNOMIAL[-2:0:-1]:  # Horner's rule
        cdf += np.float32(coefficient)
        cdf *= squares
    cdf += np.float32(_CDF_POLYNOMIAL[0])
    cdf *= x
    np.tanh(cdf, out=cdf)
    cdf *= 0.5
    cdf += 0.5


def _gelu_tile(x: Array, y: Array, derivative: Array | None) -> None:
    squares = x * x
    if derivative is not None:  # phi(x) = exp(-x^2 / 2) / sqrt(2 pi)
        np.multiply(squares, -0.5, out=derivative)
        np.exp(derivative, out=derivative)
        derivative *= 1 / math.sqrt(2 * math.pi)
        derivative *= x
    _normal_cdf_tile(x, squares, y)
    if derivative is not None:
        derivative += y
    y *= x


def _gelu_tanh_tile(x: Array, y: Array, derivative: Array | None) -> None:
    a, b = 2 * math.sqrt(2 / math.pi), 2 * 0.044715 * math.sqrt(2 / math.pi)
    squares = x * x
    np.minimum(squares, 900, out=squares)  # |x| = 30: beyond, s is 0 or 1; infinity must not arise
    s = squares * -b
    s -= a
    s *= x
    np.exp(s, out=s)
    s += 1
    np.reciprocal(s, out=s)
    if derivative is not None:  # s + x s (1 - s) (a + 3 b x^2)
        np.subtract(1, s, out=derivative)
        derivative *= s
        derivative *= x
        squares *= 3 * b
        squares += a
        derivative *= squares
        derivative += s
    np.multiply(x, s, out=y)

"""Fit the polynomial behind the float32 GELU: Phi(x) = (1 + tanh(x p(x^2))) / 2.

    python scripts/fit_gelu.py

atanh(2 Phi(x) - 1) is odd and smooth, so a short polynomial p in x^2 describes it. The fit is a
Chebyshev least-squares fit, re-weighted until the largest error of x Phi(x) is as small as it
gets (Lawson's method). Prints the coefficients for `kernels.py`, the error of the fit, and
the error of the library's float32 kernel against the C library's erf.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.polynomial import Polynomial, chebyshev

from minitransformer.nn.kernels import gelu

DEGREE, LIMIT = 6, 5.6


def normal_cdf(x: np.ndarray) -> np.ndarray:
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])


def fit() -> tuple[np.ndarray, float]:
    x = np.linspace(1e-3, LIMIT, 20001)
    below, above = normal_cdf(x), normal_cdf(-x)
    target = 0.5 * (np.log(below) - np.log(above)) / x  # atanh(2 Phi - 1) / x
    sensitivity = np.maximum(2 * x * x * below * above, 1e-9)  # d(x Phi) / dp
    basis = chebyshev.chebvander(2 * (x / LIMIT) ** 2 - 1, DEGREE)
    emphasis = np.ones_like(x)
    for _ in range(300):
        weight = sensitivity * np.sqrt(emphasis)
        c = np.linalg.lstsq(basis * weight[:, None], weight * target, rcond=None)[0]
        error = np.abs(sensitivity * (basis @ c - target))
        emphasis *= error / error.max() + 1e-3
        emphasis /= emphasis.mean()
    in_squares = Polynomial(chebyshev.cheb2poly(c))(Polynomial([-1, 2 / LIMIT**2]))
    return in_squares.coef, float(error.max())


if __name__ == "__main__":
    coefficients, worst = fit()
    print("coefficients of p, lowest power first:")
    print("\n".join(f"    {c:.6e}," for c in coefficients))
    print(f"largest error of x Phi(x), exact arithmetic: {worst:.1e}")
    x = np.linspace(-LIMIT, LIMIT, 200001).astype(np.float32)
    y = gelu(x)[0]
    print(
        f"largest error of the float32 kernel, |x| < {LIMIT}: "
        f"{np.abs(y - x * normal_cdf(x.astype(float))).max():.1e}"
    )

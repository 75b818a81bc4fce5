"""Prefix tuning: trained keys and values in front of every sequence."""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError
from ..nn.layers import Rng, default_rng, truncated_normal
from ..nn.module import Array, Module, Parameter
from .config import PrefixConfig

SIGMA = 0.02  # of keys and values at the start


class Prefix(Module):
    """P keys and values of no token, in front of those of a sequence; every position reads them.

    (Li and Liang 2021, arXiv 2101.00190, section 4.2; the keys and values themselves train, without
    the MLP that the paper computes them from during training.) They have no positions, so that
    those of the tokens stay as they are, and nothing masks them. Even untrained they change the
    output, because they get a part of the attention.

    Shapes: projections (B, T, 3 d) -> (B, P + T, 3 d), whose first P queries are 0 and not used;
    keys, values (P, d): 2 P d parameters.
    """

    placement = "in_front"

    def __init__(self, d_model: int, config: PrefixConfig, rng: Rng | None = None) -> None:
        self.config = config
        rng = default_rng(rng)
        self.keys = Parameter(truncated_normal(rng, (config.length, d_model), SIGMA))
        self.values = Parameter(truncated_normal(rng, (config.length, d_model), SIGMA))

    def forward(self, qkv: Array) -> Array:
        P, d = self.keys.shape
        rows = np.concatenate([np.zeros((P, d), qkv.dtype), self.keys.value, self.values.value], 1)
        y = np.concatenate([np.broadcast_to(rows, (len(qkv), P, 3 * d)), qkv], axis=1)
        self.save_for_backward(y.shape)
        return y

    def backward(self, dy: Array) -> Array | None:
        self.pop_saved(dy)
        P, d = self.keys.shape
        drows = dy[:, :P].sum(axis=0)  # the same rows stand in front of every sequence
        for parameter, part in ((self.keys, drows[:, d : 2 * d]), (self.values, drows[:, 2 * d :])):
            if parameter.trainable:
                parameter.accumulate(part)
        return dy[:, P:] if self.needs_input_grad else None

    def merged(self, weight: Array, bias: Array) -> tuple[Array, Array]:
        """Raises: ConfigError, always."""
        raise ConfigError("a prefix cannot be merged: it is further positions, not another weight")

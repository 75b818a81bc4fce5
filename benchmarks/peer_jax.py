"""JAX as a peer: the same classifier with adapters, a whole step compiled by XLA.

Imported in workers only. Arrays go by this library's names.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from turns import Side

import minitransformer as mt

Array = np.ndarray
Weights = dict[str, Any]
HEADS, BLOCKS, EPS = 12, 6, 1e-12  # MiniLM's


def linear(w: Weights, name: str, x: Any) -> Any:
    return x @ w[f"{name}.weight"] + w[f"{name}.bias"]


def norm(w: Weights, name: str, x: Any) -> Any:
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + EPS)
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def adapter(w: Weights, name: str, h: Any) -> Any:
    return h + linear(w, f"{name}.up", jax.nn.relu(linear(w, f"{name}.down", h)))


def logits_of(trained: Weights, frozen: Weights, ids: Any, mask: Any) -> Any:
    """(B, n_classes) from [CLS]."""
    w = frozen | trained
    B, T = ids.shape
    h = w["embeddings.token.weight"][ids] + w["embeddings.position.weight"][:T]
    h = norm(w, "embeddings.norm", h + w["embeddings.token_type.weight"][0])
    unseen = jnp.where(mask == 0, -1e9, 0.0)[:, None, None, :]
    for i in range(BLOCKS):
        name = f"blocks.{i}.attention"
        qkv = linear(w, f"{name}.module.qkv", h).reshape(B, T, 3, HEADS, -1)
        q, k, v = (qkv[:, :, part].swapaxes(1, 2) for part in range(3))  # (B, H, T, d_head)
        scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]).astype(np.float32)
        context = (jax.nn.softmax(scores + unseen) @ v).swapaxes(1, 2).reshape(B, T, -1)
        h = norm(w, f"{name}.norm", h + linear(w, f"{name}.module.out", context))
        h = adapter(w, f"{name}.adapters.task", h)
        name = f"blocks.{i}.ffn"
        a = jax.nn.gelu(linear(w, f"{name}.module.up", h), approximate=False)
        h = norm(w, f"{name}.norm", h + linear(w, f"{name}.module.down", a))
        h = adapter(w, f"{name}.adapters.task", h)
    return linear(w, "head", h[:, 0])


def loss_of(trained: Weights, frozen: Weights, ids: Any, mask: Any, labels: Any) -> Any:
    log_p = jax.nn.log_softmax(logits_of(trained, frozen, ids, mask))
    return -jnp.take_along_axis(log_p, labels[:, None], -1).mean()


def clipped_gradients(trained: Weights, frozen: Weights, batch: tuple[Any, ...]) -> Any:
    loss, grads = jax.value_and_grad(loss_of)(trained, frozen, *batch)
    size = jnp.sqrt(sum((g * g).sum() for g in grads.values()))
    return loss, {name: g * jnp.minimum(1.0, 1 / size) for name, g in grads.items()}


def train_step(trained: Weights, state: Any, frozen: Weights, lr: float, *batch: Any) -> Any:
    """AdamW with decay on matrices only; returns loss, weights and state."""
    loss, grads = clipped_gradients(trained, frozen, batch)
    t, m, v = state
    t, new, means, squares = t + 1, {}, {}, {}
    for name, g in grads.items():
        means[name] = 0.9 * m[name] + 0.1 * g
        squares[name] = 0.999 * v[name] + 0.001 * g * g
        update = means[name] / (1 - 0.9**t) / (jnp.sqrt(squares[name] / (1 - 0.999**t)) + 1e-8)
        decay = 0.01 if g.ndim >= 2 else 0.0
        new[name] = trained[name] - lr * (update + decay * trained[name])
    return loss, new, (t, means, squares)


class Jax(Side):
    """One step or forward pass at a time, each of them one compiled function."""

    def __init__(self, threads: int, lr: float, **settings: Any) -> None:
        """XLA takes as many threads as there are cores: `threads` must be that number."""
        self.lr = lr
        state = mt.Transformer.from_pretrained("minilm").state_dict()
        self.frozen = {name: jnp.asarray(value) for name, value in state.items()}
        self.step_function = jax.jit(train_step, donate_argnums=(0, 1))
        self.forward_function = jax.jit(logits_of)

    def load(self, values: dict[str, Array]) -> None:
        """The adapters and the head."""
        self.trained: Weights = {name: jnp.array(value) for name, value in values.items()}
        zeros = {name: jnp.zeros_like(value) for name, value in self.trained.items()}
        self.state: Any = (0, zeros, {name: jnp.copy(zero) for name, zero in zeros.items()})

    def use(self, batches: list[tuple[Array, Array, Array]]) -> None:
        """The batches to go through in turn; each shape is compiled for."""
        self.batches = [tuple(map(jnp.asarray, arrays)) for arrays in batches]
        for turn in range(len(self.batches)):
            self.step(turn)
            self.forward(turn)

    def step(self, turn: int) -> float:
        """Seconds of one training step."""
        batch = self.batches[turn % len(self.batches)]
        started = time.perf_counter()
        loss, self.trained, self.state = self.step_function(
            self.trained, self.state, self.frozen, self.lr, *batch
        )
        self.loss = float(loss)
        jax.block_until_ready(self.trained)
        return time.perf_counter() - started

    def forward(self, turn: int) -> float:
        """Seconds of one inference forward pass."""
        ids, mask, _ = self.batches[turn % len(self.batches)]
        started = time.perf_counter()
        jax.block_until_ready(self.forward_function(self.trained, self.frozen, ids, mask))
        return time.perf_counter() - started

    def result(self) -> dict[str, Any]:
        """Of one step on the first batch."""
        loss, grads = jax.jit(clipped_gradients)(self.trained, self.frozen, self.batches[0])
        logits = self.forward_function(self.trained, self.frozen, *self.batches[0][:2])
        gradients = {name: np.asarray(g) for name, g in grads.items()}
        return {"loss": float(loss), "gradients": gradients, "logits": np.asarray(logits)}

"""Values and gradients of single functions and layers, by PyTorch in double precision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, layer_norm, relu, silu, softmax

from reference.names import Arrays

# What a formula may stumble over: saturation, the smallest inputs, the kink of ReLU.
EXTREMES = [-30.0, -8.0, -6.0, -3.0, -1e-8, 0.0, 1e-8, 1e-3, 3.0, 6.0, 8.0, 30.0]
IGNORED = -100


def leaf(value: np.ndarray, dtype: torch.dtype = torch.float64) -> Tensor:
    """A tensor at which autograd ends: it gets a `.grad`."""
    return torch.tensor(value, dtype=dtype, requires_grad=True)


def functional(rng: np.random.Generator) -> Arrays:
    """Stateless functions: x and dy, the value y and the gradient dx."""
    arrays: Arrays = {}

    def record(name: str, function: Callable[[Tensor], Tensor], value: np.ndarray) -> None:
        x = leaf(value)
        y = function(x)
        dy = rng.standard_normal(tuple(y.shape))
        y.backward(torch.from_numpy(dy))
        arrays.update({f"{name}/x": value, f"{name}/dy": dy, f"{name}/y": y, f"{name}/dx": x.grad})

    activation_input = np.concatenate([EXTREMES, 3 * rng.standard_normal(65)]).reshape(7, 11)
    record("relu", relu, activation_input)
    record("gelu", gelu, activation_input)
    record("gelu_tanh", lambda x: gelu(x, approximate="tanh"), activation_input)
    record("tanh", torch.tanh, activation_input)
    record("silu", silu, activation_input)

    scores = 3 * rng.standard_normal((5, 3, 13))
    scores[0, 0] = 1e-8 * scores[0, 0]  # all but equal
    scores[0, 1] = np.where(np.arange(13) == 4, 30.0, -30.0)  # one winner
    scores[0, 2] += 700.0  # exp overflows without a shift
    record("softmax", lambda x: softmax(x, dim=-1), scores)

    rows = rng.standard_normal((4, 5, 11))
    rows[0, 0] *= 30.0
    rows[0, 1] += 30.0
    rows[0, 2] *= 1e-4
    rows[0, 3] = 2.0  # no variance at all
    gain, bias = 1 + 0.3 * rng.standard_normal(11), 0.3 * rng.standard_normal(11)
    for name, eps, value in (("layer_norm", 1e-5, rows), ("layer_norm_tiny_eps", 1e-12, rows[1:])):
        weight, shift = leaf(gain), leaf(bias)

        def norm(
            x: Tensor, weight: Tensor = weight, shift: Tensor = shift, eps: float = eps
        ) -> Tensor:
            return layer_norm(x, (11,), weight, shift, eps)

        record(name, norm, value)
        arrays |= {f"{name}/eps": np.array(eps), f"{name}/weight": gain, f"{name}/bias": bias}
        arrays |= {f"{name}/dweight": weight.grad, f"{name}/dbias": shift.grad}

    logits = 3 * rng.standard_normal((3, 7, 9))
    logits[0, 0, :3] = [30.0, -30.0, 1e-8]
    logits[0, 1] = 1e-8
    targets = rng.integers(0, 9, (3, 7))
    targets[0, 0] = 1  # sure and wrong
    targets[rng.random((3, 7)) < 0.4] = IGNORED
    targets[0, :2] = [1, 5]
    for smoothing in (0.0, 0.1):
        x = leaf(logits)
        loss = cross_entropy(
            x.flatten(0, 1), torch.from_numpy(targets).flatten(),
            ignore_index=IGNORED, label_smoothing=smoothing,
        )  # fmt: skip
        loss.backward()
        name = f"cross_entropy_{smoothing}"
        arrays |= {f"{name}/logits": logits, f"{name}/targets": targets}
        arrays |= {f"{name}/loss": loss, f"{name}/dlogits": x.grad}
    return as_numpy(arrays)


def layers(rng: np.random.Generator) -> Arrays:
    """Layers with parameters, in this library's layouts: values, and every gradient."""
    arrays: Arrays = {}

    def draw(*shape: int) -> np.ndarray:
        return 0.5 * rng.standard_normal(shape)

    x, weight, bias = leaf(draw(3, 5, 7)), leaf(draw(9, 7)), leaf(draw(9))
    y = nn.functional.linear(x, weight, bias)
    dy = draw(3, 5, 9)
    y.backward(torch.from_numpy(dy))
    arrays |= {"linear/x": x, "linear/dy": dy, "linear/y": y, "linear/dx": x.grad}
    arrays |= {"linear/weight": weight.T, "linear/bias": bias}
    arrays |= {"linear/dweight": weight.grad.T, "linear/dbias": bias.grad}

    ids = rng.integers(0, 11, (3, 8))
    ids[0, :3] = ids[1, 0] = 4  # one row used again and again: gradients add up
    table = leaf(draw(11, 5))
    y = nn.functional.embedding(torch.from_numpy(ids), table)
    dy = draw(3, 8, 5)
    y.backward(torch.from_numpy(dy))
    arrays |= {"embedding/ids": ids, "embedding/weight": table, "embedding/y": y}
    arrays |= {"embedding/dy": dy, "embedding/dweight": table.grad}

    norm = nn.LayerNorm(13, eps=1e-12, dtype=torch.float64)
    norm.weight.data, norm.bias.data = leaf(1 + draw(13)).data, leaf(draw(13)).data
    x, dy = leaf(draw(2, 3, 13)), draw(2, 3, 13)
    y = norm(x)
    y.backward(torch.from_numpy(dy))
    arrays |= {"layer_norm/x": x, "layer_norm/dy": dy, "layer_norm/y": y, "layer_norm/dx": x.grad}
    arrays |= {"layer_norm/weight": norm.weight, "layer_norm/bias": norm.bias}
    arrays |= {"layer_norm/dweight": norm.weight.grad, "layer_norm/dbias": norm.bias.grad}

    arrays |= attention(draw)
    return as_numpy(arrays)


def attention(draw: Callable[..., np.ndarray]) -> Arrays:
    """Multi-head self-attention under a padding mask, a causal mask, and both."""
    batch, length, d_model, n_heads = 3, 7, 15, 3
    mask = np.ones((batch, length), dtype=np.int64)
    mask[1, 5:] = 0
    mask[2, [2, 4, 6]] = 0  # holes too
    x, dy = draw(batch, length, d_model), draw(batch, length, d_model)
    module = nn.MultiheadAttention(d_model, n_heads, batch_first=True, dtype=torch.float64)
    for parameter in module.parameters():
        parameter.data = torch.from_numpy(2 * draw(*parameter.shape))
    arrays: Arrays = {
        "attention/x": x, "attention/dy": dy, "attention/mask": mask,
        "attention/qkv.weight": module.in_proj_weight.T,
        "attention/qkv.bias": module.in_proj_bias,
        "attention/out.weight": module.out_proj.weight.T,
        "attention/out.bias": module.out_proj.bias,
    }  # fmt: skip
    later = torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1)
    hidden = torch.from_numpy(mask == 0)
    for name, padding, causal in (
        ("plain", None, None), ("padding", hidden, None), ("causal", None, later),
        ("both", hidden, later),
    ):  # fmt: skip
        module.zero_grad()
        query = leaf(x)
        y, _ = module(query, query, query, key_padding_mask=padding, attn_mask=causal)
        y.backward(torch.from_numpy(dy))
        found = {
            "y": y, "dx": query.grad,
            "qkv.dweight": module.in_proj_weight.grad.T, "qkv.dbias": module.in_proj_bias.grad,
            "out.dweight": module.out_proj.weight.grad.T, "out.dbias": module.out_proj.bias.grad,
        }  # fmt: skip
        arrays |= as_numpy({f"attention/{name}/{key}": value for key, value in found.items()})
    return arrays


def as_numpy(arrays: dict[str, np.ndarray | Tensor]) -> Arrays:
    """Detached copies, so that nothing changes behind the recorded values."""
    return {
        name: (value.detach().numpy() if isinstance(value, Tensor) else value).copy()
        for name, value in arrays.items()
    }

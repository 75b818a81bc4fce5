"""The mathematics at its edges: infinite logits, constant rows, long sums, tails, late gradients.

`edge_figures.py` prints each figure beside PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.errors import ConfigError, DataError
from minitransformer.models.heads import Pooling
from minitransformer.nn import functional, kernels
from minitransformer.nn.config import TransformerConfig
from minitransformer.nn.layers import LayerNorm, Linear
from minitransformer.nn.losses import CrossEntropy
from minitransformer.nn.module import Array, Parameter
from minitransformer.training.optim import AdamW, warmup_linear_decay

BOTH = pytest.mark.parametrize("module", [functional, kernels], ids=["textbook", "engine"])
CAUSAL = TransformerConfig(20, 8, 2, 2, 16, max_positions=12, norm="pre", causal=True)

# -- cross-entropy -----------------------------------------------------------------------------

INFINITE = [
    ([[0.0, 1.0, -np.inf]], 1),  # a class that is ruled out
    ([[3e38, -3e38]], 0),  # their difference is not a float32
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("logits", "label"), INFINITE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_with_a_class_of_no_probability(
    logits: list[list[float]], label: int, dtype: type
) -> None:
    loss = CrossEntropy()
    found = loss(np.array(logits, dtype), np.array([label]))
    assert found == pytest.approx(math.log(1 + math.exp(-1)) if label else 0.0, rel=1e-6)
    p = np.array([[1 - 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-1)), 0]] if label else [[1, 0]])
    expected = p - np.eye(p.size)[label]
    np.testing.assert_allclose(loss.backward(), expected, atol=1e-7)


def test_the_loss_of_a_class_of_no_probability_is_infinite() -> None:
    logits, labels = np.array([[0.0, -np.inf]]), np.array([1])
    assert CrossEntropy()(logits, labels) == math.inf
    assert CrossEntropy(0.1)(logits, np.array([0])) == math.inf  # smoothing asks for it, too


# -- layer norm --------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("number", [0.1, 1.1, 30.1, -1234.567, 1e6])
@pytest.mark.parametrize("d", [48, 384, 1000])
def test_layer_norm_of_a_constant_row_is_its_bias(module: object, number: float, d: int) -> None:
    x = np.full((2, d), number, np.float32)
    x[1] = np.random.default_rng(0).standard_normal(d)  # another row is not disturbed
    gain, bias = np.ones(d, np.float32), np.full(d, 0.25, np.float32)
    y, _, _ = module.layer_norm(x, gain, bias, 1e-12)  # type: ignore[attr-defined]
    np.testing.assert_allclose(y[0], 0.25, atol=1e-5)
    expected, _, _ = functional.layer_norm(x[1:].astype(np.float64), gain, bias, 1e-12)
    np.testing.assert_allclose(y[1:], expected, atol=2e-6)


@BOTH
def test_layer_norm_of_numbers_far_from_zero(module: object) -> None:
    x = (1000 + 0.01 * np.random.default_rng(0).standard_normal((4, 384))).astype(np.float32)
    ones, zeros = np.ones(384, np.float32), np.zeros(384, np.float32)
    y, _, _ = module.layer_norm(x, ones, zeros, 1e-12)  # type: ignore[attr-defined]
    expected, _, _ = functional.layer_norm(x.astype(np.float64), ones, zeros, 1e-12)
    np.testing.assert_allclose(y, expected, atol=1e-5)


# -- sums over many rows -----------------------------------------------------------------------


def long_sum_errors(rows: int = 16_384, d: int = 384) -> tuple[float, float, Array]:
    """Relative errors of a Linear's bias gradient and a LayerNorm's two, and dy."""
    rng = np.random.default_rng(0)
    dy = (rng.standard_normal((rows, d)) + 0.5).astype(np.float32)
    x = rng.standard_normal((rows, d)).astype(np.float32)
    linear, norm = Linear(1, d), LayerNorm(d)
    linear(x[:, :1])
    linear.backward(dy)
    norm(x)
    norm.backward(dy)
    ones, dy64 = np.ones(d), dy.astype(np.float64)
    _, x_hat, _ = functional.layer_norm(x.astype(np.float64), ones, 0 * ones, 1e-12)
    bias, gain = dy64.sum(axis=0), (dy64 * x_hat).sum(axis=0)
    size = np.abs(bias).max()
    worst = max(np.abs(linear.bias.grad - bias).max(), np.abs(norm.bias.grad - bias).max())
    return float(worst / size), float(np.abs(norm.weight.grad - gain).max() / size), dy


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 1000, 16_384])
def test_gradients_summed_over_many_rows_do_not_drift(rows: int) -> None:
    bias, gain, _ = long_sum_errors(rows)
    assert max(bias, gain) < 8e-7


# -- activations far out -----------------------------------------------------------------------


def exact(name: str, x: Array) -> tuple[Array, Array]:
    """Value and derivative in float64, without cancellation in the left tail."""
    x = x.astype(np.float64)
    near = np.clip(x, -700, 700)
    if name == "gelu":
        cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
        return x * cdf, cdf + near * np.exp(-0.5 * near**2) / math.sqrt(2 * math.pi)
    du = np.ones_like(x)
    if name == "gelu_tanh":
        a, b = 2 * math.sqrt(2 / math.pi), 0.044715
        near = np.clip(x, -20, 20)
        near, du = a * (near + b * near**3), a * (1 + 3 * b * near**2)
    s = 1 / (1 + np.exp(-near))
    return x * s, s + np.clip(x, -700, 700) * s * (1 - s) * du


@BOTH
@pytest.mark.parametrize("name", ["silu", "gelu_tanh"])
def test_the_left_tail_is_right_in_relative_terms(module: object, name: str) -> None:
    lowest = {"silu": -80.0, "gelu_tanh": -9.0}[name]
    x = np.linspace(lowest, -2, 5_000).astype(np.float32)
    y, derivative = getattr(module, name)(x)
    value, expected = exact(name, x)
    assert np.abs(y / value - 1).max() < 2e-5
    assert np.abs(derivative / expected - 1).max() < 4e-5


@BOTH
@pytest.mark.parametrize("name", kernels.ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_are_finite_as_far_as_numbers_go(
    module: object, name: str, dtype: type
) -> None:
    far = float(np.finfo(dtype).max)
    x = np.concatenate([np.logspace(0, np.log10(far) - 0.1, 400), [2e19, 1e4]]).astype(dtype)
    with np.errstate(over="ignore"):
        y, derivative = getattr(module, name)(np.concatenate([x, -x]))
    assert np.isfinite(y).all() and np.isfinite(derivative).all()
    far_right = derivative[: len(x)][x > 1e4].astype(float)
    np.testing.assert_allclose(far_right, 1 if name != "tanh" else 0, atol=1e-6)


# -- AdamW, warm-up ----------------------------------------------------------------------------


def late_gradient(lr: float = 0.01, steps: int = 12, first: int = 11) -> float:
    """How far a parameter has moved whose first gradient comes at step 11."""
    early, late = Parameter(np.ones(1)), Parameter(np.ones(1))
    optimizer = AdamW({"early": early, "late": late}, lr, weight_decay=0)
    for step in range(1, steps + 1):
        early.grad = np.ones(1)
        late.grad = np.ones(1) if step >= first else None
        optimizer.step()
    return float(1 - late.value[0])


def test_adamw_corrects_the_bias_of_each_parameter_by_its_own_steps() -> None:
    assert late_gradient() == pytest.approx(0.02, rel=1e-6)


def test_adamw_resumes_with_the_steps_of_each_parameter() -> None:
    early, late = Parameter(np.ones(1)), Parameter(np.ones(1))
    optimizer = AdamW({"early": early, "late": late}, 0.01)
    early.grad = np.ones(1)
    optimizer.step()
    other = AdamW({"early": early, "late": late}, 0.01)
    other.load_state_dict({name: array.copy() for name, array in optimizer.state_dict().items()})
    assert other.t == 1
    assert {name: int(n[0]) for name, n in other.updates.items()} == {"early": 1, "late": 0}


def test_warm_up_is_one_step_ahead_of_transformers() -> None:
    """As the docstring says; `rate` is `transformers`' multiplier."""
    warmup, total = 4, 10

    def rate(step: int) -> float:
        return step / warmup if step < warmup else (total - step) / (total - warmup)

    ours = warmup_linear_decay(1.0, warmup, total)
    assert [ours(step) for step in range(warmup)] == [rate(step + 1) for step in range(warmup)]
    assert [ours(s) for s in range(warmup, total)] == [rate(s) for s in range(warmup, total)]


# -- pooling -----------------------------------------------------------------------------------


def causal_logits(ids: Array, mask: Array | None = None) -> Array:
    logits: Array = mt.Classifier(mt.Transformer(CAUSAL), 3).eval()(ids, mask)
    return logits


def test_a_causal_classifier_reads_the_whole_text() -> None:
    ids = np.arange(1, 7)[None]
    other = ids.copy()
    other[0, -1] = 15  # another last token
    assert np.abs(causal_logits(ids) - causal_logits(other)).max() > 1e-4


@pytest.mark.parametrize(
    "mask", [[1, 1, 1, 1, 0, 0], [1, 0, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0]]
)
def test_the_last_real_token_is_pooled_whatever_the_padding(mask: list[int]) -> None:
    h = np.random.default_rng(0).standard_normal((2, 6, 4))
    masks = np.array([mask, [1] * 6])
    pooling = Pooling("last")
    last = max(i for i, real in enumerate(mask) if real)
    np.testing.assert_array_equal(pooling(h, masks), [h[0, last], h[1, 5]])
    dh = pooling.backward(np.ones((2, 4)))
    assert dh[0, last].all() and dh[1, 5].all() and dh.sum() == 8


def test_padding_on_the_right_changes_nothing() -> None:
    ids = np.array([[3, 4, 5]])
    padded = np.array([[3, 4, 5, 0, 0]])
    mask = np.array([[1, 1, 1, 0, 0]])
    np.testing.assert_allclose(causal_logits(padded, mask), causal_logits(ids), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "mask", "message"),
    [
        ("cls", [0, 1, 1], "reads position 0 of row 1, which is padding"),
        ("pooler", [0, 1, 1], "reads position 0 of row 1, which is padding"),
        ("last", [0, 0, 0], "row 1, which is padding"),
    ],
)
def test_a_pooled_position_that_is_padding_is_refused(
    kind: str, mask: list[int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Pooling(kind)(np.ones((2, 3, 4)), np.array([[1, 1, 1], mask]))


def test_cls_of_a_causal_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="has read nothing but itself; use 'last'"):
        mt.Classifier(mt.Transformer(CAUSAL), 3, pooling="cls")


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_shards_lose_no_token_of_left_padding_or_holes(pooling: str) -> None:
    from minitransformer.data.batches import Batch
    from minitransformer.training.data_parallel import DataParallel

    rng = np.random.default_rng(0)
    mask = np.array([[0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 0, 1], [1, 1, 0, 0, 0, 0], [1] * 6])
    batch = Batch(rng.integers(1, 20, (4, 6)), mask, rng.integers(0, 3, 4), np.arange(4))
    losses = []
    for threads in (1, 2, 3):
        model = mt.Classifier(mt.Transformer(CAUSAL), 3, pooling).train()
        with DataParallel(model, threads) as parallel:
            losses.append(parallel.forward_backward(batch)[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6) == pytest.approx(losses[2], rel=1e-6)


# -- beside PyTorch ----------------------------------------------------------------------------


@pytest.mark.reference
@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu"])
def test_tails_are_as_close_as_those_of_pytorch(name: str) -> None:
    """Within a factor of two anywhere, which is one rounding more; silu is a quotient there."""
    for low, high in TAILS:
        ours, theirs = tail_errors(name, low, high)
        assert ours[0] <= 2 * theirs[0] and ours[1] <= 2 * theirs[1], (low, ours, theirs)


@pytest.mark.reference
def test_long_sums_are_as_good_as_those_of_pytorch() -> None:
    import torch

    bias, _, dy = long_sum_errors()
    exact_sum = dy.sum(axis=0, dtype=np.float64)
    theirs = np.abs(torch.from_numpy(dy).sum(0).numpy() - exact_sum).max() / np.abs(exact_sum).max()
    assert bias <= 4 * theirs


@pytest.mark.reference
def test_a_causal_classifier_agrees_with_transformers(tmp_path: object) -> None:
    """Logits and loss of GPT-2 with a classification head, with padding on the right."""
    import torch
    from transformers import GPT2Config, GPT2ForSequenceClassification

    torch.manual_seed(0)
    theirs = GPT2ForSequenceClassification(
        GPT2Config(
            vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=16, num_labels=3,
            pad_token_id=0, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        )
    ).eval()  # fmt: skip
    theirs.transformer.save_pretrained(str(tmp_path))
    transformer = mt.Transformer.from_pretrained(str(tmp_path)).train()
    ours = mt.Classifier(transformer, 3).train()
    ours.head.linear.weight.value[...] = theirs.score.weight.detach().numpy().T
    ids = np.random.default_rng(0).integers(1, 40, (4, 9))
    mask = np.arange(9) < np.array([9, 4, 1, 7])[:, None]
    ids[~mask] = 0
    labels = np.array([0, 2, 1, 1])
    out = theirs(
        torch.tensor(ids), attention_mask=torch.tensor(mask.astype(int)),
        labels=torch.tensor(labels),
    )  # fmt: skip
    out.loss.backward()
    loss = CrossEntropy()
    logits = ours(ids, mask.astype(int))
    np.testing.assert_allclose(logits, out.logits.detach().numpy(), atol=2e-6)
    assert loss(logits, labels) == pytest.approx(out.loss.item(), rel=1e-5)
    ours.backward(loss.backward())
    np.testing.assert_allclose(
        ours.head.linear.weight.grad, theirs.score.weight.grad.numpy().T, atol=1e-6
    )
    np.testing.assert_allclose(
        ours.transformer.embeddings.token.weight.grad,
        theirs.transformer.wte.weight.grad.numpy(), atol=1e-6,
    )  # fmt: skip


@pytest.mark.reference
def test_warm_up_beside_the_schedule_of_transformers() -> None:
    import torch
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = get_linear_schedule_with_warmup(optimizer, 4, 10)
    theirs = []
    for _ in range(10):
        theirs.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    ours = [warmup_linear_decay(1.0, 4, 10)(step) for step in range(10)]
    assert ours[:4] == pytest.approx(theirs[1:5]) and ours[4:] == pytest.approx(theirs[4:])


TAILS = ((-80, -12), (-12, -9), (-9, -7), (-7, -6), (-6, -5), (-5, -4), (-4, -3), (3, 6), (6, 80))
Pair = tuple[float, float]


def tail_errors(name: str, low: float, high: float) -> tuple[Pair, Pair]:
    """Worst error of the value and of the derivative in float32, ours and PyTorch's."""
    import torch

    x = np.linspace(low, high, 20_001).astype(np.float32)
    kind = {"approximate": "tanh"} if name == "gelu_tanh" else {}
    f: Callable[..., torch.Tensor] = getattr(torch.nn.functional, name.removesuffix("_tanh"))
    leaf = torch.tensor(x, requires_grad=True)
    y = f(leaf, **kind)
    y.sum().backward()
    assert leaf.grad is not None
    value, expected = exact(name, x)

    def errors(found: Array, derivative: Array) -> Pair:
        return float(np.abs(found - value).max()), float(np.abs(derivative - expected).max())

    return errors(*getattr(kernels, name)(x)), errors(y.detach().numpy(), leaf.grad.numpy())

"""Every gradient of the library, and the backward contract: what is computed, what is saved, what
is never visited."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from minitransformer import AdapterConfig, Classifier, LanguageModel, Transformer, TransformerConfig
from minitransformer.errors import BackwardError, ShapeError
from minitransformer.gradcheck import cases, gradcheck
from minitransformer.gradcheck.cases import Case
from minitransformer.nn.module import Array, Module

CASES = cases()
each_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


@each_case
def test_gradients_agree_with_central_differences(case: Case) -> None:
    report = gradcheck(case.module, *case.inputs, **case.options, tolerance=1e-6)
    assert report.rows
    assert not any(row.skipped for row in report.rows)


# -- the contract, for every module ----------------------------------------------------------


def forward(module: Module, case: Case) -> Any:
    """`module(...)`, told whether the gradient of its input is wanted."""
    named = {name: case.options[name] for name in ("labels",) if name in case.options}
    return module.call(case.options.get("check_inputs", True), *case.inputs, **named)


def dy_for(y: Any) -> Array:
    return np.random.default_rng(0).standard_normal(np.shape(y))


def saved(module: Module) -> list[str]:
    """The names of the modules that have saved something for the backward pass."""
    return [name for name, inner in module.named_modules() if inner._saved is not None]


@each_case
def test_backward_without_forward_is_an_error(case: Case) -> None:
    module = copy.deepcopy(case.module).train()
    with pytest.raises(BackwardError, match="call forward first"):
        module.backward(np.ones((2, 3)))


@each_case
def test_backward_twice_is_an_error(case: Case) -> None:
    module = copy.deepcopy(case.module).train()
    dy = dy_for(forward(module, case))
    module.backward(dy)
    with pytest.raises(BackwardError, match="call forward first"):
        module.backward(dy)


@each_case
def test_a_dy_of_the_wrong_shape_is_an_error(case: Case) -> None:
    module = copy.deepcopy(case.module).train()
    y = forward(module, case)
    with pytest.raises(ShapeError, match="got dy of shape"):
        module.backward(np.ones((*np.shape(y), 2)))


@each_case
def test_nothing_is_left_saved_after_backward(case: Case) -> None:
    module = copy.deepcopy(case.module).train()
    y = forward(module, case)
    assert saved(module)
    module.backward(dy_for(y))
    assert saved(module) == []


@each_case
def test_eval_mode_saves_nothing(case: Case) -> None:
    module = copy.deepcopy(case.module).eval()
    y = forward(module, case)
    assert saved(module) == []
    with pytest.raises(BackwardError, match=r"eval\(\) mode"):
        module.backward(dy_for(y))


@each_case
def test_train_mode_after_eval_forgets_what_was_saved(case: Case) -> None:
    module = copy.deepcopy(case.module).train()
    forward(module, case)
    module.eval()
    assert saved(module) == []


@each_case
def test_a_frozen_parameter_never_owns_a_gradient(case: Case) -> None:
    module = copy.deepcopy(case.module).train()
    module.backward(dy_for(forward(module, case)))
    for name, p in module.named_parameters():
        assert p.trainable or p.grad is None, name
    trained = [p for p in module.parameters() if p.trainable]
    assert not trained or any(p.grad is not None for p in trained)
    module.freeze()
    assert all(p.grad is None for p in module.parameters())


@each_case
def test_float32_stays_float32(case: Case) -> None:
    def single(x: Any) -> Any:
        return x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x

    case = Case(case.name, case.module, tuple(single(x) for x in case.inputs), case.options)
    module = copy.deepcopy(case.module).astype(np.float32).train()
    y = forward(module, case)
    assert isinstance(y, float) or y.dtype == np.float32
    dx = module.backward(dy_for(y).astype(np.float32))
    assert dx is None or dx.dtype == np.float32
    assert all(p.grad is None or p.grad.dtype == np.float32 for p in module.parameters())


# -- adapters on a frozen base ---------------------------------------------------------------

SHAPE = {"vocab_size": 11, "d_model": 8, "n_layers": 3, "n_heads": 2, "d_ff": 12}
CONFIGS = {
    "encoder": TransformerConfig(
        **SHAPE, max_positions=7, token_types=2, dropout=0.1, attention_dropout=0.1
    ),
    "decoder": TransformerConfig(
        **SHAPE, max_positions=7, norm="pre", causal=True, activation="gelu_tanh", dropout=0.1
    ),
}
IDS = np.random.default_rng(5).integers(0, 11, (4, 6))
MASK = (np.arange(6) < np.array([[6], [3], [4], [1]])).astype(np.int64)

either = pytest.mark.parametrize("kind", CONFIGS)


def with_adapters(
    kind: str, layers: tuple[int, ...] | None = None, sites: tuple[str, ...] = ("attention", "ffn")
) -> Transformer:
    """A frozen float64 base with trainable adapters, all of whose numbers are random."""
    rng = np.random.default_rng(3)
    model = Transformer(CONFIGS[kind], rng)
    model.freeze()
    model.add_adapter("task", AdapterConfig(4, activation="gelu", layers=layers, sites=sites), rng)
    model.astype(np.float64)
    for p in model.parameters():
        p.value += 0.2 * rng.standard_normal(p.shape)
    return model


def classifier_on(model: Transformer) -> Classifier:
    return Classifier(model, 3, pooling="mean", rng=np.random.default_rng(4))


def gradients(model: Module) -> dict[str, Array]:
    """One forward and backward pass on the whole batch."""
    model.train().zero_grad()
    y = model(IDS, MASK)
    model.backward(dy_for(y))
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@either
@pytest.mark.parametrize("norms", [False, True], ids=["norms frozen", "norms trained"])
@pytest.mark.parametrize(
    ("layers", "sites"),
    [
        (None, ("attention", "ffn")),
        (None, ("ffn",)),
        ((0,), ("attention",)),
        ((2,), ("attention", "ffn")),
        ((0, 2), ("ffn",)),
        ((1,), ("attention",)),
    ],
    ids=str,
)
def test_adapter_gradients_are_a_part_of_the_full_gradients(
    kind: str, norms: bool, layers: tuple[int, ...] | None, sites: tuple[str, ...]
) -> None:
    model = classifier_on(with_adapters(kind, layers, sites))
    if norms:
        model.transformer.train_layer_norms()
    full = copy.deepcopy(model)  # with the same dropout masks
    full.unfreeze()
    partial, whole = gradients(model), gradients(full)

    assert partial.keys() == model.trainable_parameters().keys()
    assert len(partial) < len(whole) == len(full.parameters())
    for name, grad in partial.items():
        error = np.abs(grad - whole[name]).max() / np.abs(whole[name]).max()
        assert error <= 1e-12, f"{name}: {error}"


def tripwire(module: Module) -> None:
    """Let it be an error to call `module.backward`."""

    def backward(dy: Array) -> None:
        raise AssertionError(f"{type(module).__name__}.backward was visited")

    vars(module)["backward"] = backward


@either
def test_with_adapters_everywhere_the_backward_pass_ends_at_the_first_adapter(kind: str) -> None:
    model = with_adapters(kind)
    first = model.blocks[0].attention
    before_it = [model.embeddings, first.module, first.norm, first.dropout]
    model.train()
    y = model(IDS, MASK)
    assert [saved(module) for module in before_it] == [[]] * 4
    assert saved(first.adapters["task"])
    # The first adapter's own input has no gradient either, and the adapter knows.
    assert not first.adapters["task"].down.needs_input_grad
    for module in before_it:
        tripwire(module)
    assert model.backward(dy_for(y)) is None
    assert all(p.grad is not None for p in model.trainable_parameters().values())


@either
@pytest.mark.parametrize("top", [1, 2])
def test_below_the_lowest_adapter_nothing_is_saved_or_visited(kind: str, top: int) -> None:
    model = with_adapters(kind, layers=tuple(range(3 - top, 3)))
    below = [model.embeddings, *model.blocks[: 3 - top]]
    model.train()
    y = model(IDS, MASK)
    assert [saved(module) for module in below] == [[]] * len(below)
    assert all(saved(block) for block in model.blocks[3 - top :])
    for module in below:
        tripwire(module)
    model.backward(dy_for(y))
    assert all(p.grad is not None for p in model.trainable_parameters().values())


@either
def test_a_head_alone_lets_the_whole_base_save_nothing(kind: str) -> None:
    model = classifier_on(with_adapters(kind))
    model.transformer.freeze()
    model.train()
    y = model(IDS, MASK)
    assert saved(model.transformer) == [] == saved(model.pooling)
    tripwire(model.transformer)
    model.backward(dy_for(y))
    assert model.trainable_parameters().keys() == {"head.linear.weight", "head.linear.bias"}


def test_frozen_layers_save_no_input() -> None:
    """A frozen Linear passes the gradient on without having saved its input."""
    model = with_adapters("encoder")
    model.train()
    y = model(IDS, MASK)
    upper = model.blocks[1].ffn.module
    assert upper.up._saved is not None and upper.up._saved[1] == (None,)
    assert model.blocks[1].ffn.adapters["task"].up._saved[1][0] is not None
    model.backward(dy_for(y))


def test_an_inactive_adapter_gets_no_gradient() -> None:
    model = classifier_on(with_adapters("encoder"))
    model.transformer.set_active(None)
    grads = gradients(model)
    assert grads.keys() == {"head.linear.weight", "head.linear.bias"}


@either
def test_gradients_add_up_over_batches(kind: str) -> None:
    model = with_adapters(kind)
    set_dropout(model, 0)
    once = {name: grad.copy() for name, grad in gradients(model).items()}
    model.backward(dy_for(model(IDS, MASK)))
    for name, p in model.trainable_parameters().items():
        assert p.grad is not None
        np.testing.assert_allclose(p.grad, 2 * once[name], rtol=1e-12)
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


# -- replicas --------------------------------------------------------------------------------


def set_dropout(model: Module, p: float) -> None:
    for _, module in model.named_modules():
        if hasattr(module, "p"):
            module.p = p


def arrays_saved(module: Module) -> set[int]:
    """Where the saved arrays of a module live."""

    def addresses(item: Any) -> set[int]:
        if isinstance(item, np.ndarray):
            return {item.__array_interface__["data"][0]}
        if isinstance(item, tuple | list):
            return set().union(*map(addresses, item))
        return set()

    return set().union(*(addresses(inner._saved) for _, inner in module.named_modules()))


@either
@pytest.mark.parametrize("trained", ["adapters", "everything"])
def test_two_replicas_on_half_batches_add_up_to_the_whole(kind: str, trained: str) -> None:
    model = LanguageModel(with_adapters(kind))  # the tied embedding is shared inside a replica too
    set_dropout(model, 0)
    if trained == "everything":
        model.unfreeze()
    whole = {name: grad.copy() for name, grad in gradients(model).items()}
    dy = dy_for(np.empty((4, 6, 11)))
    replica = model.replica()

    ours, theirs = dict(model.named_parameters()), dict(replica.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[n].value is theirs[n].value for n in ours)
    assert all(theirs[n].grad is None for n in theirs)

    model.zero_grad()
    halves = [(model, slice(0, 2)), (replica, slice(2, 4))]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda half: half[0](IDS[half[1]], MASK[half[1]]), halves))
        weights = {p.value.__array_interface__["data"][0] for p in model.parameters()}
        assert arrays_saved(model) - weights
        assert not (arrays_saved(model) & arrays_saved(replica)) - weights
        list(threads.map(lambda half: half[0].backward(dy[half[1]]), halves))

    assert len(whole) == len(model.trainable_parameters())
    for name, grad in whole.items():
        mine, other = ours[name].grad, theirs[name].grad
        assert mine is not None and other is not None and mine is not other
        np.testing.assert_allclose(mine + other, grad, rtol=0, atol=1e-12 * np.abs(grad).max())


def test_a_step_on_the_model_is_seen_by_its_replica() -> None:
    model = with_adapters("encoder").eval()
    replica = model.replica()
    before = replica(IDS, MASK)
    model.blocks[1].ffn.adapters["task"].up.bias.value += 1
    assert not np.allclose(replica(IDS, MASK), before)
    np.testing.assert_array_equal(replica(IDS, MASK), model(IDS, MASK))

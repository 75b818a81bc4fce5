"""Module: order of execution, nested calls, names, the tree; Linear and its kin start random."""

from __future__ import annotations

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.costs.memory import saved_bytes
from minitransformer.errors import BackwardError, ShapeError
from minitransformer.nn.layers import Activation, Embedding, Linear, seed_dropouts
from minitransformer.nn.module import Array, Module, Parameter, backward_through

X = np.random.default_rng(0).standard_normal((3, 4))


class DeclaredBackwards(Module):
    """Declares `second` before `first`, which runs first."""

    def __init__(self, call: bool = False) -> None:
        self.second = Linear(5, 2).astype(np.float64)
        self.relu = Activation("relu")
        self.first = Linear(4, 5).astype(np.float64)
        self.called = call

    def forward(self, x: Array) -> Array:
        if self.called:
            return self.second(self.relu(self.first(x)))
        return self.second.forward(self.relu.forward(self.first.forward(x)))

    def backward(self, dy: Array) -> Array | None:
        return backward_through(dy, self.second, self.relu, self.first)


@pytest.mark.parametrize("call", [False, True], ids=["x.forward(...)", "x(...)"])
@pytest.mark.parametrize("frozen", [(), ("first",), ("second",)], ids=str)
def test_the_order_of_declaration_does_not_matter(call: bool, frozen: tuple[str, ...]) -> None:
    module = DeclaredBackwards(call)
    for name in frozen:
        getattr(module, name).freeze()
    assert mt.gradcheck(module, X).passed
    assert mt.gradcheck(module, X, check_inputs=False).passed


@pytest.mark.parametrize("call", [False, True], ids=["x.forward(...)", "x(...)"])
def test_nothing_before_the_first_trainable_module_is_saved(call: bool) -> None:
    module = DeclaredBackwards(call)
    module.first.freeze()
    y = module.call(False, X)
    assert saved_bytes(module.first) == saved_bytes(module.relu) == 0
    assert not module.second.needs_input_grad
    assert module.backward(np.ones_like(y)) is None
    assert module.second.weight.grad is not None
    assert module.first.weight.grad is None


def test_a_base_inside_a_module_of_ones_own_saves_nothing_below_its_adapters() -> None:
    class Mine(Module):
        def __init__(self) -> None:
            self.head = Linear(64, 2)  # declared first, runs last
            self.base = mt.Transformer.from_pretrained("tiny").freeze()

        def forward(self, ids: Array) -> Array:
            return self.head(self.base(ids)[:, 0])

        def backward(self, dy: Array) -> None:
            dh = np.zeros((dy.shape[0], 5, 64), dy.dtype)
            dh[:, 0] = self.head.backward(dy)
            self.base.backward(dh)

    model = Mine().train()
    model.base.add_adapter("top", mt.AdapterConfig(4, layers=(1,)))
    y = model(np.arange(10).reshape(2, 5))
    assert saved_bytes(model.base.blocks[0]) == saved_bytes(model.base.embeddings) == 0
    model.backward(np.ones_like(y))
    assert all(p.grad is not None for p in model.trainable_parameters().values())


def test_token_ids_given_by_keyword_need_no_gradient_either() -> None:
    model = mt.Transformer.from_pretrained("tiny").freeze()
    model.add_adapter("top", mt.AdapterConfig(4, layers=(1,)))
    model.train()
    model(attention_mask=np.ones((1, 3)), ids=np.arange(3).reshape(1, 3))
    assert saved_bytes(model.blocks[0]) == saved_bytes(model.embeddings) == 0
    with pytest.raises(TypeError, match="ids"):
        model(attention_mask=np.ones((1, 3)))


def test_backward_of_a_branch_in_which_nothing_trains_says_what_to_do() -> None:
    class Branches(Module):
        def __init__(self) -> None:
            self.frozen = Linear(4, 2).freeze()
            self.trained = Linear(4, 2)

        def forward(self, x: Array) -> Array:
            return self.frozen(x) + self.trained(x)

    branches = Branches()
    y = branches.call(False, X)
    with pytest.raises(mt.errors.BackwardError, match="backward_through"):
        branches.frozen.backward(np.ones_like(y))
    assert backward_through(np.ones_like(y), branches.frozen) is None
    with pytest.raises(mt.errors.BackwardError, match="call forward first"):
        Linear(4, 2).backward(np.ones_like(y))


def test_a_failed_forward_does_not_disturb_the_next_one() -> None:
    module = DeclaredBackwards()
    with pytest.raises(mt.errors.ShapeError):
        module(X[:, :3])
    module.second.freeze()
    assert mt.gradcheck(module, X).passed


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_what_is_unfrozen_between_forward_and_backward_is_an_error(name: str) -> None:
    linear = Linear(3, 2)
    getattr(linear, name).requires_grad = False
    x = np.ones((4, 3), np.float32)
    linear(x)
    linear.unfreeze()
    with pytest.raises(BackwardError, match=f"{name} of Linear was frozen during forward"):
        linear.backward(np.ones((4, 2), np.float32))
    linear(x)  # anew, and now both train
    linear.backward(np.ones((4, 2), np.float32))
    assert linear.weight.grad is not None and linear.bias.grad is not None


def test_freezing_between_forward_and_backward_leaves_that_gradient_out() -> None:
    linear = Linear(3, 2)
    linear(np.ones((4, 3), np.float32))
    linear.weight.requires_grad = False
    linear.backward(np.ones((4, 2), np.float32))
    assert linear.weight.grad is None and linear.bias.grad is not None


def test_an_embedding_takes_a_list_of_integers() -> None:
    embedding = Embedding(5, 2)
    np.testing.assert_array_equal(embedding([[1, 4]]), embedding.weight.value[[[1, 4]]])
    with pytest.raises(ShapeError, match="float64"):
        embedding([0.5])


def test_two_adapters_made_by_hand_drop_the_same_until_they_are_seeded() -> None:
    def outputs(*seeds: int) -> list[Array]:
        made = []
        for seed in seeds or (None, None):
            adapter = mt.Adapter(8, mt.AdapterConfig(bottleneck=4, dropout=0.5))
            if seed is not None:
                seed_dropouts(adapter, seed)
            made.append(adapter(np.ones((3, 8), np.float32)))
        return made

    same, others = outputs(), outputs(1, 2)
    np.testing.assert_array_equal(*same)
    assert np.abs(others[0] - others[1]).max() > 0


def test_requires_grad_is_trainable() -> None:
    parameter = Parameter(np.ones(2))
    parameter.accumulate(np.ones(2))
    parameter.requires_grad = False
    assert not parameter.trainable
    assert parameter.grad is None
    linear = Linear(2, 3).requires_grad_(False)
    assert not linear.trainable_parameters()
    assert len(linear.requires_grad_().trainable_parameters()) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: Linear(4, 3).weight,
        lambda: Embedding(4, 3).weight,
        lambda: mt.Adapter(4, mt.AdapterConfig(2)).up.weight,
        lambda: (
            mt.Transformer(
                mt.TransformerConfig(vocab_size=9, d_model=4, n_layers=1, n_heads=2, d_ff=8)
            ).embeddings.token.weight
        ),
    ],
    ids=["Linear", "Embedding", "Adapter", "Transformer"],
)
def test_without_a_generator_weights_are_random_and_the_same_each_time(make) -> None:
    weight = make()
    assert np.abs(weight.value).min() > 0
    np.testing.assert_array_equal(weight.value, make().value)


def test_layers_of_one_model_start_differently() -> None:
    config = mt.TransformerConfig(vocab_size=9, d_model=4, n_layers=2, n_heads=2, d_ff=8)
    first, second = mt.Transformer(config).blocks
    ours, theirs = first.ffn.module, second.ffn.module
    assert not np.array_equal(ours.up.weight.value, theirs.up.weight.value)
    assert not np.array_equal(ours.up.weight.value, ours.down.weight.value.T)


def test_a_transformer_without_a_generator_can_learn() -> None:
    config = mt.TransformerConfig(vocab_size=9, d_model=4, n_layers=1, n_heads=2, d_ff=8)
    model = mt.Classifier(mt.Transformer(config), 2)
    loss = mt.CrossEntropy()
    loss(model(np.arange(8).reshape(2, 4)), np.array([0, 1]))
    model.backward(loss.backward())
    grads = {name: p.grad for name, p in model.trainable_parameters().items()}
    untouched = {"transformer.embeddings.token_type.weight", "transformer.embeddings.norm.bias"}
    assert all(
        g is not None and np.abs(g).max() > 0 for n, g in grads.items() if n not in untouched
    )


def test_a_pretrained_model_is_in_eval_mode_and_says_so() -> None:
    model = mt.Transformer.from_pretrained("tiny")
    assert not model.training
    y = model(np.arange(4).reshape(1, 4))
    with pytest.raises(mt.errors.BackwardError, match="call train\\(\\) before forward"):
        model.backward(np.ones_like(y))


def test_the_tree_shows_every_module_what_trains_and_equal_blocks_once() -> None:
    model = mt.Transformer.from_pretrained("tiny").freeze()
    model.add_adapter("mine", mt.AdapterConfig(4))
    text = str(model)
    assert text.startswith("Transformer: 134,608 parameters, 2,320 trainable\n")
    assert text.count("adapters.mine: Adapter") == 2  # two sites of blocks 0 to 1
    assert "blocks.0 to 1: Block" in text
    assert "down: Linear  weight (64, 4), bias (4,)  trainable" in text
    assert "qkv: Linear  weight (64, 192), bias (192,)\n" in text
    model.delete_adapter("mine")
    model.add_adapter("mine", mt.AdapterConfig(4, layers=(1,)))
    assert "blocks.0: Block" in str(model)
    assert "blocks.1: Block" in str(model)


def test_a_parameter_is_not_taken_for_an_array() -> None:
    """Without its .value: NumPy alone would take it for one object and speak of dimensions."""
    with pytest.raises(TypeError, match="'Parameter'"):
        np.ones((2, 3)) @ Parameter(np.ones((3, 2)))


def test_what_is_saved_begins_with_the_shape_of_the_output() -> None:
    with pytest.raises(ShapeError, match=r"first the shape of the output, y\.shape"):
        Linear(3, 2).save_for_backward(np.ones((4, 3)), np.ones((4, 2)))

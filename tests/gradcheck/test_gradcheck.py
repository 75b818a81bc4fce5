"""The gradient checker itself: right gradients pass, and each mistake is named."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistakes import (
    MISTAKES,
    B,
    D,
    Elementwise,
    MeanSquare,
    Noisy,
    Product,
    adapter,
    ids,
    linear,
    mistaken,
    numbers,
    one_wrong_entry,
    scaled,
    square,
    transposed,
    x3,
)
from wrong_backwards import MISSED, RIGHT, WRONG, verdict, wrong_backwards
from wrong_layers import Net, affine, attention
from wrong_states import OwnCache, ReturnsEarly

from minitransformer.cli.text import gradcheck_record
from minitransformer.errors import ConfigError, GradientError, UntestedGradientWarning
from minitransformer.gradcheck import cases, check_library, gradcheck
from minitransformer.nn import functional as F
from minitransformer.nn.layers import Dropout, Embedding, LayerNorm, Linear
from minitransformer.nn.losses import CrossEntropy
from minitransformer.nn.module import Array, Module, Parameter


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_named(name: str) -> None:
    module, x, expected = MISTAKES[name]
    if expected is None:  # the same inputs with a right backward
        assert gradcheck(module, x).passed
        return
    with pytest.raises(GradientError) as error:
        gradcheck(module, x)
    assert re.search(expected, str(error.value)), str(error.value)
    report = gradcheck(module, x, raises=False)
    assert not report.passed
    assert str(report) == str(error.value)


def test_every_wrong_backward_pass_is_caught_and_no_wrong_cause_is_named() -> None:
    found = {(w.family, w.name): verdict(w) for w in wrong_backwards()}
    assert len(found) >= 200
    assert {key: said for key, said in found.items() if said[0] in (MISSED, WRONG)} == {}
    assert sum(said[0] == RIGHT for said in found.values()) >= 144


def test_the_right_modules_of_that_set_pass() -> None:
    """The same modules without a mistake."""
    for right in (affine(), attention(), Net(), OwnCache(lambda x: x), ReturnsEarly("never")):
        assert gradcheck(right, x3).passed


# -- more than one input, losses, nothing to check -----------------------------------------


def test_two_inputs_need_two_gradients() -> None:
    a, b = numbers(2, 3, seed=1), numbers(2, 3, seed=2)
    report = gradcheck(Product(both=True), a, b)
    assert [row.name for row in report.rows] == ["a", "b"]
    with pytest.raises(GradientError, match=r"must return db .*several.*a tuple"):
        gradcheck(Product(both=False), a, b)
    assert gradcheck(
        Product(both=False), a, b=b
    ).passed  # by keyword: passed on, not differentiated


def test_a_loss_is_checked_with_and_without_an_argument_for_backward() -> None:
    logits, labels = numbers(6, 4), np.array([0, 1, 2, 3, -100, 1])
    assert gradcheck(MeanSquare(divide=True), numbers(7, 2)).passed
    assert gradcheck(CrossEntropy(), logits, labels).passed


def test_several_wrong_arrays_say_where_to_begin() -> None:
    class Two(Module):
        def __init__(self) -> None:
            self.first, self.second = linear(D, D), linear(D, 6)

        def forward(self, x):
            y = self.second.forward(self.first.forward(x))
            self.save_for_backward(y.shape)
            return y

        def backward(self, dy):
            self.pop_saved(dy)
            return self.first.backward(1.7 * self.second.backward(dy))

    report = gradcheck(Two(), x3, raises=False)
    assert {row.name for row in report.rows if row.advice} == {"x", "first.weight", "first.bias"}
    assert "the backward pass reaches first.weight first" in report.problems[0]


def test_nothing_to_check_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nothing to check"):
        gradcheck(linear(D, 6).freeze(), x3, check_inputs=False)
    with pytest.raises(ConfigError, match="nothing to check"):
        gradcheck(Embedding(9, D).freeze(), ids)
    with pytest.raises(ConfigError, match="needs a Module"):
        gradcheck(np.tanh, x3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="tolerance=0"):
        gradcheck(linear(D, 6), x3, tolerance=0)


def test_nan_in_the_input_is_said_before_anything_is_computed() -> None:
    with pytest.raises(GradientError, match="the input x contains NaN"):
        gradcheck(linear(D, 6), np.full((2, D), np.nan))


def test_other_errors_of_backward_are_not_hidden() -> None:
    def fails(dy: Array, x: Array) -> Array:
        raise RuntimeError("not mine")

    with pytest.raises(RuntimeError, match="not mine"):
        gradcheck(Elementwise(square[0], fails), x3)


class LastDeclaredFirst(Module):
    """Runs `first`, then `second`, but declares them the other way round; calls them as PyTorch."""

    def __init__(self) -> None:
        self.second, self.first = linear(D, 6), linear(D, D)

    def forward(self, x):
        y = self.second(self.first(x))
        self.save_for_backward(y.shape)
        return y

    def backward(self, dy):
        self.pop_saved(dy)
        return self.first.backward(self.second.backward(dy))


@pytest.mark.parametrize("check_inputs", [True, False])
def test_submodules_in_another_order_and_called_directly(check_inputs: bool) -> None:
    report = gradcheck(LastDeclaredFirst(), x3, check_inputs=check_inputs)
    assert len(report.rows) == 4 + check_inputs


def test_where_to_begin_goes_by_the_order_of_execution() -> None:
    class Wrong(LastDeclaredFirst):
        def backward(self, dy):
            return super().backward(1.7 * dy)

    report = gradcheck(Wrong(), x3, raises=False)
    assert "5 arrays are wrong; the backward pass reaches second.weight first" in str(report)


# -- gradients of zero -----------------------------------------------------------------------


def test_a_parameter_that_is_not_used_is_not_tested() -> None:
    module = linear(D, 6)
    module.spare = Parameter(numbers(3))  # type: ignore[attr-defined]
    with pytest.warns(UntestedGradientWarning, match="Linear: not tested: spare. .* zero"):
        report = gradcheck(module, x3)
    assert [row.status for row in report.rows] == ["ok", "ok", "ok", "not tested"]
    assert [row.passed for row in report.rows] == [True, True, True, False]
    assert report.passed and report.untested == ("spare",) and report.advice == ()
    assert report.verdict().endswith("; not tested: spare")
    assert gradcheck_record(report)["not_tested"] == ["spare"]
    assert str(report).count("not tested") == report._repr_html_().count("not tested") == 2


def test_an_input_of_zeros_hides_a_weight() -> None:
    x = np.zeros((B, D))
    x[0, 0] = 1.0
    module = mistaken(weight_grad=lambda x, dy: 0 * (x.T @ dy))
    module.weight.value[0] = 0
    report = gradcheck(module, 0 * x, raises=False)
    assert "weight.grad is all zeros" in str(report)  # at zeros as they were given, it would be
    assert "note: x is constant" in str(report)
    assert "x is constant" in report._repr_html_()


@pytest.mark.parametrize(
    ("x", "word"),
    [
        (np.ones((B, D)), "constant"),
        (np.zeros((B, D)), "constant"),
        (np.tile(numbers(D), (B, 1)), "the same along an axis"),
        (numbers(D, D) + numbers(D, D).T, "symmetric"),
        (np.array([[1.0, 2.0, 2.0, 1.0]]), "symmetric"),
    ],
)
def test_special_inputs_are_moved_and_said_so(x: Array, word: str) -> None:
    given = x.copy()
    report = gradcheck(linear(D, 6), x)
    assert report.notes == (f"x is {word}, which hides mistakes: random numbers were added to it",)
    np.testing.assert_array_equal(x, given)
    assert not gradcheck(linear(D, 6), numbers(B, D)).notes


def test_nothing_tested_at_all_is_an_error() -> None:
    off = Elementwise(lambda x: 0 * x, lambda dy, x: 0 * dy)
    with pytest.raises(GradientError, match="not tested: x"):
        gradcheck(off, x3)
    with pytest.warns(UntestedGradientWarning):
        report = gradcheck(off, x3, raises=False)
    assert not report.passed and report.max_error == np.inf


@pytest.mark.parametrize("init", ["near_identity", "zero_up"])
def test_a_right_adapter_is_tested_throughout(init: str) -> None:
    report = gradcheck(adapter(init=init), x3)  # a warning would fail this test
    assert report.passed and len(report.rows) == 5


# -- what may look wrong and is right ------------------------------------------------------


def test_a_gradient_that_is_zero_up_to_rounding_passes() -> None:
    """As of the key bias: softmax(x + b) does not depend on b; backward gives 1e-16, not 0."""

    class ShiftedSoftmax(Module):
        def __init__(self) -> None:
            self.b = Parameter(np.ones((), np.float32))

        def forward(self, x: Array) -> Array:
            p = F.softmax(x + self.b.value)
            self.save_for_backward(p.shape, p)
            return p

        def backward(self, dy: Array) -> Array:
            (p,) = self.pop_saved(dy)
            dx = F.softmax_backward(dy, p)
            self.b.accumulate(dx.sum())
            return dx

    report = gradcheck(ShiftedSoftmax(), numbers(50, 12))
    assert {row.name: abs(row.analytic) < 1e-14 for row in report.rows} == {"x": False, "b": True}


def test_dropout_draws_the_same_mask_each_time() -> None:
    report = gradcheck(Dropout(0.5), numbers(20, 5))
    zeros = np.random.default_rng(0).random((20, 5), dtype=np.float32) < 0.5
    assert report.passed and 10 < zeros.sum() < 90  # there was something to repeat


def relu_module() -> Elementwise:
    return Elementwise(lambda x: np.maximum(x, 0), lambda dy, x: dy * (x > 0))


def test_a_kink_close_by_is_resolved_by_smaller_steps() -> None:
    x = numbers(4, 5)
    x[0, 0], x[1, 1], x[2, 2] = 3e-6, -4e-6, 8e-7  # all within the first step
    report = gradcheck(relu_module(), x)
    assert report.rows[0].skipped == 0 and report.max_error < 1e-6


def test_a_kink_is_skipped_and_said_so() -> None:
    x = numbers(4, 5)
    x[0, 0] = 0
    report = gradcheck(relu_module(), x)
    assert report.passed and report.rows[0].skipped == 1
    assert "ok, 1 at kinks skipped" in str(report)


def test_too_many_kinks_are_an_error() -> None:
    x = numbers(4, 5)
    x[0] = 0
    with pytest.raises(GradientError, match=r"3 or more of 20 points, too many"):
        gradcheck(relu_module(), x)
    with pytest.raises(GradientError, match=r"1 or more of 1 points"):  # nothing was checked
        gradcheck(relu_module(), np.zeros(1))


def test_a_kink_does_not_hide_a_mistake_elsewhere() -> None:
    x = numbers(4, 5)
    x[0, 0] = 0
    wrong = Elementwise(lambda x: np.maximum(x, 0), lambda dy, x: dy * (x > 0) * (1 + (x > 1)))
    report = gradcheck(wrong, x, raises=False)
    assert not report.passed and report.rows[0].error > 0.4


def test_strong_curvature_is_resolved() -> None:
    """Layer norm of numbers near 1e-3: the first step is far too long."""
    assert gradcheck(LayerNorm(D), 1e-3 * numbers(B, D)).passed


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1e6])
def test_the_error_does_not_depend_on_the_unit(scale: float) -> None:
    def f(x: Array) -> Array:
        return scale * np.sin(x)

    right = Elementwise(f, lambda dy, x: scale * dy * np.cos(x))
    wrong = Elementwise(f, lambda dy, x: scale * dy * np.cos(x) * (1 + 1e-5))
    assert gradcheck(right, x3).passed
    report = gradcheck(wrong, x3, raises=False)
    assert not report.passed
    assert report.max_error == pytest.approx(1e-5, rel=0.01)


def test_an_x_drawn_with_the_same_seed_hides_nothing() -> None:
    """With dy = x, x.T @ dy is symmetric, and its transpose is right."""
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal((B, D))
        with pytest.raises(GradientError, match="transpose"):
            gradcheck(transposed(D, D), x, seed=seed)


# -- large arrays ----------------------------------------------------------------------------


def test_a_direction_sees_an_entry_that_the_sample_misses() -> None:
    module = mistaken(9, weight_grad=one_wrong_entry)
    reports = [
        gradcheck(module, numbers(2, 9), max_entries=6, seed=s, raises=False) for s in range(8)
    ]
    rows = [report.rows[1] for report in reports]
    assert all("+ 4 directions" in row.checked for row in rows)
    assert not any(row.passed for row in rows)
    assert any("outside the sample" in row.advice for row in rows)


def test_mistakes_are_named_from_a_sample() -> None:
    report = gradcheck(transposed(20, 20), numbers(2, 20), max_entries=50, raises=False)
    assert "weight.grad is the transpose" in report.rows[1].advice


# -- the user's things are left alone -------------------------------------------------------


def test_module_and_inputs_are_left_as_they_are() -> None:
    class Net(Module):
        def __init__(self) -> None:
            self.linear, self.dropout = linear(D, D), Dropout(0.5)

        def forward(self, x):
            y = self.dropout.forward(self.linear.forward(x))
            self.save_for_backward(y.shape)
            return y

        def backward(self, dy):
            self.pop_saved(dy)
            return self.linear.backward(self.dropout.backward(dy))

    net = Net()
    x = numbers(B, D).astype(np.float32)
    dy = np.ones((B, D), np.float32)
    net(x)
    net.backward(dy)
    net(x)  # gradcheck must not use up what this forward saved
    net.linear.bias.trainable = False
    values = {name: p.value.copy() for name, p in net.named_parameters()}
    grad = net.linear.weight.grad.copy()
    state, x_before = net.dropout.rng.bit_generator.state, x.copy()

    assert gradcheck(net, x).passed

    for name, p in net.named_parameters():
        assert p.value.dtype == np.float32
        np.testing.assert_array_equal(p.value, values[name])
    np.testing.assert_array_equal(net.linear.weight.grad, grad)
    assert net.linear.bias.grad is None and not net.linear.bias.trainable
    assert net.dropout.rng.bit_generator.state == state
    np.testing.assert_array_equal(x, x_before)
    assert x.dtype == np.float32
    assert net.backward(dy).shape == x.shape
    net.eval()
    assert gradcheck(net, x).passed
    assert not any(module.training for _, module in net.named_modules())


# -- the report ------------------------------------------------------------------------------


def test_the_report_is_an_aligned_table_with_the_worst_entry() -> None:
    report = gradcheck(scaled(2.0), x3, raises=False)
    lines = str(report).splitlines()
    header, rule, *body = lines[1:6]
    assert set(rule) == {"-"} and len(body) == 3
    for word in ("shape", "checked", "worst at", "verdict"):
        column = header.index(word)
        assert all(line[column - 1] == " " and line[column] != " " for line in body)
    row = report.rows[1]
    index = tuple(int(i) for i in re.findall(r"\d+", row.worst))
    assert all(i < n for i, n in zip(index, row.shape, strict=True))
    assert row.analytic / row.numeric == pytest.approx(2) and row.error == pytest.approx(0.5)
    assert [r.verdict for r in report.rows] == ["ok", "WRONG", "ok"]


def test_the_report_in_a_notebook() -> None:
    html = gradcheck(transposed(D, D), x3, raises=False)._repr_html_()
    assert html.count("<tr") == 4 and "WRONG" in html and "<li>weight.grad is the transpose" in html
    assert "<ul>" not in gradcheck(linear(D, D), x3)._repr_html_()


def test_max_error_and_passed() -> None:
    report = gradcheck(linear(D, D), x3)
    assert report.passed and 0 <= report.max_error <= 1e-6
    assert report.max_error == max(row.error for row in report.rows)
    assert gradcheck(Noisy(), x3, raises=False).max_error == np.inf


@pytest.mark.slow
def test_check_library_gives_a_report_for_every_case() -> None:
    names, reports = zip(*check_library(), strict=True)
    assert list(names) == [case.name for case in cases()]
    assert len(set(names)) == len(names)
    assert all(report.passed and not report.untested for report in reports)


# -- any shape -------------------------------------------------------------------------------

sizes = st.integers(1, 4)


@settings(max_examples=30, deadline=None)
@given(st.lists(sizes, max_size=3), sizes, sizes, st.integers(0, 2**32))
def test_linear_of_any_shape_passes(leading: list[int], d_in: int, d_out: int, seed: int) -> None:
    module = Linear(d_in, d_out, np.random.default_rng(seed), sigma=1.0)
    report = gradcheck(module, numbers(*leading, d_in, seed=seed), seed=seed)
    assert [row.shape for row in report.rows] == [(*leading, d_in), (d_in, d_out), (d_out,)]


@settings(max_examples=30, deadline=None)
@given(st.lists(sizes, max_size=2), sizes, sizes, st.floats(1.001, 100), st.integers(0, 2**32))
def test_a_factor_is_found_in_any_shape(
    leading: list[int], d_in: int, d_out: int, factor: float, seed: int
) -> None:
    module = scaled(factor, d_in, d_out)
    report = gradcheck(module, numbers(*leading, d_in, seed=seed), seed=seed, raises=False)
    assert [row.passed for row in report.rows] == [True, False, True]
    assert report.rows[1].error == pytest.approx(1 - 1 / factor, rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(sizes, sizes, st.integers(2, 5), st.integers(0, 2**32))
def test_layer_norm_of_any_shape_passes(batch: int, time: int, d: int, seed: int) -> None:
    assert gradcheck(LayerNorm(d, eps=1e-5), numbers(batch, time, d, seed=seed), seed=seed).passed

"""The library's own code earns no points, however it is got; what is not asked for may be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from exercises.wrong_solutions import solution
from minitransformer.exercises import check

LAYERS = "\nfrom minitransformer.nn.layers import LayerNorm, Linear\n"
FUNCTIONAL = "\nfrom minitransformer.nn import functional\n"
INNER = """
class MyLinear(Linear):
    def __init__(self, d_in, d_out):
        self.inner = Linear(d_in, d_out)
        self.weight, self.bias = self.inner.weight, self.inner.bias

    def forward(self, x):
        return self.inner.forward(x)

    def backward(self, dy):
        return backward_through(dy, self.inner)
"""
INNER_ADAPTER = """
from minitransformer.adapters.bottleneck import Adapter
class MyAdapter(Module):
    def __init__(self, d_model, config, rng=None):
        self.config, self.placement, self.scaling = config, config.placement, config.scaling
        self.inner = Adapter(d_model, config, rng)
        self.w_down, self.b_down = self.inner.down.weight, self.inner.down.bias
        self.w_up, self.b_up = self.inner.up.weight, self.inner.up.bias

    def forward(self, h):
        return self.inner.forward(h)

    def backward(self, dy):
        return self.inner.backward(dy)
"""
START = """
from minitransformer.nn.layers import truncated_normal
def start_weights(d, m, rng, sigma):
    w_down, w_up = truncated_normal(rng, (d, m), sigma), truncated_normal(rng, (m, d), sigma)
    return w_down, np.zeros(m, np.float32), w_up, np.zeros(d, np.float32)
"""
START_OF_ADAPTER = """
def start_weights(d, m, rng, sigma):
    import minitransformer as mt
    adapter = mt.adapters.bottleneck.Adapter(d, mt.AdapterConfig(m), rng)
    down, up = adapter.down, adapter.up
    return down.weight.value, down.bias.value, up.weight.value, up.bias.value
"""
LORA = "\nfrom minitransformer.adapters.lora import LoRA\n"
COUNT = """
def adapter_parameters(d, m):
    import minitransformer as mt
    from minitransformer.costs.parameters import count_adapters
    config = mt.TransformerConfig(9, d, 1, 1, d)
    return count_adapters(config, mt.AdapterConfig(m, placement="parallel")).total
"""
CASES = [  # exercise, written after the solution, part, whose code it is
    (1, "\nfrom minitransformer.nn.layers import Linear as MyLinear\n", "linear-gradients",
     "Linear"),
    (1, LAYERS + "class MyLinear(Linear): pass\n", "linear-gradients", "Linear.backward"),
    (1, LAYERS + "MyLinear.backward = Linear.backward\n", "linear-frozen", "Linear.backward"),
    (1, LAYERS + "MyLinear.backward = lambda self, dy: super(MyLinear, self).backward(dy)\n",
     "any-shape", "Linear.backward"),
    (1, LAYERS + "from minitransformer.nn.module import backward_through\n" + INNER,
     "linear-gradients", "Linear.backward"),
    (1, LAYERS + "class MyLayerNorm(LayerNorm): pass\n", "in-the-model", "LayerNorm.backward"),
    (1, FUNCTIONAL + "MyLayerNorm.backward = lambda self, dy: "
     "functional.layer_norm_backward(dy, *self.pop_saved(dy), self.weight.value)[0]\n",
     "layer-norm-gradients", "layer_norm_backward"),
    (2, FUNCTIONAL + "softmax_backward = functional.softmax_backward\n", "softmax-backward",
     "softmax_backward"),
    (2, FUNCTIONAL + "def attention(q, k, v, mask=None):\n"
     "    return functional.attention(q, k, v, mask)\n", "attention", "attention"),
    (2, FUNCTIONAL + "def attention_backward(*a):\n    return functional.attention_backward(*a)\n",
     "attention-backward", "attention_backward"),
    (2, "\nfrom minitransformer.nn import kernels\ndef attention(q, k, v, mask=None):\n"
     "    return kernels.attention_weights(q, k, mask) @ v\n", "in-the-model",
     "attention_weights"),
    (3, INNER_ADAPTER, "gradients", "Adapter.forward"),
    (4, START, "start-weights", "truncated_normal"),
    (4, START_OF_ADAPTER, "start-weights", "truncated_normal"),
    (5, LAYERS + "class MyLinear(Linear): pass\n", "saves-little", "Linear.forward"),
    (5, "\nfrom minitransformer.nn.module import backward_through\n", "stops", "backward_through"),
    (6, "\nclass MyAdamW(mt.AdamW): pass\n", "first-step", "AdamW.step"),
    (6, "\nMyAdamW = mt.AdamW\n", "many-steps", "AdamW"),
    (6, "\nfrom minitransformer.training import optim\ndef clip_by_global_norm(named, limit):\n"
     "    return optim.clip_by_global_norm(named, limit)\n", "clip", "clip_by_global_norm"),
    (7, LORA + "MyLoRA.merged = LoRA.merged\n", "merged", "LoRA.merged"),
    (7, LORA + "MyLoRA = LoRA\n", "forward", "LoRA"),
    (8, COUNT, "adapter-parameters", "count_adapters"),
]  # fmt: skip


@pytest.mark.parametrize(("exercise", "more", "part", "whose"), CASES)
def test_the_librarys_own_code_is_refused(
    exercise: int, more: str, part: str, whose: str, tmp_path: Path
) -> None:
    path = tmp_path / "borrowed.py"
    path.write_text(solution(exercise) + more, "utf-8")
    hints = {i.name: i.hint for i in check(exercise, path, "ada").items if not i.passed}
    assert f"the library's own {whose}: write it yourself" in hints[part]


def test_a_function_that_makes_the_librarys_class_is_no_class(tmp_path: Path) -> None:
    path = tmp_path / "made.py"
    path.write_text(solution(1) + LAYERS + "def MyLinear(*a): return Linear(*a)\n", "utf-8")
    hints = {item.name: item.hint for item in check(1, path, "ada").items}
    assert "`MyLinear` is a function; expected a class" in hints["linear-gradients"]


def test_a_profiler_that_is_switched_off_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "unseen.py"
    text = solution(7) + LORA
    text += "import sys\ndef forward(self, x, y):\n    sys.setprofile(None)\n"
    text += "    return y + self.scaling * (x @ self.a.value @ self.b.value)\n"
    path.write_text(text + "MyLoRA.forward = forward\n", "utf-8")
    hints = {i.name: i.hint for i in check(7, path, "ada").items if not i.passed}
    assert "sets a profiler" in hints["forward"] and "merged" not in hints


def test_other_parts_of_the_library_may_be_used(tmp_path: Path) -> None:
    """What an exercise does not ask for: softmax in attention, another module's Linear."""
    path = tmp_path / "used.py"
    text = solution(2) + "\nfrom minitransformer.nn.kernels import softmax\n"
    path.write_text(text, "utf-8")
    assert check(2, path, "ada").passed
    text = solution(3).replace("flat(dz).sum(axis=0)", "kernels.sum_rows(flat(dz))")
    path.write_text("from minitransformer.nn import kernels\n" + text, "utf-8")
    assert check(3, path, "ada").passed

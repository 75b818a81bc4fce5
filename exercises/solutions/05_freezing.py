import numpy as np

from minitransformer import exercises
from minitransformer.nn.layers import Linear, flat


STUDENT = "your-name"  # the id under which you hand in: some numbers are your own


def backward_through(dy, *modules):
    """The gradient of the input of `modules`, given in the order of the backward pass."""
    d = dy
    for module in modules:
        if d is None or not module.output_requires_grad:
            return None
        d = module.backward(d)
    return d


class MyLinear(Linear):
    """y = x W + b over the last axis; what is frozen costs nothing."""

    def forward(self, x):
        y = x @ self.weight.value + self.bias.value
        self.save_for_backward(y.shape, x if self.weight.trainable else None)
        return y

    def backward(self, dy):
        (x,) = self.pop_saved(dy)
        if self.weight.trainable:
            self.weight.accumulate(flat(x).T @ flat(dy))
        if self.bias.trainable:
            self.bias.accumulate(flat(dy).sum(axis=0))
        if not self.needs_input_grad:
            return None
        return dy @ self.weight.value.T


def train_adapters_only(model, norms=False):
    """Freeze everything but the adapters and, if asked, the blocks' layer norms."""
    for name, parameter in model.named_parameters():
        norm = name.startswith("blocks.") and ".norm." in name
        parameter.requires_grad = ".adapters." in name or (norms and norm)


PRODUCTS = ...
trains = exercises.my_numbers(5, STUDENT)["trains"]
first = trains.index(True)
PRODUCTS = len(trains) + sum(trains) + (len(trains) - 1 - first)

"""Parameter and Module: names, freezing, state, and the contract of forward and backward.

Data passes forward through a stack of modules; the gradient passes backward through the same
modules, and stops where nothing earlier is left to train:

1. `forward(x)` saves only what this module's own `backward` will read. In eval mode, and for a
   module that the backward pass does not reach, it saves nothing.
2. `backward(dy)` adds into `.grad` of trainable parameters and returns dx, or None when nothing
   earlier trains. A frozen parameter never owns a gradient array.
3. `backward` without a forward, twice after one forward, or with a dy of the wrong shape is an
   error, not a wrong number.
4. A module trains in one thread at a time; `replica()` gives another over the same weights. In
   eval mode, in which nothing is saved, several threads may call one module.
"""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import BackwardError, CheckpointError, ShapeError
from .row_gradient import RowGradient
from .summary import Summary, SummaryRow, tree

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]


class Parameter:
    """An array that may be trained: `value`, and `grad` once a gradient has reached it.

    `grad` is None until then, and always None while the parameter is frozen. `requires_grad` says
    whether it is trained; `trainable` is another name for it. Reading `grad` always gives the whole
    array; `stored_grad` may be a `RowGradient`, which an embedding's is until somebody reads it.
    Raises: ShapeError for whole numbers that shall train: their gradient would be cut to integers.
    """

    __array_ufunc__ = None  # x @ parameter is a TypeError: NumPy would take it for a single object

    def __init__(self, value: Array, requires_grad: bool = True) -> None:
        self.value = np.asanyarray(value)
        if requires_grad and not np.issubdtype(self.value.dtype, np.floating):
            raise ShapeError(
                f"a parameter of dtype {self.value.dtype}: expected np.float32 or np.float64"
            )
        self.stored_grad: Array | RowGradient | None = None
        self._requires_grad = requires_grad

    @property
    def grad(self) -> Array | None:
        """The gradient, of the shape of `value`; None if there is none."""
        if isinstance(self.stored_grad, RowGradient):
            # Whole from now on: whoever reads it may change it in place.
            self.stored_grad = np.asarray(self.stored_grad)
        return self.stored_grad

    @grad.setter
    def grad(self, grad: Array | None) -> None:
        self.stored_grad = grad

    @property
    def requires_grad(self) -> bool:
        """Whether it trains. Setting it to False drops the gradient."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, requires_grad: bool) -> None:
        self._requires_grad = requires_grad
        if not requires_grad:
            self.grad = None

    trainable = requires_grad

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def size(self) -> int:
        return self.value.size

    def accumulate(self, grad: Array | RowGradient, own: bool = False) -> None:
        """Add a gradient: a parameter used twice, or in two batches, gets the sum.

        `own`: nobody else holds the array, so that it may become `.grad` without a copy.
        Raises: BackwardError if the parameter is frozen; ShapeError if the shapes differ.
        """
        if not self._requires_grad:
            raise BackwardError(
                f"a gradient arrived at a frozen parameter of shape {self.shape}; "
                "compute gradients only where `parameter.trainable` is true"
            )
        if grad.shape != self.shape:
            hint = ", the shape of its transpose" if grad.shape == self.shape[::-1] else ""
            raise ShapeError(
                f"gradient of shape {grad.shape} for a parameter of shape {self.shape}{hint}"
            )
        before = self.stored_grad
        if isinstance(grad, RowGradient) and (before is None or isinstance(before, RowGradient)):
            self.stored_grad = grad if before is None else before + grad
        elif self.grad is None:
            self.grad = (np.asarray if own else np.array)(grad, dtype=self.value.dtype)
        else:
            self.grad += np.asarray(grad)

    def __repr__(self) -> str:
        state = "trainable" if self.trainable else "frozen"
        return f"Parameter{self.shape} {self.value.dtype} {state}"


class _ForwardPass(threading.local):
    """The forward pass that is running in this thread, if it was begun by calling a module.

    `requires_grad`: whether anything that has run so far trains, so that what comes next must
    return the gradient of its input. None while no pass is running.
    """

    requires_grad: bool | None = None


_forward_pass = _ForwardPass()


class _Saved(NamedTuple):
    """What forward leaves for backward, and what must not have changed by then."""

    out_shape: tuple[int, ...]
    arrays: tuple[Any, ...]
    frozen: tuple[str, ...]  # the names of the module's own parameters that did not train
    thread: int


class Module:
    """Parameters, modules inside it, and a pair of forward and backward.

    Attributes:
        training: False after `eval()`: no dropout, nothing saved.
        needs_input_grad: whether `backward` must return dx.
        output_requires_grad: whether anything in or before this module trains, so that `backward`
            will be called.

    The last two are found during the forward pass, in the order in which modules run, by
    `save_for_backward`. They are set by calling a module, `module(x)`; after `module.forward(x)`
    alone, the gradient of x is wanted.
    """

    training = True
    needs_input_grad = True
    output_requires_grad = True
    _saved: _Saved | None = None

    # -- forward and backward --------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`forward`, which saves only what `backward` will need; see `call`."""
        return self.call(True, *args, **kwargs)

    def call(self, needs_input_grad: bool, *args: Any, **kwargs: Any) -> Any:
        """As `module(...)`; `needs_input_grad`: whether the caller wants the input's gradient.

        Integers, as token ids, have none. Inside another module's forward this is `forward` alone.
        """
        if _forward_pass.requires_grad is not None:
            return self.forward(*args, **kwargs)
        given = args or [*inspect.signature(self.forward).bind(**kwargs).arguments.values()]
        try:
            integers = bool(given) and np.issubdtype(np.asarray(given[0]).dtype, np.integer)
        except ValueError as error:  # a list of lists of different lengths
            raise ShapeError("rows of different lengths: fill them up with mt.pad") from error
        try:
            _forward_pass.requires_grad = needs_input_grad and not integers
            return self.forward(*args, **kwargs)
        finally:
            _forward_pass.requires_grad = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The output y; saves what `backward` will read. The class says which shapes."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, dy: Array) -> Array | None:
        """From dy, of the shape of the output, to dx, or None if nothing earlier trains.

        Adds to `.grad` of the parameters that train.
        Raises: BackwardError without a forward before it, or a second time; ShapeError for a dy of
        another shape.
        """
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    @staticmethod
    def input_requires_grad() -> bool:
        """During a forward pass: whether anything before this point trains."""
        return _forward_pass.requires_grad is not False

    def save_for_backward(self, out_shape: tuple[int, ...], *arrays: Any) -> None:
        """Keep what `backward` will read, if it will be called. Forward calls this once.

        Raises: BackwardError if forward in another thread has saved arrays that wait for backward;
        ShapeError if an array stands where the shape of the output is expected.
        """
        if not isinstance(out_shape, tuple):
            raise ShapeError(
                "save_for_backward: first the shape of the output, y.shape, then the arrays"
            )
        self.needs_input_grad = self.input_requires_grad()
        own = list(self.own_parameters())
        frozen = tuple(name for name, parameter in own if not parameter.requires_grad)
        self.output_requires_grad = self.needs_input_grad or len(frozen) < len(own)
        if _forward_pass.requires_grad is not None:
            _forward_pass.requires_grad = self.output_requires_grad
        if not (self.training and self.output_requires_grad):
            self.discard_saved()
            return
        saved = _Saved(out_shape, arrays, frozen, threading.get_ident())
        # What is there already, or this; in one step, for two threads may come here together.
        if vars(self).setdefault("_saved", saved).thread != saved.thread:
            raise BackwardError(
                f"forward of {type(self).__name__} in two threads, and no backward in between: a "
                "module trains in one thread at a time; give each thread model.replica() "
                "(model.train() discards what an abandoned forward has saved)"
            )
        self._saved = saved

    def discard_saved(self) -> None:
        """Forget what this module's forward has saved."""
        vars(self).pop("_saved", None)

    def pop_saved(self, dy: Array) -> tuple[Any, ...]:
        """Hand out what `forward` saved, once, after checking that dy fits its output.

        Raises: BackwardError if there is nothing saved, or if a parameter trains now that was
        frozen then; ShapeError if dy has another shape.
        """
        name, saved = type(self).__name__, self._saved
        if saved is None:
            raise BackwardError(f"{name}.backward has nothing to read: {self.why_not_saved()}")
        for unfrozen in saved.frozen:
            if getattr(self, unfrozen).requires_grad:
                raise BackwardError(
                    f"{unfrozen} of {name} was frozen during forward, which saved nothing for its "
                    "gradient; unfreeze before forward"
                )
        shape = getattr(dy, "shape", None)
        if shape != saved.out_shape:
            got = f"dy of shape {shape}" if shape is not None else f"a {type(dy).__name__} as dy"
            raise ShapeError(f"{name}.backward got {got}, but forward returned {saved.out_shape}")
        self.discard_saved()
        return saved.arrays

    def why_not_saved(self) -> str:
        """The likely reason, and what to do, for an error message."""
        if not self.training:
            return (
                "it is in eval() mode, as from_pretrained returns it; call train() before forward"
            )
        if not self.output_requires_grad:
            return (
                "nothing in or before it trains, so that no gradient is needed; "
                "backward_through(dy, module) in place of module.backward(dy) stops there"
            )
        return (
            "call forward first, once for every backward; forward ends with "
            "self.save_for_backward(y.shape, ...)"
        )

    # -- what is inside ------------------------------------------------------------------

    def children(self) -> Iterator[tuple[str, Module]]:
        """Modules held as attributes, in lists or in dictionaries, with their names."""
        for name, held in vars(self).items():
            if isinstance(held, Module):
                yield name, held
            elif isinstance(held, list | dict):
                items = held.items() if isinstance(held, dict) else enumerate(held)
                for key, item in items:
                    if isinstance(item, Module):
                        yield f"{name}.{key}", item

    def own_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Parameters held as attributes, with their names; not those of the modules inside."""
        for name, held in vars(self).items():
            if isinstance(held, Parameter):
                yield name, held

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module under the name `prefix`, and all modules inside it, depth first."""
        yield prefix, self
        for name, child in self.children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their dotted names; one that is shared appears once."""
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, parameter in module.own_parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield (f"{path}.{name}" if path else name), parameter

    def parameters(self) -> list[Parameter]:
        """All parameters, frozen or not, in the order of `named_parameters`."""
        return [parameter for _, parameter in self.named_parameters()]

    def trainable_parameters(self) -> dict[str, Parameter]:
        """What an optimizer should see: name -> parameter."""
        return {name: p for name, p in self.named_parameters() if p.trainable}

    def summary(self) -> Summary:
        """Every parameter: shape, count, frozen or trainable. Text, and a table in Jupyter."""
        modules = dict(self.named_modules())
        rows = []
        for name, parameter in self.named_parameters():
            owner = modules[name.rpartition(".")[0]]
            row = SummaryRow(name, type(owner).__name__, parameter.shape, parameter.trainable)
            rows.append(row)
        return Summary(tuple(rows))

    def __repr__(self) -> str:
        """The modules inside as a tree, with parameter counts; what trains is marked."""
        return tree(self)

    # -- state ---------------------------------------------------------------------------

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the parameters: float32 for work, float64 for checks."""
        for _, parameter in self.named_parameters():
            return parameter.value.dtype
        return np.dtype(np.float32)

    def astype(self, dtype: npt.DTypeLike) -> Self:
        """Convert every parameter in place; gradients are dropped. Returns self.

        Raises: ShapeError for a dtype whose numbers are whole: every weight would be rounded.
        """
        if not np.issubdtype(dtype, np.floating):
            raise ShapeError(f"dtype={dtype!r}: expected float32 or float64")
        for parameter in self.parameters():
            parameter.value = parameter.value.astype(dtype)
            parameter.grad = None
        return self

    def freeze(self) -> Self:
        """Train nothing in here; existing gradients are dropped. Returns self."""
        return self.requires_grad_(False)

    def unfreeze(self) -> Self:
        """Train everything in here. Returns self."""
        return self.requires_grad_(True)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set `requires_grad` of every parameter. Returns self."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def train(self, mode: bool = True) -> Self:
        """Dropout on, and forward saves for backward. Returns self."""
        for _, module in self.named_modules():
            module.training = mode
            module.discard_saved()
        return self

    def eval(self) -> Self:
        """No dropout, nothing saved. Returns self."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Drop all gradients, as before each training step: `backward` adds to what is there."""
        for parameter in self.parameters():
            parameter.grad = None

    def replica(self) -> Self:
        """A module over the same weights, with saved arrays and gradients of its own.

        Its mode and its active adapters are its own as well. Each thread that trains or predicts
        needs one. Dropout generators are copied with their state; `layers.seed_dropouts` gives
        them other seeds.
        """
        parameters = self.parameters()
        shared: dict[int, Any] = {id(p.value): p.value for p in parameters}
        # Gradients and saved arrays are not copied.
        shared |= {id(p.stored_grad): None for p in parameters}
        shared |= {id(module._saved): None for _, module in self.named_modules()}
        return copy.deepcopy(self, shared)

    def state_dict(self) -> dict[str, Array]:
        """Name -> value of every parameter (the arrays themselves, not copies)."""
        return {name: parameter.value for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy values in. Nothing is changed unless every name and shape fits.

        Raises: CheckpointError that lists all missing, unexpected, mis-shaped and non-finite
        arrays together.
        """
        own = dict(self.named_parameters())
        problems = [f"missing: {name} {own[name].shape}" for name in own if name not in state]
        problems += [f"unexpected: {name} {state[name].shape}" for name in state if name not in own]
        for name in own.keys() & state.keys():
            if state[name].shape != own[name].shape:
                problems.append(
                    f"wrong shape: {name} is {state[name].shape}, expected {own[name].shape}"
                )
            elif not np.isfinite(state[name]).all():
                problems.append(f"not finite: {name} contains NaN or infinity")
        if problems:
            raise CheckpointError("weights do not fit:\n  " + "\n  ".join(sorted(problems)))
        for name, parameter in own.items():
            parameter.value[...] = state[name]


class HasBackward(Protocol):
    """A module, as far as the backward pass uses it."""

    output_requires_grad: bool

    def backward(self, dy: Array) -> Array | None: ...


def backward_through(dy: Array, *modules: HasBackward) -> Array | None:
    """The gradient of the input of `modules`, which ran in the reverse order of this list.

    dy has the shape of the output of the first of them. None as soon as nothing earlier trains;
    what comes before is then not visited.
    Raises: what their `backward` raises.
    """
    d: Array | None = dy
    for module in modules:
        if d is None or not module.output_requires_grad:
            return None
        d = module.backward(d)
    return d

"""What a training step costs, from the configuration alone: multiply-adds, and bytes in memory.

`count_step` runs the forward pass with shapes in place of arrays. Of the arithmetic only matrix
products are counted: they are nearly all of it, and one product of (n, k) and (k, m) takes n k m
multiply-adds. `counting.py` and `memory.py` count those of a real step; tests hold both equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..adapters.config import AdapterConfig
from ..errors import ConfigError
from ..models.heads import POOLINGS
from ..nn.config import TransformerConfig
from ..nn.kernels import over_inputs_is_cheaper
from .parameters import FLOAT32

INT64 = 8  # bytes
METHODS = ("adapter", "bitfit", "layer-norm", "head", "full")


@dataclass(frozen=True)
class MultiplyAdds:
    """Multiply-adds of one training step, in matrix products.

    `recomputed` are those of attention's scores, which the backward pass computes again instead of
    saving them; `needed` is everything else.
    """

    forward: int = 0
    input_gradients: int = 0
    weight_gradients: int = 0
    recomputed: int = 0

    def __add__(self, other: MultiplyAdds) -> MultiplyAdds:
        return MultiplyAdds(
            self.forward + other.forward,
            self.input_gradients + other.input_gradients,
            self.weight_gradients + other.weight_gradients,
            self.recomputed + other.recomputed,
        )

    @property
    def needed(self) -> int:
        return self.forward + self.input_gradients + self.weight_gradients

    @property
    def backward(self) -> int:
        return self.input_gradients + self.weight_gradients + self.recomputed

    @property
    def total(self) -> int:
        return self.forward + self.backward


@dataclass(frozen=True)
class StepCosts:
    """What `count_step` found.

    Attributes:
        parts: the multiply-adds of each module that multiplies matrices, in the order of the
            forward pass: (name, multiply-adds).
        trained: parameters that train, the head's among them.
        saved_bytes: what forward saves for backward.
        itemsize: bytes of a number while training; on disk it is 4.
    """

    parts: tuple[tuple[str, MultiplyAdds], ...]
    trained: int
    saved_bytes: int
    itemsize: int = FLOAT32

    @property
    def multiply_adds(self) -> MultiplyAdds:
        return sum((work for _, work in self.parts), MultiplyAdds())

    @property
    def gradient_bytes(self) -> int:
        return self.itemsize * self.trained

    @property
    def optimizer_bytes(self) -> int:
        """AdamW's two running means, m and v."""
        return 2 * self.itemsize * self.trained

    @property
    def task_bytes(self) -> int:
        """The numbers that a task needs on disk beside the base, in float32."""
        return FLOAT32 * self.trained


def count_step(
    config: TransformerConfig,
    batch: int,
    length: int,
    method: str = "adapter",
    adapter: AdapterConfig | None = None,
    n_classes: int = 2,
    layer_norm: bool = False,
    pooling: str = "cls",
    *,
    start: int = 0,
    padded: bool = False,
    head_dropout: float = 0.0,
    itemsize: int = FLOAT32,
) -> StepCosts:
    """One training step of a classifier on `batch` sequences of `length` tokens.

    `method`, `adapter`, `layer_norm` and `pooling` are those of `runs.RunOptions`. A forward pass
    alone is `.multiply_adds.forward`; that of the base without anything inserted is the method
    "head". `start`: the blocks below come from a prefix cache. `padded`: whether some sequences
    are shorter, so that there is a mask.
    Raises: ConfigError for an unknown method or pooling.
    """
    for name, value, known in (("method", method, METHODS), ("pooling", pooling, POOLINGS)):
        if value not in known:
            raise ConfigError(f"{name}={value!r}: expected one of {', '.join(known)}")
    adapter = (adapter or AdapterConfig()) if method == "adapter" else None
    frozen = frozen_blocks(config, method, adapter, layer_norm)
    if start > frozen:
        raise ConfigError(
            f"start={start}: a prefix cache can hold the blocks below the first that trains; "
            f"with method={method!r} those are {frozen} blocks"
        )
    forward = ForwardPass(config, batch, length, method, adapter, layer_norm, padded, itemsize)
    forward.classifier(start, pooling, n_classes, head_dropout)
    saved = sum(array.nbytes for array in forward.saved)
    return StepCosts(tuple(forward.parts), forward.trained, saved, itemsize)


def frozen_blocks(
    config: TransformerConfig, method: str, adapter: AdapterConfig | None, layer_norm: bool = False
) -> int:
    """How many blocks, from the lowest one on, nothing trains in: what a prefix cache can hold."""
    if method == "head":
        return config.n_layers
    if method != "adapter" or layer_norm:
        return 0
    layers = (adapter or AdapterConfig()).layers
    return min(layers) if layers is not None else 0


class ArrayShape:
    """An array without numbers: its shape, bytes a number, and the array whose memory it views."""

    def __init__(self, *shape: int, itemsize: int, owner: ArrayShape | None = None) -> None:
        self.shape, self.itemsize, self.owner = shape, itemsize, owner or self

    @property
    def size(self) -> int:
        size = 1
        for n in self.shape:
            size *= n
        return size

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize


class ForwardPass:
    """The forward pass of a classifier, with shapes in place of arrays.

    Each method stands for the `forward` of a module; it takes and returns an `ArrayShape`, and
    notes what that module multiplies, forward and backward, and what it saves, by the rules of
    `nn/module.py`. `requires_grad`: whether anything that has run so far trains.
    """

    def __init__(
        self,
        config: TransformerConfig,
        batch: int,
        length: int,
        method: str,
        adapter: AdapterConfig | None,
        layer_norm: bool,
        padded: bool,
        itemsize: int,
    ) -> None:
        self.config, self.batch, self.length, self.adapter = config, batch, length, adapter
        self.padded, self.itemsize = padded, itemsize
        # Which parameters of the base train.
        self.full = method == "full"
        self.biases = method in ("full", "bitfit")
        self.outer_norms = method in ("full", "layer-norm")
        self.block_norms = self.outer_norms or layer_norm
        self.requires_grad = False
        self.parts: list[tuple[str, MultiplyAdds]] = []
        self.saved: set[ArrayShape] = set()
        self.trained = 0
        self.path: list[str] = []

    # -- what is noted ---------------------------------------------------------------------

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Parts that are noted inside have names that begin with this one."""
        self.path.append(name)
        yield
        self.path.pop()

    def note(self, name: str, work: MultiplyAdds) -> None:
        self.parts.append((".".join((*self.path, name)), work))

    def train(self, size: int, trains: bool = True) -> None:
        """A module's own parameters: how many, and whether they train."""
        if trains:
            self.trained += size
            self.requires_grad = True

    def save(self, *arrays: ArrayShape | None) -> None:
        """As `Module.save_for_backward`: nothing where the backward pass does not come."""
        if self.requires_grad:
            self.saved |= {array.owner for array in arrays if array is not None}

    def array(self, *shape: int, itemsize: int | None = None) -> ArrayShape:
        return ArrayShape(*shape, itemsize=itemsize or self.itemsize)

    def like(self, x: ArrayShape) -> ArrayShape:
        return self.array(*x.shape)

    def first(self, x: ArrayShape, queries: int) -> ArrayShape:
        """x[:, :queries], a view."""
        B, _, d = x.shape
        return ArrayShape(B, queries, d, itemsize=x.itemsize, owner=x.owner)

    # -- layers ----------------------------------------------------------------------------

    def linear(self, name: str, x: ArrayShape, d_out: int, weight: bool, bias: bool) -> ArrayShape:
        """`weight` and `bias`: whether they train."""
        d_in = x.shape[-1]
        products = x.size * d_out  # (N, d_in) @ (d_in, d_out); the gradients take as many
        dx, dw = self.requires_grad * products, weight * products
        self.note(name, MultiplyAdds(products, dx, dw))
        self.train(d_in * d_out, weight)
        self.train(d_out, bias)
        self.save(x if weight else None)
        return self.array(*x.shape[:-1], d_out)

    def layer_norm(self, x: ArrayShape, gain: bool, bias: bool, new: bool = True) -> ArrayShape:
        """`new`: the parameters are not counted already."""
        self.train(new * x.shape[-1], gain)
        self.train(new * x.shape[-1], bias)
        self.save(self.like(x), self.array(*x.shape[:-1], 1))  # x_hat and 1 / sigma
        return self.like(x)

    def activation(self, name: str, x: ArrayShape) -> ArrayShape:
        derivative = self.array(*x.shape, itemsize=1 if name == "relu" else None)  # 0 or 1
        self.save(derivative)
        return self.like(x)

    def dropout(self, p: float, x: ArrayShape) -> ArrayShape:
        if p == 0:
            return x
        self.save(self.like(x))  # the dropout mask
        return self.like(x)

    # -- the transformer -------------------------------------------------------------------

    def embeddings(self) -> ArrayShape:
        B, T, d, c = self.batch, self.length, self.config.d_model, self.config
        sizes = [(c.vocab_size, (B, T)), (c.max_positions, (T,))]
        sizes += [(c.token_types, (B, T))] * (c.token_types > 0)
        for rows, ids in sizes:
            self.train(rows * d, self.full)
            self.save(self.array(*ids, itemsize=INT64))
        x = self.array(B, T, d)
        if c.norm == "post":
            x = self.outer_norm(x)
        return self.dropout(c.dropout, x)

    def outer_norm(self, x: ArrayShape) -> ArrayShape:
        """After the embeddings, or at the end."""
        return self.layer_norm(x, self.outer_norms, self.outer_norms or self.biases)

    def block_norm(self, x: ArrayShape, new: bool = True) -> ArrayShape:
        return self.layer_norm(x, self.block_norms, self.block_norms or self.biases, new)

    def attention(self, x: ArrayShape, queries: int) -> ArrayShape:
        """`MultiHeadAttention.forward`, with its two ways to the context."""
        (B, T, d), H, Q = x.shape, self.config.n_heads, queries
        mask = self.attention_mask()
        dropout_mask = self.array(B, H, Q, T) if self.config.attention_dropout else None
        if not self.biases and over_inputs_is_cheaper(Q, T, H, d):
            dx = self.requires_grad
            square, every_head = B * Q * d * d, B * H * Q * T * d
            self.note("queries", MultiplyAdds(2 * square, 2 * square * dx, 0, 2 * square * dx))
            work = MultiplyAdds(2 * every_head, 4 * every_head * dx, 0, every_head * dx)
            self.note("scores", work)
            self.note("values", MultiplyAdds(square, square * dx))
            self.save(x, mask, dropout_mask)
        else:
            qkv = self.linear("qkv", x, 3 * d, self.full, self.biases)
            dx, scores = self.requires_grad, B * Q * T * d
            # Two products of two activations each: a gradient for either factor.
            self.note("scores", MultiplyAdds(2 * scores, 4 * scores * dx, 0, scores * dx))
            self.save(qkv, mask, dropout_mask)
        return self.linear("out", self.array(B, Q, d), d, self.full, self.biases)

    def attention_mask(self) -> ArrayShape | None:
        B, T = self.batch, self.length
        if self.config.causal and T > 1:
            return self.array(B if self.padded else 1, 1, T, T)
        return self.array(B, 1, 1, T) if self.padded else None

    def feed_forward(self, x: ArrayShape, queries: int) -> ArrayShape:
        c = self.config
        h = self.linear("up", x, c.d_ff, self.full, self.biases)
        h = self.activation(c.activation, h)
        return self.linear("down", h, c.d_model, self.full, self.biases)

    def sublayer(self, block: int, site: str, x: ArrayShape, queries: int) -> ArrayShape:
        """`SubLayer.forward`."""
        pre = self.config.norm == "pre"
        a = self.adapter if self.adapter and self.adapter.has_site(block, site) else None
        placement = a.placement if a else None
        if placement == "pfeiffer" and pre:
            placement = "after_norm"
        h = self.block_norm(x) if pre else x
        module = self.attention if site == "attention" else self.feed_forward
        s = self.dropout(self.config.dropout, module(h, queries))
        x = self.first(x, s.shape[1])
        if a and placement == "parallel":
            s = self.branch(a, x)
        if a and placement == "houlsby":
            s = self.branch(a, s)
        if a and placement == "pfeiffer":
            s = self.branch(a, self.block_norm(x))  # the norm that comes again below
        y = self.like(s) if pre else self.block_norm(s, new=placement != "pfeiffer")
        if a and placement == "after_norm":
            y = self.like(self.branch(a, y))
        return y

    def branch(self, a: AdapterConfig, h: ArrayShape) -> ArrayShape:
        """`Adapter.f`."""
        d = self.config.d_model
        with self.within("adapter"):
            if a.norm == "before":
                h = self.layer_norm(h, True, True)
            z = self.linear("down", self.dropout(a.dropout, h), a.width(d), True, True)
            u = self.linear("up", self.activation(a.activation, z), d, True, True)
            if a.scaling == "learned":
                self.train(1)
                self.save(u)
            return self.layer_norm(u, True, True) if a.norm == "after" else self.like(u)

    def classifier(self, start: int, pooling: str, n_classes: int, head_dropout: float) -> None:
        """The whole of `Classifier.forward`, from block `start` on."""
        c, B, d = self.config, self.batch, self.config.d_model
        x = self.array(B, self.length, d) if start else self.embeddings()
        for block in range(start, c.n_layers):
            # The last block finishes only the position that the head reads.
            first_only = block == c.n_layers - 1 and pooling != "mean"
            for site in ("attention", "ffn"):
                with self.within(f"blocks.{block}.{site}"):
                    queries = 1 if first_only else self.length
                    x = self.sublayer(block, site, x, queries)
        if c.norm == "pre":
            x = self.outer_norm(x)
        self.save(self.array(B, self.length, itemsize=INT64))  # the batch's attention mask
        h = self.array(B, d) if pooling == "mean" else self.first_position(x)
        if pooling == "pooler":
            h = self.linear("pooler", h, d, self.full, self.biases)
            h = self.activation("tanh", h)
        self.linear("head", self.dropout(head_dropout, h), n_classes, True, True)

    def first_position(self, x: ArrayShape) -> ArrayShape:
        B, _, d = x.shape
        return ArrayShape(B, d, itemsize=x.itemsize, owner=x.owner)

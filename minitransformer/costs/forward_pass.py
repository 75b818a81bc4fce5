"""The forward pass with shapes in place of arrays: what it multiplies and saves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..adapters.config import AdapterConfig, AnyConfig, IA3Config, LoRAConfig, PrefixConfig
from ..adapters.methods import LINEARS, QKV
from ..errors import ConfigError
from ..nn.config import TransformerConfig
from ..nn.kernels import over_inputs_is_cheaper
from ..nn.sublayer import SubLayer

INT64 = 8  # bytes
COUNTED = {"after_norm", "houlsby", "pfeiffer", "parallel"}  # placements with lines below


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


class ArrayShape:
    """An array without numbers: its shape, bytes a number, and the array whose memory it views."""

    def __init__(self, *shape: int, itemsize: int, owner: ArrayShape | None = None) -> None:
        self.shape, self.itemsize, self.owner = shape, itemsize, owner or self

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize


class ForwardPass:
    """The forward pass of a transformer and its head, with shapes in place of arrays.

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
        inserted: tuple[AnyConfig, ...],
        layer_norm: bool,
        padded: bool,
        itemsize: int,
    ) -> None:
        self.config, self.batch, self.length, self.inserted = config, batch, length, inserted
        self.padded, self.itemsize = padded, itemsize
        # Which parameters of the base train: all, or those of the blocks.
        self.full = method == "full"
        self.biases = method in ("full", "bitfit")
        self.norms = layer_norm or method in ("full", "layer-norm")
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
        y = self.product(name, x, d_out, x.shape[-1] * d_out, weight)
        self.train(d_out, bias)
        return y

    def product(self, name: str, x: ArrayShape, d_out: int, size: int, trains: bool) -> ArrayShape:
        """x @ W: (N, d_in) @ (d_in, d_out). W holds `size` parameters."""
        products = x.size * d_out  # either gradient takes as many
        dx, dw = self.requires_grad * products, trains * products
        self.note(name, MultiplyAdds(products, dx, dw))
        self.train(size, trains)
        self.save(x if trains else None)
        return self.array(*x.shape[:-1], d_out)

    def layer_norm(self, x: ArrayShape, gain: bool, bias: bool, new: bool = True) -> ArrayShape:
        """`new`: the parameters are not counted already."""
        self.train(new * x.shape[-1], gain)
        self.train(new * x.shape[-1], bias)
        self.save(self.like(x), self.array(*x.shape[:-1], 1))  # x_hat and 1 / sigma
        return self.like(x)

    def activation(self, name: str, x: ArrayShape) -> ArrayShape:
        if name == "linear":
            self.save(self.array(1))  # its derivative is 1 everywhere
            return x
        self.save(self.array(*x.shape, itemsize=1 if name == "relu" else None))  # relu's: boolean
        return self.like(x)

    def dropout(self, p: float, x: ArrayShape) -> ArrayShape:
        if p == 0:
            return x
        self.save(self.like(x))  # the dropout mask
        return self.like(x)

    # -- the transformer -------------------------------------------------------------------

    def embeddings(self) -> ArrayShape:
        B, T, d, c = self.batch, self.length, self.config.d_model, self.config
        positions = (T,) if c.pad_id is None else (B, T)
        sizes = [(c.vocab_size, (B, T)), (c.max_positions, positions)]
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
        return self.layer_norm(x, self.full, self.full)

    def block_norm(self, x: ArrayShape, new: bool = True) -> ArrayShape:
        return self.layer_norm(x, self.norms, self.norms or self.biases, new)

    def attention(self, block: int, x: ArrayShape, queries: int) -> ArrayShape:
        """`MultiHeadAttention.forward`, with its two ways to the context."""
        (B, T, d), H, Q = x.shape, self.config.n_heads, queries
        frozen = not (self.biases or self.changes_qkv(block))
        if frozen and over_inputs_is_cheaper(Q, T, H, d):
            mask, dropout_mask = self.attention_masks(Q, T)
            dx = self.requires_grad
            square, every_head = B * Q * d * d, B * H * Q * T * d
            self.note("queries", MultiplyAdds(2 * square, 2 * square * dx, 0, 2 * square * dx))
            work = MultiplyAdds(2 * every_head, 4 * every_head * dx, 0, every_head * dx)
            self.note("scores", work)
            self.note("values", MultiplyAdds(square, square * dx))
            self.save(x, mask, dropout_mask)
        else:
            qkv = self.projection(block, "qkv", x, 3 * d)
            keys = qkv.shape[1]  # of a prefix, and of x
            mask, dropout_mask = self.attention_masks(Q, keys)
            dx, scores = self.requires_grad, B * Q * keys * d
            # Two products of two activations each: a gradient for either factor.
            self.note("scores", MultiplyAdds(2 * scores, 4 * scores * dx, 0, scores * dx))
            self.save(qkv, mask, dropout_mask)
        return self.projection(block, "out", self.array(B, Q, d), d)

    def attention_masks(
        self, queries: int, keys: int
    ) -> tuple[ArrayShape | None, ArrayShape | None]:
        """The additive mask and the dropout mask."""
        B, T, c = self.batch, self.length, self.config
        mask = None
        if c.causal and T > 1:
            rows = T if keys == T else queries  # with a prefix it is a copy of what is needed
            mask = self.array(B if self.padded else 1, 1, rows, keys)
        elif self.padded:
            mask = self.array(B, 1, 1, keys)
        return mask, self.array(B, c.n_heads, queries, keys) if c.attention_dropout else None

    def feed_forward(self, block: int, x: ArrayShape, queries: int) -> ArrayShape:
        c = self.config
        h = self.activation(c.activation, self.projection(block, "up", x, c.d_ff))
        return self.projection(block, "down", h, c.d_model)

    def sublayer(self, block: int, site: str, x: ArrayShape, queries: int) -> ArrayShape:
        """`SubLayer.forward`."""
        pre = self.config.norm == "pre"
        at: dict[str, list[AdapterConfig]] = {placement: [] for placement in SubLayer.PLACEMENTS}
        for a in self.inserted:
            if isinstance(a, AdapterConfig) and a.has_site(block, site):
                at["after_norm" if pre and a.placement == "pfeiffer" else a.placement].append(a)
        if not at.keys() <= COUNTED:
            raise ConfigError(f"placements {set(at) - COUNTED} are not counted: no lines here")
        h = self.block_norm(x) if pre else x
        module = self.attention if site == "attention" else self.feed_forward
        s = self.dropout(self.config.dropout, module(block, h, queries))
        x = self.first(x, s.shape[1])
        for a in at["parallel"]:
            s = self.branch(a, x)
        for a in at["houlsby"]:
            s = self.branch(a, s)
        for a in at["pfeiffer"]:
            s = self.branch(a, self.block_norm(x, new=False))  # the norm that comes again below
        y = self.like(s) if pre else self.block_norm(s)
        for a in at["after_norm"]:
            y = self.branch(a, y)
        return y

    # -- what is inserted --------------------------------------------------------------------

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

    def changes_qkv(self, block: int) -> bool:
        """Whether something inserted changes the queries, keys or values of this block."""
        found = self.at_linears(block)
        loras = [a for a in found if isinstance(a, LoRAConfig)]
        return len(found) > len(loras) or any(not set(QKV).isdisjoint(a.targets) for a in loras)

    def at_linears(self, block: int) -> list[LoRAConfig | IA3Config | PrefixConfig]:
        """What is inserted into the Linears of this block."""
        found = [a for a in self.inserted if not isinstance(a, AdapterConfig)]
        return [a for a in found if a.layers is None or block in a.layers]

    def projection(self, block: int, name: str, x: ArrayShape, d_out: int) -> ArrayShape:
        """A Linear of the base, or the `AdaptedLinear` in its place."""
        found = self.at_linears(block)
        factors = [a for a in found if isinstance(a, IA3Config)]
        for _ in factors if name == "down" else ():
            x = self.factors(x, x.shape[-1])
        y = self.linear(name, x, d_out, self.full, self.biases)
        for a in found:
            if isinstance(a, LoRAConfig):
                self.low_rank(a, name, x, d_out)
        for _ in factors if name == "qkv" else ():
            y = self.factors(y, 2 * x.shape[-1])  # of keys and values
        for a in found:
            if isinstance(a, PrefixConfig) and name == "qkv":
                B, T, d = y.shape
                self.train(2 * a.length * x.shape[-1])
                y = self.array(B, a.length + T, d)
        return y

    def low_rank(self, a: LoRAConfig, name: str, x: ArrayShape, d_out: int) -> None:
        """`LoRA.forward`: for n of the parts of the projection, y += x A B."""
        targets = next(targets for (_, linear), targets in LINEARS.items() if linear == name)
        n, d_in = len(set(targets) & set(a.targets)), x.shape[-1]
        if n:
            d = d_out // len(targets)
            with self.within("lora"):
                x = self.dropout(a.dropout, x)
                self.product("a", x, n * a.rank, n * d_in * a.rank, True)
                z = self.array(n, x.size // d_in, a.rank)
                self.product("b", z, d, n * a.rank * d, True)

    def factors(self, x: ArrayShape, size: int) -> ArrayShape:
        """`IA3.forward`."""
        self.train(size)
        self.save(x)
        return self.like(x)

    def classifier(self, start: int, pooling: str, n_classes: int, head_dropout: float) -> None:
        """The whole of `Classifier.forward`, from block `start` on."""
        B, d = self.batch, self.config.d_model
        self.transformer(start, first_only=pooling in ("cls", "pooler"))
        self.save(self.array(B, self.length, itemsize=INT64))  # the batch's attention mask
        h = self.array(B, d)
        if pooling == "pooler":
            h = self.linear("pooler", h, d, self.full, self.full)
            h = self.activation("tanh", h)
        self.linear("head", self.dropout(head_dropout, h), n_classes, True, True)

    def language_model(self) -> None:
        """The whole of `LanguageModel.forward`; its weight is the token embedding once more."""
        c, h = self.config, self.transformer(0, first_only=False)
        self.product("head", h, c.vocab_size, 0, self.full)
        self.train(c.vocab_size, self.full and not c.causal)  # an encoder's head has a bias

    def transformer(self, start: int, first_only: bool) -> ArrayShape:
        """`Transformer.forward`, from block `start` on."""
        c = self.config
        x = self.array(self.batch, self.length, c.d_model) if start else self.embeddings()
        for block in range(start, c.n_layers):
            # The last block finishes only the position that the head reads.
            queries = 1 if first_only and block == c.n_layers - 1 else self.length
            for site in ("attention", "ffn"):
                with self.within(f"blocks.{block}.{site}"):
                    x = self.sublayer(block, site, x, queries)
        return self.outer_norm(x) if c.norm == "pre" else x

"""Adaptable: what a transformer can do with adapters. Insert, activate, train, delete them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import ConfigError, listed, printable
from ..nn.layers import Dropout
from ..nn.module import Module
from ..nn.sublayer import SubLayer
from .config import (
    CONFIGS,
    AdapterConfig,
    AnyConfig,
    IA3Config,
    LoRAConfig,
    PrefixConfig,
    check_config,
    check_size,
    config_or_default,
)
from .drop import check_droppable, deactivate_dropped
from .fusion import Fusion
from .linear import AdaptedLinear
from .lora import LoRA
from .merge import Place, Weights, linear_at, merge_into_weights
from .methods import modules_in_block, places_in, restore_plain_linears
from .own import AdapterFactory
from .per_row import PerRowAdapters, PerRowProjections
from .prefix import Prefix
from .select import base_parameters

if TYPE_CHECKING:
    from typing_extensions import Self

PER_ROW = "per-row:"  # begins the names of the `PerRowAdapters` of a site, one for each placement


class Adaptable(Module):
    """A transformer with adapters by name. It has `blocks`, each with the sites by name."""

    config: Any
    blocks: list[Any]
    active: tuple[str, ...] = ()  # what `set_active` was given
    rows: tuple[str | None, ...] | None = None  # what `set_adapter_per_row` was given
    dropped: int | tuple[int, ...] = 0  # which blocks are without adapters; see `drop_adapters`
    merged: tuple[str, ...] = ()  # which of the active ones are written into the weights
    originals: Mapping[Place, Weights] = MappingProxyType({})  # of the Linears that are merged into

    # -- inserting and removing ------------------------------------------------------------

    def add_adapter(
        self,
        name: str,
        config: AnyConfig | AdapterFactory | None = None,
        rng: np.random.Generator | None = None,
        factory: AdapterFactory | None = None,
    ) -> None:
        """Insert bottleneck adapters called `name`, trainable, and activate them.

        Nothing else changes. Weights start as `config.init` says, drawn from `rng` (default: seed
        0); dropout masks have generators of their own. `factory` makes an adapter of your own, see
        `adapters/own.py`; `add_adapter(name, factory)` takes the default configuration.
        A configuration of another method inserts what it describes, as `add_lora` does.
        Raises: ConfigError if the name is taken or empty, a layer does not exist, or what the
        factory makes cannot stand there.
        """
        if callable(config) and config not in CONFIGS.values():
            config, factory = None, config
        config = AdapterConfig() if config is None else config
        self.add_method(name, cast(AnyConfig, config), rng, factory)

    def add_lora(
        self, name: str, config: LoRAConfig | None = None, rng: np.random.Generator | None = None
    ) -> None:
        """Insert low-rank updates called `name`; as `add_adapter`."""
        self.add_method(name, config_or_default(config, LoRAConfig), rng)

    def add_ia3(self, name: str, config: IA3Config | None = None) -> None:
        """Insert the factors of (IA)^3 called `name`; as `add_adapter`."""
        self.add_method(name, config_or_default(config, IA3Config))

    def add_prefix(
        self, name: str, config: PrefixConfig | None = None, rng: np.random.Generator | None = None
    ) -> None:
        """Insert a prefix called `name`; as `add_adapter`."""
        self.add_method(name, config_or_default(config, PrefixConfig), rng)

    def add_method(
        self,
        name: str,
        config: AnyConfig,
        rng: np.random.Generator | None = None,
        factory: AdapterFactory | None = None,
    ) -> None:
        """Insert what `config` describes, whichever method it is, and activate it."""
        self.check_unmerged("add an adapter")
        check_config(config, factory)
        rng = rng if rng is not None else np.random.default_rng(0)
        self.check_new_name(name)
        check_size(config, self.config.d_model)
        dropout_rng = rng.spawn(len(self.adapter_names) + 1)[-1]  # differs from adapter to adapter
        layers = config.layers if config.layers is not None else range(len(self.blocks))
        absent = [i for i in layers if not 0 <= i < len(self.blocks)]
        if absent:
            raise ConfigError(
                f"layers={list(layers)}: there is no block {absent[0]}; "
                f"this model has blocks 0 to {len(self.blocks) - 1}"
            )
        d_model = self.config.d_model
        made = [
            place_and_module
            for i in layers
            for place_and_module in modules_in_block(self.blocks[i], config, d_model, rng, factory)
        ]
        for place, module in made:
            for _, inner in module.named_modules():
                if isinstance(inner, Dropout):
                    (inner.rng,) = dropout_rng.spawn(1)
            place.insert(name, module.astype(self.dtype).train(self.training))
        self.set_active(name)

    def add_fusion(
        self, name: str, sources: Sequence[str], rng: np.random.Generator | None = None
    ) -> None:
        """Insert a `Fusion` called `name` wherever adapters of `sources` stand, and activate it.

        Its query, key and value train; the sources are frozen. `rng` draws the start values
        (default: seed 0).
        Raises: ConfigError if the name is taken or empty, a source is unknown or named twice,
        they stand at different placements, or there are too many, those of fusions included.
        """
        self.check_unmerged("add an adapter")
        rng = rng if rng is not None else np.random.default_rng(0)
        self.check_new_name(name)
        if isinstance(sources, str) or len(sources) < 2 or len(set(sources)) < len(sources):
            raise ConfigError(f"sources={sources!r}: expected two or more names, each once")
        for source in sources:
            self.check_adapter(source)
            if not any(source in site.adapters for site in self.sites()):
                raise ConfigError(
                    f"{source!r} changes projections inside the sub-layers; a fusion is of "
                    "adapters at the sub-layers (add_adapter)"
                )
        fusions = []
        for site in self.sites():
            here = {s: site.adapters[s] for s in sources if s in site.adapters}
            if here:
                fusion = Fusion(self.config.d_model, here, rng)
                fusions.append((site, fusion.astype(self.dtype).train(self.training)))
        for site, fusion in fusions:
            site.insert(name, fusion)
        self.set_active(name)

    def delete_adapter(self, name: str) -> None:
        """Take the adapters called `name` out. Raises: ConfigError for an unknown name."""
        self.check_unmerged("delete an adapter")
        self.check_adapter(name)
        self.active = tuple(other for other in self.active if other != name)
        for place in self.places():
            place.remove(name)
        for block in self.blocks:
            restore_plain_linears(block)
        if self.rows is not None and name in self.rows:
            self.set_adapter_per_row([None if row == name else row for row in self.rows])

    def check_new_name(self, name: str) -> None:
        """Raises: ConfigError if no adapter can be called that."""
        if not isinstance(name, str):
            raise ConfigError(f"adapter name {name!r}: expected a word; the name comes first")
        if not name or "." in name or ":" in name or name != printable(name, keep=""):
            raise ConfigError(
                f"adapter name {name!r}: expected a word without dots, colons, control characters"
            )
        if self.has_adapter(name):
            raise ConfigError(
                f"an adapter {name!r} is there already; delete_adapter it, or choose another name"
            )

    def check_adapter(self, name: str) -> None:
        """Raises: ConfigError if there is no adapter of that name."""
        if not isinstance(name, str):
            raise ConfigError(f"{name!r}: expected the name of an adapter; several are 'a', 'b'")
        if not self.has_adapter(name):
            known = listed(self.adapter_names)
            raise ConfigError(f"there is no adapter {name!r}; this model has: {known}")

    # -- which of them are active ----------------------------------------------------------------

    def set_active(self, *names: str | None) -> None:
        """Activate the adapters of these names, several as a stack; None: the plain base again.

        Raises: ConfigError for an unknown name, or one that is given twice.
        """
        active = tuple(name for name in names if name is not None)
        for name in active:
            self.check_adapter(name)
        if len(set(active)) < len(active):
            raise ConfigError(f"active adapters {list(active)}: expected each name once")
        self.check_merged_stay(active)
        self.rows, self.active = None, active
        for place in self.places():
            for name in [name for name in place.adapters if name.startswith(PER_ROW)]:
                place.remove(name)
            here = (name for name in active if name in place.adapters)
            place.active = tuple(name for name in here if name not in self.merged)
        deactivate_dropped(self)

    def set_adapter_per_row(self, rows: Sequence[str | None]) -> None:
        """Give each row of the coming batches its own adapter; None: the plain base.

        `rows` has a name for each row. It lasts until `set_active` or another
        `set_adapter_per_row`; batches of another size are a ShapeError.
        Raises: ConfigError for an unknown name, or without any row.
        """
        self.check_unmerged("choose adapters for each row")
        if isinstance(rows, str) or not len(rows):
            raise ConfigError(
                f"rows={rows!r}: expected a list of the name of an adapter, or None, for each row"
            )
        rows = tuple(rows)
        for name in dict.fromkeys(rows):
            if name is not None:
                self.check_adapter(name)
                if any(isinstance(place.adapters.get(name), Prefix) for place in self.places()):
                    raise ConfigError(
                        f"{name!r} is a prefix, which all rows of a batch have or none of them"
                    )
        self.set_active(None)
        self.rows = rows
        for place in self.places():
            several = PerRowAdapters if isinstance(place, SubLayer) else PerRowProjections
            for placement in dict.fromkeys(a.placement for a in place.adapters.values()):
                alike = {n: a for n, a in place.adapters.items() if a.placement == placement}
                adapter = several(alike, rows, placement).train(self.training)
                if adapter.adapters:
                    place.insert(PER_ROW + placement, adapter)
                    place.active = (*place.active, PER_ROW + placement)
        deactivate_dropped(self)

    def drop_adapters(self, blocks: int | Collection[int]) -> None:
        """Leave adapters out of some blocks, whichever are activated; they are not deleted.

        `blocks`: how many of the lowest, 0 for none (AdapterDrop: Rücklé et al. 2021, arXiv
        2010.11918; see `drop.py`), or the numbers of those that are meant, as `range(2, 4)`.
        Raises: ConfigError if there are no such blocks, or while anything is merged.
        """
        check_droppable(self, blocks)
        self.check_unmerged("drop adapters")
        self.dropped = blocks if isinstance(blocks, int) else tuple(blocks)
        with self.restored():  # activates the same again, now without those
            pass

    @contextmanager
    def use(self, *names: str | None) -> Iterator[Self]:
        """`with model.use("a"):` as `set_active`; afterwards the same as before is active.

        Raises: ConfigError for an unknown name.
        """
        with self.restored():
            self.set_active(*names)
            yield self

    @contextmanager
    def use_adapter_per_row(self, rows: Sequence[str | None]) -> Iterator[Self]:
        """`with model.use_adapter_per_row(["a", None]):`, and afterwards as before.

        Raises: ConfigError for an unknown name.
        """
        with self.restored():
            self.set_adapter_per_row(rows)
            yield self

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Whatever is activated inside, afterwards (an error too) the same is active as before."""
        rows, active = self.rows, self.active
        try:
            yield
        finally:
            there = self.adapter_names  # some may have been deleted meanwhile
            self.set_active(*(name for name in active if name in there))
            if rows is not None:
                self.set_adapter_per_row([row if row in there else None for row in rows])

    # -- merging ---------------------------------------------------------------------------

    def merge(self, *names: str) -> None:
        """Write what adapters do into the weights of the base: from now on they cost no time.

        They stay active, and in eval mode all outputs stay what they were, to round-off; dropout of
        their own is left out. Merged can be: LoRA, (IA)^3, and at placement "houlsby" bottleneck
        adapters with activation "linear" and without a norm. LoRA can be merged while any others
        are active; the others only if all active ones are, because their order counts.
        `save_pretrained` writes the merged base. What adds, deletes, trains or saves adapters needs
        `unmerge` first.
        Raises: ConfigError for an unknown name, one that is merged already, or one that cannot be
        merged, with the reason; then nothing has changed.
        """
        for name in names:
            self.check_adapter(name)
            if name in self.merged:
                raise ConfigError(f"{name!r} is merged already")
        if self.rows is not None:
            raise ConfigError("rows have adapters of their own: call set_active before merge")
        self.set_merged((*self.merged, *names))

    def unmerge(self, *names: str) -> None:
        """Take merged adapters out of the weights again; without names, all. They stay active.

        The weights are those from before to the last bit, because they were kept.
        Raises: ConfigError for a name that is not merged.
        """
        for name in names:
            if name not in self.merged:
                raise ConfigError(f"{name!r} is not merged; merged are: {self.merged or 'none'}")
        gone = names or self.merged
        self.set_merged(tuple(name for name in self.merged if name not in gone))

    def set_merged(self, merged: tuple[str, ...]) -> None:
        """Make exactly these the merged ones."""
        active = tuple(dict.fromkeys((*self.active, *merged)))
        if merged and self.dropped:
            raise ConfigError(
                "adapters are dropped from some blocks, and a merge would add them there again: "
                "drop_adapters(0) before you merge"
            )
        before, self.merged = self.merged, merged
        try:
            self.check_merged_stay(active)
            merge_into_weights(self, merged)
        except ConfigError:
            self.merged = before
            raise
        self.set_active(*active)

    def check_merged_stay(self, active: tuple[str, ...]) -> None:
        """Raises: ConfigError if these cannot be active together with what is merged."""
        for name in self.merged:
            if name not in active:
                raise ConfigError(
                    f"{name!r} is merged into the weights and stays active; unmerge({name!r}) first"
                )
            adapters = [p.adapters[name] for p in self.places() if name in p.adapters]
            others = [other for other in active if other not in self.merged]
            if others and not all(isinstance(adapter, LoRA) for adapter in adapters):
                raise ConfigError(
                    f"{name!r} is merged and {others[0]!r} is not: their order counts, so merge "
                    "both or none"
                )

    def check_unmerged(self, what: str) -> None:
        """Raises: ConfigError while anything is merged."""
        if self.merged:
            raise ConfigError(
                f"{self.merged[0]!r} is merged into the weights: unmerge() before you {what}"
            )

    def check_merged_weights_are_frozen(self) -> None:
        """Raises: ConfigError if weights that adapters are merged into train: it would be lost."""
        for place in self.originals:
            linear = linear_at(self, place)
            if linear.weight.trainable or linear.bias.trainable:
                raise ConfigError(
                    f"{self.merged[0]!r} is merged into weights that train, and unmerge() would "
                    "undo what they learn: unmerge() before you train, or freeze() the base; to "
                    "train the merged base, save_pretrained it and load that"
                )

    # -- what trains -----------------------------------------------------------------------

    def train_adapter(self, *names: str) -> None:
        """Freeze the whole transformer but the adapters of these names, and activate those.

        Of a fusion, query, key and value train; its sources stay frozen. To train "b" upon a
        frozen "a": `train_adapter("b")`, then `set_active("a", "b")`.
        Raises: ConfigError for an unknown name, or without any.
        """
        if not names:
            raise ConfigError("train_adapter needs the name of an adapter")
        self.check_unmerged("train an adapter")
        self.set_active(*names)
        self.freeze()
        for place in self.places():
            for name in place.active:
                place.adapters[name].unfreeze()

    def train_layer_norms(self, trainable: bool = True) -> None:
        """Train the blocks' layer norms beside the adapters, as Houlsby et al. do; default: not."""
        for parameter in base_parameters(self, "layer_norms").values():
            parameter.trainable = trainable

    # -- what is there ---------------------------------------------------------------------

    def sites(self) -> list[SubLayer]:
        """Every sub-layer, in the order of the forward pass."""
        return [site for block in self.blocks for site in (block.attention, block.ffn)]

    def named_places(self) -> Iterator[tuple[str, SubLayer | AdaptedLinear]]:
        """Everything that holds adapters by name: each sub-layer, and Linears inside it."""
        for i, block in enumerate(self.blocks):
            for path, place in places_in(block):
                yield f"blocks.{i}.{path}", place

    def places(self) -> list[SubLayer | AdaptedLinear]:
        """The same without their paths."""
        return [place for _, place in self.named_places()]

    def has_adapter(self, name: str) -> bool:
        """Whether there is an adapter of that name."""
        if name.startswith(PER_ROW):
            return False
        return any(name in place.adapters for place in self.places())

    @property
    def adapter_names(self) -> list[str]:
        """The names of the adapters in this model, in the order of insertion."""
        names = (name for place in self.places() for name in place.adapters)
        return [name for name in dict.fromkeys(names) if not name.startswith(PER_ROW)]

    @property
    def active_adapters(self) -> tuple[str, ...]:
        """The names of the active adapters, in the order of the forward pass through a stack."""
        if self.rows is not None:
            return tuple(dict.fromkeys(name for name in self.rows if name is not None))
        return self.active

    def adapter_config(self, name: str) -> Any:
        """The configuration that the adapters called `name` were made with."""
        self.check_adapter(name)
        for place in self.places():
            adapter: Any = place.adapters.get(name)
            if adapter is not None and not isinstance(adapter, Fusion):
                return adapter.config
        raise ConfigError(f"{name!r} is a fusion: it has sources instead of a configuration")

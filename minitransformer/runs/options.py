"""The options of a run: a task or a text on a base, or a base from scratch.

An option that is left None stays None, so that `dataclasses.replace` does what it says. `resolved`
puts the number in its place that a run uses; `options.json` holds those, because a run that is
resumed must use the same ones, whatever the machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from ..adapters.config import CONFIGS, METHODS, AnyConfig, MethodConfig
from ..data.datafiles import DataOptions
from ..errors import ConfigError
from ..models.heads import POOLINGS
from ..nn.config import TransformerConfig
from ..training.history import BEST_BY
from ..training.process import cores
from ..training.trainer import TrainingOptions

WHAT_TRAINS = {  # for logs and figures
    "adapter": "adapters on a frozen",
    "lora": "LoRA on a frozen",
    "ia3": "(IA)^3 on a frozen",
    "prefix": "a prefix on a frozen",
    "bitfit": "the biases (BitFit) of",
    "layer-norm": "the layer norms of",
    "head": "head alone on a frozen",
    "full": "full fine-tuning of",
}
LEARNING_RATES = {
    "adapter": 1e-3,
    "lora": 1e-3,
    "ia3": 5e-3,
    "prefix": 5e-3,
    "bitfit": 3e-3,
    "layer-norm": 3e-3,
    "head": 5e-3,
    "full": 5e-5,
}
PRETRAINING_RATE = 2e-3
MOST_THREADS, MOST_NUMBERS, MOST_PARAMETERS = 256, 10_000, 10**9  # beyond all reason on one machine
PRETRAINED = "runs/shakespeare-comedies-base-seed0"  # where `pretrain()` leaves its decoder

T = TypeVar("T")
Options = TypeVar("Options", bound="RunOptions | LanguageOptions | PretrainOptions")


def tells_where(options: type[T]) -> type[T]:
    """A dataclass of options that says, of a name it does not have, where that belongs."""
    kind: Any = options
    plain, known = kind.__init__, kind.__dataclass_fields__

    @wraps(plain)
    def init(self: T, *values: Any, **named: Any) -> None:
        for name in named.keys() - known.keys():
            raise ConfigError(no_such_option(options, name, named[name], known))
        plain(self, *values, **named)

    kind.__init__ = init
    return options


@tells_where
@dataclass(frozen=True)
class RunOptions:
    """Everything that decides a run's outcome, beside the task. Checks itself; ConfigError.

    Attributes:
        base: "tiny", "minilm", a folder, or a model-hub id.
        method: what trains beside the head: "adapter", "lora", "ia3" or "prefix" (each with a
            configuration, see `adapter`); "bitfit" (the blocks' biases), "layer-norm" (their layer
            norms), "head" (nothing else) or "full" (everything).
        adapter: the configuration of what is inserted, of the method's kind. None: its defaults.
        layer_norm: whether the blocks' layer norms train too (Houlsby et al. 2019 do so).
        pooling: "cls", "last", "mean" or "pooler": the vector that the head sees. None: "last" for
            a causal base, else "cls".
        dropout: inside the base, in training. None: what its config.json says; for the method
            "head", for which nothing inside learns, 0.
        head_dropout: on the vector that the head sees, in training.
        max_length: texts are cut to so many tokens.
        limit: train on at most so many examples.
        threads: compute shards of each batch side by side; 0 for one for each core.
        prefix_cache: store the output of the blocks below the first adapter for each example, so
            that later epochs start above them (see `PrefixCache`); no dropout then in those blocks.
        select_by: what chooses the best epoch on the validation split: "accuracy" (within one
            standard error the latest), "macro-f1" or "loss". None: "accuracy"; "loss" for a number.
        data: the columns and files of the user's own data.
        training: epochs, batch size, learning rate (None: see LEARNING_RATES), seed, ...
    """

    base: str = "minilm"
    method: str = "adapter"
    adapter: AnyConfig | None = None
    layer_norm: bool = False
    pooling: str | None = None
    dropout: float | None = None
    head_dropout: float = 0.1
    max_length: int = 128
    limit: int | None = None
    threads: int = 0
    prefix_cache: bool = False
    select_by: str | None = None
    data: DataOptions = field(default_factory=DataOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)

    def __post_init__(self) -> None:
        for name, choices in (
            ("method", METHODS),
            ("pooling", (None, *POOLINGS)),
            ("select_by", (None, *BEST_BY)),
        ):
            if getattr(self, name) not in choices:
                known = ", ".join(map(str, choices))
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected one of {known}")
        check_kinds(self, base=str, training=TrainingOptions, data=DataOptions)
        check_kinds(self, layer_norm=bool, prefix_cache=bool)
        check_adapter(self)
        check_whole(self, max_length=1, threads=0)
        check_threads(self.threads)
        check_probabilities(self, "head_dropout")
        if self.limit is not None:
            check_whole(self, limit=1)
        if self.dropout is not None:
            check_probabilities(self, "dropout")
        if self.layer_norm and self.method not in CONFIGS:
            raise ConfigError(
                f"layer_norm goes with one of {', '.join(CONFIGS)}, not with {self.method!r}"
            )
        if self.training.adapter_drop and self.method not in CONFIGS:
            raise ConfigError(
                f"adapter_drop goes with one of {', '.join(CONFIGS)}, not with {self.method!r}"
            )

    @property
    def learning_rate(self) -> float:
        """The peak learning rate: as given, or what suits the method."""
        lr = self.training.lr
        return lr if lr is not None else LEARNING_RATES[self.method]

    @property
    def config(self) -> AnyConfig | None:
        """What is inserted; None if the method inserts nothing."""
        return config_of(self)

    @property
    def resolved_dropout(self) -> float | None:
        """Dropout inside the base; None for what its config.json says."""
        return 0.0 if self.dropout is None and self.method == "head" else self.dropout

    def resolved(self, longest: int) -> RunOptions:
        """With the numbers that a run on a base that takes `longest` tokens uses."""
        return replace(
            self,
            adapter=self.config,
            dropout=self.resolved_dropout,
            max_length=min(self.max_length, longest),
            threads=self.threads or cores(),
            training=replace(self.training, lr=self.learning_rate),
        )


@tells_where
@dataclass(frozen=True)
class LanguageOptions:
    """How to adapt a decoder to another text. Checks itself; ConfigError.

    Attributes:
        base: the decoder's folder, or a model-hub id; by default the folder in which `pretrain`
            leaves one.
        method: "adapter", "lora", "ia3" or "prefix"; the base is frozen.
        adapter: the configuration of what is inserted, of the method's kind. None: its defaults.
        dropout: inside the base, in training. None: what its config.json says.
        max_length: tokens in a window of the text.
        threads: compute shards of each batch side by side; 0 for one for each core.
        training: epochs, batch size (in windows), learning rate (None: see LEARNING_RATES),
            seed, ...
    """

    base: str = PRETRAINED
    method: str = "adapter"
    adapter: AnyConfig | None = None
    dropout: float | None = None
    max_length: int = 128
    threads: int = 0
    training: TrainingOptions = field(default_factory=lambda: TrainingOptions(batch_size=8))

    def __post_init__(self) -> None:
        if self.method not in CONFIGS:
            raise ConfigError(f"method={self.method!r}: expected one of {', '.join(CONFIGS)}")
        check_kinds(self, base=str, training=TrainingOptions)
        check_adapter(self)
        check_whole(self, max_length=1, threads=0)
        check_threads(self.threads)
        if self.dropout is not None:
            check_probabilities(self, "dropout")

    @property
    def learning_rate(self) -> float:
        """The peak learning rate: as given, or what suits the method."""
        lr = self.training.lr
        return lr if lr is not None else LEARNING_RATES[self.method]

    @property
    def config(self) -> AnyConfig:
        """What is inserted."""
        config = config_of(self)
        assert config is not None  # such methods alone are allowed
        return config

    def resolved(self, longest: int) -> LanguageOptions:
        """With the numbers that a run on a base that takes `longest` tokens uses."""
        return replace(
            self,
            adapter=self.config,
            max_length=min(self.max_length, longest),
            threads=self.threads or cores(),
            training=replace(self.training, lr=self.learning_rate),
        )


@tells_where
@dataclass(frozen=True)
class PretrainOptions:
    """The shape of a small decoder, GPT-2's, and how to train it. Checks itself; ConfigError.

    Attributes:
        d_model, n_layers, n_heads: width, depth, attention heads; d_ff is 4 d_model.
        vocab_size: tokens of the byte-pair encoding, which is learnt from the same text.
        block_size: how many tokens the model sees at once.
        dropout: everywhere inside, in training.
        threads: compute shards of each batch side by side; 0 for one for each core.
        training: epochs, batch size (in windows of block_size tokens), learning rate (None: 2e-3),
            seed, ...
    """

    d_model: int = 192
    n_layers: int = 4
    n_heads: int = 6
    vocab_size: int = 2048
    block_size: int = 128
    dropout: float = 0.0
    threads: int = 0
    training: TrainingOptions = field(
        default_factory=lambda: TrainingOptions(epochs=8, batch_size=8)
    )

    method = "base"  # in the name of the folder that such a run leaves

    def __post_init__(self) -> None:
        check_kinds(self, training=TrainingOptions)
        check_whole(self, threads=0, block_size=1, d_model=1, n_layers=1, n_heads=1, vocab_size=1)
        check_threads(self.threads)
        check_probabilities(self, "dropout")
        if self.vocab_size < 257:
            raise ConfigError(f"vocab_size={self.vocab_size}: expected 257 (all bytes) or more")
        n = self.config(self.vocab_size).matrix_parameters
        if n > MOST_PARAMETERS:
            raise ConfigError(
                f"d_model={self.d_model}, n_layers={self.n_layers}, vocab_size={self.vocab_size}, "
                f"block_size={self.block_size}: a model of {n:,} parameters; expected at most "
                f"{MOST_PARAMETERS:,}"
            )

    @property
    def learning_rate(self) -> float:
        """The peak learning rate: as given, or 2e-3."""
        return self.training.lr if self.training.lr is not None else PRETRAINING_RATE

    def resolved(self) -> PretrainOptions:
        """With the numbers that a run uses."""
        training = replace(self.training, lr=self.learning_rate)
        return replace(self, threads=self.threads or cores(), training=training)

    def config(self, vocab_size: int) -> TransformerConfig:
        """The decoder's shape, with as many tokens as the text yielded."""
        return TransformerConfig(
            vocab_size=vocab_size,
            d_model=self.d_model,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            d_ff=4 * self.d_model,
            max_positions=self.block_size,
            norm="pre",
            causal=True,
            activation="gelu_tanh",
            layer_norm_eps=1e-5,
            dropout=self.dropout,
            attention_dropout=self.dropout,
        )


# -- in a file -----------------------------------------------------------------------------


def to_dict(options: RunOptions | LanguageOptions | PretrainOptions) -> dict[str, Any]:
    """Plain values, as `options.json` holds them."""
    return asdict(options)


def from_dict(kind: type[Options], values: dict[str, Any]) -> Options:
    """The inverse of `to_dict`. Raises: ConfigError, TypeError or KeyError for anything else."""
    parts: dict[str, Any] = {"training": TrainingOptions(**values["training"])}
    if "data" in values:
        parts["data"] = DataOptions(**values["data"])
    if values.get("adapter") is not None:
        parts["adapter"] = CONFIGS[values["method"]].from_dict(values["adapter"])
    return kind(**{**values, **parts})


# -- as arguments --------------------------------------------------------------------------


def no_such_option(kind: type, name: str, value: Any, known: Iterable[str]) -> str:
    """An error for a name that `kind` does not have; it says which class has it."""
    pair, own = f"{name}={value!r}", {field.name for field in fields(kind)}
    method = next((word for word, c in CONFIGS.items() if name in c.__annotations__), None)
    if method is not None and "adapter" in own:
        told = f"{pair} belongs to a configuration: adapter={CONFIGS[method].__name__}({pair})"
        return told + (f", method={method!r}" if method != "adapter" else "")
    if name in DataOptions.__annotations__ and "data" in own:
        return f"{pair} is about the data: data=DataOptions({pair})"
    if name in TrainingOptions.__annotations__:
        return f"{pair} is about training: training=TrainingOptions({pair})"
    return f"{pair}: there is no such option; there are {', '.join(sorted(known))}"


def with_changes(
    kind: type[Options], options: Options | None, changes: Mapping[str, Any]
) -> Options | None:
    """Options (None: the defaults) with some changed by name; those of training too.

    `train(task, epochs=1)` is `train(task, RunOptions(training=TrainingOptions(epochs=1)))`.
    Raises: ConfigError for a name that no option has.
    """
    if not changes or not isinstance(options, kind | None):
        return options
    options = options if options is not None else kind()
    own, of_training = ({field.name for field in fields(o)} for o in (options, options.training))
    for name in changes.keys() - own - of_training:
        raise ConfigError(no_such_option(kind, name, changes[name], own | of_training))
    direct = {name: value for name, value in changes.items() if name in own}
    training = direct.pop("training", options.training)
    rest = {name: value for name, value in changes.items() if name not in own}
    return replace(options, training=replace(training, **rest), **direct)


# -- checks --------------------------------------------------------------------------------


def parse_whole_numbers(text: str, what: str) -> tuple[int, ...]:
    """ "0,3-5" -> (0, 3, 4, 5). Raises: ConfigError for anything else, which begins with `what`."""
    numbers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        if found is None:
            raise ConfigError(f"{what}: expected numbers such as 0,1 or 3-5")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or len(numbers) + last - first >= MOST_NUMBERS:
            raise ConfigError(
                f"{what}: expected numbers such as 0,1 or 3-5, the smaller one first, and at most "
                f"{MOST_NUMBERS:,} of them"
            )
        numbers += range(first, last + 1)
    return tuple(numbers)


def check_kinds(options: Any, **kinds: type) -> None:
    """Raises: ConfigError for an option that is not of its kind."""
    for name, kind in kinds.items():
        value = getattr(options, name)
        if not isinstance(value, kind):
            expected = {"str": "text", "bool": "True or False"}.get(kind.__name__, kind.__name__)
            raise ConfigError(f"{name}={value!r}: expected {expected}")


def check_adapter(options: RunOptions | LanguageOptions) -> None:
    """Raises: ConfigError for a configuration that is not of the method's kind."""
    kind, given = CONFIGS.get(options.method), options.adapter
    if kind is not None and given is not None and not isinstance(given, MethodConfig):
        example = {"adapter": "bottleneck=16", "lora": "rank=8", "prefix": "length=16"}
        raise ConfigError(
            f"adapter={given!r}: expected a configuration, as "
            f"adapter={kind.__name__}({example.get(options.method, '')})"
            + ("; for a class of your own see add_adapter and Trainer" if callable(given) else "")
        )
    if options.adapter is not None and (kind is None or not isinstance(options.adapter, kind)):
        expected = kind.__name__ if kind is not None else "none, because nothing is inserted"
        raise ConfigError(
            f"method={options.method!r} with adapter={options.adapter!r}: expected {expected}"
        )


def config_of(options: RunOptions | LanguageOptions) -> AnyConfig | None:
    """The configuration of what the method inserts; None if it inserts nothing."""
    if options.adapter is not None or options.method not in CONFIGS:
        return options.adapter
    return CONFIGS[options.method]()


def check_whole(options: Any, **least: int) -> None:
    """Raises: ConfigError for an option that is no whole number, or below its least value."""
    for name, smallest in least.items():
        value = getattr(options, name)
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < smallest:
            raise ConfigError(f"{name}={value!r}: expected a whole number, {smallest} or more")


def check_threads(threads: int) -> None:
    """Raises: ConfigError for more threads than any machine has cores."""
    if threads > MOST_THREADS:
        raise ConfigError(
            f"threads={threads}: expected at most {MOST_THREADS}; 0 takes one for each core"
        )


def check_probabilities(options: Any, *names: str) -> None:
    """Raises: ConfigError for an option that is no number from 0 to below 1."""
    for name in names:
        value = getattr(options, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < 1:
            raise ConfigError(f"{name}={value!r}: expected 0 <= {name} < 1")

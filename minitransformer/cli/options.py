"""The options of the command line: their help, and how they become RunOptions.

Options of `train` default to None, so that what was typed can be told from what was not: a new
run fills the rest with the defaults, a resumed one with what it was started with.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ..adapters.config import (
    CONFIGS,
    METHODS,
    PLACEMENTS,
    TARGETS,
    AdapterConfig,
    LoRAConfig,
    PrefixConfig,
)
from ..costs.parameters import SHAPES
from ..data.datafiles import DataOptions
from ..data.pinned import CHECKPOINTS, HUB_IDS
from ..errors import ConfigError
from ..runs.folder import resumed
from ..runs.options import LEARNING_RATES, LanguageOptions, RunOptions, parse_whole_numbers
from ..training.history import BEST_BY
from ..training.trainer import TrainingOptions

INSERTED = {  # method -> the options of its configuration
    "adapter": ("bottleneck", "activation", "placement", "sites", "layers", "scaling"),
    "lora": ("rank", "alpha", "targets", "lora_dropout", "layers"),
    "ia3": ("layers",),
    "prefix": ("prefix_length", "layers"),
}
FIELDS = {"lora_dropout": "dropout", "prefix_length": "length"}  # named otherwise in there
DATA = {  # option -> field of DataOptions
    "text_column": "text_column",
    "label_column": "label_column",
    "pair_column": "pair_column",
    "number": "number",
    "drop_unusable": "drop_unusable",
    "validation": "validation_file",
    "test": "test_file",
}
TRAINING = ("epochs", "batch_size", "lr", "seed", "adapter_drop", "class_weights", "patience")

Given = dict[str, Any]  # option -> value, of the options that were typed
Trained = TypeVar("Trained", RunOptions, LanguageOptions)


def option(text: str, default: object = None, flag: str | None = None) -> Any:
    """`default` is for the help alone, which would say "None" otherwise."""
    names = (flag,) if flag is not None else ()
    if default is not None:
        text = f"{text} Default: {default}."
    return typer.Option(*names, help=text, show_default=False)


def by_method(values: dict[str, float]) -> str:
    return ", ".join(f"{value:g} ({method})" for method, value in values.items())


# -- of several commands ------------------------------------------------------------------

AsJson = Annotated[bool, option("Print JSON for a program, nothing else.", flag="--json")]
BaseNow = Annotated[
    str | None, option("Where the base lies now, if not where it was.", "as recorded")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]

SecondRun = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of another run.")]

# -- train --------------------------------------------------------------------------------

Task = Annotated[
    str | None,
    typer.Argument(
        metavar="TASK",
        help="A name from `minitransformer tasks`, or your own .csv, .tsv, .jsonl or .parquet "
        "file with columns text and label, and perhaps split (train, validation, test). "
        "With --lm: a text, as in `pretrain`.",
        show_default=False,
    ),
]
Lm = Annotated[
    bool,
    option("Adapt a decoder to a text, by default the histories.", flag="--lm"),
]
Base = Annotated[
    str | None,
    option(
        f"tiny (part of the package), {', '.join((*CHECKPOINTS, *HUB_IDS))}, a folder, or a "
        "model-hub id.",
        RunOptions.base,
    ),
]
Method = Annotated[
    str | None,
    option(
        f"What trains, always with the head: {', '.join(METHODS)}.",
        RunOptions.method,
    ),
]
Bottleneck = Annotated[int | None, option("Width m of the adapters.", 64)]
Activation = Annotated[
    str | None, option("relu, gelu, gelu_tanh, tanh, silu or linear.", AdapterConfig.activation)
]
Rank = Annotated[int | None, option("Rank r of the updates of LoRA.", LoRAConfig.rank)]
Alpha = Annotated[
    float | None, option("LoRA scales its updates by alpha / r.", f"{LoRAConfig.alpha:g}")
]
Targets = Annotated[
    str | None,
    option(
        f"The weights that LoRA updates, of {', '.join(TARGETS)}.", ",".join(LoRAConfig.targets)
    ),
]
LoraDropout = Annotated[
    float | None, option("Dropout of LoRA's own, in training.", f"{LoRAConfig.dropout:g}")
]
PrefixLength = Annotated[int | None, option("Positions of a prefix.", PrefixConfig.length)]
Placement = Annotated[
    str | None, option(f"Where adapters stand: {', '.join(PLACEMENTS)}.", AdapterConfig.placement)
]
Sites = Annotated[
    str | None,
    option("Sub-layers with adapters: attention, ffn, or attention,ffn.", "by the placement"),
]
Scaling = Annotated[str | None, option("A factor on what adapters add, or learned.", 1)]
Layers = Annotated[str | None, option("Blocks that get adapters, from 0: 0,1 or 3-5.", "all")]
LayerNorm = Annotated[
    bool | None,
    option("Train the layer norms too, as Houlsby et al. 2019 do.", flag="--layer-norm"),
]
Pooling = Annotated[
    str | None,
    option("What the head sees: cls (first token), last, mean, pooler.", "cls; last if causal"),
]
DropoutInBase = Annotated[
    float | None, option("Dropout inside the base, in training.", "what the base was trained with")
]
Epochs = Annotated[int | None, option("Passes over the data.", TrainingOptions.epochs)]
BatchSize = Annotated[
    int | None, option("Examples a step.", f"{TrainingOptions.batch_size}; with --lm 8 windows")
]
Lr = Annotated[
    float | None,
    option("Peak learning rate.", by_method(LEARNING_RATES)),
]
MaxLength = Annotated[
    int | None,
    option(
        "Texts are cut to so many tokens; with --lm: tokens in a window.", RunOptions.max_length
    ),
]
Limit = Annotated[int | None, option("Train on at most so many examples.", "all")]
UsePrefixCache = Annotated[
    bool | None,
    option(
        "Store the output of the blocks below the first adapter: later epochs are faster.",
        flag="--prefix-cache",
    ),
]
TextColumn = Annotated[str | None, option("The column with the text.", "text")]
LabelColumn = Annotated[str | None, option("The column with the label.", "label")]
PairColumn = Annotated[
    str | None, option("The column with a second text: label pairs of texts.", "none")
]
Number = Annotated[
    bool | None, option("The label is a number: predict that, not a class.", flag="--number")
]
DropUnusable = Annotated[
    bool | None,
    option(
        "Leave out rows without text or label, and labels too rare to be split; else an error.",
        flag="--drop-unusable",
    ),
]
ValidationFile = Annotated[
    str | None, option("Your file for validation; TASK is for training then.", "5 % of TASK")
]
TestFile = Annotated[
    str | None, option("Your file for the test; TASK is for training then.", "20 % of TASK")
]
AllRows = Annotated[bool, option("Measure all rows of your file, not a split.", flag="--all")]
SelectBy = Annotated[
    str | None,
    option(
        f"What chooses the best epoch, on validation: {', '.join(BEST_BY)}.",
        "accuracy; loss for a number",
    ),
]
ClassWeights = Annotated[
    str | None,
    option("How much each class counts in the loss: balanced, or numbers as 1,5.", "alike"),
]
Patience = Annotated[
    int | None, option("Stop early, so many epochs after the best one.", "train all epochs")
]
Quiet = Annotated[
    bool, option("No progress bar, no report; but warnings and errors.", flag="--quiet")
]
AdapterDrop = Annotated[
    int | None,
    option("Leave adapters out of the lowest 0 to N blocks, at random in each step.", "0"),
]
Threads = Annotated[
    int | None, option("Shards of a batch computed side by side.", "one for each core")
]
Seed = Annotated[int | None, option("Decides everything random.", TrainingOptions.seed)]
Out = Annotated[Path | None, option("Folder of the run.", "runs/TASK-METHOD-seedN")]
Resume = Annotated[
    bool,
    option("Go on with the interrupted run in --out; it knows its options.", flag="--resume"),
]

# -- evaluate, predict, cost, ... --------------------------------------------------------

OtherTask = Annotated[str, typer.Argument(metavar="TASK", help="A task's name, or your own file.")]
Split = Annotated[str, option("test, validation or train.", "test")]
DropLowest = Annotated[
    int, option("Leave adapters out of so many blocks, from the lowest (AdapterDrop).", "0")
]
Texts = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT...", help="None: standard input, one text a line."),
]
InputFile = Annotated[Path | None, option("Label the rows of this file.", flag="--file")]
OutputFile = Annotated[Path | None, option("Where they go: a .csv, .tsv or .jsonl file.")]
TopK = Annotated[
    int | None, option("Write the k most probable labels of each row.", "the probability of each")
]
Also = Annotated[
    list[Path] | None,
    option("Another run on the same base, for the same forward pass; may be repeated.", "none"),
]
AsJsonLines = Annotated[
    bool, option("One JSON object a line, with all probabilities.", flag="--json")
]
Shape = Annotated[
    str, option(f"{', '.join(SHAPES)}; or tiny, a folder, or a model-hub id.", "bert-base")
]
Widths = Annotated[list[str] | None, option("Widths m, as 8,64,256.", "64")]
Tolerance = Annotated[float, option("The largest relative error that passes.", "1e-6")]
DemoOut = Annotated[Path | None, option("Folder of the run.", "runs/demo-adapter-seed0")]


# -- from what was typed to RunOptions ----------------------------------------------------


def new_options(given: Given) -> RunOptions:
    """The defaults of the method, with what was typed in their place.

    Raises: ConfigError for a value that cannot be, and for an option of another method.
    """
    check_method(given)
    return replaced(RunOptions(method=given.get("method", RunOptions.method)), given)


def check_method(given: Given) -> None:
    """Raises: ConfigError for an option that the method does not have."""
    method = given.get("method", RunOptions.method)
    for name in given:
        methods = [m for m in INSERTED if name in INSERTED[m]]
        if name == "layer_norm":
            methods = list(INSERTED)
        if methods and method not in methods:
            raise ConfigError(
                f"{flag(name)} goes with --method {' or '.join(methods)}, not {method}"
            )


def check_resumed(folder: Path, task: str, given: Given, kind: type[Trained]) -> None:
    """What was typed must agree with the options of an interrupted run.

    Raises: ConfigError if there is nothing to resume, or if an option differs from the run's.
    """
    options = resumed(folder, task, kind)
    for name, value in given.items():
        if replaced(options, {name: value}) != options:
            raise ConfigError(
                f"{flag(name)} {shown(value)} is not what the run in {folder} was started with "
                f"({shown(value_of(options, name))}); leave it out: the run's options are there"
            )


def replaced(options: Trained, given: Given) -> Trained:
    """Options with what was typed in place of what they say."""
    method = given.get("method", options.method)
    names = INSERTED.get(method, ())
    adapter = {FIELDS.get(name, name): given[name] for name in names if name in given}
    config = options.adapter if method == options.method else None
    if adapter:
        config = replace(config or CONFIGS[method](), **adapter)
    training = {name: value for name, value in given.items() if name in TRAINING}
    data = {DATA[name]: value for name, value in given.items() if name in DATA}
    rest = {name: given[name] for name in given.keys() - set(names) - training.keys() - DATA.keys()}
    if data:
        if not isinstance(options, RunOptions):
            raise ConfigError(f"{flag(next(iter(given)))} is for a task with labels, not for --lm")
        rest["data"] = replace(options.data, **data)
    return replace(
        options,
        adapter=config,
        training=replace(options.training, **training),
        **rest,
    )


def value_of(options: RunOptions | LanguageOptions, name: str) -> Any:
    if name in INSERTED.get(options.method, ()):
        return getattr(options.config, FIELDS.get(name, name))
    if name in DATA and isinstance(options, RunOptions):
        return getattr(options.data, DATA[name])
    return getattr(options.training if name in TRAINING else options, name)


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def number_or_learned(name: str, text: str) -> float | str:
    """ "0.5" -> 0.5. Raises: ConfigError for what is no number, but for "learned"."""
    try:
        return text if text == "learned" else float(text)
    except ValueError as error:
        raise ConfigError(f"{name}={text!r}: expected a number, or learned") from error


def data_options(**given: Any) -> DataOptions:
    """What was typed of the columns and files of one's own data."""
    return DataOptions(**{DATA[name]: v for name, v in given.items() if v is not None})


def class_weights(text: str) -> str | tuple[float, ...]:
    """ "1,5" -> (1.0, 5.0); "balanced" as it is. Raises: ConfigError for anything else."""
    try:
        return text if text == "balanced" else tuple(map(float, text.split(",")))
    except ValueError as error:
        raise ConfigError(
            f"--class-weights {text!r}: expected balanced, or a number for each class, as 1,5"
        ) from error


def whole_numbers(name: str, text: str) -> tuple[int, ...]:
    """ "0,3-5" -> (0, 3, 4, 5). Raises: ConfigError for anything else."""
    return parse_whole_numbers(text, f"{flag(name)} {text!r}")

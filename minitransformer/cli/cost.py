"""`minitransformer cost`: what each method costs, counted before anything runs."""

from __future__ import annotations

from typing import Annotated, Any

from ..adapters.config import PLACEMENTS, AdapterConfig, IA3Config, LoRAConfig, PrefixConfig
from ..costs.comparison import WIDTHS, compare_methods
from . import options as opt
from .app import STUDY, app, print_json, show
from .text import percent, size, table

Batch = Annotated[int, opt.option("Sequences in a step.", 32, "--batch-size")]
Length = Annotated[int, opt.option("Tokens in a sequence.", 128)]
Rank = Annotated[int, opt.option("Rank of LoRA.", LoRAConfig.rank)]
Prefix = Annotated[int, opt.option("Positions of a prefix.", PrefixConfig.length)]
Lm = Annotated[
    bool, opt.option("Of a language model, with logits over the vocabulary.", flag="--lm")
]
Placement = Annotated[
    str, opt.option(f"Where adapters stand: {', '.join(PLACEMENTS)}.", AdapterConfig.placement)
]


@app.command(rich_help_panel=STUDY)
def cost(
    base: opt.Shape = "bert-base",
    bottleneck: opt.Widths = None,
    placement: Placement = AdapterConfig.placement,
    sites: opt.Sites = None,
    layers: opt.Layers = None,
    rank: Rank = LoRAConfig.rank,
    prefix: Prefix = PrefixConfig.length,
    batch_size: Batch = 32,
    length: Length = 128,
    pooling: opt.Pooling = None,
    lm: Lm = False,
    as_json: opt.AsJson = False,
) -> None:
    """Count what each method costs: parameters, arithmetic, memory, disk.

    Exact, from the shapes alone: nothing runs, and no weights are needed or fetched for the names
    above. Says why training is not 30 times faster although 97 % is frozen, and what helps.

    Example: `minitransformer cost --base bert-base --bottleneck 8,64,256`

    Example: `minitransformer cost --base gpt2 --lm`
    """
    widths = [m for text in bottleneck or [] for m in opt.whole_numbers("bottleneck", text)]
    blocks = opt.whole_numbers("layers", layers) if layers is not None else None
    where = tuple(sites.split(",")) if sites is not None else None
    costs = compare_methods(
        base,
        batch_size,
        length,
        widths or WIDTHS,
        AdapterConfig(placement=placement, sites=where, layers=blocks),
        LoRAConfig(rank=rank, layers=blocks),
        IA3Config(layers=blocks),
        PrefixConfig(length=prefix, layers=blocks),
        pooling,
        lm,
    )
    if as_json:
        print_json(costs)
    else:
        show(costs_text(costs))


def costs_text(costs: dict[str, Any]) -> str:
    """Where the parameters are; what each method costs; why, and what helps."""
    config, counts, one = costs["config"], costs["parameters"], costs["adapters"]
    parts = [
        (part.replace("_", " "), f"{count:,}", percent(count, counts["total"]))
        for part, count in counts.items()
    ]
    rows = []
    for row in costs["methods"]:
        work = row["multiply_adds"]
        rows.append(
            (
                row["name"],
                f"{row['trained']:,}",
                f"{100 * row['share']:.2f} %",
                *(giga(work[k]) for k in ("forward", "input_gradients", "weight_gradients")),
                giga(work["recomputed"]),
                f"{100 * row['work']:.0f} %",
                size(row["saved_bytes"]),
                size(row["gradient_bytes"] + row["optimizer_bytes"]),
                size(row["task_bytes"]),
                f"+{100 * (row['inference'] - 1):.1f} %",
            )
        )
    header = "method,trained,of base,forward,dx,dW,again,step,saved,state,a task,inference"
    return "\n".join(
        [
            f"{costs['base']}: {config['n_layers']} blocks, d = {config['d_model']}, "
            f"{config['n_heads']} heads, d_ff = {config['d_ff']}, "
            f"vocabulary {config['vocab_size']:,}",
            "",
            table(("part", "parameters", "share"), parts),
            "",
            f"An adapter d -> m -> d has 2dm + d + m parameters: {one['per_site']:,} at "
            f"m = {one['bottleneck']}; {one['sites']} of them: {one['total']:,}, "
            f"{percent(one['total'], counts['total'])} of the base.",
            "",
            f"A training step on {costs['batch']} x {costs['length']} tokens; 10^9 multiply-adds:",
            "",
            table(header.split(","), rows),
            "",
            "dx, dW: gradients of inputs and of weights. again: computed a second time instead of "
            "saved.",
            "step: of full fine-tuning. saved: by forward for backward. state: gradients, and "
            "AdamW's m and v.",
            "a task: float32 on disk. inference: more multiply-adds than the base; a merged LoRA "
            "or (IA)^3: none.",
            "",
            answer(costs),
        ]
    )


def answer(costs: dict[str, Any]) -> str:
    """Why training is not faster by as much as is frozen, and what makes it so."""
    full, adapters = costs["methods"][:2]
    whole = full["multiply_adds"]["total"]
    frozen = 1 - adapters["trained"] / (costs["parameters"]["total"] + adapters["trained"])
    shares = {k: v / whole for k, v in full["multiply_adds"].items()}
    backward = adapters["multiply_adds"]["input_gradients"] / whole
    rows = [
        (
            row["name"],
            f"{100 * row['work']:.1f} %",
            f"{1 / row['work']:.1f} x" if row["work"] > 1e-3 else "> 1000 x",
            size(row["saved_bytes"]),
        )
        for row in costs["faster"]
    ]
    cached = ["A cached prefix counts from the second epoch on (`train --prefix-cache`)."]
    if costs["language_model"]:
        cached = []
    times = full["optimizer_bytes"] / adapters["optimizer_bytes"]
    return "\n".join(
        [
            f"{100 * frozen:.3g} % is frozen: why is training not "
            f"{1 / (1 - frozen):.0f} times faster?",
            f"Full fine-tuning multiplies by every weight three times: forward "
            f"({100 * shares['forward']:.0f} %), for the gradient of",
            f"the input ({100 * shares['input_gradients']:.0f} %), and for its own gradient "
            f"({100 * shares['weight_gradients']:.0f} %). Freezing saves the third. The second "
            "remains wherever",
            f"something below trains ({100 * backward:.0f} % with these adapters): their gradient "
            "comes through every frozen block above.",
            f"So a step is {1 / adapters['work']:.1f} times faster; what is {times:.0f} times "
            "smaller is the optimizer's state, and a task on disk.",
            "",
            "What makes it faster is a shorter backward pass, or a shorter forward pass:",
            "",
            table(("what", "step", "faster", "saved"), rows),
            "",
            *cached,
            "Dropped at random in each step: the mean (`train --adapter-drop`); with adapters "
            "dropped at inference,",
            "tasks share those blocks.",
        ]
    )


def giga(count: float) -> str:
    return "<0.1" if 0 < count < 5e7 else f"{count / 1e9:.1f}"

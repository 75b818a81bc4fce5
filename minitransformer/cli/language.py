"""The commands of language models: pretrain, generate. (`train --lm` is `adapt`.)"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from ..runs.language_modeling import COMEDIES, HISTORIES, load_language_run
from ..runs.language_modeling import pretrain as pretrain_run
from ..runs.options import PRETRAINING_RATE, PretrainOptions
from . import options as opt
from .app import INTERRUPTED, USE, app, print_json, say, show
from .language_adaptation import folder_to_resume, interruption
from .options import TRAINING, option

DEFAULTS = PretrainOptions()

Text = Annotated[
    str,
    typer.Argument(
        metavar="TEXT",
        help=f"{COMEDIES}, {HISTORIES}, your own .txt or .md file, or a folder of them.",
    ),
]
Width = Annotated[int | None, option("Width of the model.", DEFAULTS.d_model, "--d-model")]
Depth = Annotated[int | None, option("Blocks.", DEFAULTS.n_layers, "--n-layers")]
Heads = Annotated[int | None, option("Attention heads.", DEFAULTS.n_heads, "--n-heads")]
Vocabulary = Annotated[int | None, option("Tokens of the encoding.", DEFAULTS.vocab_size)]
BlockSize = Annotated[int | None, option("Tokens seen at once.", DEFAULTS.block_size)]
Dropout = Annotated[float | None, option("Dropout, in training.", DEFAULTS.dropout)]
Epochs = Annotated[int | None, option("Passes over the text.", DEFAULTS.training.epochs)]
BatchSize = Annotated[int | None, option("Windows a step.", DEFAULTS.training.batch_size)]
Lr = Annotated[float | None, option("Peak learning rate.", PRETRAINING_RATE)]
OutOfBase = Annotated[Path | None, option("Folder of the new base.", "runs/TEXT-base-seedN")]
Decoder = Annotated[str, typer.Argument(metavar="FOLDER", help="Of a decoder, or of a run.")]
Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="What the text begins with.")]
WithAdapter = Annotated[Path | None, option("The run whose adapter is inserted.", flag="--adapter")]
NoAdapter = Annotated[bool, option("The base alone, for comparison.", flag="--no-adapter")]
Tokens = Annotated[int, option("How many tokens to generate.", 200)]
Temperature = Annotated[float, option("0: always the most probable token.", 0.8)]
TopK = Annotated[int | None, option("Draw from the k most probable tokens.", "all")]
TopP = Annotated[float | None, option("Draw from the most probable share p.", "all")]


@app.command(rich_help_panel=USE)
def pretrain(
    text: Text = COMEDIES,
    d_model: Width = None,
    n_layers: Depth = None,
    n_heads: Heads = None,
    vocab_size: Vocabulary = None,
    block_size: BlockSize = None,
    dropout: Dropout = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Lr = None,
    threads: opt.Threads = None,
    seed: opt.Seed = None,
    out: OutOfBase = None,
    resume: opt.Resume = False,
    as_json: opt.AsJson = False,
) -> int:
    """Train a small GPT-2 from scratch on a text, to be a base for adapters.

    A byte-pair encoding is learnt first, then the decoder. The last tenth of each document is
    held out, and the perplexity on it is measured. Hugging Face's transformers can read the
    folder, too.

    Example: `minitransformer pretrain my-novel.txt --out runs/novel`
    """
    typed: opt.Given = {
        "d_model": d_model,
        "n_layers": n_layers,
        "n_heads": n_heads,
        "vocab_size": vocab_size,
        "block_size": block_size,
        "dropout": dropout,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "threads": threads,
        "seed": seed,
    }
    given = {name: value for name, value in typed.items() if value is not None}
    options = None
    if resume:
        out = folder_to_resume(out, given)
    else:
        training = {name: given.pop(name) for name in TRAINING if name in given}
        options = replace(DEFAULTS, **given, training=replace(DEFAULTS.training, **training))
    run = pretrain_run(text, options, out, resume, progress=True)
    folder, metrics = run.folder, run.metrics
    if as_json:
        print_json({"folder": str(folder), **metrics})
    if not metrics["finished"]:
        say(interruption(["pretrain", text], folder, metrics))
        return INTERRUPTED
    if not as_json:
        show(pretraining_report(folder, metrics))
    return 0


@app.command(rich_help_panel=USE)
def generate(
    folder: Decoder,
    prompt: Prompt = "",
    adapter: WithAdapter = None,
    no_adapter: NoAdapter = False,
    tokens: Tokens = 200,
    temperature: Temperature = 0.8,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: opt.Seed = None,
    base: opt.BaseNow = None,
    as_json: opt.AsJson = False,
) -> None:
    """Continue a text with a decoder, with an adapter or without.

    Given the folder of a run of `train --lm`, it finds the base by itself. The same seed gives the
    same text.

    Example: `minitransformer generate runs/shakespeare-histories-adapter-seed0 "KING HENRY V:"`
    """
    run = load_language_run(folder, adapter, base)
    if no_adapter and run.record is None:
        raise ConfigError(f"--no-adapter: {folder} is a base, without an adapter to leave out")
    text = run.write(
        prompt,
        tokens,
        adapter=not no_adapter,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed or 0,
    )
    if as_json:
        used = run.record.task if run.record and not no_adapter else None
        print_json({"prompt": prompt, "text": text, "adapter": used})
    else:
        show(text)


# -- what is printed ----------------------------------------------------------------------


def pretraining_report(folder: Path, metrics: dict[str, Any]) -> str:
    tokens, name = metrics["tokens"], shlex.quote(str(folder))
    return "\n".join(
        [
            f"perplexity     {metrics['held_out_perplexity']:.2f} on {tokens['held_out']:,} "
            f"held-out tokens (epoch {metrics['best_epoch']} of {metrics['training']['epochs']} "
            "was the best)",
            f"trained        {metrics['parameters']:,} parameters on {tokens['train']:,} tokens of "
            f"{metrics['task']} in {metrics['training_seconds']:.1f} s",
            f"files          {folder}: a base in the layout of GPT-2, and history.csv, curves.png, "
            "metrics.json",
            f"next           minitransformer generate {name}",
            f"               minitransformer train --lm {HISTORIES} --base {name}",
        ]
    )

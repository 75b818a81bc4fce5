"""`minitransformer train --lm`: adapters on a frozen decoder learn another text."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..runs.language_modeling import train_language
from ..runs.options import LanguageOptions
from . import options as opt
from .app import INTERRUPTED, print_json, say, show
from .text import percent, size

# Options of `train` that have a meaning only where there are labels and a head.
NOT_USED = ("layer_norm", "pooling", "limit", "prefix_cache")


def adapt(text: str, given: opt.Given, out: Path | None, resume: bool, as_json: bool) -> int:
    """Run `minitransformer train --lm`; returns the exit status."""
    unfit = [opt.flag(name) for name in NOT_USED if name in given]
    if unfit:
        raise ConfigError(f"{unfit[0]} goes with a task that has labels, not with --lm")
    options = None
    if resume:
        out = folder_to_resume(out, {})
        opt.check_resumed(out, text, given, LanguageOptions)
    else:
        opt.check_method(given)
        method = given.get("method", LanguageOptions.method)
        options = opt.replaced(LanguageOptions(method=method), given)
    run = train_language(text, options, out, resume, progress=True)
    folder, metrics = run.folder, run.metrics
    if as_json:
        print_json({"folder": str(folder), **metrics})
    if not metrics["finished"]:
        say(interruption(["train", "--lm", text], folder, metrics))
        return INTERRUPTED
    if not as_json:
        show(adaptation_report(folder, metrics))
    return 0


def folder_to_resume(out: Path | None, given: opt.Given) -> Path:
    """Raises: ConfigError without --out, or if options were typed that the run knows already."""
    if out is None:
        raise ConfigError("--resume: say which run with --out FOLDER")
    if given:
        raise ConfigError(
            f"{opt.flag(next(iter(given)))}: leave it out with --resume; the options are in {out}"
        )
    return out.expanduser()


def adaptation_report(folder: Path, metrics: dict[str, Any]) -> str:
    tokens, name = metrics["tokens"], shlex.quote(str(folder))
    trained = metrics["trainable_parameters"]
    lines = [
        f"perplexity     {metrics['perplexity_adapter_off']:.2f} without the adapter, "
        f"{metrics['perplexity_adapter_on']:.2f} with it, on {tokens['held_out']:,} held-out "
        f"tokens of {metrics['task']}",
        f"trained        {trained:,} of {metrics['parameters']:,} parameters "
        f"({percent(trained, metrics['parameters'])}) in {metrics['training_seconds']:.1f} s "
        f"(epoch {metrics['best_epoch']} of {metrics['training']['epochs']} was the best)",
    ]
    if metrics["base_sha256_before"] == metrics["base_sha256_after"]:
        short = metrics["base_sha256_before"][:12]
        lines.append(f"base           unchanged: SHA-256 {short}... before and after")
    before, after = metrics["base_perplexity_before"], metrics["base_perplexity_after"]
    if before is not None:
        same = "the same to the last bit" if before == after else f"now {after!r}"
        lines.append(f"               perplexity on its own text {before!r}; {same}")
    file = folder / f"{metrics['method']}.safetensors"
    lines += [
        f"files          {file} ({size(metrics['file_bytes'])}), and "
        "history.csv, curves.png, metrics.json",
        f"next           minitransformer generate {name}",
        f"               minitransformer generate {name} --no-adapter",
    ]
    return "\n".join(lines)


def interruption(command: list[str], folder: Path, metrics: dict[str, Any]) -> str:
    """What is there after Ctrl-C, and how to go on."""
    best = metrics["best_epoch"]
    when = "as it was when you stopped" if best is None else f"as after epoch {best}, the best"
    again = shlex.join(["minitransformer", *command, "--resume", "--out", str(folder)])
    return (
        f"interrupted after {metrics['steps']} steps. Saved in {folder}: what was learnt, {when}.\n"
        f"To go on from there:\n  {again}"
    )

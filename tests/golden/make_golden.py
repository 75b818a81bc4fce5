"""Write the golden arrays: what PyTorch, transformers, adapters and PEFT compute.

    python tests/golden/make_golden.py            # all files, in place
    python tests/golden/make_golden.py --out DIR --only functional layers

Needs the libraries in requirements.txt beside this file. The part `minilm` reads the real weights
and sentences, through this library's own download.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]  # tests/ for reference, and the project

from reference.names import Arrays  # noqa: E402

SEEDS = {
    "functional": 1, "layers": 2, "tiny_bert": 3, "tiny_gpt2": 4, "minilm": 5,
    # the same models and batches again, with all that may be added to them
    "placements_bert": 3, "placements_gpt2": 4, "placements_minilm": 6,
    "methods_bert": 3, "methods_gpt2": 4, "heads_bert": 3,
}  # fmt: skip


def make(part: str, out: Path) -> Arrays:
    """The arrays of one file; the parts `*_bert` also leave the weights as a folder in `out`."""
    import torch

    from reference import functions, heads, methods, minilm, models, placements, tiny

    torch.manual_seed(0)  # every weight is drawn by NumPy; this is for what nobody thought of
    rng = np.random.default_rng(SEEDS[part])
    folder = out / "tiny_bert"
    if part.endswith("_bert"):
        models.save_tiny_bert(folder, rng)
    if part in ("functional", "layers"):
        return getattr(functions, part)(rng)
    if part == "tiny_bert":
        return tiny.bert(folder, rng)
    if part == "heads_bert":
        return heads.bert(folder, rng)
    if part == "placements_bert":
        return placements.bert(folder, tiny.bert_batch(rng))
    if part == "tiny_gpt2":
        return tiny.gpt2(rng)
    if part == "placements_gpt2":
        return placements.gpt2(*tiny.gpt2_batch(rng))
    if part == "methods_bert":
        return methods.bert(folder, tiny.bert_batch(rng))
    if part == "methods_gpt2":
        return methods.gpt2(*tiny.gpt2_batch(rng))
    golden = minilm.golden if part == "minilm" else placements.minilm_golden
    return golden(minilm.weights_folder(), minilm.reviews_file(), rng)


def main(arguments: list[str] | None = None) -> None:
    """Make the parts that were asked for."""
    parser = argparse.ArgumentParser(description="write the golden arrays")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--only", nargs="+", choices=SEEDS, default=list(SEEDS))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for part in options.only:
        arrays = make(part, options.out)
        path = options.out / f"{part}.npz"
        np.savez_compressed(path, **arrays)
        print(f"{path.name}: {len(arrays)} arrays, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

"""Tokens a second of greedy generation, with the key/value cache, against `transformers`.

    python benchmarks/generation.py
    python benchmarks/generation.py --quick

Both sides read the same checkpoint: a decoder of GPT-2's shape with random weights (speed does not
depend on their values), written by `transformers`. They take turns in processes of their own and
must generate the same tokens.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from report import arguments, show, write
from turns import Side, Worker, paired, take_turns

PROMPT, NEW, BATCHES, ROUNDS = 32, 128, (1, 8), 7
SHAPE = {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257}
QUICK = {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 1024, "vocab_size": 500}


class Ours(Side):
    """This library, with the matrix library's own threads."""

    def __init__(self, threads: int, folder: str) -> None:
        from threadpoolctl import threadpool_limits

        import minitransformer as mt

        threadpool_limits(threads, user_api="blas")
        self.model = mt.LanguageModel(mt.Transformer.from_pretrained(folder))

    def generate(self, turn: int, ids: np.ndarray, new: int) -> tuple[float, np.ndarray]:
        """Seconds, and the tokens (B, T + new)."""
        from minitransformer.models.generation import generate

        started = time.perf_counter()
        out = generate(self.model, ids, new)
        return time.perf_counter() - started, out


class Theirs(Side):
    """`transformers`, in inference mode."""

    def __init__(self, threads: int, folder: str) -> None:
        import torch
        from transformers import GPT2LMHeadModel

        torch.set_num_threads(threads)
        self.model = GPT2LMHeadModel.from_pretrained(folder).eval()

    def generate(self, turn: int, ids: np.ndarray, new: int) -> tuple[float, np.ndarray]:
        """Seconds, and the tokens (B, T + new)."""
        import torch

        given = torch.from_numpy(ids)
        started = time.perf_counter()
        with torch.inference_mode():
            out = self.model.generate(
                given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                pad_token_id=0,
            )
        return time.perf_counter() - started, out.numpy()


def write_checkpoint(folder: Path, shape: dict[str, int]) -> None:
    """A decoder with random weights, large enough that the likeliest token is no matter of luck."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**shape, initializer_range=0.05, eos_token_id=None))
    model.save_pretrained(folder)


def timer(worker: Worker, ids: np.ndarray, new: int) -> Callable[[int], float]:
    return lambda turn: float(worker.call("generate", turn, ids, new)[0])


def main() -> None:
    args = arguments(__doc__).parse_args()
    shape, rounds, new = (QUICK, 2, 16) if args.quick else (SHAPE, ROUNDS, NEW)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        write_checkpoint(Path(folder), shape)
        workers = {
            name: stack.enter_context(
                Worker(f"generation:{kind}", threads=args.threads, folder=folder)
            )
            for name, kind in (("ours", "Ours"), ("transformers", "Theirs"))
        }
        rng = np.random.default_rng(0)
        for batch in BATCHES:
            ids = rng.integers(0, shape["vocab_size"], (batch, PROMPT))
            tokens = {name: w.call("generate", 0, ids, new)[1] for name, w in workers.items()}
            same = float((tokens["ours"] == tokens["transformers"]).mean())
            sides = {name: timer(worker, ids, new) for name, worker in workers.items()}
            turns = take_turns(sides, rounds)
            rates = {name: batch * new / float(np.median(s)) for name, s in turns.items()}
            ratio = paired(turns["transformers"], turns["ours"])
            rows.append(
                {"batch": batch, "rates": rates, "ratio": ratio, "same": same, "seconds": turns}
            )
    table = [
        {
            "batch": str(row["batch"]),
            "ours, tokens/s": f"{row['rates']['ours']:.1f}",
            "transformers, tokens/s": f"{row['rates']['transformers']:.1f}",
            "ours / transformers": f"{row['ratio']['median']:.2f} "
            f"({row['ratio']['low']:.2f}-{row['ratio']['high']:.2f})",
            "same tokens": f"{row['same']:.1%}",
        }
        for row in rows
    ]
    show(f"Greedy generation, prompt {PROMPT}, {new} new tokens, {args.threads} threads", table)
    write("generation", args, {"shape": shape, "prompt": PROMPT, "new": new, "rows": rows})


if __name__ == "__main__":
    main()

"""Pretrain "tiny", the encoder that comes with the library, from nothing, in NumPy.

    python scripts/pretrain_tiny.py [--steps N] [--batch-size N] [--lr X] [--seed N] [--out FOLDER]

The objective is BERT's masked language model (Devlin et al. 2019, arXiv 1810.04805, section 3.1)
on unlabelled sentences of `minitransformer.data.toy_reviews`, with two changes that a small model
on a few minutes of data needs: words of opinion are hidden more often than others (salient span
masking, Guu et al. 2020, arXiv 2002.08909), because most gaps can be filled from the neighbouring
words alone; and the start values are wider than BERT's, whose sigma is meant for 768 columns.

Writes config.json, model.safetensors, tokenizer.json, and pretraining.json with what was measured.
The same seed gives the same files, bit for bit, on the same machine and NumPy.
"""

from __future__ import annotations

import argparse
import json
import string
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from tqdm.auto import tqdm

from minitransformer import CrossEntropy, LanguageModel, Transformer, TransformerConfig
from minitransformer.data.tokenization import Tokenizer, pad
from minitransformer.data.toy_reviews import generate_sentences, opinion_words, vocabulary
from minitransformer.formats.checkpoint import write_checkpoint
from minitransformer.formats.files import write_text
from minitransformer.nn.functional import IGNORE
from minitransformer.nn.module import Array
from minitransformer.training.optim import AdamW, clip_by_global_norm, warmup_linear_decay
from minitransformer.training.process import keep_freed_memory, single_threaded_products

TINY = Path(__file__).parent.parent / "minitransformer" / "data" / "assets" / "tiny"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MASK = SPECIAL.index("[MASK]")


@dataclass(frozen=True)
class Options:
    """How to pretrain.

    Attributes:
        sigma: of the start values.
        mask_rate, opinion_rate: the share of ordinary tokens, and of words of opinion, to hide.
        held_out: sentences to measure on.
    """

    steps: int = 8000
    batch_size: int = 64
    lr: float = 3e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    sigma: float = 0.1
    mask_rate: float = 0.05
    opinion_rate: float = 0.5
    held_out: int = 2000
    seed: int = 0


# -------------------------------------------------------------------------------------- tokenizer


def make_tokenizer() -> Backend:
    """BERT's tokenizer with the grammar's words, and letters and digits to spell any other word."""
    characters = string.ascii_lowercase + string.digits
    tokens = [*SPECIAL, *string.punctuation, *characters, *(f"##{c}" for c in characters)]
    tokens += [word for word in vocabulary() if word not in tokens]
    ids = {token: i for i, token in enumerate(tokens)}

    tokenizer = Backend(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=60))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


# ---------------------------------------------------------------------------------------- masking


def mask_rates(tokenizer: Backend, options: Options) -> Array:
    """(vocab_size,) how often each token is hidden; special tokens never."""
    rates = np.full(tokenizer.get_vocab_size(), options.mask_rate)
    ids = tokenizer.get_vocab()
    rates[[ids[word] for word in sorted(opinion_words())]] = options.opinion_rate
    rates[: len(SPECIAL)] = 0
    return rates


def mask_tokens(ids: Array, rates: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Hide tokens: 80 % become [MASK], 10 % a random token, 10 % stay (section 3.1).

    Shapes: ids (B, T) -> masked ids, and labels (B, T): the hidden token, IGNORE elsewhere.
    """
    hidden = rng.random(ids.shape) < rates[ids]
    fate = rng.random(ids.shape)
    chance = rng.integers(len(SPECIAL), len(rates), ids.shape)
    masked = np.where(hidden & (fate < 0.8), MASK, np.where(hidden & (fate >= 0.9), chance, ids))
    return masked, np.where(hidden, ids, IGNORE)


# --------------------------------------------------------------------------------------- training


def start_model(vocab_size: int, options: Options, rng: np.random.Generator) -> LanguageModel:
    config = TransformerConfig(
        vocab_size, d_model=64, n_layers=2, n_heads=4, d_ff=256, max_positions=64, token_types=2
    )
    # Without a bias the encoder alone is the language model, head included.
    model = LanguageModel(Transformer(config, rng), bias=False)
    for parameter in model.parameters():
        if parameter.value.ndim == 2:
            parameter.value *= options.sigma / 0.02  # 0.02: what the library starts with
    return model


def pretrain(
    model: LanguageModel, sequences: list[list[int]], rates: Array, options: Options
) -> None:
    """One pass over the sentences, each batch of similar length."""
    rng = np.random.default_rng([options.seed, 2])
    parameters = model.trainable_parameters()
    optimizer = AdamW(parameters, options.lr, weight_decay=options.weight_decay)
    schedule = warmup_linear_decay(options.lr, int(options.warmup * options.steps), options.steps)
    loss_of, recent = CrossEntropy(), float("nan")
    model.train()
    with tqdm(total=options.steps, unit="step") as bar:
        for step, batch in enumerate(batches_of(sequences, options.batch_size, rng)):
            ids, attention_mask = pad(batch)
            masked, labels = mask_tokens(ids, rates, rng)
            model.zero_grad()
            loss = loss_of(model(masked, attention_mask), labels)
            model.backward(loss_of.backward())
            clip_by_global_norm(parameters, options.max_grad_norm)
            optimizer.lr = schedule(step)
            optimizer.step()
            recent = loss if step == 0 else 0.99 * recent + 0.01 * loss
            bar.update()
            bar.set_postfix(loss=f"{recent:.3f}", refresh=False)


def batches_of(
    sequences: list[list[int]], batch_size: int, rng: np.random.Generator
) -> list[list[list[int]]]:
    """Batches of similar length, in random order, so that little is spent on padding."""
    pool, batches = 50 * batch_size, []
    for start in range(0, len(sequences), pool):
        members = sorted(sequences[start : start + pool], key=len)
        found = [members[i : i + batch_size] for i in range(0, len(members), batch_size)]
        batches += [found[i] for i in rng.permutation(len(found))]
    return batches


def evaluate(model: LanguageModel, sequences: list[list[int]], rates: Array) -> dict[str, float]:
    """Loss and accuracy on hidden tokens, the same ones each time; words of opinion apart."""
    rng = np.random.default_rng(0)
    losses, right, opinions = [], [], []
    model.eval()
    for start in range(0, len(sequences), 100):
        ids, attention_mask = pad(sequences[start : start + 100])
        masked, labels = mask_tokens(ids, rates, rng)
        counted = labels != IGNORE
        logits, wanted = model(masked, attention_mask)[counted], labels[counted]  # (N, V), (N,)
        losses.append(CrossEntropy()(logits, wanted) * len(wanted))
        right.append(logits.argmax(axis=1) == wanted)
        opinions.append(rates[wanted] == rates.max())
    hit, opinion = np.concatenate(right), np.concatenate(opinions)
    return {
        "loss": round(sum(losses) / len(hit), 4),
        "accuracy": round(float(hit.mean()), 4),
        "accuracy_opinion_words": round(float(hit[opinion].mean()), 4),
    }


# ------------------------------------------------------------------------------------------- main


def run(options: Options, out: Path) -> dict[str, object]:
    """Pretrain and write everything into `out`; returns what pretraining.json holds."""
    tokenizer = make_tokenizer()
    rates = mask_rates(tokenizer, options)
    encode = Tokenizer(tokenizer).encode
    seeds = np.random.default_rng([options.seed, 1]).integers(1 << 31, size=2)
    sentences = generate_sentences(options.steps * options.batch_size, int(seeds[0]))
    seen = set(sentences)
    others = generate_sentences(2 * options.held_out, int(seeds[1]))
    held_out = [text for text in others if text not in seen][: options.held_out]

    rng = np.random.default_rng([options.seed, 0])
    model = start_model(tokenizer.get_vocab_size(), options, rng)
    config = model.transformer.config
    test = encode(held_out, config.max_positions)
    before = evaluate(model, test, rates)
    print("before", before)
    started = time.perf_counter()
    keep_freed_memory()
    with single_threaded_products:  # the same sums in the same order on any number of cores
        pretrain(model, encode(sentences, config.max_positions), rates, options)
    seconds = time.perf_counter() - started
    after = evaluate(model, test, rates)
    print("after ", after)

    state = {name: array.copy() for name, array in model.transformer.state_dict().items()}
    write_checkpoint(out, config, state)
    # A fresh one: encoding has left its truncation setting in the other.
    write_text(out / "tokenizer.json", make_tokenizer().to_str() + "\n")
    default = asdict(Options())
    changed = [
        f"--{name.replace('_', '-')} {value}"
        for name, value in asdict(options).items()
        if value != default[name]
    ]
    found = {
        "command": " ".join(["python scripts/pretrain_tiny.py", *changed]),
        "options": asdict(options),
        "sentences": len(sentences),
        "before": before,
        "after": after,
    }
    write_text(out / "pretraining.json", json.dumps(found, indent=2) + "\n")
    print(f"{seconds:.0f} s; written to {out}")
    return found


def main() -> None:
    default = Options()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--batch-size", type=int, default=default.batch_size)
    parser.add_argument("--lr", type=float, default=default.lr)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--out", type=Path, default=TINY)
    args = parser.parse_args()
    options = Options(args.steps, args.batch_size, args.lr, seed=args.seed)
    run(options, args.out)


if __name__ == "__main__":
    main()

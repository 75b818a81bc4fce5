"""GPT-2 against transformers: checkpoints both ways, logits, generation, what sampling excludes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.data.tokenization import pad
from minitransformer.models.generation import keep_likely

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import transformers  # noqa: E402
from transformers.generation import logits_process  # noqa: E402

from reference.models import randomize  # noqa: E402

pytestmark = [
    pytest.mark.reference,
    pytest.mark.filterwarnings("default"),  # other libraries' affairs
]
Array = np.ndarray
VOCAB, POSITIONS = 97, 80
RTOL = {"float32": 1e-5, "float64": 1e-10}


@pytest.fixture(scope="module", params=["gelu_new", "relu"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 with a language-model head, as transformers writes it."""
    config = transformers.GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=3, n_head=4, n_positions=POSITIONS,
        n_inner=None if request.param == "gelu_new" else 48, activation_function=request.param,
        layer_norm_epsilon=1e-4, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    randomize(dict(model.transformer.named_parameters()), np.random.default_rng(4))
    with torch.no_grad():  # else the output embedding, being the input's, repeats the last token
        model.transformer.wte.weight.mul_(0.2)
        model.transformer.wpe.weight.mul_(2)
    path = tmp_path_factory.mktemp("gpt2")
    model.save_pretrained(path)
    return path


@pytest.fixture
def ids() -> Array:
    return np.random.default_rng(1).integers(1, VOCAB, (3, 12))


def theirs(folder: Path, dtype: str = "float32") -> transformers.GPT2LMHeadModel:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=getattr(torch, dtype)
    )
    model.generation_config.eos_token_id = None  # do not stop
    return model.eval()


def ours(folder: Path, dtype: str = "float32") -> mt.LanguageModel:
    return mt.LanguageModel(mt.Transformer.from_pretrained(folder).astype(dtype)).eval()


def assert_close(actual: Array, expected: Array) -> None:
    error, size = np.abs(actual - expected).max(), np.abs(expected).max()
    assert error <= RTOL[str(expected.dtype)] * size, f"off by {error} at size {size}"


@torch.no_grad()
@pytest.mark.parametrize("dtype", RTOL)
def test_logits(folder: Path, ids: Array, dtype: str) -> None:
    expected = theirs(folder, dtype)(torch.from_numpy(ids)).logits.numpy()
    assert_close(ours(folder, dtype)(ids), expected)


@torch.no_grad()
@pytest.mark.parametrize("dtype", RTOL)
def test_our_folder_read_by_transformers(
    folder: Path, ids: Array, dtype: str, tmp_path: Path
) -> None:
    model = ours(folder)
    model.transformer.save_pretrained(tmp_path)
    found, info = transformers.GPT2LMHeadModel.from_pretrained(
        tmp_path, dtype=getattr(torch, dtype), output_loading_info=True
    )
    assert not any(info.values()), info
    expected = model.astype(dtype)(ids)
    assert_close(found.eval()(torch.from_numpy(ids)).logits.numpy(), expected)
    assert found.config.eos_token_id is None


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3])
def test_greedy_generation(folder: Path, ids: Array, rows: int) -> None:
    prompts = ids[:rows]
    expected = theirs(folder).generate(
        torch.from_numpy(prompts), attention_mask=torch.ones(rows, 12), max_new_tokens=64,
        do_sample=False, pad_token_id=0,
    ).numpy()  # fmt: skip
    assert expected.shape == (rows, 76)
    assert min(len(np.unique(row[12:])) for row in expected) > 20  # a lively text
    assert np.array_equal(mt.generate(ours(folder), prompts, 64), expected)


@torch.no_grad()
def test_greedy_generation_from_prompts_of_unequal_length(folder: Path, ids: Array) -> None:
    prompts, mask = pad(
        [row[:n].tolist() for row, n in zip(ids, (12, 3, 7), strict=True)], left=True
    )
    expected = theirs(folder).generate(
        torch.from_numpy(prompts), attention_mask=torch.from_numpy(mask), max_new_tokens=64,
        do_sample=False, pad_token_id=0,
    ).numpy()  # fmt: skip
    found = mt.generate(ours(folder), prompts, 64, attention_mask=mask)
    assert np.array_equal(found, expected)


@torch.no_grad()
def test_stops_where_transformers_stops(folder: Path, ids: Array) -> None:
    stop = int(mt.generate(ours(folder), ids, 20)[1, 17])
    expected = theirs(folder).generate(
        torch.from_numpy(ids), attention_mask=torch.ones(ids.shape), max_new_tokens=64,
        do_sample=False, pad_token_id=stop, eos_token_id=stop,
    ).numpy()  # fmt: skip
    assert np.array_equal(mt.generate(ours(folder), ids, 64, stop_id=stop), expected)


@pytest.mark.parametrize("top_k", [None, 1, 7, 500])
@pytest.mark.parametrize("top_p", [None, 0.05, 0.5, 0.95])
def test_what_sampling_excludes(top_k: int | None, top_p: float | None) -> None:
    logits = 3 * np.random.default_rng(6).standard_normal((20, VOCAB))
    expected = torch.from_numpy(logits)
    if top_k is not None:
        expected = logits_process.TopKLogitsWarper(top_k)(None, expected)
    if top_p is not None:
        expected = logits_process.TopPLogitsWarper(top_p)(None, expected)
    assert np.array_equal(keep_likely(logits, top_k, top_p), expected.numpy())


def test_tokenizer_both_ways(tmp_path: Path) -> None:
    lines = ["Shall I compare thee to a summer's day?\n", "Thou art more lovely\n"] * 4
    tokenizer = mt.Tokenizer.train_bpe(lines, 290)
    config = mt.TransformerConfig(290, 8, 1, 2, 8, 16, norm="pre", causal=True)
    mt.Transformer(config).save_pretrained(tmp_path / "ours", tokenizer)
    found = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert isinstance(found, transformers.GPT2TokenizerFast)
    assert found.eos_token_id == tokenizer.end_id
    texts = [*lines, "déjà vu 日本 🙂", "  two  spaces<|endoftext|>\n"]
    assert found(texts)["input_ids"] == tokenizer.encode(texts)

    found.save_vocabulary(str(tmp_path))  # GPT-2's older form: vocab.json and merges.txt
    assert mt.Tokenizer.from_folder(tmp_path).encode(texts) == tokenizer.encode(texts)

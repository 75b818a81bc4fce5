"""RoBERTa and DistilBERT against transformers: hidden states, every gradient, files both ways."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.errors import HubError
from minitransformer.nn.module import Array

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import transformers  # noqa: E402

from reference import names  # noqa: E402
from reference.models import gradients, randomize  # noqa: E402

pytestmark = [
    pytest.mark.reference,
    pytest.mark.filterwarnings("default"),  # other libraries' affairs
]
PAD = 1
TOLERANCE = {"float32": 2e-5, "float64": 1e-10}
CONFIGS = {
    "roberta": transformers.RobertaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=20, type_vocab_size=1, layer_norm_eps=1e-5,
        pad_token_id=PAD, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    ),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=60, dim=32, n_layers=3, n_heads=4, hidden_dim=48, max_position_embeddings=20,
        pad_token_id=PAD, dropout=0.0, attention_dropout=0.0, activation="relu",
    ),
}  # fmt: skip
MODELS = {"roberta": transformers.RobertaModel, "distilbert": transformers.DistilBertModel}
HEADS = {
    "roberta": transformers.RobertaForMaskedLM,
    "distilbert": transformers.DistilBertForSequenceClassification,
}
RENAMED: dict[str, names.Renaming] = {"roberta": names.bert, "distilbert": names.distilbert}


@pytest.fixture(params=sorted(CONFIGS))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(family: str, tmp_path: Path) -> Path:
    """A random base, as transformers writes it."""
    model = MODELS[family](CONFIGS[family])
    randomize(dict(model.named_parameters()), np.random.default_rng(3))
    model.save_pretrained(tmp_path / family)
    return tmp_path / family


@pytest.fixture
def batch() -> tuple[Array, Array]:
    """ids and attention_mask (3, 11), padded on the right as the family's tokenizer does."""
    mask = (np.arange(11) < np.array([11, 7, 4])[:, None]).astype(np.int64)
    ids = np.random.default_rng(1).integers(PAD + 1, 60, mask.shape)
    return np.where(mask == 1, ids, PAD), mask


def theirs(folder: Path, dtype: str) -> transformers.PreTrainedModel:
    model = transformers.AutoModel.from_pretrained(
        folder, attn_implementation="eager", dtype=getattr(torch, dtype)
    )
    return model.eval()


def relative_error(ours: Array, reference: Array) -> float:
    return float(np.abs(ours - reference).max() / np.abs(reference).max())


@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
def test_hidden_states_and_every_gradient(
    family: str,
    folder: Path,
    batch: tuple[Array, Array],
    dtype: str,
    record_property: Callable[[str, object], None],
) -> None:
    ids, mask = batch
    reference, ours = theirs(folder, dtype), mt.Transformer.from_pretrained(folder).astype(dtype)
    out = reference(torch.tensor(ids), attention_mask=torch.tensor(mask), output_hidden_states=True)
    errors = {
        f"hidden.{i}": relative_error(ours.forward_below(i, ids, mask), h.detach().numpy())
        for i, h in enumerate(out.hidden_states)
    }
    assert len(errors) == ours.config.n_layers + 1

    weights = np.random.default_rng(2).standard_normal(out.last_hidden_state.shape).astype(dtype)
    weights *= mask[..., None]  # what stands at padding does not count
    loss = (out.last_hidden_state * torch.tensor(weights)).sum()
    found = RENAMED[family](gradients(loss, reference))
    ours.train()
    ours(ids, mask)
    ours.backward(weights)
    own = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    assert own.keys() == found.keys()
    assert len(own) == 12 * 3 + 4 + (family == "roberta")  # blocks, embeddings, a token type
    size = max(np.abs(g).max() for g in found.values())
    for name, gradient in own.items():  # key biases: zero but for rounding
        expected = found[name]
        own_size = max(float(np.abs(expected).max()), 1e-3 * size)
        errors[name] = float(np.abs(gradient - expected).max() / own_size)
    worst = max(errors, key=lambda name: errors[name])
    print(f"{family} {dtype}: largest relative error {errors[worst]:.2g} at {worst}")
    record_property("worst", (worst, errors[worst]))
    assert errors[worst] < TOLERANCE[dtype], worst


def test_pooler(batch: tuple[Array, Array], tmp_path: Path) -> None:
    model = transformers.RobertaModel(CONFIGS["roberta"])
    randomize(dict(model.named_parameters()), np.random.default_rng(4))
    model.save_pretrained(tmp_path)
    ours = mt.Transformer.from_pretrained(tmp_path).astype("float64")
    assert ours.pooler is not None
    expected = theirs(tmp_path, "float64")(
        torch.tensor(batch[0]), attention_mask=torch.tensor(batch[1])
    )
    pooled = ours.pooler(ours(*batch)[:, 0])
    np.testing.assert_allclose(pooled, expected.pooler_output.detach().numpy(), rtol=1e-10)


def test_what_is_written_here_is_read_there(
    family: str, folder: Path, batch: tuple[Array, Array], tmp_path: Path
) -> None:
    mt.Transformer.from_pretrained(folder).save_pretrained(tmp_path / "again")
    ids, mask = map(torch.tensor, batch)
    one, other = (theirs(path, "float32") for path in (folder, tmp_path / "again"))
    assert type(one) is type(other)
    assert one.config.to_diff_dict().keys() >= other.config.to_diff_dict().keys() - {"pad_token_id"}
    expected = one(ids, attention_mask=mask).last_hidden_state
    assert torch.equal(other(ids, attention_mask=mask).last_hidden_state, expected)


def test_the_prefix_and_heads_of_other_tasks(
    family: str, batch: tuple[Array, Array], tmp_path: Path
) -> None:
    model = HEADS[family](CONFIGS[family])
    model.save_pretrained(tmp_path)
    expected = getattr(model.eval(), family)(*map(torch.tensor, batch)).last_hidden_state
    hidden = mt.Transformer.from_pretrained(tmp_path)(*batch)
    np.testing.assert_allclose(hidden, expected.detach().numpy(), atol=2e-5)


def test_bfloat16_and_shards(family: str, folder: Path, batch: tuple[Array, Array]) -> None:
    half = theirs(folder, "bfloat16")
    half.save_pretrained(folder.with_name("half"))
    half.save_pretrained(folder.with_name("shards"), max_shard_size="20KB")
    assert len(list(folder.with_name("shards").glob("*.safetensors"))) > 2
    expected = mt.Transformer.from_pretrained(folder.with_name("half"))
    values = RENAMED[family](
        {name: p.detach().float().numpy() for name, p in half.named_parameters()}
    )
    for name, value in expected.state_dict().items():
        assert value.dtype == np.float32
        assert np.array_equal(value, values[name]), name
    in_shards = mt.Transformer.from_pretrained(folder.with_name("shards"))
    assert np.array_equal(in_shards(*batch), expected(*batch))


def test_the_command_that_converts_a_pickle(
    family: str, folder: Path, batch: tuple[Array, Array]
) -> None:
    expected = mt.Transformer.from_pretrained(folder)(*batch)
    model = theirs(folder, "float32")
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, safe_serialization=False)
    with pytest.raises(HubError, match="convert it once") as caught:
        mt.Transformer.from_pretrained(folder)
    command = str(caught.value).split("python -c ")[1].strip('"')
    subprocess.run([sys.executable, "-c", command], check=True, capture_output=True)
    assert np.array_equal(mt.Transformer.from_pretrained(folder)(*batch), expected)


def test_byte_level_tokens_of_roberta(tmp_path: Path) -> None:
    """RoBERTa's tokenizer.json: <s> text </s>, padded with <pad>."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing

    texts = ["A film that never talks down to its audience.", "naïve façade, 10 €"]
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(texts, vocab_size=300, special_tokens=special, show_progress=False)
    trained.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    trained.save(str(tmp_path / "tokenizer.json"))
    reference = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="<pad>"
    )
    ours = mt.Tokenizer.from_folder(tmp_path)
    assert ours.pad_id == PAD
    ids, mask = mt.pad(ours.encode(texts), ours.pad_id)
    expected = reference(texts, padding=True)
    assert ids.tolist() == expected["input_ids"] and mask.tolist() == expected["attention_mask"]
    assert ours.decode(ids[1]) == texts[1]

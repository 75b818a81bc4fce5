"""The model card in an exported folder: what it says is so, and its commands run."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.cli import main

CONFIGS: dict[str, Any] = {
    "adapter": mt.AdapterConfig(4),
    "lora": mt.LoRAConfig(2),
}
EXPORTS = {"adapter": mt.export_adapterhub, "lora": mt.export_peft}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with a pooler, which PEFT's classifier reads."""
    tiny, folder = mt.Transformer.from_pretrained("tiny"), tmp_path_factory.mktemp("the base")
    model = mt.Transformer(replace(tiny.config, pooler=True))
    model.load_state_dict({**model.state_dict(), **tiny.state_dict()})
    model.save_pretrained(folder, mt.Tokenizer.from_pretrained("tiny"))
    return folder


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def exported(
    request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[mt.Run, Path]:
    """A run on the toy reviews, and the folder that it is exported to."""
    home, method = tmp_path_factory.mktemp("exported"), request.param
    training = mt.TrainingOptions(epochs=1)
    options = mt.RunOptions(
        str(base), method, CONFIGS[method], pooling="pooler", limit=64, training=training
    )
    run = mt.train("toy-reviews", options, home / "run")
    return run, EXPORTS[method](run.folder, home / "my folder")


def blocks(folder: Path, language: str) -> list[str]:
    card = (folder / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", card, re.DOTALL)


def test_what_it_says(exported: tuple[mt.Run, Path], base: Path) -> None:
    run, folder = exported
    card = (folder / "README.md").read_text(encoding="utf-8")
    metrics, record = run.metrics, run.record
    for fact in (
        f"`{base}`: 2 blocks, width 64",
        f"`{record.fingerprint}`",
        "| task | `toy-reviews` |",
        "| labels | negative, positive |",
        "at most 64 training examples",
        str(CONFIGS[record.method]),
        f"{metrics['trainable_parameters']:,} of {metrics['parameters']:,} parameters",
        "epochs 1, batch_size 32",
        f"| test accuracy | {metrics['test_accuracy']:.4f} | ",
    ):
        assert fact in card, fact
    low, high = re.findall(r"test accuracy \| [\d.]+ \| ([\d.]+) to ([\d.]+) ", card)[0]
    assert float(low) < metrics["test_accuracy"] < float(high)
    front = card.split("---\n")[1]
    assert json.loads(front.splitlines()[0].removeprefix("library_name: ")) in ("adapters", "peft")


def test_its_commands_run(
    exported: tuple[mt.Run, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, folder = exported
    monkeypatch.chdir(folder.parent)
    for line in blocks(folder, "sh")[0].splitlines():
        program, *arguments = shlex.split(line)
        assert program == "minitransformer"
        assert main(arguments) == 0, line
    assert run.predict(["some text"])[0].label in capsys.readouterr().out


def test_without_figures(exported: tuple[mt.Run, Path], tmp_path: Path) -> None:
    run, _ = exported
    alone = tmp_path / f"{run.record.method}.safetensors"  # the adapter file without its folder
    alone.write_bytes((run.folder / alone.name).read_bytes())
    folder = EXPORTS[run.record.method](alone, tmp_path / "there")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "None: the run that was exported has no `metrics.json`" in card


def test_the_id_of_a_known_base(exported: tuple[mt.Run, Path], tmp_path: Path) -> None:
    from minitransformer.runs.card import model_card

    run, _ = exported
    known = mt.Run(run.folder, replace(run.record, base="roberta-base"), run.model, run.tokenizer)
    card = model_card(known, tmp_path / "there", "adapters")
    assert 'base_model: "FacebookAI/roberta-base"' in card
    assert "AutoAdapterModel.from_pretrained('FacebookAI/roberta-base')" in card


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")  # those of other packages
def test_its_python_loads_the_folder_there(
    exported: tuple[mt.Run, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder = exported
    torch = pytest.importorskip("torch")
    pytest.importorskip("adapters" if run.record.method == "adapter" else "peft")
    monkeypatch.chdir(folder.parent)
    names: dict[str, Any] = {}
    exec(blocks(folder, "python")[0], names)
    ids, mask = mt.pad(run.tokenizer.encode(["a wonderful film", "the meal was not good at all"]))
    model = names["model"].eval()
    with torch.no_grad():
        logits = model(torch.tensor(ids), attention_mask=torch.tensor(mask)).logits.numpy()
    np.testing.assert_allclose(run.model.eval()(ids, mask), logits, atol=1e-5)

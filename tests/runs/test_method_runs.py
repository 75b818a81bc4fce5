"""Every method from a task's name to predictions: trained, saved, loaded."""

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.adapters.config import CONFIGS, METHODS
from minitransformer.cli import main
from minitransformer.formats.adapter_file import read_adapter
from minitransformer.runs.multitask import load_runs

TEXTS = ["a wonderful film", "the meal was not good"]


def options(method: str, **changes) -> mt.RunOptions:
    training = mt.TrainingOptions(epochs=1, batch_size=16, lr=1e-2)
    return mt.RunOptions(base="tiny", method=method, limit=32, training=training, **changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, mt.Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {m: mt.train("toy-reviews", options(m), folder / m) for m in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_a_loaded_run_predicts_the_same(runs, method) -> None:
    run = runs[method]
    loaded = mt.load_run(run.folder)
    assert loaded.predict(TEXTS) == run.predict(TEXTS)
    record = read_adapter(run.folder / f"{method}.safetensors").record
    assert record.method == method
    assert record.adapter == (CONFIGS[method]() if method in CONFIGS else None) or (
        method == "adapter"  # whose width is filled in
    )
    unchanged = run.metrics["base_sha256_before"] == run.metrics["base_sha256_after"]
    assert unchanged == (method not in ("bitfit", "layer-norm", "full"))
    assert loaded.model.summary().trainable == run.metrics["trainable_parameters"]


def test_trained_with_the_configuration_that_was_asked_for(tmp_path) -> None:
    config = mt.LoRAConfig(2, targets=("up",), layers=(1,))
    run = mt.train("toy-reviews", options("lora", adapter=config), tmp_path / "run")
    assert run.record.adapter == config
    assert mt.load_run(run.folder).model.transformer.adapter_config("task") == config


def test_lora_and_others_share_one_base(runs) -> None:
    names = ("adapter", "lora", "ia3", "head")
    tasks = load_runs({name: runs[name].folder for name in names})
    found = tasks.predict(TEXTS)
    for name in names:
        alone = runs[name].predict(TEXTS)
        for one, other in zip(found[name], alone, strict=True):
            p, q = list(one.probabilities.values()), list(other.probabilities.values())
            np.testing.assert_allclose(p, q, atol=1e-5)


def test_options_of_each_method_on_the_command_line(tmp_path, capsys) -> None:
    common = ["train", "toy-reviews", "--base", "tiny", "--limit", "16", "--epochs", "1"]
    lora = ["--method", "lora", "--rank", "2", "--alpha", "4", "--targets", "query,down"]
    assert main([*common, *lora, "--layers", "1", "--out", str(tmp_path / "lora")]) == 0
    config = mt.LoRAConfig(2, 4.0, targets=("query", "down"), layers=(1,))
    assert read_adapter(tmp_path / "lora").record.adapter == config
    prefix = ["--method", "prefix", "--prefix-length", "3", "--out", str(tmp_path / "prefix")]
    assert main([*common, *prefix]) == 0
    assert read_adapter(tmp_path / "prefix").record.adapter == mt.PrefixConfig(3)
    capsys.readouterr()
    assert main([*common, "--method", "lora", "--bottleneck", "4"]) == 2
    assert "--bottleneck goes with --method adapter, not lora" in capsys.readouterr().err

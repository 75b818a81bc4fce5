"""The command line, as somebody at a shell sees it: output, files, exit status."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import minitransformer
import minitransformer as mt
from minitransformer.adapters.config import CONFIGS
from minitransformer.cli import main
from minitransformer.cli.options import whole_numbers
from minitransformer.costs.comparison import compare_methods
from minitransformer.costs.parameters import SHAPES
from minitransformer.costs.step import count_step
from minitransformer.data.datasets import TASKS, load_task
from minitransformer.errors import ConfigError
from minitransformer.formats.adapter_file import read_adapter
from minitransformer.runs.classification import load_run

COMMANDS = [
    *("train", "evaluate", "compare", "predict", "pretrain", "generate", "export", "import"),
    *("cost", "gradcheck", "tasks", "demo"),
]
QUICK = ["--limit", "150", "--epochs", "1", "--bottleneck", "4"]
ROOT = Path(minitransformer.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
PROGRAM = [sys.executable, "-m", "minitransformer"]


@dataclass
class Said:
    status: int
    out: str
    err: str


def call(*arguments: object, stdin: bytes = b"") -> Said:
    """Run the program in this process."""
    out, err, before = io.StringIO(), io.StringIO(), sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with redirect_stdout(out), redirect_stderr(err):
            status = main([str(argument) for argument in arguments])
    finally:
        sys.stdin = before
    return Said(status, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A run folder, and what `train` said."""
    folder = tmp_path_factory.mktemp("runs") / "a run"
    said = call("train", "toy-reviews", "--base", "tiny", *QUICK, "--out", folder)
    assert said.status == 0, said.err
    return folder, said


@pytest.fixture(scope="module")
def folder(trained: tuple[Path, Said]) -> Path:
    return trained[0]


# -- help ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command: str) -> None:
    for flag in ("--help", "-h"):
        said = call(command, flag)
        assert said.status == 0
        assert f"minitransformer {command}" in said.out
        assert "--help" in said.out


def test_help_lists_the_commands_and_where_to_begin() -> None:
    said = call("--help")
    assert said.status == 0
    assert all(f" {command} " in said.out for command in COMMANDS)
    assert "minitransformer demo" in said.out


def test_no_command_shows_the_help_and_fails() -> None:
    said = call()
    assert said.status == 2
    assert said.out == call("--help").out


def test_version_of_the_module_as_a_program() -> None:
    run = subprocess.run(
        [*PROGRAM, "--version"], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert run.stdout == f"minitransformer {minitransformer.__version__}\n"
    assert run.stderr == ""


def test_import_of_the_library_leaves_the_command_line_out() -> None:
    code = "import sys, minitransformer; print('typer' in sys.modules, 'rich' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert run.stdout == "False False\n"


# -- bad usage, and failure ---------------------------------------------------------------

BAD_USAGE = {
    "no such command": (["tain"], "No such command 'tain'"),
    "no task": (["train"], "Missing argument 'TASK'"),
    "no such option": (["train", "toy-reviews", "--bottlenek", "3"], "--bottlenek"),
    "not a number": (["train", "toy-reviews", "--epochs", "x"], "'--epochs'"),
    "no epochs": (["train", "toy-reviews", "--epochs", "0"], "epochs=0"),
    "bottleneck": (["train", "toy-reviews", "--bottleneck", "0"], "bottleneck=0"),
    "method": (["train", "toy-reviews", "--method", "magic"], "method='magic'"),
    "activation": (["train", "toy-reviews", "--activation", "magic"], "activation 'magic'"),
    "placement": (["train", "toy-reviews", "--placement", "magic"], "placement='magic'"),
    "sites": (["train", "toy-reviews", "--sites", "head"], "sites=('head',)"),
    "scaling": (["train", "toy-reviews", "--scaling", "much"], "scaling='much'"),
    "pooling": (["train", "toy-reviews", "--pooling", "magic"], "pooling='magic'"),
    "learning rate": (["train", "toy-reviews", "--lr", "-1"], "lr=-1"),
    "layers": (["train", "toy-reviews", "--layers", "1-"], "--layers '1-'"),
    "no such layer": (["train", "toy-reviews", "--base", "tiny", "--layers", "7"], "no block 7"),
    "an adapter's option": (
        ["train", "toy-reviews", "--method", "head", "--bottleneck", "8"],
        "--bottleneck goes with --method adapter",
    ),
    "nothing to leave out": (
        ["train", "toy-reviews", "--method", "head", "--adapter-drop", "1"],
        "adapter_drop goes with one of adapter,",
    ),
    "nothing to resume": (["train", "toy-reviews", "--resume"], "--out"),
    "not a run": (["train", "toy-reviews", "--resume", "--out", "x"], "holds no run to resume"),
    "widths": (["cost", "--bottleneck", "8,x"], "'8,x'"),
    "no width": (["cost", "--bottleneck", "0"], "bottleneck=0"),
    "tolerance": (["gradcheck", "--tolerance", "-1"], "tolerance=-1"),
}

FAILURES = {
    "unknown task": (["train", "toy-review", "--base", "tiny"], "did you mean 'toy-reviews'?"),
    "no such file": (["train", "no.csv", "--base", "tiny"], "no.csv cannot be read"),
    "unknown base": (["train", "toy-reviews", "--base", "tinny"], "did you mean 'tiny'?"),
    "no run to evaluate": (["evaluate", "nowhere", "toy-reviews"], "nowhere is not a run"),
    "no run to predict": (["predict", "nowhere", "text"], "nowhere is not a run"),
    "unknown shape": (["cost", "--base", "brt-base"], "bert-base"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD_USAGE.values(), ids=BAD_USAGE.keys())
def test_bad_usage_exits_with_2(arguments: list[str], words: str) -> None:
    said = call(*arguments)
    assert said.status == 2
    assert said.out == ""
    error = said.err.splitlines()[-1]
    assert error.startswith("minitransformer: error: ")
    assert words in error
    assert not Path("runs").exists()


@pytest.mark.parametrize(("arguments", "words"), FAILURES.values(), ids=FAILURES.keys())
def test_failure_exits_with_1_and_says_one_line(arguments: list[str], words: str) -> None:
    said = call(*arguments)
    assert said.status == 1
    assert said.out == ""
    assert said.err.startswith("minitransformer: error: ")
    assert words in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--debug", "predict"], ["predict", "--debug"]])
def test_debug_shows_the_traceback(arguments: list[str]) -> None:
    said = call(*arguments, "nowhere", "text")
    assert said.status == 1
    assert "Traceback" in said.err
    assert said.err.splitlines()[-1].startswith("minitransformer: error: nowhere")


def test_damaged_weights_are_told_in_one_line(folder: Path, tmp_path: Path) -> None:
    content = (folder / "adapter.safetensors").read_bytes()
    (tmp_path / "adapter.safetensors").write_bytes(content[:-100])
    said = call("predict", tmp_path, "text")
    assert said.status == 1
    assert said.err.count("\n") == 1
    assert "truncated" in said.err


def test_a_failure_nobody_foresaw_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitransformer.cli.cost.compare_methods", lambda *_: 1 / 0)
    said = call("cost")
    assert said.status == 1
    assert said.err == "minitransformer: error: ZeroDivisionError: division by zero\n"


@pytest.mark.parametrize(
    ("text", "numbers"), [("0", (0,)), ("0,1", (0, 1)), ("3-5", (3, 4, 5)), ("0, 2-3", (0, 2, 3))]
)
def test_numbers_and_ranges(text: str, numbers: tuple[int, ...]) -> None:
    assert whole_numbers("layers", text) == numbers


@pytest.mark.parametrize("text", ["", ",", "1-", "-1", "x", "1-x", "1.5"])
def test_what_is_not_a_number_or_a_range(text: str) -> None:
    with pytest.raises(ConfigError, match="expected numbers"):
        whole_numbers("layers", text)


# -- train --------------------------------------------------------------------------------


def test_train_reports_what_it_wrote(trained: tuple[Path, Said]) -> None:
    folder, said = trained
    metrics = json.loads((folder / "metrics.json").read_text())
    assert f"{metrics['test_accuracy']:.4f}" in said.out
    assert f"{metrics['trainable_parameters']:,}" in said.out
    assert "unchanged" in said.out
    for name in ("adapter.safetensors", "curves.png", "history.csv", "options.json"):
        assert (folder / name).is_file()
        assert name in said.out
    assert "step" in said.err  # the progress bar


def test_the_next_command_can_be_pasted(trained: tuple[Path, Said]) -> None:
    _, said = trained
    command = said.out[said.out.index("minitransformer predict") :].splitlines()[0]
    said = call(*shlex.split(command)[1:])
    assert said.status == 0
    assert said.out.endswith("your own text\n")


def test_trainable_parameters_are_those_of_the_cost_tables(folder: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    _, adapter, *_ = compare_methods("tiny", bottlenecks=[4])["methods"]
    assert metrics["trainable_parameters"] == adapter["trained"]


def test_train_as_json_for_a_program() -> None:
    said = call("train", "toy-reviews", "--base", "tiny", *QUICK, "--out", "out", "--json")
    assert said.status == 0
    printed = json.loads(said.out)
    assert printed.pop("folder") == "out"
    assert printed == json.loads(Path("out/metrics.json").read_text())


def test_options_reach_the_run() -> None:
    words = "--activation gelu --layers 1 --layer-norm --pooling mean --batch-size 16 --lr 0.002"
    words += " --max-length 20 --seed 5 --adapter-drop 1 --out out"
    said = call("train", "toy-reviews", "--base", "tiny", *QUICK, *words.split())
    assert said.status == 0
    used = json.loads(Path("out/options.json").read_text())
    adapter, training = used["adapter"], used["training"]
    assert (adapter["bottleneck"], adapter["activation"], adapter["layers"]) == (4, "gelu", [1])
    assert (used["layer_norm"], used["pooling"], used["max_length"]) == (True, "mean", 20)
    assert (training["epochs"], training["batch_size"], training["lr"]) == (1, 16, 0.002)
    assert training["adapter_drop"] == 1
    assert (training["seed"], used["limit"], used["base"]) == (5, 150, "tiny")


@pytest.mark.parametrize(
    ("words", "sites", "scaling"),
    [
        ("--placement pfeiffer --scaling learned", ("ffn",), "learned"),
        ("--placement parallel --sites attention,ffn --scaling 4", ("attention", "ffn"), 4.0),
        ("--placement houlsby", ("attention", "ffn"), 1.0),
    ],
)
def test_a_placement_has_its_sites(
    words: str, sites: tuple[str, ...], scaling: float | str
) -> None:
    said = call("train", "toy-reviews", "--base", "tiny", *QUICK, "--out", "out", *words.split())
    assert said.status == 0
    adapter = read_adapter("out").record.adapter
    assert adapter is not None
    assert (adapter.placement, adapter.resolved_sites) == (words.split()[1], sites)
    assert adapter.scaling == scaling
    again = call("train", "toy-reviews", "--base", "tiny", *QUICK, "--out", "out")
    assert again.status == 2
    assert "holds a run already" in again.err


@pytest.mark.parametrize(("method", "lr"), [("head", 5e-3), ("bitfit", 3e-3), ("full", 5e-5)])
def test_the_learning_rate_follows_the_method(method: str, lr: float) -> None:
    options = ["--base", "tiny", "--limit", "40", "--epochs", "1"]
    said = call("train", "toy-reviews", *options, "--method", method)
    assert said.status == 0
    folder = Path("runs") / f"toy-reviews-{method}-seed0"
    assert str(folder) in said.out
    assert json.loads((folder / "options.json").read_text())["training"]["lr"] == lr
    assert ("unchanged" in said.out) == (method == "head")


def test_train_on_a_file_of_ones_own(tmp_path: Path) -> None:
    task = load_task("toy-reviews")
    rows = [
        json.dumps({"text": text, "label": task.label_names[label]})
        for text, label in zip(task.test.texts, task.test.labels, strict=True)
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(rows), encoding="utf-8")
    said = call("train", "mine.jsonl", "--base", "tiny", *QUICK)
    assert said.status == 0
    assert Path("runs/mine-adapter-seed0/adapter.safetensors").is_file()
    assert call("evaluate", "runs/mine-adapter-seed0", "mine.jsonl").status == 0


def test_a_run_is_never_overwritten(folder: Path) -> None:
    before = (folder / "adapter.safetensors").read_bytes()
    said = call("train", "toy-reviews", "--base", "tiny", *QUICK, "--out", folder)
    assert said.status == 2
    assert "holds a run already" in said.err
    assert (folder / "adapter.safetensors").read_bytes() == before


# -- Ctrl-C, and going on -----------------------------------------------------------------


@pytest.mark.slow
def test_interrupted_and_resumed_is_as_if_never_interrupted() -> None:
    options = ["toy-reviews", "--base", "tiny", "--limit", "600", "--epochs", "4", "--lr", "0.01"]
    process = subprocess.Popen(
        [*PROGRAM, "train", *options, "--out", "cut"],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not Path("cut/state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Saved in cut" in err
    assert not json.loads(Path("cut/metrics.json").read_text())["finished"]

    contradiction = call("train", "toy-reviews", "--resume", "--out", "cut", "--epochs", "9")
    assert contradiction.status == 2
    assert "--epochs 9" in contradiction.err
    other = call("train", "imdb", "--resume", "--out", "cut")
    assert other.status == 2
    assert "'toy-reviews'" in other.err

    command = shlex.split(err.splitlines()[-1])
    assert command[0] == "minitransformer"
    resumed = call(*command[1:], "--epochs", "4")  # the same again is no contradiction
    assert resumed.status == 0, resumed.err
    whole = call("train", *options, "--out", "whole")
    assert whole.status == 0
    cut, whole = (Path(name, "adapter.safetensors").read_bytes() for name in ("cut", "whole"))
    assert cut == whole


def test_resume_finds_the_only_interrupted_run() -> None:
    for name in ("one", "two"):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "state.safetensors").touch()
    said = call("train", "toy-reviews", "--resume")
    assert said.status == 2
    assert "runs/one, runs/two" in said.err.replace(os.sep, "/")
    Path("runs/two/state.safetensors").unlink()
    assert "runs/one holds no run" in call("train", "toy-reviews", "--resume").err.replace(
        os.sep, "/"
    )


# -- evaluate and predict -----------------------------------------------------------------


def test_evaluate_repeats_the_test_accuracy(folder: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    said = call("evaluate", folder, "toy-reviews")
    assert said.status == 0
    assert f"test accuracy  {metrics['test_accuracy']:.4f}" in said.out
    values = json.loads(call("evaluate", folder, "toy-reviews", "--json").out)
    assert values["accuracy"] == pytest.approx(metrics["test_accuracy"], abs=1e-6)
    assert values["examples"] == metrics["test_examples"]


def test_evaluate_without_a_task_takes_that_of_the_run(folder: Path) -> None:
    explicit, own = call("evaluate", folder, "toy-reviews"), call("evaluate", folder)
    assert own.status == 0 and own.out == explicit.out
    assert f"toy-reviews, the task that {folder} was trained on: its test split" in own.err
    values = [json.loads(call("evaluate", folder, *t, "--json").out) for t in ([], ["toy-reviews"])]
    assert values[0] == values[1] and values[0]["task"] == "toy-reviews"
    trained_on = json.loads(call("evaluate", folder, "--split", "train", "--json").out)
    assert trained_on["examples"] == 150  # the --limit of that run
    said = call("evaluate", folder, "--all")
    assert said.status == 2 and "go with a TASK" in said.err


def test_evaluate_another_split(folder: Path) -> None:
    values = json.loads(
        call("evaluate", folder, "toy-reviews", "--split", "validation", "--json").out
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    assert values["accuracy"] == pytest.approx(metrics["validation_accuracy"], abs=1e-6)


def test_lowest_blocks_without_adapters(folder: Path) -> None:
    run = mt.load_run(folder)
    n = len(run.model.transformer.blocks)
    text = "a fine film"
    for depth in (1, n):
        run.model.transformer.drop_adapters(depth)
        expected = run.evaluate("toy-reviews").loss
        told = call("evaluate", folder, "toy-reviews", "--drop-lowest", str(depth), "--json")
        assert json.loads(told.out)["loss"] == pytest.approx(expected, abs=1e-6)
        told = call("predict", folder, "--drop-lowest", str(depth), "--json", text)
        probabilities = json.loads(told.out)["probabilities"]
        assert probabilities == pytest.approx(run.predict([text])[0].probabilities, abs=1e-6)
    whole = mt.load_run(folder).evaluate("toy-reviews").loss
    assert abs(whole - expected) > 1e-6
    said = call("evaluate", folder, "toy-reviews", "--drop-lowest", str(n + 1))
    assert said.status == 2
    assert f"from 0 to {n}" in said.err


def test_evaluate_refuses_labels_it_never_learnt(folder: Path) -> None:
    Path("grades.csv").write_text(
        "text,label\n" + "".join(f"fine {i},good\npoor {i},bad\n" for i in range(5))
    )
    said = call("evaluate", folder, "grades.csv")
    assert said.status == 1
    assert "known: negative, positive" in said.err


def test_predict_says_what_python_says(folder: Path) -> None:
    texts = ["the plot was gripping", "the soup was far from fresh"]
    said = call("predict", folder, *texts)
    assert said.status == 0
    for line, found in zip(said.out.splitlines(), load_run(folder).predict(texts), strict=True):
        label, probability, text = line.split("\t")
        assert (label, text) == (found.label, found.text)
        assert float(probability) == pytest.approx(max(found.probabilities.values()), abs=5e-4)


def test_predict_from_standard_input_line_by_line(folder: Path) -> None:
    texts = [f"the coffee was fresh {i} é ü" for i in range(70)]
    texts[3] = ""
    said = call("predict", folder, "--json", stdin="\r\n".join(texts).encode())
    assert said.status == 0
    records = [json.loads(line) for line in said.out.splitlines()]
    assert [record["text"] for record in records] == texts
    for record in records:
        assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert max(record["probabilities"], key=record["probabilities"].get) == record["label"]


def test_predict_prints_one_line_for_each_text(folder: Path) -> None:
    texts = ["a\ttab", "two\nlines", "three\r\nor\u2028more", r"a \n of two characters"]
    said = call("predict", folder, *texts)
    shown = [line.split("\t")[2] for line in said.out.splitlines()]
    assert shown == [r"a\ttab", r"two\nlines", r"three\r\nor\u2028more", texts[3]]
    said = call("predict", folder, "--json", *texts)
    assert [json.loads(line)["text"] for line in said.out.split("\n")[:-1]] == texts


def test_predict_of_nothing_says_nothing(folder: Path) -> None:
    assert call("predict", folder) == Said(0, "", "")


def test_predict_refuses_what_is_not_utf8(folder: Path) -> None:
    said = call("predict", folder, stdin=b"fine\n\xff\xfe\n")
    assert said.status == 1
    assert "not UTF-8" in said.err


def test_text_after_two_dashes_is_text(folder: Path) -> None:
    said = call("predict", folder, "--", "--debug")
    assert said.status == 0
    assert said.out.endswith("\t--debug\n")


def test_the_base_must_be_the_right_one(folder: Path, tmp_path: Path) -> None:
    from minitransformer import Transformer
    from minitransformer.formats.checkpoint import write_checkpoint

    other = Transformer.from_pretrained("tiny")
    other.embeddings.token.weight.value += np.float32(1)
    write_checkpoint(tmp_path / "other", other.config, other.state_dict())
    said = call("predict", folder, "text", "--base", tmp_path / "other")
    assert said.status == 1
    assert "another base" in said.err


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break differently there")
def test_a_reader_that_leaves_is_no_error(folder: Path) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "predict", str(folder)],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(b"fine\n" * 200, timeout=60)
    assert process.returncode == 1
    assert err == b""


# -- cost, gradcheck, tasks, demo -------------------------------------------------------


def test_cost_of_the_text_book_example() -> None:
    said = call("cost")
    assert said.status == 0
    for number in ("109,482,240", "99,136", "2,379,264", "2.17 %"):
        assert number in said.out
    assert "97.9 % is frozen: why is training not 47 times faster?" in said.out
    assert "So a step is 1.5 times faster" in said.out


def test_cost_as_json_with_several_widths() -> None:
    said = call("cost", "--base", "minilm", "--bottleneck", "8,64", "--bottleneck", 256, "--json")
    costs = json.loads(said.out)
    assert costs == json.loads(json.dumps(compare_methods("minilm", bottlenecks=(8, 64, 256))))
    assert costs["adapters"]["total"] == 12 * 6_536
    methods = ["full", *["adapter"] * 3, "lora", "ia3", "prefix", "bitfit", "layer-norm", "head"]
    assert [row["method"] for row in costs["methods"]] == methods


def test_cost_of_a_causal_classifier_is_of_the_last_position() -> None:
    """Its first position has read nothing: the head reads the last, and all are computed."""
    costs = json.loads(call("cost", "--base", "gpt2", "--json").out)
    assert costs["pooling"] == "last"
    found = {row["method"]: row["multiply_adds"]["total"] for row in costs["methods"]}
    assert found["full"] == count_step(SHAPES["gpt2"], 32, 128, "full").multiply_adds.total
    said = call("cost", "--base", "gpt2", "--pooling", "cls")
    assert said.status == 2 and "this model is causal" in said.err


def test_cost_of_another_shape_of_step() -> None:
    options = ["--layers", "4,5", "--placement", "parallel", "--sites", "attention,ffn"]
    costs = json.loads(
        call("cost", "--base", "minilm", *options, "--batch-size", 2, "--length", 16, "--json").out
    )
    adapter = mt.AdapterConfig(64, placement="parallel", sites=("attention", "ffn"), layers=(4, 5))
    expected = count_step(SHAPES["minilm"], 2, 16, "adapter", adapter)
    row = costs["methods"][1]
    assert row["multiply_adds"]["total"] == expected.multiply_adds.total
    assert row["saved_bytes"] == expected.saved_bytes
    assert row["task_bytes"] == 4 * row["trained"] == 4 * expected.trained


def test_cost_of_a_language_model() -> None:
    said = call("cost", "--base", "gpt2", "--lm")
    assert "the head alone" not in said.out
    assert "prefix-cache" not in said.out
    costs = json.loads(call("cost", "--base", "gpt2", "--lm", "--json").out)
    assert [row["method"] for row in costs["methods"]] == ["full", *CONFIGS]
    work = count_step(SHAPES["gpt2"], 32, 128, "full", language_model=True).multiply_adds
    assert costs["methods"][0]["multiply_adds"]["total"] == work.total
    assert work.forward > 32 * 128 * 768 * 50257  # the product with the embedding is in it


def test_cost_of_a_checkpoint() -> None:
    said = call("cost", "--base", "tiny", "--json")
    total = mt.Transformer.from_pretrained("tiny").summary().total
    assert json.loads(said.out)["parameters"]["total"] == total


@pytest.mark.slow  # tests/nn/test_gradients.py runs the same cases
def test_gradcheck_finds_every_gradient_right() -> None:
    said = call("gradcheck")
    assert said.status == 0
    assert "MultiHeadAttention" in said.out
    assert "WRONG" not in said.out


@pytest.mark.slow
def test_gradcheck_fails_when_a_gradient_is_off() -> None:
    said = call("gradcheck", "--tolerance", "1e-13", "--json")
    assert said.status == 1
    cases = json.loads(said.out)
    wrong = [case["case"] for case in cases if not case["passed"]]
    assert 0 < len(wrong) < len(cases)
    assert said.err.startswith(f"minitransformer: error: wrong gradients in {len(wrong)} of ")


def test_tasks_are_listed() -> None:
    assert all(name in call("tasks").out for name in TASKS)
    listed = json.loads(call("tasks", "--json").out)
    assert [task["name"] for task in listed] == list(TASKS)
    assert listed[0]["labels"] == ["negative", "positive"]


@pytest.mark.slow
def test_demo_shows_that_the_adapter_learnt() -> None:
    said = call("demo")
    assert said.status == 0
    metrics = json.loads(Path("runs/demo-adapter-seed0/metrics.json").read_text())
    assert metrics["test_accuracy"] > 0.75
    assert Path("runs/demo-adapter-seed0/curves.png").is_file()
    assert "unchanged, bit for bit" in said.out
    assert said.out.count("right") > said.out.count("WRONG")

"""Labels, texts and names of a stranger cannot steer the terminal, nor a page."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minitransformer as mt
from minitransformer.cli import main
from minitransformer.errors import ConfigError, printable
from minitransformer.formats.adapter_record import FORMAT
from minitransformer.formats.files import read_safetensors, write_tensors
from minitransformer.sweeps.page import html_page

RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]")
RED, TITLE, TURNED = "\x1b[31mgood", "\x9d0;owned\x07bad", "\u202edab\rx"
TEXT = "clear \x1b[2J the screen\r\x7f, and \u2067turn\u2069 it"
HARMLESS = "caf\u00e9 \u00a0\u3000 \U0001f468\u200d\U0001f469 \u6f22"
QUICK = ["--base", "tiny", "--epochs", "1", "--batch-size", "16", "--bottleneck", "4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on labels and texts with control characters; the CSV file is beside it."""
    folder = tmp_path_factory.mktemp("hostile")
    write_csv(folder / "own.csv", [(f"{TEXT} {i}", (RED, TURNED)[i % 2]) for i in range(60)])
    assert main(["train", str(folder / "own.csv"), *QUICK, "--out", str(folder / "run")]) == 0
    return folder


def write_csv(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


def said(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> str:
    """What a command prints, after a look for raw control characters in it."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == status
    out, err = capsys.readouterr()
    assert not RAW.search(out + err), repr(out + err)
    return out + err


def test_commands_show_them_as_python_writes_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = folder / "run", folder / "own.csv"
    again = said(capsys, "train", data, *QUICK, "--out", folder / "again")
    assert r"\x1b[31mgood" in again or r"\u202edab\rx" in again  # the majority's label
    assert r"\x1b[31mgood" in said(capsys, "evaluate", run, data, "--all")
    line = said(capsys, "predict", run, TEXT + HARMLESS)
    assert r"clear \x1b[2J the screen\r\x7f, and \u2067turn\u2069 it" + HARMLESS in line
    assert line.count("\n") == 1
    assert not RAW.search((run / "report.txt").read_text(encoding="utf-8"))
    said(capsys, "compare", run, folder / "again")


def test_json_means_the_same_and_shows_nothing_raw(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(said(capsys, "predict", folder / "run", TEXT + HARMLESS, "--json"))
    assert found["text"] == TEXT + HARMLESS
    assert found["probabilities"].keys() == {RED, TURNED}


def test_errors_that_quote_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_csv(folder / "new.csv", [(TEXT, TITLE), ("x", RED)])
    words = said(capsys, "evaluate", folder / "run", folder / "new.csv", "--all", status=1)
    assert r"\x9d0;owned\x07bad" in words
    said(capsys, "train", f"no{TITLE}.csv", "--base", "tiny", status=1)
    said(capsys, "train", folder / "own.csv", "--base", TITLE, status=1)
    assert "Traceback" in said(capsys, "--debug", "train", f"no{TITLE}.csv", status=1)
    said(capsys, "train", f"--{TITLE}", status=2)


def test_a_file_that_names_its_parts_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, metadata = read_safetensors(folder / "run" / "adapter.safetensors")
    record = json.loads(metadata[FORMAT])
    path = tmp_path / "adapter.safetensors"
    write_tensors(path, tensors, {FORMAT: json.dumps({**record, "base": TITLE})})
    assert "0;owned" in said(capsys, "predict", path, "x", status=1)
    hostile = {name.replace(".task.", f".{RED}."): t for name, t in tensors.items()}
    (config,) = record["adapters"].values()
    record |= {"adapters": {RED: config}, "active": [RED]}
    write_tensors(path, hostile, {FORMAT: json.dumps(record)})
    said(capsys, "predict", path, "x", status=2)
    with pytest.raises(ConfigError, match="control characters"):
        mt.Transformer.from_pretrained("tiny").load_adapter(path)


def test_warnings_of_the_library_are_messages() -> None:
    script = (
        "import warnings; from minitransformer.cli.app import shown_messages\n"
        f"with shown_messages(): warnings.warn({TITLE!r})"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stderr == "warning: \\x9d0;owned\\x07bad\n"


def test_a_page_shows_them_too() -> None:
    page = html_page(RED, TITLE, [(TURNED, b"")], [(RED, TITLE, ([RED], [[TURNED]]))])
    assert not RAW.search(page)
    assert r"\x1b[31mgood" in page


def test_what_is_printable_stays() -> None:
    assert printable(HARMLESS) == HARMLESS
    assert printable("a\n\tb") == "a\n\tb"
    assert printable("a\nb", keep="") == r"a\nb"
    assert str(ConfigError("a\x1bb")) == r"a\x1bb"


def test_rows_with_carriage_returns_stay_rows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "out.csv"
    said(capsys, "predict", folder / "run", "--file", folder / "own.csv", "--out", out)
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [f"{TEXT} {i}" for i in range(60)]
    assert {row["predicted"] for row in rows} <= {RED, TURNED}

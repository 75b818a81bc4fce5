"""The commands `export` and `import`: runs as folders of the libraries `adapters` and `peft`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..data.splits import on_one_line
from ..errors import ConfigError
from ..formats.adapter_file import read_adapter
from ..formats.adapterhub import read_folder
from ..formats.peft import is_peft, read_peft
from ..runs.adapterhub import export_adapterhub, import_adapterhub
from ..runs.exchange import open_run
from ..runs.peft import export_peft, import_peft
from . import options as opt
from .app import USE, app, print_json, show
from .text import size

ExportFolder = Annotated[
    Path | None,
    typer.Argument(metavar="[FOLDER]", help="Where to. Default: RUN-adapterhub or RUN-peft."),
]
ImportFolder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="What was saved there: see above.")
]
Called = Annotated[str | None, opt.option("What a bottleneck adapter is called there.", "the task")]
TrainedOn = Annotated[
    str, opt.option("The base it was trained on: tiny, minilm, a folder, or a model-hub id.")
]
RunOut = Annotated[Path | None, opt.option("Folder of the new run.", "runs/FOLDER")]
CutTo = Annotated[
    int | None, opt.option("Texts are cut to so many tokens.", "as exported from here, else 128")
]
Labels = Annotated[
    str | None,
    opt.option("Names of the classes in order, a,b,c: peft keeps none.", "as exported, or numbers"),
]
IN_PEFT = ("lora", "ia3")  # the methods that go to the library `peft`


@app.command(rich_help_panel=USE)
def export(
    run: opt.RunFolder,
    folder: ExportFolder = None,
    name: Called = None,
    base: opt.BaseNow = None,
    as_json: opt.AsJson = False,
) -> None:
    """Write a trained run as a folder of a PyTorch library.

    Bottleneck adapters go to `adapters` (AdapterHub), LoRA and (IA)^3 to `peft`. There it loads on
    the same base, with its classifier. What has no equivalent there is refused: layer norms that
    were trained too; a head on the mean of all positions, and for `peft` any that was not trained
    with --pooling pooler; other methods.

    Example: `minitransformer export runs/rotten-tomatoes-adapter-seed0 to-share`
    """
    trained = open_run(run, base)
    method = trained.record.method if trained.record is not None else ""
    kind = "peft" if method in IN_PEFT else "adapterhub"
    if folder is None:
        folder = trained.folder.with_name(f"{trained.folder.resolve().name}-{kind}")
    if kind == "peft":
        if name is not None:
            raise ConfigError(f"--name {name}: an adapter has no name in the folders of `peft`")
        about = about_peft(export_peft(trained, folder))
    else:
        about = about_adapterhub(export_adapterhub(trained, folder, name))
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    if as_json:
        print_json({"folder": str(folder), "format": kind, "files": files, **about})
        return
    written = ", ".join(f"{file} ({size(n)})" for file, n in files.items())
    show(f"written  {folder}: {written}")
    show(f"there    {about['load_with']}")
    show(f"         {about['base_is']}")


def about_adapterhub(folder: Path) -> dict[str, Any]:
    """How to load an exported folder there."""
    found = read_folder(folder)
    head = (folder / "head_config.json").exists()
    made = "made by AutoAdapterModel.from_pretrained" if head else "after adapters.init(model)"
    return {
        "name": found.name,
        "model_type": found.model_type,
        "hidden_size": found.hidden_size,
        "head": head,
        "load_with": f"model.load_adapter({str(folder)!r}, use_safetensors=True, set_active=True)",
        "base_is": f"on the base {found.model_name!r}, {made}",
    }


def about_peft(folder: Path) -> dict[str, Any]:
    """How to load an exported folder there."""
    found = read_peft(folder)
    labels = found.origin.get("label_names")
    kind = {
        "SEQ_CLS": "BertForSequenceClassification",
        "CAUSAL_LM": "GPT2LMHeadModel",
    }[found.words["task_type"]]
    given = f"..., num_labels={len(labels)}" if labels else "..."
    return {
        "method": found.words["peft_type"],
        "head": bool(labels),
        "load_with": f"PeftModel.from_pretrained(model, {str(folder)!r})",
        "base_is": f"with model = {kind}.from_pretrained({given}), the base {found.model_name!r}",
    }


@app.command(name="import", rich_help_panel=USE)
def import_(
    folder: ImportFolder,
    base: TrainedOn,
    out: RunOut = None,
    max_length: CutTo = None,
    labels: Labels = None,
    as_json: opt.AsJson = False,
) -> None:
    """Make a run of what was trained with the PyTorch libraries `adapters` or `peft`.

    FOLDER is what `model.save_adapter(FOLDER, NAME, use_safetensors=True)` of `adapters` wrote: a
    bottleneck adapter, for an encoder with a classification head of one layer; or what
    `model.save_pretrained(FOLDER)` of `peft` wrote: LoRA or (IA)^3, for an encoder with the
    classifier of a BertForSequenceClassification. What has no equivalent here is refused by name,
    never left out. Then `predict` and `evaluate` take the new run (`generate`, for a GPT-2).

    Example: `minitransformer import to-share --base minilm --out runs/imported`
    """
    if out is None:
        out = Path("runs") / folder.resolve().name
    if is_peft(folder):
        there = read_peft(folder)
        names = labels.split(",") if labels is not None else None
        import_peft(folder, base, out, max_length, names)
        name, model_name, origin = there.words["peft_type"], there.model_name, there.origin
    else:
        found = read_folder(folder)
        if labels is not None:
            raise ConfigError(f"--labels {labels}: a folder of `adapters` has names of its own")
        import_adapterhub(folder, base, out, max_length)
        name, model_name, origin = found.name, found.model_name, found.origin
    file = read_adapter(out)
    record, config = file.record, file.record.adapter
    assert config is not None  # it is what was imported
    if as_json:
        print_json(
            {
                "folder": str(out),
                "method": record.method,
                "name": name,
                "trained_on": model_name,
                "base": record.base,
                "base_sha256": record.fingerprint,
                "label_names": record.label_names,
                "pooling": record.pooling,
                "max_length": record.max_length,
                "adapter": config.to_dict(),
            }
        )
        return
    shown = ", ".join(f"{k}={v}" for k, v in config.to_dict().items() if v is not None)
    use = "predict" if record.label_names else "generate"
    show(f"adapter  {name}: {shown}")
    if record.label_names:
        show(f"labels   {', '.join(map(on_one_line, record.label_names))}")
    if origin:
        same = "the same weights, by their SHA-256"
    else:
        same = "type, width and depth fit; that the weights are the same, only you can know"
    show(f"base     {record.base}, there {model_name!r}: {same}")
    show(f"written  {file.path}; next: minitransformer {use} {out}")

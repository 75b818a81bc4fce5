"""The commands `export` and `import`: adapters as folders of the `adapters` library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..formats.adapter_file import read_adapter
from ..formats.adapterhub import read_folder
from ..runs.adapterhub import export_adapterhub, import_adapterhub, open_run
from . import options as opt
from .app import app, print_json
from .text import size

ExportFolder = Annotated[
    Path | None, typer.Argument(metavar="[FOLDER]", help="Where to. Default: RUN-adapterhub.")
]
ImportFolder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="What `save_adapter` wrote there.")
]
Called = Annotated[str | None, opt.option("What the adapter is called there.", "the task")]
TrainedOn = Annotated[
    str, opt.option("The base it was trained on: tiny, minilm, a folder, or a model-hub id.")
]
RunOut = Annotated[Path | None, opt.option("Folder of the new run.", "runs/FOLDER")]
CutTo = Annotated[
    int | None, opt.option("Texts are cut to so many tokens.", "as exported from here, else 128")
]


@app.command()
def export(
    run: opt.RunFolder,
    folder: ExportFolder = None,
    name: Called = None,
    base: opt.BaseNow = None,
    as_json: opt.AsJson = False,
) -> None:
    """Write a trained run as a folder of the PyTorch library `adapters` (AdapterHub).

    There it loads on the same base: the adapter, and the classifier with its labels. What has no
    equivalent there is refused: layer norms that were trained too, a head on the mean of all
    positions, runs without adapters.

    Example: `minitransformer export runs/rotten-tomatoes-adapter-seed0 to-share`
    """
    trained = open_run(run, base)
    if folder is None:
        folder = trained.folder.with_name(f"{trained.folder.resolve().name}-adapterhub")
    export_adapterhub(trained, folder, name)
    found = read_folder(folder)
    files = sorted(path for path in folder.iterdir())
    has_head = any(path.name.startswith("head") for path in files)
    load = f"model.load_adapter({str(folder)!r}, use_safetensors=True, set_active=True)"
    if as_json:
        print_json(
            {
                "folder": str(folder),
                "files": {path.name: path.stat().st_size for path in files},
                "name": found.name,
                "model_type": found.model_type,
                "hidden_size": found.hidden_size,
                "head": has_head,
                "load_with": load,
            }
        )
        return
    written = ", ".join(f"{path.name} ({size(path.stat().st_size)})" for path in files)
    print(f"written  {folder}: {written}")
    print(f"there    {load}")
    made = "made by AutoAdapterModel.from_pretrained" if has_head else "after adapters.init(model)"
    print(f"         on the base {found.model_name!r}, {made}")


@app.command(name="import")
def import_(
    folder: ImportFolder,
    base: TrainedOn,
    out: RunOut = None,
    max_length: CutTo = None,
    as_json: opt.AsJson = False,
) -> None:
    """Make a run of an adapter that was trained with the PyTorch library `adapters` (AdapterHub).

    FOLDER is what `model.save_adapter(FOLDER, NAME, use_safetensors=True)` wrote: a bottleneck
    adapter, for an encoder with a classification head of one layer. What has no equivalent here is
    refused by name, never left out. Then `predict` and `evaluate` take the new run (`generate`, for
    the adapter of a GPT-2).

    Example: `minitransformer import to-share --base minilm --out runs/imported`
    """
    there = read_folder(folder)
    if out is None:
        out = Path("runs") / folder.resolve().name
    import_adapterhub(folder, base, out, max_length)
    record = read_adapter(out).record
    assert record.adapter is not None  # it is what was imported
    if as_json:
        print_json(
            {
                "folder": str(out),
                "name": there.name,
                "trained_on": there.model_name,
                "base": record.base,
                "base_sha256": record.fingerprint,
                "label_names": record.label_names,
                "pooling": record.pooling,
                "max_length": record.max_length,
                "adapter": record.adapter.to_dict(),
            }
        )
        return
    adapter, use = record.adapter, "predict" if record.label_names else "generate"
    labels = f"; labels: {', '.join(record.label_names)}" if record.label_names else ""
    print(f"adapter  {there.name}: {adapter.placement}, m={adapter.bottleneck}{labels}")
    if there.origin:
        same = "the same weights, by their SHA-256"
    else:
        same = "type, width and depth fit; that the weights are the same, only you can know"
    print(f"base     {record.base}, there {there.model_name!r}: {same}")
    print(f"written  {out / 'adapter.safetensors'}; next: minitransformer {use} {out}")

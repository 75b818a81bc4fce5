"""The model card of an exported folder: what was trained, how good it is, how to load it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from ..data.pinned import HUB_IDS, PINNED_IDS, known_name
from ..errors import printable
from ..formats.adapter_record import AdapterRecord
from .classification import Run
from .folder import read_json
from .language_modeling import LanguageRun


def model_card(run: Run | LanguageRun, folder: Path, library: str) -> str:
    """README.md for a folder that a run is exported to; `library`: "adapters" or "peft".

    The figures are those of the run's `metrics.json`; without one, the card says that there are
    none.
    """
    record = run.record
    assert record is not None  # a run without an adapter is not exported
    path = run.folder / "metrics.json"
    metrics = read_json(path) if path.is_file() else {}
    hub_id = HUB_IDS.get(known_name(record.base), PINNED_IDS.get(record.base, ""))
    there = shlex.quote(folder.name)
    front = {"library_name": library, "tags": ["minitransformer", record.method]}
    if hub_id:
        front["base_model"] = hub_id
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in front.items()),
        "---",
        "",
        f"# {record.task}: {record.method} on {record.base}",
        "",
        *table([("what", "value"), *facts(run, record, metrics, hub_id)]),
        "",
        "## Figures",
        "",
        *figures(metrics),
        "",
        "## Loading",
        "",
        "In minitransformer:",
        "",
        "```sh",
        f"minitransformer import {there} --base {shlex.quote(record.base)} --out runs/{there}",
        f"minitransformer {use_of(run)}".replace("RUN", f"runs/{there}"),
        "```",
        "",
        f"In `{library}`:",
        "",
        "```python",
        *loading(run, folder.name, library, base_there(record.base, hub_id)),
        "```",
        "",
    ]
    return printable("\n".join(lines))


def facts(
    run: Run | LanguageRun, record: AdapterRecord, metrics: dict[str, Any], hub_id: str
) -> list[tuple[str, str]]:
    """Base, task, data, method and training, each with what is known of it."""
    shape = run.model.transformer.config
    base = f"`{record.base}`" + (f" ({hub_id} on the model hub)" if hub_id else "")
    limit, training = metrics.get("limit"), metrics.get("training", {})
    data = [f"at most {limit} training examples"] if limit else []
    data += [f"texts cut to {record.max_length} tokens"]
    if "test_examples" in metrics:
        data += [f"measured on {metrics['test_examples']} test examples"]
    config = next(iter(record.adapters.values()))
    rows = [
        ("base", f"{base}: {shape.n_layers} blocks, width {shape.d_model}"),
        ("fingerprint of the base", f"`{record.fingerprint}`"),
        ("task", f"`{record.task}`"),
        ("labels", ", ".join(record.label_names) or "none: it continues texts"),
        ("data", "; ".join(data)),
        ("method", f"{record.method}: `{config}`"),
    ]
    if "trainable_parameters" in metrics:
        count, total = metrics["trainable_parameters"], metrics["parameters"]
        rows.append(("trained", f"{count:,} of {total:,} parameters"))
    if training:
        values = {key: value for key, value in training.items() if value is not None}
        rows.append(("training", ", ".join(f"{key} {value}" for key, value in values.items())))
    return rows


def figures(metrics: dict[str, Any]) -> list[str]:
    """What was measured, with the 95 % intervals that are known."""
    names = ("accuracy", "macro_f1", "pearson", "spearman", "majority_share", "loss")
    keys = [f"test_{name}" for name in names] + [key for key in metrics if "perplexity" in key]
    keys = [key for key in keys if isinstance(metrics.get(key), int | float)]
    rows = []
    for key in keys:
        low, high = metrics.get(f"{key}_interval", (None, None))
        interval_text = f"{low:.4f} to {high:.4f}" if low is not None else ""
        rows.append((key.replace("_", " "), f"{metrics[key]:.4f}", interval_text))
    if not rows:
        return ["None: the run that was exported has no `metrics.json`, or was not finished."]
    warnings = [line for text in metrics.get("warnings", []) for line in ("", f"Warning: {text}.")]
    return [*table([("measured", "value", "95 % interval"), *rows]), *warnings]


def use_of(run: Run | LanguageRun) -> str:
    """The command that uses a run."""
    return 'predict RUN "some text"' if isinstance(run, Run) else 'generate RUN "A beginning"'


def base_there(base: str, hub_id: str) -> str:
    """Python for what the other library calls the base: an id, or the folder."""
    return f"find_checkpoint({base!r})" if base == "tiny" else repr(hub_id or base)


def loading(run: Run | LanguageRun, folder: str, library: str, base: str) -> list[str]:
    """Python that loads the folder there."""
    ours = "from minitransformer.data.hub import find_checkpoint  # the base comes with it"
    first = [ours] if base.startswith("find_checkpoint") else []
    if library == "adapters":
        return [
            *first,
            "from adapters import AutoAdapterModel",
            "",
            f"model = AutoAdapterModel.from_pretrained({base})",
            f'model.load_adapter("{folder}", use_safetensors=True, set_active=True)',
        ]
    kind, more = "AutoModelForCausalLM", ""
    if isinstance(run, Run):
        n = len(run.record.label_names)
        kind, more = "AutoModelForSequenceClassification", f", num_labels={n}"
    return [
        *first,
        "from peft import PeftModel",
        f"from transformers import {kind}",
        "",
        f"base = {kind}.from_pretrained({base}{more})",
        f'model = PeftModel.from_pretrained(base, "{folder}")',
    ]


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of a Markdown table; the first row is its header."""
    escaped = [[cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return [lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]

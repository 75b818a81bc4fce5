"""ONNX Runtime as a peer in inference: PyTorch's classifier, exported, its graph fused.

Imported in workers only.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import peers
import torch
from onnxruntime.transformers.optimizer import optimize_model
from turns import Side

Array = np.ndarray
HEADS, WIDTH = 12, 384  # MiniLM's


class Onnx(Side):
    """Forward passes alone: ONNX Runtime's inference package does not train."""

    def __init__(self, threads: int, lr: float, keep_memory: bool = False, **settings: Any) -> None:
        self.threads = threads
        self.model = peers.classifier(**settings).eval()
        self.model.bert.set_attn_implementation("eager")  # what the fusion looks for

    def load(self, values: dict[str, Array]) -> None:
        """The adapters and the head; exports and fuses the graph."""
        self.model.load(values)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            ids = torch.ones((2, 8), dtype=torch.int64)
            axes = {0: "batch", 1: "tokens"}
            torch.onnx.export(
                self.model, (ids, ids), path, input_names=["ids", "mask"], output_names=["logits"],
                dynamic_axes={"ids": axes, "mask": axes}, opset_version=17, dynamo=False,
            )  # fmt: skip
            fused = optimize_model(str(path), "bert", num_heads=HEADS, hidden_size=WIDTH)
            self.fused = {k: n for k, n in fused.get_fused_operator_statistics().items() if n}
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            self.session = onnxruntime.InferenceSession(
                fused.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )

    def use(self, batches: list[tuple[Array, Array, Array]]) -> None:
        """The batches to go through in turn."""
        self.feeds = [
            {"ids": ids.astype(np.int64), "mask": mask.astype(np.int64)} for ids, mask, _ in batches
        ]

    def forward(self, turn: int) -> float:
        """Seconds of one inference forward pass."""
        feed = self.feeds[turn % len(self.feeds)]
        started = time.perf_counter()
        self.session.run(["logits"], feed)
        return time.perf_counter() - started

    def result(self) -> dict[str, Any]:
        """The logits of the first batch, and which operators were fused, how often."""
        (logits,) = self.session.run(["logits"], self.feeds[0])
        return {"logits": logits, "fused": self.fused}

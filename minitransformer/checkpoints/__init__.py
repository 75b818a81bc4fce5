"""Public checkpoints: their configuration words, their weight names, safetensors in and out."""

from .files import read_tensors, tensor_metadata, tensor_names, write_tensors, write_text
from .folder import read_config, read_weights, write_checkpoint

__all__ = [
    "read_config",
    "read_tensors",
    "read_weights",
    "tensor_metadata",
    "tensor_names",
    "write_checkpoint",
    "write_tensors",
    "write_text",
]

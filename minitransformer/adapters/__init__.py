"""Adapters: small trainable modules inside a frozen transformer."""

from .bottleneck import Adapter, AdapterConfig

__all__ = ["Adapter", "AdapterConfig"]

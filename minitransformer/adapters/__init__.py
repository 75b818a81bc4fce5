"""The subject: small trainable modules inside a frozen transformer.

Begin with `bottleneck.py`, the module itself; `attach.py` inserts, names and activates it.
"""

from .bottleneck import Adapter
from .config import AdapterConfig

__all__ = ["Adapter", "AdapterConfig"]

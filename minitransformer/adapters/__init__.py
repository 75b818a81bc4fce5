"""The subject: small trainable modules inside a frozen transformer.

Begin with `bottleneck.py` or `lora.py`, the modules themselves; `attach.py` inserts, names and
activates them.
"""

from .bottleneck import Adapter
from .config import AdapterConfig, IA3Config, LoRAConfig, PrefixConfig
from .lora import LoRA

__all__ = ["Adapter", "AdapterConfig", "IA3Config", "LoRA", "LoRAConfig", "PrefixConfig"]

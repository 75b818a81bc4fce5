"""minitransformer: adapter-based fine-tuning of transformers in NumPy, every gradient by hand."""

from .adapters import Adapter, AdapterConfig
from .config import TransformerConfig
from .heads import Classifier, CrossEntropy, LanguageModel
from .transformer import Transformer

__version__ = "0.1.0"
__all__ = [
    "Adapter",
    "AdapterConfig",
    "Classifier",
    "CrossEntropy",
    "LanguageModel",
    "Transformer",
    "TransformerConfig",
]

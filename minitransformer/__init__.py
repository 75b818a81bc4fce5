"""minitransformer: adapter-based fine-tuning of transformers in NumPy, every gradient by hand."""

from .adapters import Adapter, AdapterConfig
from .config import TransformerConfig
from .datasets import load_task
from .generation import generate
from .gradcheck import gradcheck
from .heads import Classifier, CrossEntropy, LanguageModel
from .methods import RunOptions
from .runs import Run, load_run, train
from .tokenization import Tokenizer, pad
from .training import Trainer, TrainingOptions
from .transformer import Transformer

__version__ = "0.1.0"
__all__ = [
    "Adapter",
    "AdapterConfig",
    "Classifier",
    "CrossEntropy",
    "LanguageModel",
    "Run",
    "RunOptions",
    "Tokenizer",
    "Trainer",
    "TrainingOptions",
    "Transformer",
    "TransformerConfig",
    "generate",
    "gradcheck",
    "load_run",
    "load_task",
    "pad",
    "train",
]

"""minitransformer: adapter-based fine-tuning of transformers in NumPy, every gradient by hand."""

from .adapters import Adapter, AdapterConfig
from .adapters.combine import average_adapters
from .adapters.fusion import fusion_weights
from .config import TransformerConfig
from .datasets import load_task
from .generation import generate
from .gradcheck import gradcheck
from .heads import Classifier, CrossEntropy, LanguageModel
from .language import load_writer, pretrain, train_language
from .methods import PretrainOptions, RunOptions
from .multitask import Tasks, load_runs
from .runs import Run, load_run, train
from .tokenization import Tokenizer, pad
from .training import Trainer, TrainingOptions
from .transformer import Transformer
from .travel import export_adapterhub, import_adapterhub

__version__ = "0.1.0"
__all__ = [
    "Adapter",
    "AdapterConfig",
    "Classifier",
    "CrossEntropy",
    "LanguageModel",
    "PretrainOptions",
    "Run",
    "RunOptions",
    "Tasks",
    "Tokenizer",
    "Trainer",
    "TrainingOptions",
    "Transformer",
    "TransformerConfig",
    "average_adapters",
    "export_adapterhub",
    "fusion_weights",
    "generate",
    "gradcheck",
    "import_adapterhub",
    "load_run",
    "load_runs",
    "load_task",
    "load_writer",
    "pad",
    "pretrain",
    "train",
    "train_language",
]

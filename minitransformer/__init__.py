"""minitransformer: adapter-based fine-tuning of transformers in NumPy, every gradient by hand."""

from . import errors, exercises
from .adapters.activity import adapter_activity
from .adapters.bottleneck import Adapter
from .adapters.combine import average_adapters, fusion_weights
from .adapters.config import AdapterConfig, IA3Config, LoRAConfig, PrefixConfig
from .data.batches import Encoded, batches, encode_split
from .data.datafiles import DataOptions
from .data.datasets import load_task
from .data.splits import Split, Task
from .data.tokenization import Tokenizer, pad
from .gradcheck import gradcheck
from .models.generation import generate
from .models.heads import Classifier, LanguageModel, Regressor
from .models.transformer import Transformer
from .nn.config import TransformerConfig
from .nn.losses import CrossEntropy, SquaredError
from .nn.module import Module, Parameter, backward_through
from .runs.adapterhub import export_adapterhub, import_adapterhub
from .runs.classification import Run, load_run, train
from .runs.language_modeling import load_language_run, pretrain, train_language
from .runs.multitask import Tasks, load_runs
from .runs.options import LanguageOptions, PretrainOptions, RunOptions
from .runs.peft import export_peft, import_peft
from .runs.predict_file import predict_file
from .runs.results import compare
from .sweeps.report import report
from .sweeps.sweep import sweep
from .training.evaluation import evaluate, evaluate_numbers, perplexity
from .training.optim import SGD, AdamW, clip_by_global_norm, warmup_linear_decay
from .training.trainer import Trainer, TrainingOptions

__version__ = "0.1.0"
__all__ = [
    "SGD",
    "AdamW",
    "Adapter",
    "AdapterConfig",
    "Classifier",
    "CrossEntropy",
    "DataOptions",
    "Encoded",
    "IA3Config",
    "LanguageModel",
    "LanguageOptions",
    "LoRAConfig",
    "Module",
    "Parameter",
    "PrefixConfig",
    "PretrainOptions",
    "Regressor",
    "Run",
    "RunOptions",
    "Split",
    "SquaredError",
    "Task",
    "Tasks",
    "Tokenizer",
    "Trainer",
    "TrainingOptions",
    "Transformer",
    "TransformerConfig",
    "adapter_activity",
    "average_adapters",
    "backward_through",
    "batches",
    "clip_by_global_norm",
    "compare",
    "encode_split",
    "errors",
    "evaluate",
    "evaluate_numbers",
    "exercises",
    "export_adapterhub",
    "export_peft",
    "fusion_weights",
    "generate",
    "gradcheck",
    "import_adapterhub",
    "import_peft",
    "load_language_run",
    "load_run",
    "load_runs",
    "load_task",
    "pad",
    "perplexity",
    "predict_file",
    "pretrain",
    "report",
    "sweep",
    "train",
    "train_language",
    "warmup_linear_decay",
]

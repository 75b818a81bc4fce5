"""The model of a run: the frozen base, what the method trains in it, and a head on top."""

from __future__ import annotations

import numpy as np

from ..adapters.select import select_trainable
from ..models.heads import Classifier, Regressor
from ..models.transformer import Transformer
from .options import RunOptions

ADAPTER_NAME = "task"  # what the adapter is called inside a run's own model


def build_classifier(
    transformer: Transformer,
    n_classes: int,
    options: RunOptions,
    units: tuple[float, float] = (0.0, 1.0),
) -> Classifier:
    """Freeze the base, insert what the method trains, put a head on top.

    With one class: a Regressor, in `units` (location and scale) of its numbers.
    The starting weights follow from the seed alone.
    """
    seed = options.training.seed
    head_rng, adapter_rng = (np.random.default_rng([seed, i]) for i in (1, 2))
    if options.config is not None:
        transformer.add_method(ADAPTER_NAME, options.config, adapter_rng)
    about = (options.pooling, options.head_dropout, head_rng)
    if n_classes == 1:
        model: Classifier = Regressor(transformer, *about, *units)
    else:
        model = Classifier(transformer, n_classes, *about)
    freeze_for(options.method, model, options.layer_norm)
    return model


def freeze_for(method: str, model: Classifier, layer_norm: bool = False) -> None:
    """Let exactly that train which the method trains; the head always does."""
    select_trainable(model, method, ADAPTER_NAME)
    if layer_norm:
        model.transformer.train_layer_norms()

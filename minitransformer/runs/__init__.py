"""A run: from the name of a task to a folder with a trained adapter, and from there to predictions.

Begin with `classification.py`; `pipeline.py` is what all kinds of runs share, `options.py` holds
everything that decides a run's outcome, and `model.py` builds the model from it.
"""

"""A run: from the name of a task to a folder with a trained adapter, and from there to answers.

Begin with `classification.py`; `options.py` holds everything that decides a run's outcome.
"""

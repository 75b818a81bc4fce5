"""Optimizers, the training loop, evaluation, and data-parallel replicas for several cores.

Begin with `trainer.py`; for a loop of your own, with `optim.py` and `evaluation.py`.
"""

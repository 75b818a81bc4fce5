"""Optimizers, the training loop, evaluation, and what makes them fast on several cores.

Begin with `trainer.py`.
"""

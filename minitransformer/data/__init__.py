"""Weights, tokenizers, texts and labels: from a name or a file to batches of token ids.

Begin with `datasets.py`, then `batches.py`.
"""

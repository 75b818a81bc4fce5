"""Transformers made of `nn`, their heads, and text generation.

Begin with `transformer.py`.
"""

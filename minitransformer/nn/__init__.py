"""What every network is made of, each forward pass beside its backward pass.

Begin with `layers.py`: Linear shows the pattern that all modules follow; `module.py` states it.
"""

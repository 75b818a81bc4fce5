"""What adapters cost: parameters and multiply-adds counted before anything runs, bytes measured.

Begin with `step.py`.
"""

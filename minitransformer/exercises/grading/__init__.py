"""What instructors use: a class graded in one command, and what Gradescope and GitHub need.

Begin with `grade.py`; `limits.py` is what keeps one submission from harming the others.
"""

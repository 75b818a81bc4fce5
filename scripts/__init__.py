"""Programs for this repository, run as `python scripts/NAME.py` or `python -m scripts.NAME`."""

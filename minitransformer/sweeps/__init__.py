"""Many runs at once: a study as a TOML file, its rows on disk, and the report on them.

Begin with `study.py`: what a study is. `sweep.py` runs it, `report.py` tells what came out.
"""

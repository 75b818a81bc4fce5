"""Draw where an adapter is placed in a sub-layer, for the README.

python scripts/draw_placements.py    # writes docs/placements-post-norm.png and -pre-norm.png
"""

from __future__ import annotations

from pathlib import Path

from minitransformer.nn.config import NORMS
from minitransformer.plots import plot_placements


def main() -> None:
    docs = Path(__file__).resolve().parents[1] / "docs"
    for norm in NORMS:
        plot_placements(norm, docs / f"placements-{norm}-norm.png")


if __name__ == "__main__":
    main()

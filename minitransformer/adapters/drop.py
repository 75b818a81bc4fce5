"""AdapterDrop: leave the adapters of the lowest blocks out (Rücklé et al. 2021, arXiv 2010.11918).

Blocks without an adapter are those of the plain base. At inference they need no adapter's
arithmetic, and several tasks on one text share them; in training the backward pass ends above
them. Adapters that were trained with a random number of blocks left out in each step ("robust",
section 4.2) lose less when blocks are left out afterwards.
"""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from .methods import places_in


def check_droppable(model: Any, n: int) -> None:
    """Raises: ConfigError unless the model has n blocks to leave adapters out of."""
    blocks = len(model.blocks)
    if not isinstance(n, int) or isinstance(n, bool) or not 0 <= n <= blocks:
        raise ConfigError(
            f"{n!r} blocks without adapters: expected a whole number from 0 to {blocks}, the "
            "lowest of this model's blocks"
        )


def deactivate_dropped(model: Any) -> None:
    """Nothing that is inserted into the lowest `model.dropped` blocks takes part."""
    for block in model.blocks[: model.dropped]:
        for _, place in places_in(block):
            place.active = ()

"""AdapterDrop: leave the adapters of the lowest blocks out (Rücklé et al. 2021, arXiv 2010.11918).

Blocks without an adapter are those of the plain base. At inference they need no adapter's
arithmetic, and several tasks on one text share them; in training the backward pass ends above
them. Adapters that were trained with a random number of blocks left out in each step ("robust",
section 4.2) lose less when blocks are left out afterwards.

To see what those of some blocks do, leave them out of any: Houlsby et al. 2019, arXiv 1902.00751,
figure 6, leave trained adapters out of every span of blocks.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..errors import ConfigError
from .config import checked_layers
from .methods import places_in


def check_droppable(model: Any, blocks: Any) -> None:
    """Raises: ConfigError unless the model has those blocks to leave adapters out of."""
    have = len(model.blocks)
    if isinstance(blocks, Collection) and not isinstance(blocks, str):
        numbers = checked_layers(blocks) if len(blocks) else ()
        absent = [i for i in numbers or () if i >= have]
        if absent:
            raise ConfigError(
                f"there is no block {absent[0]} to leave adapters out of: this model has blocks "
                f"0 to {have - 1}"
            )
    elif not isinstance(blocks, int) or isinstance(blocks, bool) or not 0 <= blocks <= have:
        raise ConfigError(
            f"{blocks!r} blocks without adapters: expected a whole number from 0 to {have}, the "
            "lowest of this model's blocks, or the numbers of some, as (2, 3)"
        )


def deactivate_dropped(model: Any) -> None:
    """Nothing that is inserted into the blocks `model.dropped` takes part."""
    dropped = model.dropped
    for i in range(dropped) if isinstance(dropped, int) else dropped:
        for _, place in places_in(model.blocks[i]):
            place.active = ()

"""What a subnet costs where channels are computed in whole tiles, as a TPU's matrix unit does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from slimjax.nn.space import Space, Subnet
from slimjax.nn.widths import TILE


def padded(
    count: Callable[[Subnet], np.ndarray], space: Space, tile: int = TILE
) -> Callable[[Subnet], np.ndarray]:
    """A count of subnets, such as their MACs, with all groups rounded up to whole tiles: int32 [..., G] -> [...].

    That is how a chip pads the channels of a layer, in and out, when they lie in its lanes: with fewer than 128
    images on it. With more, the batch lies there, and narrow layers are not padded so far.
    """
    groups = len(space.groups)

    def cost(subnets: Subnet) -> np.ndarray:
        subnets = np.asarray(subnets, np.int32)
        channels, choices = subnets[..., :groups], subnets[..., groups:]
        return count(np.concatenate([-(-channels // tile) * tile, choices], -1))

    return cost

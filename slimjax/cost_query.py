"""`slimjax cost`: what a named network costs at a width."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from slimjax import costs, models
from slimjax.build import make_supernet
from slimjax.errors import UserError


def run(
    name: str,
    *,
    width: float | None = None,
    subnet: Mapping[str, int] | None = None,
    multiplier: float | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
) -> dict[str, Any]:
    """MACs per image and active parameters, with the counting conventions of the model's paper.

    Any width above 0 is answered, below the range that the paper trains too; by default the full network.
    """
    entry = models.lookup(name)
    if width is not None and subnet is not None:
        raise UserError("give --width or --subnet, not both.")
    if width is not None and not 0 < width <= entry.max_width:
        raise UserError(f"--width: expected a number above 0 and up to {entry.max_width:g}, got {width:g}.")
    options = _given(multiplier=_whole(multiplier), num_classes=num_classes)
    for key, value in {**options, **_given(image_size=image_size)}.items():
        if not 0 < value < math.inf:  # NaN fails here too
            raise UserError(f"--{key.replace('_', '-')}: expected a positive number, got {value}.")
    if isinstance(options.get("multiplier"), float) and isinstance(entry.defaults.get("multiplier"), int):
        raise UserError(f"--multiplier: expected a whole number for {name}, got {multiplier}.")
    shape = entry.image_shape if image_size is None else (image_size, image_size, entry.image_shape[-1])
    width = entry.max_width if width is None and subnet is None else width
    low = min(width or entry.min_width, entry.min_width)
    net = make_supernet(entry, entry.build(**options), shape, min_width=low)
    chosen = net.space.uniform(width) if width is not None else net.space.from_channels(subnet or {})
    return {
        "model": name,
        "width": width,
        "macs": int(net.macs(chosen)),
        "params": int(net.params(chosen)),
        "params_without_norms": int(costs.params(net.records, net.space, chosen, norms=False)),
        "image_shape": list(shape),
        "channels": net.space.to_channels(chosen),
    }


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _whole(number: float | None) -> float | int | None:
    return int(number) if number is not None and math.isfinite(number) and number == int(number) else number

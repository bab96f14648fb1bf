"""`slimjax cost`: what a named network costs at a width."""

from __future__ import annotations

import dataclasses
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
    batch: int = 1,
    convention: str | None = None,
) -> dict[str, Any]:
    """MACs per image, active parameters and peak memory of inference.

    Args:
      batch: images that `peak_bytes` is for, in float32.
      convention: a key of `costs.CONVENTIONS`; None: that of the model's paper.

    Any width in (0, 1] is answered, below the range that the paper trains too.
    """
    if width is not None and subnet is not None:
        raise UserError("give --width or --subnet, not both.")
    if width is not None and not 0 < width <= 1:
        raise UserError(f"--width: expected a number above 0 and up to 1, got {width:g}.")
    entry = models.lookup(name)
    options = _given(multiplier=_whole(multiplier), num_classes=num_classes)
    for key, value in {**options, **_given(image_size=image_size, batch=batch)}.items():
        if not 0 < value < math.inf:  # NaN fails here too
            raise UserError(f"--{key.replace('_', '-')}: expected a positive number, got {value}.")
    if isinstance(options.get("multiplier"), float) and isinstance(entry.defaults["multiplier"], int):
        raise UserError(f"--multiplier: expected a whole number for {name}, got {multiplier}.")
    shape = entry.image_shape if image_size is None else (image_size, image_size, entry.image_shape[-1])
    width = 1.0 if width is None and subnet is None else width
    entry = dataclasses.replace(entry, convention=convention or entry.convention)
    net = make_supernet(entry, entry.build(**options), shape, min_width=min(width or 1.0, entry.min_width))
    chosen = net.space.uniform(width) if width is not None else net.space.from_channels(subnet or {})
    return {
        "model": name,
        "width": width,
        "macs": int(net.macs(chosen)),
        "convention": entry.convention,
        "params": int(net.params(chosen)),
        "params_without_norms": int(costs.params(net.records, net.space, norms=False)(chosen)),
        "peak_bytes": int(net.peak_memory(chosen, batch)),
        "batch": batch,
        "image_shape": list(shape),
        "channels": net.space.to_channels(chosen),
    }


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _whole(number: float | None) -> float | int | None:
    return int(number) if number is not None and math.isfinite(number) and number == int(number) else number

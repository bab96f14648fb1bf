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
    variant: str | None = None,
    multiplier: float | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
) -> dict[str, Any]:
    """MACs per image and active parameters, with the counting conventions of the model's paper.

    Any width in (0, 1] is answered, below the range that the paper trains too.
    """
    if len(given := list(_given(width=width, subnet=subnet, variant=variant))) > 1:
        raise UserError(f"give {' or '.join(f'--{flag}' for flag in given)}, not both.")
    if width is not None and not 0 < width <= 1:
        raise UserError(f"--width: expected a number above 0 and up to 1, got {width:g}.")
    entry = models.lookup(name)
    subnet = _variant(name, entry, variant) if variant is not None else subnet
    options = _given(multiplier=_whole(multiplier), num_classes=num_classes)
    for key, value in {**options, **_given(image_size=image_size)}.items():
        if not 0 < value < math.inf:  # NaN fails here too
            raise UserError(f"--{key.replace('_', '-')}: expected a positive number, got {value}.")
    if isinstance(options.get("multiplier"), float) and isinstance(entry.defaults.get("multiplier"), int):
        raise UserError(f"--multiplier: expected a whole number for {name}, got {multiplier}.")
    shape = entry.image_shape if image_size is None else (image_size, image_size, entry.image_shape[-1])
    width = 1.0 if width is None and subnet is None else width
    net = make_supernet(entry, entry.build(**options), shape, min_width=min(width or 1.0, entry.min_width))
    chosen = net.space.uniform(width) if width is not None else net.space.from_channels(subnet or {})
    return {
        "model": name,
        "variant": variant,
        "width": width,
        "macs": int(net.macs(chosen)),
        "params": int(net.params(chosen)),
        "params_without_norms": int(costs.params(net.records, net.space, chosen, norms=False)),
        "image_shape": list(shape),
        "channels": net.space.to_channels(chosen),
    }


def _variant(name: str, entry: models.Entry, variant: str) -> Mapping[str, int]:
    """Channels by group of a model's published subnet."""
    if variant in entry.variants:
        return entry.variants[variant]
    if entry.variants:
        raise UserError(f"--variant: {name} has {', '.join(entry.variants)}; got {variant!r}.")
    known = ", ".join(known for known, other in models.MODELS.items() if other.variants)
    raise UserError(f"--variant: {name} has no variants. Models that have some: {known}.")


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _whole(number: float | None) -> float | int | None:
    return int(number) if number is not None and math.isfinite(number) and number == int(number) else number

"""`slimjax cost`: what a named network costs at a width."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from slimjax import models, supernet
from slimjax.checks import check, if_given, integer, number
from slimjax.cost import counts, latency
from slimjax.errors import BadValue, UserError
from slimjax.verbs import options
from slimjax.verbs.answers import print_answer
from slimjax.verbs.arguments import given, refuse


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    del overrides
    if arguments.table is None:
        refuse(arguments, ["monotone"], "repairs a table. Give one: --table FILE.")
    wanted = given(arguments, "width", "subnet", "variant", "batch", "table", "convention", *options.NETWORK)
    print_answer(arguments, cost_of(arguments.model, monotone=arguments.monotone, **wanted))


def cost_of(
    name: str,
    *,
    width: float | None = None,
    subnet: Mapping[str, int | str] | None = None,
    variant: str | None = None,
    batch: int = 1,
    table: str | None = None,
    monotone: bool = False,
    **network: Any,
) -> dict[str, Any]:
    """MACs per image, active parameters, peak memory of inference and, with a table, latency.

    Args:
      batch: images that `peak_bytes` is for, in float32.
      table: path of a latency table; `monotone`: repair it first (`latency.monotone`).
      network: arguments of `supernet.named`.

    Any width above 0 is answered, below the range that the paper trains too; by default the full network.
    """
    chosen_by = {"width": width, "subnet": subnet, "variant": variant}
    if len(ways := [flag for flag, value in chosen_by.items() if value is not None]) > 1:
        raise UserError(f"give {' or '.join(f'--{flag}' for flag in ways)}, not both.")
    spec = models.lookup(name)
    check("width", width, if_given(number(0, spec.max_width, above=True)))
    check("batch", batch, integer(1))
    subnet = _variant(name, spec, variant) if variant is not None else subnet
    width = spec.max_width if width is None and subnet is None else width
    lowest = min(width or spec.min_width, spec.min_width)
    net = supernet.named(name, min_width=lowest, **network)
    chosen = net.space.uniform(width) if width is not None else net.space.from_channels(subnet or {})
    answer = {
        "model": name,
        "variant": variant,
        "width": width,
        "macs": int(net.macs(chosen)),
        "params": int(net.params(chosen)),
        "params_without_norms": int(counts.params(net.records, net.space, norms=False)(chosen)),
        "peak_bytes": int(net.peak_memory(chosen, batch)),
        "batch": batch,
        "image_shape": list(net.image_shape),
        "channels": net.space.to_channels(chosen),
    }
    return answer if table is None else answer | _latency(net, chosen, table, monotone)


def _latency(net: supernet.Supernet, chosen: Any, path: str, monotone: bool) -> dict[str, Any]:
    table = latency.load(path)
    table = latency.monotone(table) if monotone else table
    about = {key: table.about[key] for key in ("device", "method", "batch", "dtype")}
    return {
        "latency_ms": round(float(net.latency(table)(chosen)), 6),
        **{f"latency_{k}": v for k, v in about.items()},
    }


def _variant(name: str, spec: models.ModelSpec, variant: str) -> Mapping[str, int | str]:
    """Channels by group of a model's published subnet."""
    if variant in spec.variants:
        return spec.variants[variant]
    if spec.variants:
        raise BadValue("variant", f"{name} has {', '.join(spec.variants)}, got {variant!r}.")
    known = ", ".join(known for known, other in models.MODELS.items() if other.variants)
    raise BadValue("variant", f"{name} has no variants. Models that have some: {known}.")

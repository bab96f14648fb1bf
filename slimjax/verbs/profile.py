"""`slimjax profile`: a table of a network's latency over channels, and a page that shows it."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

from slimjax.cost import latency
from slimjax.experiment import build, config_file
from slimjax.profiling import meters, pictures, profile
from slimjax.profiling.profile import ProfileRequest
from slimjax.verbs import options
from slimjax.verbs.answers import print_answer, use_cpu
from slimjax.verbs.arguments import given, refuse


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    use_cpu()
    request = _request(arguments, overrides)
    table, origin = profile.run(request, **given(arguments, "points"))
    table = latency.monotone(table) if arguments.monotone else table
    table.save(arguments.out)
    picture = str(pathlib.Path(arguments.out).with_suffix(".html"))
    pictures.write(picture, [table], arguments.command)
    print_answer(arguments, {"out": arguments.out, "page": picture, **table.summary(), **origin})


def _request(arguments: argparse.Namespace, overrides: list[str]) -> ProfileRequest:
    fields = {**given(arguments, "batch", "repeats"), **options.sweep(arguments)}
    request = ProfileRequest(_network(arguments, overrides), arguments.target, **fields)
    if meters.method(arguments.target) != "measured":
        times = " or ".join(meters.MEASURED)
        refuse(arguments, ["repeats"], f"rounds are timed on {times}; {arguments.target} is not timed.")
    return request


def _network(arguments: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    """Of a name or of a config, as arguments of `supernet.named`."""
    if arguments.config is None:
        named = given(arguments, *options.NETWORK, "min_width")
        return {"name": arguments.model, "dtype": arguments.dtype or "float32", **named}
    for name, field in options.CONFIG_FIELDS.items():
        refuse(arguments, [name], f"goes with --model. With --config write --config.{field}=VALUE.")
    return build.read_network(config_file.load(arguments.config, overrides))

"""`slimjax profile`: a table of a network's latency over channels, and a page that shows it."""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import Any

from slimjax.cost import latency
from slimjax.cost.latency import LatencyTable
from slimjax.errors import UserError
from slimjax.experiment import build, config_file
from slimjax.files import write_atomic
from slimjax.profiling import exchange, meters, pictures, profile
from slimjax.profiling.profile import ProfileRequest
from slimjax.verbs import options, shared_options
from slimjax.verbs.answers import print_answer, use_cpu
from slimjax.verbs.arguments import given, refuse

READING = ("points", "repeats", "timeout", "retries", "processes", "cache", "reuse")
"""Options that say how latencies are read."""


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    use_cpu()
    if arguments.export is not None:
        _export(arguments)
    elif arguments.target is not None:
        _write(arguments, *_profiled(arguments, _network(arguments, overrides)))
    else:
        _write(arguments, _imported(arguments, _network(arguments, overrides)), {})


def _write(arguments: argparse.Namespace, table: LatencyTable, origin: dict[str, Any]) -> None:
    """The table and its page. `origin`: where its readings come from."""
    table = latency.monotone(table) if arguments.monotone else table
    table.save(arguments.out)
    picture = str(pathlib.Path(arguments.out).with_suffix(".html"))
    pictures.write(picture, [table], arguments.command)
    print_answer(arguments, {"out": arguments.out, "page": picture, **table.summary(), **origin})


def _profiled(arguments: argparse.Namespace, network: dict[str, Any]) -> tuple[LatencyTable, dict[str, Any]]:
    refuse(arguments, ["device"], "goes with --import. A target has a device.")
    fields = {**given(arguments, "batch", "repeats"), **shared_options.sweep(arguments)}
    request = ProfileRequest(network, arguments.target, **fields)
    if meters.method(arguments.target) != "measured":
        times = " or ".join(meters.MEASURED)
        refuse(arguments, ["repeats"], f"rounds are timed on {times}; {arguments.target} is not timed.")
    return profile.run(request, **given(arguments, "points"))


def _imported(arguments: argparse.Namespace, network: dict[str, Any]) -> LatencyTable:
    refuse(arguments, READING, "nothing is read: --import takes what others have measured.")
    known = given(arguments, "device", "batch")
    if missing := [f"--{name}" for name in ("device", "batch") if name not in known]:
        raise UserError(f"--import needs {' and '.join(missing)}: the file does not say what it is of.")
    return exchange.take(getattr(arguments, "import"), network, **known)


def _export(arguments: argparse.Namespace) -> None:
    ours = ("model", "config", "device", "batch", "dtype", "min_width", *options.NETWORK, *READING)
    refuse(arguments, ours, "the table that --export writes says it.")
    table = latency.load(arguments.export)
    table = latency.monotone(table) if arguments.monotone else table
    released = exchange.give(table)
    write_atomic(arguments.out, json.dumps(released, indent=1, allow_nan=False) + "\n")
    names = [name for name in released if name != "base"]
    counts = sum(len(released[name]) for name in names)
    answer = {"out": arguments.out, "operators": len(names), "entries": counts, "base_ms": released["base"]}
    print_answer(arguments, answer)


def _network(arguments: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    """Of a name or of a config, as arguments of `supernet.named`."""
    if arguments.model is None and arguments.config is None:
        raise UserError("one of the arguments --model --config is required")
    if arguments.config is None:
        named = given(arguments, *options.NETWORK, "min_width")
        return {"name": arguments.model, "dtype": arguments.dtype or "float32", **named}
    for name, field in options.CONFIG_FIELDS.items():
        refuse(arguments, [name], f"goes with --model. With --config write --config.{field}=VALUE.")
    return build.read_network(config_file.load(arguments.config, overrides))

"""Options that several commands take, and how their values are read."""

from __future__ import annotations

import argparse
import importlib.util
import json
import pathlib
from typing import Any

from slimjax.verbs.arguments import given


def define_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout", type=float, help="seconds for one entry (default: 300)")
    parser.add_argument("--retries", type=int, help="further attempts at an entry (default: 2)")
    parser.add_argument(
        "--processes", type=int, help="at work at a time (default: one to measure, else one per core)"
    )
    parser.add_argument("--cache", help="folder of readings (default: ~/.cache/slimjax/latency)")
    parser.add_argument(
        "--reuse",
        action=argparse.BooleanOptionalAction,
        help="take readings of earlier calls from the cache, or none (default: all that are not timed; of timed "
        "ones what the same call left when it was interrupted)",
    )


def sweep(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `define_sweep` defines and the user gave, as fields of `profile.ProfileRequest`."""
    found = given(arguments, "timeout", "retries", "processes", "cache", "reuse")
    return {"timeout_seconds" if name == "timeout" else name: value for name, value in found.items()}


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one line of JSON on stdout, nothing else")


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        required=True,
        help="a config file, with --config.key=value overrides; it is Python code and is run. "
        "FILE:name=value,... sets its arguments, FILE:help lists them; slimjax:NAME is a shipped one",
    )


def add_subnet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--subnet", type=channels, help="channels by group, such as '{\"stage1\": 8}'; others stay full"
    )


def add_changes(parser: argparse.ArgumentParser) -> None:
    """What differs from the network that a model's name means."""
    parser.add_argument("--multiplier", type=float, help="of all channels, for example 2 for ResNet-20 2x")
    parser.add_argument("--num-classes", "--num_classes", type=int)
    parser.add_argument("--image-size", "--image_size", type=int, help="pixels of a side")
    parser.add_argument("--divisor", type=int, help="channels in multiples of it (default: the model's rule)")


def add_random(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--subnets", type=int, default=40, help="random subnets (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="of what is random (default: 0)")


def directory(text: str) -> str:
    """A workdir, absolute, because Orbax writes to no other."""
    if not text or pathlib.Path(text).is_file():
        raise argparse.ArgumentTypeError(f"expected a directory, got {text!r}")
    if text.startswith("gs://") and importlib.util.find_spec("gcsfs") is None:
        raise argparse.ArgumentTypeError("gs:// needs gcsfs: pip install 'slimjax[gcs]'")
    return text if "://" in text else str(pathlib.Path(text).expanduser().absolute())


def channels(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        expected = 'expected JSON such as {"stage1": 8}'
        raise argparse.ArgumentTypeError(f"{expected}, got {text!r} ({error})") from error
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f'expected an object {{"group": channels}}, got {text}')
    return found


def numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected numbers such as 0.25,0.5,1, got {text!r}") from error

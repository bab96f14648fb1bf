"""`slimjax config`: every setting of a config, and what of it differs from the defaults."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from slimjax.experiment import config_file
from slimjax.experiment.config import defaults_of, validate
from slimjax.files import flatten

CHANGED = "*"


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    config = config_file.load(arguments.config, overrides)
    validate(config, config.devices or 1)
    found, defaults = (dict(flatten(_plain(c))) for c in (config, defaults_of(config)))
    changed = {key: defaults.get(key) for key, value in found.items() if value not in ({}, defaults.get(key))}
    if arguments.json:
        print(json.dumps({"config": _plain(config), "changed": changed}), flush=True)
    else:
        print(format_settings(found, changed), flush=True)


def format_settings(found: Mapping[str, Any], changed: Mapping[str, Any]) -> str:
    """A line for each setting, a paragraph for each section; `changed`: the defaults of what differs."""
    width = max(map(len, found))
    lines = {
        key: f"{CHANGED if key in changed else ' '} {key:<{width}}  {json.dumps(value)}"
        + (f"  ({_default(changed[key])})" if key in changed else "")
        for key, value in found.items()
    }
    sections = itertools.groupby(lines, lambda key: key.partition(".")[0] if "." in key else "")
    return "\n\n".join("\n".join(lines[key] for key in keys) for _, keys in sections)


def _default(value: Any) -> str:
    return "not set by default" if value is None else f"default: {json.dumps(value)}"


def _plain(config: ConfigDict) -> dict[str, Any]:
    """What config.json has."""
    plain: dict[str, Any] = json.loads(config.to_json_best_effort())
    return plain

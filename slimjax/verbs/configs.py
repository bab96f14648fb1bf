"""`slimjax configs`: what ships with the package, and what its arguments can be."""

from __future__ import annotations

import argparse
import json
from typing import Any

from slimjax.experiment import config_file, signature
from slimjax.experiment.config_file import ConfigFile


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    del overrides
    files = {name: config_file.read(path) for name, path in config_file.shipped().items()}
    if arguments.json:
        print(json.dumps({"configs": [_described(name, file) for name, file in files.items()]}), flush=True)
    else:
        print("\n\n".join(_lines(name, file) for name, file in files.items()), flush=True)


def _described(name: str, file: ConfigFile) -> dict[str, Any]:
    arguments = {a.name: {"default": a.default, "expected": a.expected} for a in file.arguments.values()}
    return {
        "name": config_file.SHIPPED + name,
        "title": file.title,
        "path": file.path,
        "arguments": arguments,
    }


def _lines(name: str, file: ConfigFile) -> str:
    return "\n".join([config_file.SHIPPED + name, f"  {file.title}", *signature.lines(file.arguments)])

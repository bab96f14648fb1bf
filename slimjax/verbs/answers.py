"""What the verbs share: how answers are printed, and how JAX is started."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from slimjax import sharding
from slimjax.report import table


def print_answer(arguments: argparse.Namespace, answer: Mapping[str, Any]) -> None:
    """A line for each key, or one line of JSON."""
    print(json.dumps(answer) if arguments.json else format_answer(answer), flush=True)


def print_rows(arguments: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    """A table of subnets, or one line of JSON; the first process of a launch prints it."""
    if jax.process_index() == 0:
        print(json.dumps(rows) if arguments.json else table.format_table(rows), flush=True)


def format_answer(answer: Mapping[str, Any]) -> str:
    return "\n".join(f"{key:>21}  {_readable(value)}" for key, value in answer.items())


def use_cpu() -> None:
    """This process only traces, or is to use the CPU: accelerators are left to others."""
    jax.config.update("jax_platforms", "cpu")


def start_jax() -> None:
    """Joins the launch's other processes and keeps compiled programs from run to run."""
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/slimjax/programs")
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(cache).expanduser()))
    sharding.initialize_processes()


def _readable(value: Any) -> str:
    return f"{value:,}" if type(value) is int else str(value)

"""`slimjax train`: a config's run, from its first step or from where it stopped, to its report."""

from __future__ import annotations

import argparse

from slimjax.experiment import config_file, loop
from slimjax.verbs.answers import print_rows, start_jax


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    config = config_file.load(arguments.config, overrides)
    start_jax()
    print_rows(arguments, loop.train(config, arguments.workdir, arguments.command))

"""`slimjax report`: the fronts of several runs, or latency tables of several targets or networks, on one page."""

from __future__ import annotations

import argparse

from slimjax.cost import latency
from slimjax.profiling import pictures
from slimjax.verbs import fronts
from slimjax.verbs.answers import print_answer
from slimjax.verbs.arguments import refuse
from slimjax.workdir import architecture


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    del overrides
    if arguments.workdir:
        refuse(arguments, ["architectures"], "goes with --tables: its networks are drawn by two of them.")
        compared = fronts.write(arguments.out, arguments.workdir, arguments.command, arguments.table)
        print_answer(arguments, {"out": arguments.out, "runs": compared})
        return
    refuse(arguments, ["table"], "goes with --workdir. Tables to draw are given as --tables.")
    found = architecture.load_all(arguments.architectures) if arguments.architectures else {}
    pictures.write(arguments.out, [latency.load(path) for path in arguments.tables], arguments.command, found)
    print_answer(arguments, {"out": arguments.out})

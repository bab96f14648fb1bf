"""`slimjax bench TOOL`: measurements that back what the docs say."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict

from slimjax.bench import bisampling, costs, device, elasticity, rescore, search, staircase, step, table
from slimjax.bench import input as bench_input
from slimjax.bench.claims import decide
from slimjax.experiment import config_file
from slimjax.profiling import tpu
from slimjax.verbs import shared_options
from slimjax.verbs.answers import print_answer, start_jax, use_cpu
from slimjax.verbs.arguments import given, refuse


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    TOOLS[arguments.tool](arguments, overrides)


def run_claims(arguments: argparse.Namespace, overrides: list[str]) -> None:
    del overrides
    start_jax()
    groups = list(decide.GROUPS) if arguments.only is None else arguments.only.split(",")
    results = decide.run(groups, arguments.seeds, arguments.workdir)
    print(json.dumps(results) if arguments.json else decide.format_table(results), flush=True)


def run_step(arguments: argparse.Namespace, overrides: list[str]) -> None:
    print_answer(arguments, _on_target(arguments, config_file.load(arguments.config, overrides)))


def _on_target(arguments: argparse.Namespace, config: ConfigDict) -> dict[str, Any]:
    """Times on the attached device; a TPU that is not there is estimated."""
    target = arguments.target
    if target in tpu.TARGETS and not tpu.is_attached():
        refuse(arguments, ["repeats"], f"nothing is timed: {target} is estimated.")
        if arguments.against != "flax":
            refuse(
                arguments, ["against"], f"PyTorch can be timed on this machine, not estimated for {target}."
            )
        return step.estimate(config, target, arguments.against)
    if target == "cpu":
        use_cpu()
    start_jax()
    return step.run(config, against=arguments.against, **given(arguments, "repeats"))


def run_bisampling(arguments: argparse.Namespace, overrides: list[str]) -> None:
    start_jax()
    config = config_file.load(arguments.config, overrides)
    print_answer(arguments, bisampling.run(config, **given(arguments, "repeats", "paths")))


def run_table(arguments: argparse.Namespace, overrides: list[str]) -> None:
    del overrides
    use_cpu()
    fields = given(arguments, "architectures") | shared_options.sweep(arguments)
    print_answer(arguments, table.run(arguments.table, arguments.subnets, arguments.seed, **fields))


def run_costs(arguments: argparse.Namespace, overrides: list[str]) -> None:
    del overrides
    use_cpu()
    print_answer(arguments, costs.run(arguments.model, arguments.subnets))


def run_search(arguments: argparse.Namespace, overrides: list[str]) -> None:
    del overrides
    given = arguments.history, arguments.dims, arguments.repeats, arguments.warm, arguments.seed
    print_answer(arguments, search.run(*given))


def run_elasticity(arguments: argparse.Namespace, overrides: list[str]) -> None:
    del overrides
    use_cpu()
    fields = given(arguments, "table", "targets") | shared_options.sweep(arguments)
    print_answer(arguments, elasticity.run(arguments.subnets, arguments.seed, **fields))


def run_device(arguments: argparse.Namespace, overrides: list[str]) -> None:
    fields = given(arguments, "minutes")
    answer = device.run(arguments.out, configs=arguments.config or (), overrides=overrides, **fields)
    print_answer(arguments, answer)


def run_input(arguments: argparse.Namespace, overrides: list[str]) -> None:
    use_cpu()
    config = config_file.load(arguments.config, overrides)
    print_answer(arguments, bench_input.run(config, **given(arguments, "batches")))


def run_staircase(arguments: argparse.Namespace, overrides: list[str]) -> None:
    del overrides
    use_cpu()
    print_answer(
        arguments, staircase.run(arguments.table, **given(arguments, "trials", "seeds", "cost_model"))
    )


def run_rescore(arguments: argparse.Namespace, overrides: list[str]) -> None:
    del overrides
    given = arguments.model, arguments.subnets, arguments.batch, arguments.repeats
    print_answer(arguments, rescore.run(*given, spread=arguments.spread, seed=arguments.seed))


TOOLS: Mapping[str, Callable[[argparse.Namespace, list[str]], None]] = MappingProxyType(
    {
        "claims": run_claims,
        "step": run_step,
        "bisampling": run_bisampling,
        "table": run_table,
        "costs": run_costs,
        "search": run_search,
        "elasticity": run_elasticity,
        "device": run_device,
        "input": run_input,
        "staircase": run_staircase,
        "rescore": run_rescore,
    }
)

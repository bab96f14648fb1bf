"""`slimjax compile`: what a config's train step needs and does on a TPU slice that is not there.

Everything is the TPU compiler's account of the real, sharded programs; nothing is run.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from slimjax.algorithms.turns import Step
from slimjax.errors import RunError, UserError
from slimjax.experiment import config_file, plan
from slimjax.experiment.build import Experiment, build
from slimjax.nn.space import Subnet
from slimjax.profiling import hlo, tpu
from slimjax.profiling.chips import GIB, Chip
from slimjax.profiling.tpu import Slice
from slimjax.progress import Progress
from slimjax.verbs.answers import format_answer

SAMPLE = 64
"""Proposals of which the most typical one is compiled."""

MARGIN = 1.1
"""Times the memory there is, that a step is taken to need at least when it does not fit."""

AROUND = MappingProxyType({"prepare": "augmentation", "draw": "paths", "update": "update"})
"""The programs of a step that are no slot's, and what they do."""

Answer = dict[str, Any]
Programs = Mapping[str, Any]
"""The compiled programs of one step by name, in order."""

_UNITS = MappingProxyType({"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40})
# What each of n devices sends at least, over the bytes of its result.
_SENT: Mapping[str, Callable[[int], float]] = MappingProxyType(
    {
        "all-reduce": lambda n: 2 * (n - 1) / n,
        "all-gather": lambda n: (n - 1) / n,
        "all-to-all": lambda n: (n - 1) / n,
        "reduce-scatter": lambda n: n - 1,
        "collective-permute": lambda n: 1,
    }
)


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    configs = {path: config_file.load(path, overrides) for path in arguments.config}
    answers = compile_configs(configs, arguments.topology)
    if arguments.json:
        print(json.dumps({"results": answers}), flush=True)
    else:
        one = len(answers) == 1
        print(format_answer(answers[0]) if one else format_answers(answers), flush=True)
    if failed := [answer["config"] for answer in answers if "error" in answer]:
        raise RunError(f"no answer for {', '.join(failed)}: see what is printed.")


def compile_configs(configs: Mapping[str, ConfigDict], topology: str) -> list[Answer]:
    """One answer per config, in their order. Where a config has none, `error` says why.

    The step that is compiled is the one whose cost is nearest the mean of `SAMPLE` proposals.

    Raises:
      UserError: no such topology, no TPU compiler, or no config that can be built for it.
    """
    devices, where = tpu.compile_only_devices(topology), Slice.parse(topology)
    experiments, answers = {}, {}
    for name, config in configs.items():
        try:
            experiments[name] = build(config, devices)
        except UserError as error:
            answers[name] = {"config": name, "error": str(error)}
    if not experiments:
        raise UserError("\n".join(f"{name}: {answer['error']}" for name, answer in answers.items()))
    steps = [step for experiment in experiments.values() for step in experiment.algorithm.steps()]
    total = sum(len(step.parts) for step in steps)
    lock = threading.Lock()
    with Progress(total, "compile", noun="program") as progress, ThreadPoolExecutor(os.cpu_count()) as pool:

        def compiled() -> None:
            with lock:
                progress.advance()

        # The compiler works outside Python's lock. Taken out, an experiment goes when it is done, with its programs.
        jobs = {
            name: pool.submit(query, name, experiments.pop(name), where, compiled)
            for name in list(experiments)
        }
        answers |= {name: job.result() for name, job in jobs.items()}
    return [answers[name] for name in configs]


def query(name: str, experiment: Experiment, where: Slice, compiled: Callable[[], None]) -> Answer:
    """Compiles the steps of an experiment on a slice's devices; `compiled` is called after each program.

    Where phases have different steps, all must fit, and time and exchange are those of the one that computes most.
    """
    config, chips = experiment.config, experiment.mesh.size
    known = {
        "config": name,
        "topology": str(where),
        "chips": chips,
        "hosts": len({device.process_index for device in experiment.mesh.devices.flat}),
        "batch_size": config.train.batch_size,
        "batch_per_chip": config.train.batch_size // chips,
        "micro_batches": config.train.micro_batches,
        "hbm_bytes": int(where.chip.hbm_bytes),
        "basis": f"compiler estimate, {where.chip.clock_hz / 1e9:g} GHz, jax {jax.__version__}",
    }
    try:
        programs, steps = compile_steps(experiment, compiled)
    except jax.errors.JaxRuntimeError as error:
        message = str(error)
        if "RESOURCE_EXHAUSTED" not in message:
            return known | {"error": message.splitlines()[0]}
        needed = needed_bytes(message)
        return known | {"fits": False, "peak_bytes": needed, "suggestions": suggest(config, where, needed)}
    peak = max(step["peak_bytes"] for step in steps)
    fits = peak <= where.chip.hbm_bytes
    return known | {
        "fits": fits,
        "peak_bytes": peak,
        "steps": steps,
        "suggestions": [] if fits else suggest(config, where, peak),
        **account(programs, experiment, where.chip),
    }


def compile_steps(experiment: Experiment, compiled: Callable[[], None]) -> tuple[Programs, list[Answer]]:
    """The programs of the costliest step, and of each step its slots, its cycles and its most bytes on a device."""
    state, batch = experiment.abstract_state(), experiment.abstract_batch()
    programs: dict[str, Any] = {}
    found: list[Answer] = []
    for step in sorted(
        experiment.algorithm.steps(), key=lambda step: step.executed_macs()
    ):  # the costliest last
        pairs = step.compile(state, batch, _typical(step), compiled)
        programs = {name: program for name, (program, _) in zip(step.parts, pairs, strict=True)}
        cycles = sum(hlo.Module.of(program).cycles for program in programs.values())
        peak = plan.step_peak_bytes(experiment, pairs, state, batch)
        slots = [slot.name for slot in step.slots]
        found.append({"slots": slots, "mcycles": cycles / 1e6, "peak_bytes": peak})
    return programs, found


def account(programs: Programs, experiment: Experiment, chip: Chip) -> Answer:
    """Time, images per second, FLOPs and collectives of one step, by the compiler's estimates.

    The estimated cycles leave collectives out, so what they send is put over the links' bandwidth and added;
    nothing is hidden behind anything, and latencies are not counted.
    """
    config, chips = experiment.config, experiment.mesh.size
    modules = {name: hlo.Module.of(program) for name, program in programs.items()}
    found = exchanged(modules.values())
    compute = sum(module.cycles for module in modules.values()) / chip.clock_hz
    exchange = sum(kind["bytes"] * _SENT[name](chips) for name, kind in found.items()) / chip.ici_bandwidth
    seconds = None if any(module.unknown_loops for module in modules.values()) else compute + exchange
    flops = step_flops(programs, config.train.micro_batches)
    return {
        "step_ms": seconds and 1e3 * seconds,
        "images_per_second": seconds and config.train.batch_size / seconds,
        "utilisation": seconds and flops / seconds / chip.peak_flops,
        "mcycles": sum(module.cycles for module in modules.values()) / 1e6,
        "mcycles_by_program": {name: module.cycles / 1e6 for name, module in modules.items()},
        "mcycles_by_kind": _by_kind(modules),
        "compute_ms": 1e3 * compute,
        "exchange_ms": 1e3 * exchange,
        "flops_per_chip": flops,
        "collectives": found,
    }


def _by_kind(modules: Mapping[str, hlo.Module]) -> dict[str, float]:
    """Mcycles of all slots together by what instructions do, and of the programs around them."""
    slots = [module.cycles_by_kind() for name, module in modules.items() if name not in AROUND]
    around = {what: modules[name].cycles for name, what in AROUND.items() if name in modules}
    found = {kind: sum(slot[kind] for slot in slots) for kind in hlo.KINDS} | around
    return {kind: cycles / 1e6 for kind, cycles in found.items()}


def exchanged(modules: Iterable[hlo.Module]) -> dict[str, dict[str, int]]:
    """Collectives of the programs together, by kind: how many, and bytes of their results on one device."""
    count, size = collections.defaultdict[str, float](float), collections.defaultdict[str, float](float)
    for module in modules:
        for collective in module.collectives():
            count[collective.kind] += collective.count
            size[collective.kind] += collective.count * collective.bytes
    return {kind: {"count": round(count[kind]), "bytes": round(size[kind])} for kind in count}


def step_flops(programs: Programs, micro_batches: int) -> float:
    """FLOPs of one step on one device, as XLA counts them.

    XLA counts a loop once, and the loop over micro-batches is all that a slot's program does.
    """
    total = 0.0
    for name, program in programs.items():
        repeats = 1 if name in AROUND else micro_batches
        total += repeats * program.cost_analysis().get("flops", 0.0)
    return total


def needed_bytes(message: str) -> int | None:
    """What the compiler says that a program needs, at least, when it refuses; None: it does not say."""
    found = re.search(r"(?:Used |required for [\w ]+\()([\d.]+)([KMGT])", message)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None


def suggest(config: ConfigDict, where: Slice, needed: int | None) -> list[str]:
    """Overrides that are likely to make a step fit, the mildest first; each is to be tried alone.

    A guess: memory in proportion to the images whose activations a chip holds. Unknown needs are taken as
    twice what there is, and all others as at least `MARGIN` times. `engine.remat` is not suggested: it makes the
    whole forward pass again at once, so the compiler needs as much memory with it (docs/pods.md).
    """
    excess = max(MARGIN, needed / where.chip.hbm_bytes) if needed else 2.0
    chips, batch, parts = config.devices or where.chips, config.train.batch_size, config.train.micro_batches
    per_chip = batch // chips
    finer = [n for n in range(1, per_chip + 1) if per_chip % n == 0 and n >= parts * excess]
    smaller = int(batch / excess) // (chips * parts) * chips * parts
    larger = where.doubled()
    while larger and larger.chips < where.chips * excess:
        larger = larger.doubled()
    return [
        *[f"--config.train.micro_batches={n}" for n in finer[:1]],
        *([f"--config.train.batch_size={smaller}"] if smaller else []),
        *(
            [f"--topology {larger}"]
            if larger and not config.devices and batch % (larger.chips * parts) == 0
            else []
        ),
    ]


def format_answers(answers: Sequence[Answer]) -> str:
    """An aligned table; above it what all rows share, below it errors and suggestions."""
    rows = [_COLUMNS, *(_cells(answer) for answer in answers)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [[cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = ["  ".join([row[0].strip().ljust(widths[0]), *row[1:]]) for row in table]
    shared = next((answer for answer in answers if "topology" in answer), None)
    if shared:
        memory = f"{shared['hbm_bytes'] / GIB:.4g} GiB each"
        where = f"{shared['topology']}: {shared['chips']} chips on {shared['hosts']} host(s), {memory}"
        lines.insert(0, f"{where}; {shared['basis']}")
    return "\n".join([*lines, *filter(None, map(_remark, answers))])


_COLUMNS = ["config", "batch", "a chip", "fits", "peak GiB", "Mcycles", "ms", "images/s", "FLOPs used"]
_COLUMNS += ["exchanges", "MB"]


def _cells(answer: Answer) -> list[str]:
    if "error" in answer:
        return [_name(answer), *["-"] * (len(_COLUMNS) - 1)]
    peak, found = answer["peak_bytes"], answer.get("collectives", {}).values()
    fits = [str(answer["batch_size"]), str(answer["batch_per_chip"]), "yes" if answer["fits"] else "no"]
    return [
        _name(answer),
        *fits,
        "-" if peak is None else f"{peak / GIB:.2f}",
        _cell(answer.get("mcycles"), ".1f"),
        _cell(answer.get("step_ms"), ".1f"),
        _cell(answer.get("images_per_second"), ",.0f"),
        _cell(answer.get("utilisation"), ".1%"),
        str(sum(kind["count"] for kind in found)) if found else "-",
        f"{sum(kind['bytes'] for kind in found) / 1e6:.1f}" if found else "-",
    ]


def _name(answer: Answer) -> str:
    return config_file.short_name(answer["config"])


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _remark(answer: Answer) -> str | None:
    if "error" in answer:
        return f"{_name(answer)}: {answer['error']}"
    if answer["fits"]:
        return None
    return f"{_name(answer)} does not fit. Try one of: {', '.join(answer['suggestions']) or 'nothing'}"


def _typical(step: Step) -> Subnet:
    """Of a sample of proposals, the one that costs what a step costs on average."""
    proposals = step.sampled(SAMPLE)
    macs = np.array([step.executed_macs(rows) for rows in proposals])
    return proposals[int(abs(macs - macs.mean()).argmin())]

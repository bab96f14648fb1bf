"""What a run will do and what it will cost, said before it starts."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from slimjax.algorithms.turns import Step, Turn
from slimjax.data.feed import AHEAD
from slimjax.experiment.build import Experiment
from slimjax.nn.space import Space
from slimjax.progress import Progress
from slimjax.step.programs import peak_bytes
from slimjax.step.state import TrainState

BACKWARD = 2
"""A backward pass costs about two forward passes (gradients of inputs and of kernels)."""


def describe(experiment: Experiment, first: int = 0) -> str:
    """A few aligned lines: data, model, step, cost, steps done and to go."""
    config, net, info = experiment.config, experiment.net, experiment.dataset.info
    ends = (net.space.smallest, net.space.largest)
    macs, params = ([int(count(end)) for end in ends] for count in (net.macs, net.params))
    lines = {
        "data": f"{info.name}: "
        + ", ".join(f"{count:,} {split}" for split, count in info.splits.items())
        + f"; {'x'.join(map(str, info.image_shape))}, {info.num_classes} classes",
        "model": f"{config.model.name}: {_axes(net.space)}, {macs[0]:,} to {macs[1]:,} MACs, "
        f"{params[0]:,} to {params[1]:,} parameters",
        **_phases(experiment),
        "batch": f"{config.train.batch_size} on {experiment.mesh.size} {jax.devices()[0].platform} device(s), "
        f"{jax.process_count()} process(es), {config.model.dtype}",
        "steps": f"{first:,} done, {experiment.steps - first:,} to go",
    }
    return "\n".join(f"{name:>{max(map(len, lines))}}  {text}" for name, text in lines.items())


def _axes(space: Space) -> str:
    """How many, in words."""
    choices = f" and {len(space.choices)} choices" if space.choices else ""
    return f"{len(space.groups)} groups{choices}"


def _phases(experiment: Experiment) -> dict[str, str]:
    """What each step is and costs; where there are several, also how long each phase lasts."""
    phases = experiment.algorithm.phases
    if len(phases) == 1:
        step = phases[0].step
        return {"step": "; ".join(step.describe()), "cost": _cost(experiment, step)}
    ends = [*(phase.first for phase in phases[1:]), experiment.steps]
    lengths: dict[str, list[int]] = {}
    for phase, end in zip(phases, ends, strict=True):
        lengths.setdefault(phase.name, []).append(end - phase.first)
    lines = {}
    for phase in {phase.name: phase for phase in phases}.values():
        times = lengths[phase.name]
        often = f"{len(times)} times " if len(times) > 1 else ""
        turns = dict.fromkeys(_turn(experiment, turn) for turn in phase.turns)
        lines[phase.name] = f"{often}{times[0]:,} steps{', and in turns with them steps'.join(turns)}"
    return lines


def _turn(experiment: Experiment, turn: Turn) -> str:
    """On which images a step is made, what it is, and what it costs."""
    images = "" if turn.split == "train" else f" on the {turn.split} images"
    return f"{images}: {'; '.join(turn.step.describe())}; {_cost(experiment, turn.step)}"


def _cost(experiment: Experiment, step: Step) -> str:
    largest = int(experiment.net.macs(experiment.net.space.largest))
    forward, size = step.executed_macs(), experiment.config.train.batch_size
    return (
        f"{forward / largest:.2f} x the largest network alone, {forward / step.exact_macs():.3f} x exact slices: "
        f"{(1 + BACKWARD) * forward * size / 1e9:.2f} GMACs a step"
    )


def compile_step(experiment: Experiment, state: TrainState, enabled: bool = True) -> str:
    """Compiles what the next step runs, with progress; returns a line on the memory that it needs.

    Training then uses these programs. Rungs that the next step does not need are compiled when first used.
    """
    number, batch = int(state.step), experiment.abstract_batch()
    step = experiment.algorithm.turn(number).step
    subnets = experiment.algorithm.propose(state.algorithm, number)
    with Progress(len(step.parts), "compile", noun="program", enabled=enabled) as progress:
        programs = step.compile(state, batch, subnets, progress.advance)
    peak = step_peak_bytes(experiment, programs, state, batch)
    return f"memory  {peak / 1e6:,.0f} MB at the peak on each device, by the compiler's account"


def step_peak_bytes(experiment: Experiment, programs: Any, state: Any, batch: Any) -> int:
    """Most bytes on a device while a step's programs run, with the batches that wait for theirs.

    Args:
      programs: with their arguments, compiled for this `state` and `batch` (arrays or shapes).
    """
    waiting = [experiment.abstract_batch() for _ in range(AHEAD)]
    on_devices = dataclasses.replace(state, algorithm=None)
    return peak_bytes(programs, (on_devices, batch, waiting))

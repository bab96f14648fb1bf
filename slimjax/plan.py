"""What a run will do and what it will cost, said before it starts."""

from __future__ import annotations

import jax
import numpy as np

from slimjax.build import Experiment

BACKWARD = 2
"""A backward pass costs about two forward passes (gradients of inputs and of kernels)."""


def describe(experiment: Experiment, first: int = 0) -> str:
    """A few aligned lines: data, model, step, cost, steps done and to go."""
    config, net, info = experiment.config, experiment.net, experiment.dataset.info
    ends = (net.space.smallest, net.space.largest)
    macs, params = ([int(count(end)) for end in ends] for count in (net.macs, net.params))
    forward = forward_macs(experiment)
    lines = {
        "data": f"{info.name}: "
        + ", ".join(f"{count:,} {split}" for split, count in info.splits.items())
        + f"; {'x'.join(map(str, info.image_shape))}, {info.num_classes} classes",
        "model": f"{config.model.name}: {len(net.space.groups)} groups, {macs[0]:,} to {macs[1]:,} MACs, "
        f"{params[0]:,} to {params[1]:,} parameters",
        "step": ", ".join(
            f"{s.name} {'masked' if s.subnet is None else 'sliced'}" for s in _slots(experiment)
        ),
        "cost": f"{forward / macs[1]:.2f} x the largest network alone: "
        f"{(1 + BACKWARD) * forward * config.train.batch_size / 1e9:.2f} GMACs a step",
        "batch": f"{config.train.batch_size} on {experiment.mesh.size} {jax.devices()[0].platform} device(s), "
        f"{jax.process_count()} process(es), {config.model.dtype}",
        "steps": f"{first:,} done, {experiment.steps - first:,} to go",
    }
    return "\n".join(f"{name:>6}  {text}" for name, text in lines.items())


def forward_macs(experiment: Experiment) -> int:
    """MACs that one forward pass of a step executes per image: a masked subnet costs the full network."""
    largest = experiment.net.space.largest
    ran = [largest if s.subnet is None else np.array(s.subnet) for s in _slots(experiment)]
    return sum(int(experiment.net.macs(subnet)) for subnet in ran)


def _slots(experiment: Experiment) -> tuple:
    return experiment.algorithm.slots

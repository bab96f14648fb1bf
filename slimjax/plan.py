"""What a run will do and what it will cost, said before it starts."""

from __future__ import annotations

import jax

from slimjax.build import Experiment

BACKWARD = 2
"""A backward pass costs about two forward passes (gradients of inputs and of kernels)."""


def describe(experiment: Experiment, first: int = 0) -> str:
    """A few aligned lines: data, model, step, cost, steps done and to go."""
    config, net, info = experiment.config, experiment.net, experiment.dataset.info
    ends = (net.space.smallest, net.space.largest)
    macs, params = ([int(count(end)) for end in ends] for count in (net.macs, net.params))
    step = experiment.algorithm.step
    forward = step.executed_macs()
    lines = {
        "data": f"{info.name}: "
        + ", ".join(f"{count:,} {split}" for split, count in info.splits.items())
        + f"; {'x'.join(map(str, info.image_shape))}, {info.num_classes} classes",
        "model": f"{config.model.name}: {len(net.space.groups)} groups, {macs[0]:,} to {macs[1]:,} MACs, "
        f"{params[0]:,} to {params[1]:,} parameters",
        "step": "; ".join(step.describe()),
        "cost": f"{forward / macs[1]:.2f} x the largest network alone, {forward / step.exact_macs():.3f} x exact "
        f"slices: {(1 + BACKWARD) * forward * config.train.batch_size / 1e9:.2f} GMACs a step",
        "batch": f"{config.train.batch_size} on {experiment.mesh.size} {jax.devices()[0].platform} device(s), "
        f"{jax.process_count()} process(es), {config.model.dtype}",
        "steps": f"{first:,} done, {experiment.steps - first:,} to go",
    }
    return "\n".join(f"{name:>6}  {text}" for name, text in lines.items())

"""What one unit of a network costs on a device: measured, estimated by the compiler, or from a roofline."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slimjax import checks
from slimjax.checks import number
from slimjax.cost.units import Unit
from slimjax.errors import UserError
from slimjax.profiling import hlo, tpu
from slimjax.profiling.chips import PEAKS, Peaks
from slimjax.profiling.tpu import Slice
from slimjax.step.programs import compiler_options

Reading = dict[str, Any]
"""median_ms, spread_ms (interquartile range), outlier (whether it stayed unsteady)."""

Meter = Callable[[Unit | None, Sequence[int]], Reading]
"""The latency of a unit at channel counts of its axes; of None: what calling any program costs."""

MEASURED = ("cpu", "gpu", "tpu")
ROOFLINE = "roofline:"
STEADY = 0.2
"""A measurement whose interquartile range is below this share of its median is steady."""

ATTEMPTS = 3
"""Measurements of an unsteady entry; the steadiest counts."""

ROUND_SECONDS = 0.01
"""Shorter calls are repeated until one timed round takes this long."""


def method(target: str) -> str:
    """How a target's figures come about; the word is part of every table."""
    if target in MEASURED:
        return "measured"
    return "roofline" if target.startswith(ROOFLINE) else "compiler estimate"


def targets() -> tuple[str, ...]:
    """All that `make` knows."""
    return (*MEASURED, *tpu.TARGETS, *(ROOFLINE + name for name in PEAKS))


def make(target: str, batch: int, repeats: int) -> tuple[str, Meter]:
    """(device, meter) of a target.

    Raises:
      UserError: the device is not there.
      ValueError: a target that is not of `targets`.
    """
    if target in MEASURED:
        device = _attached(target)
        return _describe(device), measured(device.platform, batch, repeats)
    if target in tpu.TARGETS:
        chip = tpu.compile_only_devices(tpu.TARGETS[target])[0]
        clock_hz = Slice.parse(tpu.TARGETS[target]).chip.clock_hz
        name = f"{chip.device_kind}, compiler estimate at {clock_hz / 1e9:g} GHz"
        return name, estimated(chip, batch, clock_hz)
    if target.removeprefix(ROOFLINE) in PEAKS:
        name = target.removeprefix(ROOFLINE)
        return f"{name}, roofline of its published peaks", roofline(PEAKS[name], batch)
    raise ValueError(f"unknown target {target!r}; known: {', '.join(targets())}")


def measured(platform: str, batch: int, repeats: int) -> Meter:
    """Runs on the attached device: warm-up, then `repeats` timed rounds, each waited for."""

    def meter(unit: Unit | None, sizes: Sequence[int]) -> Reading:
        function: Callable[..., Any] = unit.forward(sizes) if unit else lambda x: x + 1
        arguments = _fill(unit.arguments(sizes, batch)) if unit else (jnp.zeros(8),)
        program = jax.jit(function).lower(*arguments).compile({**compiler_options(platform)})
        readings: list[Reading] = []
        while len(readings) < ATTEMPTS and not any(
            r["spread_ms"] <= STEADY * r["median_ms"] for r in readings
        ):
            readings.append(_time(lambda: program(*arguments), repeats))
        best = min(readings, key=lambda r: r["spread_ms"] / r["median_ms"])
        return {**best, "outlier": best["spread_ms"] > STEADY * best["median_ms"]}

    return meter


def estimated(chip: Any, batch: int, clock_hz: float) -> Meter:
    """Compiles for a TPU that is not there; the compiler's estimated cycles over the clock.

    Within a network a unit's feature maps are in whatever layout and memory suits the compiler; as arguments of a
    program of its own they would be in HBM, in a layout that has to be changed first. So they are made up
    before the unit and used up after it, behind barriers, and only the unit's own instructions count. Images
    are real arguments, as they are of the network.
    """
    sharding = jax.sharding.SingleDeviceSharding(chip)

    def meter(unit: Unit | None, sizes: Sequence[int]) -> Reading:
        if unit is None:  # what the compiler estimates has no call in it
            return {"median_ms": 0.0, "spread_ms": 0.0, "outlier": False}
        variables, values = unit.arguments(sizes, batch)
        is_image = [not unit.sources[i].inputs for i in unit.inputs]
        images = [value for value, given in zip(values, is_image, strict=True) if given]
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            (variables, images, jax.ShapeDtypeStruct((), jnp.float32)),
        )
        function = _isolated(unit.forward(sizes), values, is_image)
        module = hlo.Module.of(jax.jit(function).lower(*shapes).compile())
        cycles = module.cycles_outside(*_AROUND)
        return {"median_ms": 1000 * cycles / clock_hz, "spread_ms": 0.0, "outlier": False}

    return meter


_AROUND = ("before_unit", "after_unit")


def _isolated(
    forward: Callable[..., list[jax.Array]], values: Sequence[Any], is_image: Sequence[bool]
) -> Callable[..., list[jax.Array]]:
    """(variables, images, seed) -> something of each output; all but the images is made up from the seed."""

    def run(variables: Any, images: Sequence[jax.Array], seed: jax.Array) -> list[jax.Array]:
        given = iter(images)
        with jax.named_scope(_AROUND[0]):
            made = [jnp.broadcast_to(seed.astype(value.dtype), value.shape) for value in values]
            made = jax.lax.optimization_barrier(made)
        arguments = [next(given) if real else x for real, x in zip(is_image, made, strict=True)]
        results = jax.lax.optimization_barrier(forward(variables, arguments))
        with jax.named_scope(_AROUND[1]):
            return [jax.lax.slice_in_dim(result, 0, 1, axis=-1) for result in results]

    return run


def roofline(peaks: Peaks, batch: int) -> Meter:
    """The larger of FLOPs over the peak rate and bytes over the memory's, both as XLA counts them.

    FLOPs are those of the program as another platform than the CPU gets it (no packed convolutions), bytes those
    of the program compiled here, with its elementwise chains fused.
    """

    def meter(unit: Unit | None, sizes: Sequence[int]) -> Reading:
        if unit is None:
            return {"median_ms": 0.0, "spread_ms": 0.0, "outlier": False}
        traced = jax.jit(unit.forward(sizes)).trace(*unit.arguments(sizes, batch))
        flops = traced.lower(lowering_platforms=("tpu",)).cost_analysis()["flops"]
        accessed = traced.lower().compile().cost_analysis()["bytes accessed"]
        seconds = max(flops / peaks.flops, accessed / peaks.bandwidth)
        return {"median_ms": 1000 * seconds, "spread_ms": 0.0, "outlier": False}

    return meter


def problem(reading: Mapping[str, Any], overhead: bool = False) -> str | None:
    """What is wrong with a reading, if anything: a latency is a finite number above 0."""
    rules = {"median_ms": number(0, above=not overhead), "spread_ms": number(0)}
    wrong = {name: checks.problem(reading.get(name), rule) for name, rule in rules.items()}
    return next((f"{name}: {found}" for name, found in wrong.items() if found), None)


def _time(call: Callable[[], Any], repeats: int) -> Reading:
    """Median and interquartile range of the milliseconds of a call, over `repeats` rounds."""
    once = min(_seconds(call, 1) for _ in range(2))  # warm-up
    count = max(1, round(ROUND_SECONDS / once))
    rounds = [1000 * _seconds(call, count) for _ in range(repeats)]
    low, _, high = statistics.quantiles(rounds, n=4) if repeats > 1 else (0.0, 0.0, 0.0)
    return {"median_ms": statistics.median(rounds), "spread_ms": high - low}


def _seconds(call: Callable[[], Any], count: int) -> float:
    """Mean seconds of a call. Each is waited for: queued calls would overlap."""
    began = time.perf_counter()
    for _ in range(count):
        jax.block_until_ready(call())
    return (time.perf_counter() - began) / count


def _fill(shapes: Any) -> Any:
    """Random arrays of the sizes that training leaves: zeros and denormals can be quicker or slower."""
    generator = np.random.default_rng(0)

    def fill(path: Any, shape: jax.ShapeDtypeStruct) -> jax.Array:
        name = jax.tree_util.keystr(path)
        if "scale" in name or "'var'" in name:
            return jnp.ones(shape.shape, shape.dtype)
        fan_in = math.prod(shape.shape[:-1]) if "kernel" in name else 1
        return jnp.asarray(generator.standard_normal(shape.shape) / fan_in**0.5, shape.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def _attached(target: str) -> Any:
    if target == "cpu":  # nothing else is woken
        jax.config.update("jax_platforms", target)
    try:
        return jax.devices(target)[0]
    except RuntimeError as error:
        raise UserError(
            f"no {target} is attached here. Without one: a target tpu-* is estimated by the compiler; "
            "roofline:DEVICE needs no device."
        ) from error


def _describe(device: Any) -> str:
    if device.platform != "cpu":
        return str(device.device_kind)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'CPU'}, {os.cpu_count()} cores"

"""What kinds of TPU chip can do, as published: peaks that no program exceeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip: all its cores together, which programs see as one device.

    Args:
      peak_flops: bfloat16 FLOP/s; a multiply-add is two.
      hbm_bytes: memory, as much as the compiler lets programs have.
      hbm_bandwidth: bytes/s.
      ici_bandwidth: bytes/s that a chip sends to its neighbours, over all its links together.
      clock_hz: turns the compiler's cycles into seconds.
      dimensions: of a slice's shape.
      most_chips: of a slice.
    """

    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    ici_bandwidth: float
    clock_hz: float
    dimensions: int
    most_chips: int


# Peaks, bandwidths and largest slices: cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, v4's bandwidths from the
# comparison in Google's announcement of v5p. Links are published for both directions together; this is one.
# Memory: published are 32, 16, 95 and 32 GiB; these are the limits that libtpu 0.0.52 names when it refuses.
# Clocks: v4's from Jouppi et al., ISCA 2023. The others are peak FLOP/s over FLOP/cycle of the multiply units:
# v5e has 4 of 128 x 128, v5p 8. v6e's page says 2 of 256 x 256, but libtpu counts up to 497,000 FLOP/cycle (for
# a 3 x 3 convolution of 512 channels), which takes 4 of them: 918e12 / (4 * 256 * 256 * 2).
CHIPS: Mapping[str, Chip] = MappingProxyType(
    {
        "v4": Chip(275e12, 30.75 * GIB, 1228e9, 300e9, 1.05e9, 3, 4096),
        "v5e": Chip(197e12, 15.75 * GIB, 819e9, 200e9, 1.5e9, 2, 256),
        "v5p": Chip(459e12, 95.73 * GIB, 2765e9, 600e9, 1.75e9, 3, 6144),
        "v6e": Chip(918e12, 31.24 * GIB, 1638e9, 400e9, 1.75e9, 2, 256),
    }
)


@dataclasses.dataclass(frozen=True)
class Peaks:
    """What a roofline is drawn from: FLOP/s in 16 bits with float32 sums, and bytes/s of the memory."""

    flops: float
    bandwidth: float


# GPUs: dense tensor-core rates and memory bandwidths of NVIDIA's data sheets (V100 SXM2, T4, A100 40 GB SXM, L4,
# H100 SXM).
PEAKS: Mapping[str, Peaks] = MappingProxyType(
    {
        **{f"tpu-{name}": Peaks(chip.peak_flops, chip.hbm_bandwidth) for name, chip in CHIPS.items()},
        "v100": Peaks(125e12, 900e9),
        "t4": Peaks(65e12, 320e9),
        "a100": Peaks(312e12, 1555e9),
        "l4": Peaks(121e12, 300e9),
        "h100": Peaks(989e12, 3350e9),
    }
)

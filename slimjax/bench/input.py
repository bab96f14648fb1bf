"""`slimjax bench input`: how many images a second the host makes ready, with the devices left alone."""

from __future__ import annotations

import statistics
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from slimjax.checks import check, integer
from slimjax.experiment.build import build


def run(config: ConfigDict, batches: int = 50) -> dict[str, Any]:
    """Times the training batches of a config, in parts of five.

    Returns: `images_per_second` (the median part's), `milliseconds` of a batch, and what was measured.
    """
    check("batches", batches, integer(5))
    experiment = build(config, jax.devices("cpu")[:1])
    stream, size, times = experiment.train_batches(), config.train.batch_size, []
    next(stream)
    for _ in range(batches // 5):
        began = time.perf_counter()
        for _ in range(5):
            next(stream)
        times.append((time.perf_counter() - began) / 5)
    seconds = statistics.median(times)
    return {
        "data": config.data.name,
        "batch": [size, *experiment.net.image_shape],
        "images_per_second": size / seconds,
        "milliseconds": 1000 * seconds,
    }

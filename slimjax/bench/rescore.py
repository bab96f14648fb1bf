"""`slimjax bench rescore`: scoring many subnets against as many masked forward passes, one after the other.

Both run in one process, in turn, on parts of the subnets, so that what else the machine does falls on both alike;
the ratio is what can be quoted.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slimjax import sharding, supernet
from slimjax.checks import check, integer, number
from slimjax.nn import losses
from slimjax.nn.space import Space, Subnet
from slimjax.step import prefixes
from slimjax.step.engine import Engine
from slimjax.step.optimizers import sgd
from slimjax.step.programs import compiler_options
from slimjax.step.scoring import Scorer
from slimjax.step.slots import Slot
from slimjax.step.state import TrainState
from slimjax.supernet import Supernet

SPREAD = 0.1
STEPS = 30
"""Bisections that find a subnet's common width."""


def run(
    name: str, subnets: int, batch: int, repeats: int, *, spread: float = SPREAD, seed: int = 0
) -> dict[str, Any]:
    """Times `Scorer` and masked forward passes on random pixels, with fresh weights.

    The subnets are drawn as `layerwise_subnets` says; rungs are chosen for all of them. Each is scored once both
    ways, in `repeats` parts that follow the scorer's order, so that what it computes once for several it has to
    compute again only from part to part. The masked passes are one compiled program in training mode, given images that
    are prepared already, dispatched without waiting.

    Args:
      spread: of the layers' widths around the common one.

    Returns: `ratio` of the seconds of all parts; milliseconds of one subnet both ways; `rungs`; `boundaries`, up to
    which beginnings are shared; `programs`; `compile_seconds`, which include one run of each; `macs_to_exact`: MACs
    executed over those of exact slices; `macs_to_masked`.
    """
    for what, count in {"subnets": subnets, "batch": batch, "repeats": repeats}.items():
        check(what, count, integer(1))
    check("spread", spread, number(0))
    check("seed", seed, integer(0))
    net = supernet.named(name)
    rows = layerwise_subnets(net, subnets, spread, seed)
    engine, data = _engine(net), _random_batch(net, batch, seed)
    state = sharding.put_replicated(engine.mesh, engine.init(seed, (Slot("max"),)))
    scorer, masked = Scorer(engine, rows), _masked(engine, state, data)
    images, began = sharding.put_batch(engine.mesh, data), time.perf_counter()
    _warm(scorer, state, images)
    warm, compiled = time.perf_counter() - began, scorer.counts().compiled
    masked(rows[:1])
    order, _ = prefixes.in_order(scorer.layout.boundaries, rows)
    parts = np.array_split(rows[order], min(repeats, len(rows)))
    score = functools.partial(scorer, state, batch=images)
    times = [(_seconds(score, some), _seconds(masked, some)) for some in parts]
    ours, theirs = (sum(seconds) for seconds in zip(*times, strict=True))
    return {
        "model": name,
        "subnets": subnets,
        "spread": spread,
        "batch": [batch, *net.image_shape],
        "ratio": ours / theirs,
        "scored_ms": 1000 * ours / subnets,
        "masked_ms": 1000 * theirs / subnets,
        "parts": len(parts),
        "shard": scorer.shard,
        "rungs": len(scorer.layout.rungs),
        "boundaries": [boundary.module for boundary in scorer.layout.boundaries],
        "programs": scorer.counts().live,
        "compile_seconds": warm,
        "compiles_after_warmup": scorer.counts().compiled - compiled,
        "macs_to_exact": scorer.executed_macs(rows) / float(net.macs(rows).mean()),
        "macs_to_masked": scorer.executed_macs(rows) / float(net.macs(net.space.largest)),
        "device": f"{engine.mesh.size} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
    }


def layerwise_subnets(net: Supernet, count: int, spread: float, seed: int) -> Subnet:
    """int32 [count, G]: layer-wise widths, with MACs spread evenly between the smallest and the largest network's.

    For each subnet a target is drawn evenly between the MACs of both, and an offset for every group, evenly from
    -spread to spread. A group's width is f plus its offset, clipped to the space's range; the f that all groups share
    is the largest whose network stays below the target, found by bisection.
    """
    generator, space = np.random.default_rng(seed), net.space
    low, high = (float(net.macs(end)) for end in (space.smallest, space.largest))
    rows = []
    for _ in range(count):
        target = generator.uniform(low, high)
        offsets = generator.uniform(-spread, spread, len(space))
        rows.append(_at_cost(net, offsets, target, spread))
    return np.stack(rows)


def _at_cost(net: Supernet, offsets: np.ndarray, target: float, spread: float) -> Subnet:
    space = net.space
    below, above = space.min_width - spread, space.max_width + spread
    for _ in range(STEPS):
        middle = (below + above) / 2
        fits = net.macs(_clipped(space, middle + offsets)) <= target
        below, above = (middle, above) if fits else (below, middle)
    return _clipped(space, below + offsets)


def _clipped(space: Space, widths: np.ndarray) -> Subnet:
    return space.layerwise(np.clip(widths, space.min_width, space.max_width).tolist())


def _engine(net: Supernet) -> Engine:
    keep = lambda key, images: images.astype(jnp.float32) / 255  # noqa: E731
    plain = lambda images: keep(None, images)  # noqa: E731
    return Engine(net, sgd(lambda step: 0.1), keep, plain, sharding.make_mesh(), label_smoothing=0.1)


def _random_batch(net: Supernet, size: int, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (size, *net.image_shape), np.uint8)
    return {"image": images, "label": generator.integers(0, 10, size).astype(np.int32)}


def _warm(scorer: Scorer, state: TrainState, images: Any) -> None:
    """Compiles everything: a rung is a subnet too, the largest that it serves."""
    largest = scorer.engine.net.space.largest[None]
    scorer(state, np.concatenate([scorer.layout.rungs, largest]), images)


def _masked(engine: Engine, state: TrainState, data: Any) -> Callable[[Subnet], None]:
    """Scores subnets at full size, one after the other, on the first device."""
    first = engine.mesh.devices.flat[0]
    prepared = jax.device_put((engine.prepare_test(data["image"]), data["label"]), first)
    weights = jax.device_put(jax.tree.map(np.asarray, dict(state.variables())), first)

    def score(weights: Any, images: jax.Array, labels: jax.Array, subnet: jax.Array) -> jax.Array:
        widths = engine.net.space.masked(subnet)
        logits: Any = engine.net.apply(weights, images, widths, train=True)
        smooth = losses.smooth_labels(labels, logits.shape[-1], engine.label_smoothing)
        return jnp.stack([losses.cross_entropy(logits, smooth), 1 - losses.correct(logits, labels).mean()])

    lowered = jax.jit(score).lower(weights, *prepared, engine.net.space.largest)
    program: Any = lowered.compile(dict(compiler_options(first.platform)))
    return lambda rows: jax.block_until_ready([program(weights, *prepared, row) for row in rows])


def _seconds(score: Callable[[Subnet], Any], some: Subnet) -> float:
    began = time.perf_counter()
    score(some)
    return time.perf_counter() - began

"""Runs in phases: parts that begin with a change of the state, each with a learning rate that runs its whole course."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from slimjax import sharding
from slimjax.algorithms.base import Revise, Score
from slimjax.algorithms.turns import Phase, index_at
from slimjax.errors import BadValue
from slimjax.nn import reorder
from slimjax.step.engine import Engine
from slimjax.step.state import STRUCTURE, TrainState

Enter = Callable[[TrainState, int, Score], TrainState]
"""(state, number of a phase, score of subnets) -> the state that the phase begins with."""


class Division(NamedTuple):
    """A run in parts.

    Args:
      engine: whose optimiser follows the parts' schedules.
      schedule: the learning rate by update.
      firsts: each part's first update.
    """

    engine: Engine
    schedule: optax.Schedule
    firsts: list[int]


def divide(engine: Engine, lengths: Sequence[float], rates: Sequence[float] | None = None) -> Division:
    """The run of an engine in parts.

    Args:
      lengths: of the parts, in any unit: they share the run's updates in proportion. Epochs, say, whose sum is
        `train.epochs`; a run that is made shorter shortens all.
      rates: the parts' learning rates over the configured ones; None: 1.

    Raises:
      BadValue: the engine is of no run, or a length is negative, or all are 0.
    """
    if engine.updates is None:
        raise BadValue("engine", "expected one of a run (updates), whose length the phases share.")
    if min(lengths) < 0 or not sum(lengths) > 0:
        raise BadValue("lengths", f"expected numbers of at least 0, not all of them 0, got {tuple(lengths)}.")
    firsts = engine.updates.shared_out(lengths)
    schedule = engine.updates.divided(firsts, [1.0] * len(firsts) if rates is None else rates)
    engine = dataclasses.replace(engine, optimizer=engine.updates.optimizer(schedule))
    return Division(engine, schedule, firsts)


def with_widths_only(engine: Engine) -> Engine:
    """The engine. Raises: BadValue: its network has choices, of which a system that prunes channels knows nothing."""
    if choices := engine.net.space.choices:
        raise BadValue(
            "engine",
            f"expected a network that has widths only; this one has choices ({choices[0].name}, ...), which are not "
            "pruned. Take tfnas or bignas, or a network without choices.",
        )
    return engine


def divide_epochs(engine: Engine, shared: Sequence[bool], every: int) -> Division:
    """The run of an engine in parts of as many updates of the weights, whose rate changes between parts only.

    Args:
      shared: by part, whether something else is updated, too, once after each `every` updates of the weights.
    """
    firsts = divide(engine, [1 + part / every for part in shared]).firsts
    updates = engine.updates
    assert updates is not None, "division has checked it"
    lengths = np.diff([*firsts, updates.count])
    mine = [n - n // (every + 1) * part for n, part in zip(lengths, shared, strict=True)]
    starts = np.cumsum([0, *mine[:-1]])
    whole = updates.schedule(max(1, int(sum(mine))))
    rates = np.array([float(whole(int(start))) for start in starts], np.float32)

    def staircase(ends: np.ndarray, step: jax.Array) -> jax.Array:
        return jnp.asarray(rates)[jnp.searchsorted(jnp.asarray(ends), step, side="right") - 1]

    optimizer = updates.optimizer(functools.partial(staircase, starts))
    engine = dataclasses.replace(engine, optimizer=optimizer)
    return Division(engine, functools.partial(staircase, np.asarray(firsts)), firsts)


def entering(phases: Sequence[Phase], enter: Enter) -> Revise:
    """A revision that enters every phase as it begins, also one without updates.

    The algorithm's array "phase", an int32 scalar that begins at 0, is the number of the phase that was entered last:
    a run that is resumed at a boundary does not enter twice.
    """

    def revise(state: TrainState, step: int, score: Score) -> TrainState:
        for number in range(int(state.algorithm["phase"]) + 1, index_at(phases, step) + 1):
            state = enter(state, number, score)
            arrays = {**state.algorithm, "phase": np.array(number, np.int32)}
            state = dataclasses.replace(state, algorithm=arrays)
        return state

    return revise


@dataclasses.dataclass(frozen=True)
class Changes:
    """What is done to a whole state between steps, each as one compiled program that takes the old state's memory."""

    engine: Engine

    @functools.cached_property
    def rested(self) -> Callable[[TrainState], TrainState]:
        """Without momentum: what an earlier phase was heading for does not move the next."""

        def rest(state: TrainState) -> TrainState:
            engine = self.engine
            kept = {"opt_state": (engine.optimizer, state.opt_state)}
            if engine.structure_optimizer is not None:
                kept["structure_opt"] = (engine.structure_optimizer, state.structure_opt)
            still = {
                name: optax.tree.map_params(opt.init, jnp.zeros_like, own)
                for name, (opt, own) in kept.items()
            }
            return dataclasses.replace(state, **still)

        return on_devices(self.engine, rest)

    @functools.cached_property
    def renewed(self) -> Callable[[TrainState], TrainState]:
        """`rested`, with an optimiser of structure parameters that begins anew, its count of updates, too."""

        def renew(state: TrainState) -> TrainState:
            optimizer = self.engine.structure_optimizer
            assert optimizer is not None, "a run with structure parameters"
            return dataclasses.replace(state, structure_opt=optimizer.init({STRUCTURE: state.structure}))

        renew_on_devices = on_devices(self.engine, renew)
        return lambda state: renew_on_devices(self.rested(state))

    @functools.cached_property
    def reordered(self) -> Callable[[TrainState, reorder.Order], TrainState]:
        """With all channels in another order; other orders compile nothing new."""
        records = self.engine.net.records
        return on_devices(self.engine, lambda state, order: reorder.permute(records, order, state))


def on_devices(engine: Engine, function: Callable[..., TrainState]) -> Callable[..., TrainState]:
    """A function (state, arguments) -> state, compiled. The algorithm's arrays stay on the host, as they were."""
    compiled = jax.jit(function, donate_argnums=0, out_shardings=sharding.replicated(engine.mesh))

    def changed(state: TrainState, *arguments: object) -> TrainState:
        new = compiled(dataclasses.replace(state, algorithm=None), *arguments)
        return dataclasses.replace(new, algorithm=state.algorithm)

    return changed


def with_copies(state: TrainState, names: Sequence[str], affine: str, stats: str) -> TrainState:
    """The state in which the sets of gammas and betas, and the statistics, of these names are those of others."""
    copies = lambda sets: sets | dict.fromkeys(names, sets[affine])  # noqa: E731
    average = state.average and state.average | {"affine": copies(state.average["affine"])}
    statistics = state.batch_stats | dict.fromkeys(names, state.batch_stats[stats])
    return dataclasses.replace(state, affine=copies(state.affine), average=average, batch_stats=statistics)

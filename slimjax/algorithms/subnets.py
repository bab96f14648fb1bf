"""Subnets that a controller samples, one after the other: what is drawn, what it is worth, and the best of them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from slimjax import sharding
from slimjax.algorithms.base import Score
from slimjax.algorithms.phases import Changes
from slimjax.nn import reorder
from slimjax.nn.space import Subnet
from slimjax.search import sampler
from slimjax.search.reinforce import Controller
from slimjax.search.trials import Trial
from slimjax.step.engine import Engine
from slimjax.step.state import TrainState

Arrays = dict[str, Any]
"""`controller`: what it has learned. Of the subnet that is trained: `subnet` int32 [G], `actions` [L], `thresholds`
float32 [L], and `alphas` float32 [C] by group, as it was drawn. By trial, [T]: `subnets` int32 [T, G], `loss` and
`share` of the parameters, float32 (NaN: not known yet); `count` int32 []: subnets drawn. `ids` int32 [C] by group:
which channel of the untouched network is where; `best` likewise, as it was when the best subnet was drawn."""


@dataclasses.dataclass(frozen=True)
class SampledSubnets:
    """Pure functions of the state.

    Args:
      groups: names of the layers that the controller has thresholds for.
      places: T, subnets in all.
      noise: of `sampler.NOISES`.
      params_weight: gamma of the reward.
      seed: what is drawn is a function of it, the subnet's number, the alphas and the controller.
    """

    engine: Engine
    controller: Controller
    groups: tuple[str, ...]
    places: int
    noise: str
    params_weight: float
    seed: int

    @functools.cached_property
    def changes(self) -> Changes:
        return Changes(self.engine)

    def init(self) -> Arrays:
        """Nothing drawn."""
        space = self.engine.net.space
        channels = {group.name: group.channels for group in space.groups}
        controller = self.controller.init(self.seed)
        nothing = [np.zeros(channels[name], np.float32) for name in self.groups]
        ids = {name: np.arange(count, dtype=np.int32) for name, count in channels.items()}
        return {
            "controller": controller,
            "subnet": space.largest.copy(),
            "actions": self.controller.no_actions(),
            "thresholds": np.zeros(len(self.groups), np.float32),
            "alphas": dict(zip(self.groups, nothing, strict=True)),
            "subnets": np.tile(space.largest, (self.places, 1)),
            **{name: np.full(self.places, np.nan, np.float32) for name in ("loss", "share")},
            "count": np.zeros((), np.int32),
            "ids": ids,
            "best": {name: order.copy() for name, order in ids.items()},
        }

    def drawn(self, state: TrainState) -> TrainState:
        """With the next subnet: thresholds by the controller, counts by the sampler, the largest alphas in front."""
        arrays, space = state.algorithm, self.engine.net.space
        number = int(arrays["count"])
        found = sharding.fetch(state.structure["alphas"])
        alphas = {name: np.asarray(found[name], np.float32) for name in self.groups}
        # Arithmetic may differ between hosts in the last bit.
        actions, thresholds = sharding.from_leader(
            self.controller.propose(arrays["controller"], list(alphas.values()), self.seed + number)
        )
        by_group = dict(zip(self.groups, thresholds.tolist(), strict=True))
        rng = np.random.default_rng((self.seed, number))
        counts = sampler.sample(alphas, by_group, self.noise, rng)
        subnet = np.array([self._legal(group, counts.get(group.name)) for group in space.groups], np.int32)
        subnets, share = arrays["subnets"].copy(), arrays["share"].copy()
        subnets[number], share[number] = subnet, self._share(subnet)
        new = arrays | {
            "subnet": subnet,
            "actions": actions,
            "thresholds": thresholds.astype(np.float32),
            "alphas": alphas,
            "subnets": subnets,
            "share": share,
            "count": np.array(number + 1, np.int32),
        }
        return self._moved(dataclasses.replace(state, algorithm=new), alphas)

    def rewarded(self, state: TrainState, score: Score) -> TrainState:
        """With the reward of the newest subnet, from which the controller has learned."""
        arrays = state.algorithm
        number = int(arrays["count"]) - 1
        loss = arrays["loss"].copy()
        loss[number] = sharding.from_leader(np.asarray(score(arrays["subnet"][None]), np.float32))[0]
        new = arrays | {"loss": loss}
        reward = -float(self.costs(new)[number])
        learned = self.controller.update(
            arrays["controller"], [arrays["alphas"][name] for name in self.groups], arrays["actions"], reward
        )
        new["controller"] = sharding.from_leader(learned)
        if int(np.nanargmin(self.costs(new))) == number:
            new["best"] = arrays["ids"]
        return dataclasses.replace(state, algorithm=new)

    def restored(self, state: TrainState) -> TrainState:
        """With the best subnet, its channels where they were when it was drawn."""
        arrays = state.algorithm
        best = arrays["subnets"][int(np.nanargmin(self.costs(arrays)))]
        importance = {name: -_places(arrays["best"][name], ids) for name, ids in arrays["ids"].items()}
        new = dataclasses.replace(state, algorithm=arrays | {"subnet": best})
        return self._moved(new, importance)

    def costs(self, arrays: Arrays) -> np.ndarray:
        """Minus the rewards [T], NaN where there is none yet: loss + gamma * share of parameters. Equation 3."""
        return arrays["loss"] + self.params_weight * arrays["share"]

    def trials(self, arrays: Arrays, step: int) -> list[Trial]:
        """All subnets so far; the lower its score, the higher its reward."""
        costs, space = self.costs(arrays), self.engine.net.space
        return [
            Trial(
                trial=number,
                state="scored" if np.isfinite(costs[number]) else "proposed",
                step=step,
                channels=space.to_channels(arrays["subnets"][number]),
                cost=float(arrays["share"][number]),
                score=float(costs[number]) if np.isfinite(costs[number]) else None,
                how="thresholds",
            )
            for number in range(int(arrays["count"]))
        ]

    def measured(self, state: TrainState, step: int) -> dict[str, float]:
        """The subnet's number, size and thresholds, and the best reward so far."""
        del step
        arrays, costs = state.algorithm, self.costs(state.algorithm)
        if not (count := int(arrays["count"])):
            return {}
        figures = {
            "search/subnet": float(count),
            "search/params_share": float(arrays["share"][count - 1]),
            "search/threshold_mean": float(arrays["thresholds"].mean()),
            "search/threshold_spread": float(arrays["thresholds"].std()),
        }
        if np.isfinite(costs).any():
            last = np.flatnonzero(np.isfinite(costs))[-1]
            figures |= {"search/reward": -float(costs[last]), "search/best_reward": -float(np.nanmin(costs))}
        return figures

    def told(self, before: Arrays, after: Arrays) -> list[str]:
        """What subnets have turned out to be worth, in words."""
        new = np.flatnonzero(np.isnan(before["loss"]) & np.isfinite(after["loss"]))
        return [
            f"subnet {number + 1} of {self.places}: {after['share'][number]:.1%} of the parameters, loss "
            f"{after['loss'][number]:.4g}, reward {-self.costs(after)[number]:.4g}"
            for number in new
        ]

    def _legal(self, group: Any, count: int | None) -> int:
        """The next larger legal count; all channels of a group without alphas."""
        legal = self.engine.net.space.legal(group)
        return group.channels if count is None else int(legal[np.searchsorted(legal, count)])

    def _share(self, subnet: Subnet) -> float:
        params = self.engine.net.params
        return float(params(subnet) / params(self.engine.net.space.largest))

    def _moved(self, state: TrainState, importance: dict[str, np.ndarray]) -> TrainState:
        """With the most important channels first."""
        order = reorder.order(self.engine.net.records, self.engine.net.space, importance)
        ids = {
            name: own[order[name]] if name in order else own for name, own in state.algorithm["ids"].items()
        }
        new = self.changes.reordered(state, order)
        return dataclasses.replace(new, algorithm=state.algorithm | {"ids": ids})


def _places(wanted: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Where each of the ids [C] is in the wanted order."""
    return np.argsort(wanted)[ids].astype(np.float64)

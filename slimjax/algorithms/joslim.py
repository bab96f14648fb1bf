"""Joint optimisation of widths and weights: the sandwich rule on widths that a Bayesian optimiser proposes.

Paper: Chin, Morcos and Marculescu, Joslim: Joint Widths and Weights Optimization for Slimmable Neural Networks,
ECML 2021.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import numpy as np

from slimjax import sharding
from slimjax.algorithms.base import Algorithm, Chosen, Score
from slimjax.budgets import Resource
from slimjax.checks import check, integer, under
from slimjax.errors import BadValue
from slimjax.nn.space import Subnet
from slimjax.search import bayes, gp, pareto
from slimjax.search.bayes_options import BayesOptions
from slimjax.search.trials import Trial
from slimjax.step.engine import Engine, Slot
from slimjax.step.state import TrainState
from slimjax.vectors import WidthVectors

Arrays = dict[str, np.ndarray]
"""The history. By trial, in a ring of `history` places: `widths` float32 [N, G], `loss` float32 [N] (NaN: failed
or not scored), `target` float32 [N] (NaN: none), `how` int32 [N] (index of `HOW`), `scored` bool [N].
`count` int32 []: trials so far. `warm` float32 [G + 5]: logarithms of the last fits' hyper-parameters (NaN: none)."""

HOW = ("prior", "searched", "segment", "random")
SAMPLE = 256
"""Random subnets that rungs are chosen for; each group's width is within `SPREAD` of a common one."""

SPREAD = 0.2

NEARLY_FULL = 0.9
"""Fronts are peeled off until one of them reaches this fraction of the largest network's cost."""


def joslim(
    engine: Engine,
    *,
    num_sampled: int = 2,
    steps_per_round: int = 235,
    ahead_steps: int = 0,
    history: int = 1024,
    rescore: bool = True,
    resource: str = "macs",
    table: str | None = None,
    nondecreasing: bool = True,
    search: Mapping[str, Any] = MappingProxyType({}),
    search_seed: int = 3080,
) -> Algorithm:
    """Rounds of K steps on max, M proposed and min; before each round the whole history is scored again.

    The first 20 proposals have one random width for all groups, the 21st is the full network; then MOBO-TS2
    proposes (`search.bayes`). The largest learns from labels, all others from its detached softmax.

    Paper: sections 3.2 to 3.4 (targeted sampling, local approximation, temporal sharing), algorithm 1.
    Differs: from the authors' code, which scores the history on the test set; here on held-out training images.
    There a fresh trial has a loss of 0 until the next round; here it is left out until it is scored.
    Reduces to: US-Net, when every proposal has one width for all groups.

    Args:
      num_sampled: M.
      steps_per_round: K.
      ahead_steps: so many steps before a round the history is scored and the search begins, on a thread, while
        the devices go on. 0, as in the paper: they wait for it.
      history: most trials that are kept; beyond that the oldest are forgotten.
      rescore: False keeps a trial's first score for ever (an ablation).
      resource: of `budgets.RESOURCES`; `table`: for "latency_ms".
      nondecreasing: see `vectors.WidthVectors`.
      search: fields of `search.bayes_options.BayesOptions` that differ from the paper's.
      search_seed: proposals are a function of it, their number and the history.
    """
    check("num_sampled", num_sampled, integer(1))
    check("steps_per_round", steps_per_round, integer(1))
    check("ahead_steps", ahead_steps, integer(0, steps_per_round - 1))
    check("history", history, integer(bayes.PRIOR_POINTS + num_sampled))
    check("search_seed", search_seed, integer(0))
    vectors = WidthVectors(engine.net, Resource(resource, table), nondecreasing)
    rounds = _Rounds(vectors, num_sampled, history, rescore, _bayes_options(search), search_seed)
    slots = _slots(engine, num_sampled)
    proposals = _Behind(rounds.proposals)

    def observe(arrays: Arrays, step: int, score: Score) -> Arrays:
        turn = (step + ahead_steps) % steps_per_round
        if turn == 0 and step:
            arrays = rounds.scored(arrays, score)
            proposals.begin(arrays)
        if step % steps_per_round == 0 and step:
            arrays = rounds.extended(arrays, proposals.result(arrays))
        return arrays

    def finish(state: TrainState, subnets: Mapping[str, Subnet] | None = None) -> dict[str, Chosen]:
        named = rounds.best(state.algorithm) if subnets is None else subnets
        return {name: Chosen(subnet, stats="max") for name, subnet in named.items()}

    return Algorithm(
        slots=slots,
        init=lambda seed: engine.init(seed, slots, rounds.init()),
        observe=observe,
        propose=lambda arrays, step: rounds.current(arrays),
        step=engine.step(slots, rounds.sample()),
        finish=finish,
        trials=rounds.trials,
    )


def _slots(engine: Engine, num_sampled: int) -> tuple[Slot, ...]:
    """Paper: the largest first, for it teaches; the smallest last."""
    space = engine.net.space
    return (
        Slot("max", tuple(space.largest.tolist()), stats="max"),
        *(Slot(f"sampled{i}", target="teacher", lasting=True) for i in range(1, num_sampled + 1)),
        Slot("min", tuple(space.smallest.tolist()), stats="min", target="teacher"),
    )


def _bayes_options(search: Mapping[str, Any]) -> BayesOptions:
    known = [field.name for field in dataclasses.fields(BayesOptions)]
    if unknown := sorted(set(search) - set(known)):
        raise BadValue("search", f"no {', '.join(unknown)}. It has: {', '.join(known)}.")
    with under("search."):
        return BayesOptions(**search)


@dataclasses.dataclass(frozen=True)
class _Rounds:
    """The history and what becomes of it: pure functions of `Arrays`."""

    vectors: WidthVectors
    per_round: int
    places: int
    rescore: bool
    options: BayesOptions
    seed: int

    def init(self) -> Arrays:
        """A history of the first round's proposals."""
        empty = {
            "widths": np.zeros((self.places, len(self.vectors.net.space)), np.float32),
            "loss": np.full(self.places, np.nan, np.float32),
            "target": np.full(self.places, np.nan, np.float32),
            "how": np.zeros(self.places, np.int32),
            "scored": np.zeros(self.places, np.bool_),
            "count": np.zeros((), np.int32),
            "warm": np.full(len(self.vectors.net.space) + 5, np.nan, np.float32),
        }
        return self.extended(empty, self.proposals(empty))

    def proposals(self, arrays: Arrays) -> list[Arrays]:
        """The next round's: what `extended` writes down, one after the other."""
        found: list[Arrays] = []
        for number in range(int(arrays["count"]), int(arrays["count"]) + self.per_round):
            warm = found[-1]["warm"] if found else arrays["warm"]
            found.append(self._proposal({**arrays, "warm": warm}, number))
        return found

    def extended(self, arrays: Arrays, proposals: list[Arrays]) -> Arrays:
        new = {name: array.copy() for name, array in arrays.items()}
        for proposal in proposals:
            place = int(new["count"]) % self.places
            for name in ("widths", "target", "how"):
                new[name][place] = proposal[name]
            new["loss"][place], new["scored"][place] = np.nan, False
            new["count"] = new["count"] + np.int32(1)
            new["warm"] = proposal["warm"]
        return new

    def scored(self, arrays: Arrays, score: Score) -> Arrays:
        """With the losses that the current weights give."""
        due = self._filled(arrays) & (self.rescore | ~arrays["scored"])
        loss = arrays["loss"].copy()
        loss[due] = score(self.vectors.subnets(arrays["widths"][due]))
        return {**arrays, "loss": loss, "scored": arrays["scored"] | due}

    def current(self, arrays: Arrays) -> Subnet:
        """This round's subnets, int32 [M, G]."""
        numbers = int(arrays["count"]) - self.per_round + np.arange(self.per_round)
        return self.vectors.subnets(arrays["widths"][numbers % self.places])

    def best(self, arrays: Arrays) -> dict[str, Subnet]:
        """The fronts of the history, peeled until one reaches nearly the full cost, and both ends.

        Paper: the authors' evaluation. Of trials with the same subnet one is kept.
        """
        space = self.vectors.net.space
        named = {"min": space.smallest, "max": space.largest}
        known = np.flatnonzero(arrays["scored"] & np.isfinite(arrays["loss"]))
        if len(known):
            subnets = self.vectors.subnets(arrays["widths"][known])
            points = np.stack([arrays["loss"][known], self.vectors.cost(subnets)], 1)
            ranks = pareto.peel(points)
            last = ranks[points[:, 1] >= NEARLY_FULL].min(initial=ranks.max())
            numbers = self._numbers(arrays)[known]
            named |= {f"trial{numbers[i]}": subnets[i] for i in np.flatnonzero(ranks <= last)}
        first = {tuple(subnet): name for name, subnet in reversed(named.items())}
        return {name: subnet for name, subnet in named.items() if first[tuple(subnet)] == name}

    def trials(self, arrays: Arrays, step: int) -> list[Trial]:
        """All that are kept, the oldest first."""
        numbers = np.sort(self._numbers(arrays)[self._filled(arrays)])
        rows = numbers % self.places
        subnets = self.vectors.subnets(arrays["widths"][rows])
        costs = self.vectors.cost(subnets)
        return [self._trial(arrays, *one, step) for one in zip(numbers, rows, subnets, costs, strict=True)]

    def _trial(self, arrays: Arrays, number: int, row: int, subnet: Subnet, cost: float, step: int) -> Trial:
        scored, loss, target = (arrays[name][row] for name in ("scored", "loss", "target"))
        state = ("scored" if np.isfinite(loss) else "failed") if scored else "proposed"
        return Trial(
            trial=int(number),
            state=state,
            step=step,
            channels=self.vectors.net.space.to_channels(subnet),
            cost=float(cost),
            score=float(loss) if state == "scored" else None,
            target=None if np.isnan(target) else float(target),
            how=HOW[arrays["how"][row]],
            reason=f"its loss is {loss}" if state == "failed" else None,
        )

    def sample(self) -> Subnet:
        """Subnets like those that will be proposed, int32 [N, G]: for rungs."""
        rng, low = np.random.default_rng(self.seed), self.vectors.low
        uniform = rng.uniform(low, 1, (SAMPLE, 1))
        spread = rng.uniform(-SPREAD, SPREAD, (SAMPLE, len(self.vectors.net.space)))
        return self.vectors.subnets(np.clip(uniform + spread, low, 1))

    def _filled(self, arrays: Arrays) -> np.ndarray:
        return np.arange(self.places) < arrays["count"]

    def _numbers(self, arrays: Arrays) -> np.ndarray:
        """The trial that each place holds, int [N]; meaningless where none is."""
        newest = int(arrays["count"]) - 1
        return newest - (newest - np.arange(self.places)) % self.places

    def _proposal(self, arrays: Arrays, number: int) -> Arrays:
        """Widths [G] with what is to be written down beside them."""
        rng = np.random.default_rng((self.seed, number))
        dims, low = arrays["widths"].shape[1], self.vectors.low
        if (first := bayes.prior(number, dims, low, rng)) is not None:
            return _written(first, np.nan, "prior", arrays["warm"])
        known = arrays["scored"] & np.isfinite(arrays["loss"])
        history = arrays["widths"][known].astype(np.float64), arrays["loss"][known].astype(np.float64)
        cost = lambda widths: self.vectors.cost(self.vectors.subnets(widths))  # noqa: E731
        found = bayes.propose(*history, cost, low, rng, self.options, _unpack(arrays["warm"]))
        warm = arrays["warm"] if found.warm is None else _pack(found.warm, dims)
        return _written(found.widths, np.nan if found.target is None else found.target, found.how, warm)


def _written(widths: np.ndarray, target: float, how: str, warm: np.ndarray) -> Arrays:
    return {
        "widths": widths.astype(np.float32),
        "target": np.array(target, np.float32),
        "how": np.array(HOW.index(how), np.int32),
        "warm": warm,
    }


def _pack(warm: bayes.Warm, dims: int) -> np.ndarray:
    """float32 [dims + 5]: the loss's lengthscales, outputscale and noise, padded; then the cost's three."""
    packed = np.full(dims + 5, np.nan, np.float32)
    if warm.loss is not None:
        packed[: dims + 2].flat[: len(warm.loss.log())] = warm.loss.log()
    if warm.cost is not None:
        packed[-3:] = warm.cost.log()
    return packed


def _unpack(packed: np.ndarray) -> bayes.Warm:
    parts = [part[np.isfinite(part)].astype(np.float64) for part in (packed[:-3], packed[-3:])]
    return bayes.Warm(*(gp.Hyper.of_log(part) if len(part) else None for part in parts))


class _Behind:
    """A function of the history, begun on a thread before its result is asked for.

    The result is the function's, whether it was begun or not: a resumed run gets the same.
    """

    def __init__(self, compute: Callable[[Arrays], list[Arrays]]) -> None:
        self._compute = compute
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="search")  # starts when used
        self._begun: tuple[int, Future[list[Arrays]]] | None = None

    def begin(self, arrays: Arrays) -> None:
        self._begun = int(arrays["count"]), self._pool.submit(self._compute, arrays)

    def result(self, arrays: Arrays) -> list[Arrays]:
        begun, self._begun = self._begun, None
        waiting = begun is not None and begun[0] == int(arrays["count"])
        found = begun[1].result() if begun and waiting else self._compute(arrays)
        return sharding.from_leader(found)  # arithmetic may differ between hosts in the last bit

"""TF-NAS: operators and depths by gradients, widths by elasticity-scaling, and the cost of what comes out on target.

The supernet's choices have structure parameters, logarithms of probabilities. A weight step trains two paths: one by
the probabilities of the operators, one of the operators that are left. An architecture step runs all operators at once,
weighted by their Gumbel softmax, on held-out images, and moves the structure parameters; its loss has the expected cost
of what is sampled. In both, a stage gives the sum of what each of its depths gives, weighted by their softmax
(sink-connecting). After each epoch the likeliest network is scaled, in its widths, to the cost that is wanted.

Paper: Hu, Wu and He, TF-NAS: Rethinking Three Search Freedoms of Latency-Constrained Differentiable Neural Architecture
Search, ECCV 2020.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slimjax.algorithms.base import Algorithm, Chosen, Score
from slimjax.algorithms.likeliest import Likeliest
from slimjax.algorithms.phases import divide_epochs, entering
from slimjax.algorithms.turns import Phase, Turn, index_at
from slimjax.budgets import Budget, parse_budget
from slimjax.checks import check, integer, number, one_of
from slimjax.errors import BadValue
from slimjax.nn import structure
from slimjax.nn.space import Space, Subnet
from slimjax.nn.structure import Mixture
from slimjax.search.base import check_reachable
from slimjax.step import optimizers, paths
from slimjax.step.composed import ComposedStep
from slimjax.step.engine import Engine
from slimjax.step.slots import Slot
from slimjax.step.state import TrainState

COST_LOSSES: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {"absolute": lambda ratio: jnp.abs(ratio - 1), "linear": lambda ratio: ratio, "log": jnp.log}
)
"""Of the expected cost over the target: TF-NAS's, ProxylessNAS's and FBNet's."""

SHARE = 0.75
"""Of the most channels, in every group, at first: the nominal expansions, where there is a third more room."""


def tfnas(
    engine: Engine,
    *,
    budget: str = "macs<=0.5",
    cost_weight: float = 0.1,
    cost_loss: str = "absolute",
    second_path: str = "random",
    elasticity: bool = True,
    temperature: float = 5.0,
    cooling: float = 0.96,
    arch_rate: float = 0.01,
    arch_every: int = 2,
    warmup: int = 10,
    search: int = 80,
) -> Algorithm:
    """Warm-up on single paths, then epochs of bi-sampling with architecture steps in between; widths scaled after each.

    Paper: sections 3.1 to 3.4; settings of section 4.1 and of the released code.
    Differs: any cost that is a sum over layers can be aimed at. The learning rate falls once an epoch, of which an
    architecture step is no part. A network whose widest is below the target stays there, and one whose narrowest is
    above it. After the last epoch widths are scaled, too, but channels are not sorted again.
    Reduces to: differentiable search of operators at fixed widths, with `elasticity=False`.

    Args:
      budget: what the found network may cost, as `budgets.parse_budget` reads it.
      cost_weight: lambda; `cost_loss`: of `COST_LOSSES`.
      second_path: of `paths.SECOND`, or "none": one path a step.
      temperature: of the Gumbel softmax, times `cooling` after each epoch of the search.
      arch_rate: of Adam on structure parameters, which makes an update after each `arch_every` of the weights.
      warmup, search: epochs; `train.epochs` is warmup + search * (1 + 1 / arch_every), as its epochs are of updates.
    """
    for name, value in {"temperature": temperature, "cooling": cooling, "arch_rate": arch_rate}.items():
        check(name, value, number(0, above=True))
    check("cost_weight", cost_weight, number(0))
    check("cost_loss", cost_loss, one_of(*COST_LOSSES))
    check("second_path", second_path, one_of(*paths.SECOND, "none"))
    for name, count in {"arch_every": arch_every, "warmup": warmup, "search": search}.items():
        check(name, count, integer(int(name != "warmup")))
    if not engine.net.space.choices:
        raise BadValue("engine", "expected a network with choices, such as tfnas; this one has only widths.")
    limit = parse_budget(budget)
    check_reachable("budget", limit.absolute(engine.net), engine.net.space, limit.resource.cost(engine.net))
    engine, schedule, firsts = divide_epochs(engine, [False] * warmup + [True] * search, arch_every)
    engine = dataclasses.replace(engine, structure_optimizer=optimizers.architecture_adam(arch_rate))
    single, both, arch = _steps(engine, limit, COST_LOSSES[cost_loss], second_path)
    turns = tuple([Turn(both)] * (arch_every - 1) + [Turn(arch, "holdout")])
    phases = [Phase("warm-up", single, first) for first in firsts[:warmup]]
    phases += [Phase("search", both, first, others=turns) for first in firsts[warmup:]]
    likeliest = Likeliest(engine, limit)
    run = _Run(engine, phases, likeliest, cost_weight, elasticity, temperature, cooling, warmup)
    return Algorithm(
        phases=tuple(phases),
        init=run.init,
        propose=run.propose,
        choose=run.choose,
        revise=entering(phases, run.enter),
        measure=likeliest.measured,
        news=likeliest.told,
        schedule=schedule,
    )


def _initial(space: Space) -> Subnet:
    """Three quarters of the most channels everywhere."""
    widths = [int(group.at(SHARE, space.rounding)) for group in space.groups]
    return np.array([*widths, *(choice.last for choice in space.choices)], np.int32)


def _steps(
    engine: Engine, limit: Budget, cost_loss: Callable[[Any], Any], second_path: str
) -> tuple[ComposedStep, ComposedStep, ComposedStep]:
    """One path; two paths; all operators, for the structure parameters."""
    space = engine.net.space
    operators = tuple(choice.name for choice in space.choices if not choice.ordered)
    depths = tuple(choice.name for choice in space.choices if choice.ordered)
    sinks, everything = Mixture(plain=depths), Mixture(plain=depths, noisy=operators)
    expected = np.stack([_initial(space), space.largest])
    cost, most = limit.resource.soft(engine.net), limit.absolute(engine.net)

    def penalty(trainable: Any, knobs: Any) -> jax.Array:
        """The same noise as in the forward pass."""
        weights = everything.weights(trainable["structure"], knobs["noise"], knobs["temperature"])
        return knobs["strength"] * cost_loss(cost(knobs["subnet"].astype(jnp.float32), weights) / most)

    first, second = Slot("path", mixture=sinks), Slot("second", mixture=sinks)
    draw = paths.bisampled(space, operators, "random" if second_path == "none" else second_path)
    single = ComposedStep(engine, (first,), expected, draw=draw)
    pair = single if second_path == "none" else ComposedStep(engine, (first, second), expected, draw=draw)
    slots = (Slot("mixture", mixture=everything),)
    return single, pair, ComposedStep(engine, slots, expected, penalty, trains=("structure",))


@dataclasses.dataclass(frozen=True)
class _Run:
    """What the algorithm does between the steps. Its array "subnet" has the channels of all groups."""

    engine: Engine
    phases: Sequence[Phase]
    likeliest: Likeliest
    cost_weight: float
    elasticity: bool
    temperature: float
    cooling: float
    warmup: int

    def init(self, seed: int) -> TrainState:
        space = self.engine.net.space
        slots = [slot for turn in self.phases[-1].turns for slot in turn.step.slots]
        arrays = self._arrays(np.zeros((), np.int32), _initial(space), self.temperature)
        return self.engine.init(seed, slots, arrays, structure=structure.even_choices(space))

    def _arrays(self, phase: np.ndarray, subnet: Subnet, temperature: float) -> dict[str, Any]:
        cooler, strength = np.array(temperature, np.float32), np.array(self.cost_weight, np.float32)
        knobs = {"subnet": subnet, "temperature": cooler, "strength": strength}
        return {"phase": phase, "subnet": subnet, "temperature": cooler, "penalty": knobs}

    def enter(self, state: TrainState, number: int, _: Score) -> TrainState:
        """Each epoch begins with new optimisers, and after one of the search with the likeliest network on target."""
        state = self.likeliest.changes.renewed(state)
        if number <= self.warmup:
            return state
        subnet = state.algorithm["subnet"]
        if self.elasticity:
            found = self.likeliest.of(state, subnet)
            state, subnet = self.likeliest.sorted(state, found), self.likeliest.merged(found, subnet)
        cooler = self.temperature * self.cooling ** (number - self.warmup)
        return dataclasses.replace(state, algorithm=self._arrays(state.algorithm["phase"], subnet, cooler))

    def propose(self, arrays: Any, step: int) -> Subnet:
        """The same widths for every path; the devices draw the paths."""
        phase = self.phases[index_at(self.phases, step)]
        turn = phase.turns[(step - phase.first) % len(phase.turns)]
        return np.repeat(arrays["subnet"][None], len(turn.step.slots), 0)

    def choose(self, state: TrainState, subnets: Mapping[str, Subnet] | None = None) -> dict[str, Chosen]:
        """The likeliest network, on target."""
        if subnets is not None:
            return {name: Chosen(subnet) for name, subnet in subnets.items()}
        found = self.likeliest.of(state, state.algorithm["subnet"], scale=self.elasticity)
        return {"found": Chosen(found, found=True, costs=self.likeliest.costs(found))}

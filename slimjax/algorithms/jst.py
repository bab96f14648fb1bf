"""Joint Search-and-Training: a controller samples how much of each layer to keep; subnets train what they keep.

Filters are scaled by the softmax of their layer's alphas (`nn.structure`). Coarse training moves weights and alphas of
the whole network. Then ThresNet gives each layer a threshold, and the layer keeps its channels of the largest alphas
until their softmax, with noise, adds up to it. These are brought to the front, so that a subnet is a leading slice. Its
weights are trained on training images and its alphas on held-out ones; nothing else moves, so both are back in the
network at once. The reward, which trains ThresNet by REINFORCE, is minus the loss on the scoring images, minus gamma
times the share of parameters.

Paper: Lu et al., Beyond Network Pruning: a Joint Search-and-Training Approach, IJCAI 2020.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from slimjax.algorithms.base import Algorithm, Chosen, Score
from slimjax.algorithms.phases import divide, entering, with_widths_only
from slimjax.algorithms.subnets import SampledSubnets
from slimjax.algorithms.turns import Phase, index_at
from slimjax.checks import check, integer, number, one_of
from slimjax.errors import BadValue
from slimjax.nn import structure
from slimjax.nn.space import Subnet
from slimjax.search.reinforce import Controller
from slimjax.search.sampler import NOISES
from slimjax.step.composed import ComposedStep
from slimjax.step.engine import Engine
from slimjax.step.slots import Slot
from slimjax.step.state import TrainState


def jst(
    engine: Engine,
    *,
    num_subnets: int = 30,
    noise: str = "uniform",
    policy: str = "discrete",
    thresholds: Sequence[float] = (0.55, 0.60, 0.65, 0.70, 0.75),
    controller_rate: float = 0.001,
    baseline: float | None = None,
    params_weight: float = 2.0,
    alpha_penalty: float = 0.0001,
    alpha_rate: float = 0.001,
    fine_tuning_rate: float = 0.2,
    coarse: float = 100.0,
    weights: float = 40.0,
    alphas: float = 5.0,
    fine_tuning: float = 100.0,
    search_seed: int = 3080,
) -> Algorithm:
    """T subnets of a coarsely trained network, each sampled, trained and rewarded; the best of them is fine-tuned.

    Paper: algorithms 1 and 2, equations 1, 3, 4, 6, 8 and 9.
    Differs: a layer is a group of channels that are tied: one alpha a channel, one threshold a group. The loss of the
    reward is the trained subnet's on one held-out batch; the paper's is an average over its training. The subnet that
    is fine-tuned begins with the weights that the network has then, not with those of its own time. Numbers that the
    paper lacks (thresholds, lengths on CIFAR, rates) are a known re-implementation's; `alpha_penalty` is ours.
    Reduces to: one rate for all layers, where `thresholds` has one entry.

    Args:
      num_subnets: T; `noise`: of `search.sampler.NOISES`.
      policy, thresholds, controller_rate, baseline: of the controller (`search.reinforce.Controller`).
      params_weight: gamma of the reward.
      alpha_penalty: lambda: of the norm of all alphas, in coarse training; `alpha_rate`: their learning rate after it.
      fine_tuning_rate: of the weights in the last phase, over the configured one.
      coarse, weights, alphas, fine_tuning: lengths of the phases, those of one subnet, in any unit (`phases.divide`).
    """
    check("num_subnets", num_subnets, integer(1))
    check("noise", noise, one_of(*NOISES))
    for name, value in {"controller_rate": controller_rate, "fine_tuning_rate": fine_tuning_rate}.items():
        check(name, value, number(0, above=True))
    numbers = {"params_weight": params_weight, "alpha_penalty": alpha_penalty, "alpha_rate": alpha_rate}
    for name, value in numbers.items():
        check(name, value, number(0))
    lengths = [coarse, *[weights, alphas] * num_subnets, fine_tuning]
    rates = [1.0] * (1 + 2 * num_subnets) + [fine_tuning_rate]
    engine, schedule, firsts = divide(with_widths_only(engine), lengths, rates)
    engine = dataclasses.replace(engine, structure_optimizer=_alpha_optimizer(engine, firsts[1], alpha_rate))
    groups = _groups(engine)
    controller = Controller(tuple(groups.values()), policy, tuple(thresholds), controller_rate, baseline)
    sampled = SampledSubnets(
        engine, controller, tuple(groups), num_subnets, noise, params_weight, search_seed
    )
    algorithm = _Run(engine, sampled, _phases(engine, groups, firsts), alpha_penalty).algorithm()
    rate = lambda step: alpha_rate if algorithm.at(step).name == "alphas" else schedule(step)  # noqa: E731
    return algorithm._replace(schedule=rate)


def _phases(engine: Engine, groups: Mapping[str, int], firsts: Sequence[int]) -> tuple[Phase, ...]:
    """Coarse training, weights and alphas in turns, fine-tuning."""
    names = ["coarse", *["weights", "alphas"] * ((len(firsts) - 2) // 2), "fine-tuning"]
    steps = _steps(engine, groups)
    return tuple(
        Phase(name, steps[name], first, "holdout" if name == "alphas" else "train")
        for name, first in zip(names, firsts, strict=True)
    )


def _groups(engine: Engine) -> dict[str, int]:
    """Channels of the groups that have alphas, in the space's order."""
    shapes = jax.eval_shape(lambda: structure.init(engine.net.records, jax.random.key(0)))
    found = {
        group.name: group.channels for group in engine.net.space.groups if group.name in shapes["alphas"]
    }
    if not found:
        raise BadValue("engine", "expected a network with convolutions into groups that can be narrowed.")
    return found


def _alpha_optimizer(engine: Engine, coarse_steps: int, rate: float) -> optax.GradientTransformation:
    """SGD with momentum at the weights' rate in coarse training, whose updates are its first, and then at its own."""
    assert engine.updates is not None
    whole = engine.updates.schedule(max(1, coarse_steps))
    return optax.sgd(lambda step: jnp.where(step < coarse_steps, whole(step), rate), momentum=0.9)


def _steps(engine: Engine, groups: Mapping[str, int]) -> dict[str, ComposedStep]:
    """The step of each phase, by its name. Subnets are expected to keep half of what has alphas."""
    space = engine.net.space
    halves = space.uniform(max(space.min_width, space.max_width / 2))
    kept = [n if g.name in groups else g.channels for g, n in zip(space.groups, halves, strict=True)]
    expected = np.array([kept], np.int32)
    largest = (Slot("largest", tuple(space.largest.tolist()), stats="largest"),)
    subnet, best = (Slot("subnet", lasting=True),), (Slot("best", stats="best", lasting=True),)

    def alpha_norm(trainable: Any, knobs: Any) -> jax.Array:
        return knobs["strength"] * optax.tree.norm(trainable["structure"])

    return {
        "coarse": ComposedStep(engine, largest, penalty=alpha_norm, trains=("weights", "structure")),
        "weights": ComposedStep(engine, subnet, expected, confined=True),
        "alphas": ComposedStep(engine, subnet, expected, confined=True, trains=("structure",)),
        "fine-tuning": ComposedStep(engine, best, expected, confined=True),
    }


@dataclasses.dataclass(frozen=True)
class _Run:
    """What the algorithm does between the steps."""

    engine: Engine
    sampled: SampledSubnets
    phases: Sequence[Phase]
    alpha_penalty: float

    def algorithm(self) -> Algorithm:
        return Algorithm(
            phases=tuple(self.phases),
            init=self.init,
            propose=self.propose,
            choose=self.choose,
            revise=entering(self.phases, self.enter),
            trials=self.sampled.trials,
            measure=self.sampled.measured,
            news=self.news,
            needs_scores=True,
        )

    def init(self, seed: int) -> TrainState:
        slots = [slot for step in {p.name: p.step for p in self.phases}.values() for slot in step.slots]
        penalty = {"strength": np.array(self.alpha_penalty, np.float32)}
        arrays = self.sampled.init() | {"phase": np.zeros((), np.int32), "penalty": penalty}
        alphas = structure.init(self.engine.net.records, jax.random.fold_in(jax.random.key(seed), 1))
        return self.engine.init(seed, slots, arrays, structure=alphas)

    def enter(self, state: TrainState, number: int, score: Score) -> TrainState:
        """Odd numbers begin with a new subnet, and all but the first with the reward of the one before."""
        last = len(self.phases) - 1
        if number % 2:
            state = self.sampled.rewarded(state, score) if number > 1 else state
            state = self.sampled.restored(state) if number == last else self.sampled.drawn(state)
        return self.sampled.changes.rested(state)

    def propose(self, arrays: Any, step: int) -> Subnet:
        return arrays["subnet"][None] if index_at(self.phases, step) else arrays["subnet"][None][:0]

    def choose(self, state: TrainState, subnets: Mapping[str, Subnet] | None = None) -> dict[str, Chosen]:
        """The best subnet once it is fine-tuned; before, the whole network and the subnet that is being trained."""
        if subnets is not None:
            return {name: Chosen(subnet) for name, subnet in subnets.items()}
        phase, subnet = int(state.algorithm["phase"]), state.algorithm["subnet"]
        if phase == len(self.phases) - 1:
            return {"best": Chosen(subnet, stats="best", found=True)}
        largest = {"largest": Chosen(self.engine.net.space.largest, stats="largest")}
        return largest | ({"subnet": Chosen(subnet)} if phase else {})

    def news(self, before: Any, after: Any, step: int) -> list[str]:
        """A line for each subnet, and for the last phase."""
        entered = range(int(before["phase"]) + 1, int(after["phase"]) + 1)
        told = self.sampled.told(before, after)
        begun = [f"step {step:,}: {self.phases[p].name} begins" for p in entered if p % 2]
        return [*told, *begun]

"""Subnets born from pruning: a few nested, non-uniform subnets of one network, which are then trained together.

Paper: Yang, He, Cao and Fan, Non-uniform DNN Structured Subnets Sampling for Dynamic Inference, DAC 2020 (weight
penalty clipping, WPC).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slimjax.algorithms.base import Algorithm, Chosen, Score
from slimjax.algorithms.lasso import LassoRounds, Round
from slimjax.algorithms.phases import divide, entering, on_devices, with_copies, with_widths_only
from slimjax.algorithms.turns import Phase, index_at
from slimjax.budgets import MACS, Budget, parse_budget
from slimjax.checks import check, integer, number
from slimjax.errors import BadValue, UserError
from slimjax.nn import filters, reorder
from slimjax.nn.space import Subnet
from slimjax.search.base import check_reachable
from slimjax.step.composed import ComposedStep
from slimjax.step.engine import Engine
from slimjax.step.slots import Slot
from slimjax.step.state import SHARED, TrainState
from slimjax.supernet import Supernet


def wpc(
    engine: Engine,
    *,
    budgets: Sequence[str] = ("macs<=0.75", "macs<=0.5", "macs<=0.25"),
    penalties: Sequence[Sequence[float]] = (),
    strength: float = 0.001,
    clip: float = 1.0,
    cutoff: float = 0.05,
    with_largest: bool = False,
    dense: float = 100.0,
    lasso: float = 30.0,
    fused: float = 100.0,
) -> Algorithm:
    """Dense training; k rounds of a clipped group lasso, each followed by pruning; then all k subnets trained together.

    Each round trains what the one before has left, with the penalty of `filters.group_lasso`, and prunes its weakest
    channels. The channels that stay are brought to the front, so the subnets are nested leading slices. In the last
    phase every subnet has gammas, betas and statistics of its own, and their losses on the labels are summed.

    Paper: equations 1 to 3.
    Differs: lambda, a and lengths are not in the paper; with budgets lambda follows the cost of what is not yet small
    (`LassoRounds.adjusted`), and one cutoff for all groups settles the rest, with what else fits in (`pruning`). A
    channel is pruned by the norm of all its filters (`filters.norms`): convolutions that a residual or a depthwise
    convolution ties are penalised and pruned together. Groups that meet by position, in a shortcut without parameters,
    have one order as far as both reach, and keep as many of its first channels as pass. A round moves only the weights
    of the subnet that it prunes; momentum starts anew in each phase.
    Reduces to: the plain group lasso, where `clip` is infinite; to dense training before it, where lambda is 0.

    Args:
      budgets: what the rounds' subnets may cost, the largest first (`budgets.parse_budget`).
      penalties: lambda and a of each round, instead of budgets: then the cutoff alone decides what is pruned.
      strength: lambda with which the search for each budget begins; `clip`: a, with budgets.
      cutoff: channels whose norm is below this share of the largest of their group are as good as gone.
      with_largest: the whole network is trained with the subnets, too.
      dense, lasso, fused: lengths of the phases, `lasso` of one round, in any unit (`phases.divide`).
    """
    rounds = _rounds(engine.net, budgets, penalties, strength, clip)
    check("cutoff", cutoff, number(0, 1, above=True))
    count = len(rounds)
    engine, schedule, firsts = divide(with_widths_only(engine), [dense, *[lasso] * count, fused])
    lassos = LassoRounds(engine, rounds, firsts[1:], cutoff, schedule)
    names = (*(("largest",) if with_largest else ()), *(f"subnet{i}" for i in range(1, count + 1)))
    steps = _steps(engine, rounds, names)
    named = zip(["dense", *["lasso"] * count, "fused"], firsts, strict=True)
    phases = tuple(Phase(name, steps[name], first) for name, first in named)
    run = _Run(engine, lassos, phases, names)
    return Algorithm(
        phases=phases,
        init=run.init,
        propose=run.propose,
        choose=run.choose,
        revise=run.revise,
        measure=lassos.measured,
        news=run.news,
        schedule=schedule,
    )


def _rounds(
    net: Supernet, budgets: Sequence[str], penalties: Sequence[Sequence[float]], strength: float, clip: float
) -> list[Round]:
    """In order, checked: reachable budgets that fall, a network whose channels can change places."""
    if bool(budgets) == bool(penalties):
        raise BadValue("budgets", "expected budgets or penalties, one of the two, and the other empty: ().")
    reorder.order(net.records, net.space, {g.name: np.zeros(g.channels) for g in net.space.groups})
    check("strength", strength, number(0, above=True))
    threshold = number(0, above=True, infinite=True)
    check("clip", clip, threshold)
    for i, pair in enumerate(penalties):
        check(f"penalties[{i}]", len(pair), integer(2, 2))
        check(f"penalties[{i}][0]", pair[0], number(0))
        check(f"penalties[{i}][1]", pair[1], threshold)
    found = [Round(float(pair[0]), float(pair[1])) for pair in penalties]
    for text in budgets:
        budget = parse_budget(text)
        check_reachable("budgets", budget.absolute(net), net.space, budget.resource.cost(net))
        found.append(Round(strength, clip, budget))
    most = [round_.budget.most for round_ in found if round_.budget]
    if len({round_.budget.resource for round_ in found if round_.budget}) == 1 and sorted(most)[::-1] != most:
        raise BadValue("budgets", f"expected the largest first, got {tuple(budgets)}.")
    return found


def _steps(engine: Engine, rounds: Sequence[Round], names: Sequence[str]) -> dict[str, ComposedStep]:
    """The step of each phase, by its name."""
    net = engine.net
    largest = Slot("dense", tuple(net.space.largest.tolist()), stats="dense")
    expected = np.array([(round_.budget or Budget(MACS, 0.5)).uniform(net) for round_ in rounds])
    whole = net.space.largest[None]
    before = np.concatenate([whole, expected[:-1]])
    together = np.concatenate([whole, expected]) if "largest" in names else expected
    penalty = filters.lasso_penalty(net.records, net.space)
    pruned = (Slot("pruned", lasting=True),)
    slots = [Slot(name, affine=name, stats=name, lasting=True) for name in names]
    return {
        "dense": ComposedStep(engine, (largest,)),
        "lasso": ComposedStep(engine, pruned, before, penalty, True),
        "fused": ComposedStep(engine, slots, together),
    }


@dataclasses.dataclass(frozen=True)
class _Run:
    """What an algorithm does between the steps."""

    engine: Engine
    lassos: LassoRounds
    phases: Sequence[Phase]
    names: Sequence[str]

    def init(self, seed: int) -> TrainState:
        """All gammas, betas and statistics are there from the beginning: a state never changes its shapes."""
        slots = [slot for step in {p.name: p.step for p in self.phases}.values() for slot in step.slots]
        arrays = self.lassos.init() | {"phase": np.zeros((), np.int32)}
        return self.engine.init(seed, slots, arrays)

    def revise(self, state: TrainState, step: int, score: Score) -> TrainState:
        return self.lassos.adjusted(entering(self.phases, self._enter)(state, step, score), step)

    def propose(self, arrays: Any, step: int) -> Subnet:
        phase = index_at(self.phases, step)
        if 0 < phase < len(self.phases) - 1:
            return self.lassos.subnet(arrays, phase - 1)[None]
        return self._together(arrays) if phase else arrays["subnets"][:0]

    def _together(self, arrays: Any) -> Subnet:
        """The subnets of the last phase."""
        whole = [self.engine.net.space.largest[None]] if "largest" in self.names else []
        return np.concatenate([*whole, arrays["subnets"]])

    def choose(self, state: TrainState, subnets: Mapping[str, Subnet] | None = None) -> dict[str, Chosen]:
        """The subnets found so far; no others can be asked for."""
        known = isinstance(state.algorithm["phase"], np.ndarray)  # else: shapes
        own = self._own(state.algorithm) if known else {}
        if subnets is None:
            return own
        found = {tuple(choice.subnet): choice for choice in own.values()}
        for name, subnet in subnets.items():
            if tuple(subnet) not in found:
                raise UserError(
                    f"{name}: subnets born from pruning have gammas and betas of their own, and this is none of them "
                    f"({', '.join(own) or 'they are not known before training'}). Leave evaluation.widths empty."
                )
        return {name: found[tuple(subnet)] for name, subnet in subnets.items()}

    def news(self, before: Any, after: Any, step: int) -> list[str]:
        """A line for each phase that has begun."""
        entered = range(int(before["phase"]) + 1, int(after["phase"]) + 1)
        told = {phase: f"; {self.lassos.told(after, phase - 2)}" for phase in entered if phase > 1}
        return [f"step {step:,}: {self.phases[p].name} begins{told.get(p, '')}" for p in entered]

    def _own(self, arrays: Any) -> dict[str, Chosen]:
        phase = int(arrays["phase"])
        if phase < len(self.phases) - 1:
            done = arrays["subnets"][: max(0, phase - 1)]
            found = {f"subnet{i}": Chosen(subnet) for i, subnet in enumerate(done, 1)}
            return {"dense": Chosen(self.engine.net.space.largest, stats="dense")} | found
        rows = zip(self.names, self._together(arrays), strict=True)
        return {name: Chosen(subnet, name, name, found=name != "largest") for name, subnet in rows}

    def _enter(self, state: TrainState, number: int, _: Score) -> TrainState:
        if number > 1:
            state = self.lassos.ended(state, number - 2)
        if number < len(self.phases) - 1:
            return self.lassos.begun(state, number - 1)
        begin = functools.partial(with_copies, names=self.names, affine=SHARED, stats="dense")
        return on_devices(self.engine, begin)(self.lassos.changes.rested(state))

"""A history of trials: arrays that a search learns from, part of the training state and so of every checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from slimjax.nn.space import Subnet
from slimjax.search.run import Score
from slimjax.search.trials import Trial
from slimjax.vectors import WidthVectors

Arrays = dict[str, np.ndarray]
"""The history. By trial, in a ring of places [N]: `widths` float32 [N, G], `loss` float32 [N] (NaN: failed or not
scored), `target` float32 [N] (NaN: none), `how` int32 [N] (index of `History.how`), `scored` bool [N].
`count` int32 []: trials so far. `warm` float32 [W]: what the search begins its next fit with (NaN: nothing)."""


@dataclasses.dataclass(frozen=True)
class History:
    """What becomes of a history: pure functions of `Arrays`.

    Args:
      vectors: how widths [G] become subnets, and what they cost.
      places: most trials that are kept; beyond that the oldest are forgotten.
      how: names of the ways in which trials are proposed.
      rescore: False keeps a trial's first score for ever.
    """

    vectors: WidthVectors
    places: int
    how: Sequence[str]
    rescore: bool = True

    def empty(self, warm: int) -> Arrays:
        """No trials. `warm`: entries of the search's own array."""
        return {
            "widths": np.zeros((self.places, len(self.vectors.net.space)), np.float32),
            "loss": np.full(self.places, np.nan, np.float32),
            "target": np.full(self.places, np.nan, np.float32),
            "how": np.zeros(self.places, np.int32),
            "scored": np.zeros(self.places, np.bool_),
            "count": np.zeros((), np.int32),
            "warm": np.full(warm, np.nan, np.float32),
        }

    def written(self, widths: np.ndarray, target: float | None, how: str, warm: np.ndarray) -> Arrays:
        """One proposal, as `extended` takes it."""
        return {
            "widths": widths.astype(np.float32),
            "target": np.array(np.nan if target is None else target, np.float32),
            "how": np.array(self.how.index(how), np.int32),
            "warm": warm,
        }

    def extended(self, arrays: Arrays, proposals: Sequence[Arrays]) -> Arrays:
        """With proposals, one after the other, that are not scored yet."""
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

    def newest(self, arrays: Arrays, count: int) -> Subnet:
        """The last `count` trials' subnets, int32 [count, G], the oldest first."""
        numbers = int(arrays["count"]) - count + np.arange(count)
        return self.vectors.subnets(arrays["widths"][numbers % self.places])

    def known(self, arrays: Arrays) -> np.ndarray:
        """Places of the trials that have a loss, int [K]."""
        return np.flatnonzero(arrays["scored"] & np.isfinite(arrays["loss"]))

    def numbers(self, arrays: Arrays) -> np.ndarray:
        """The trial that each place holds, int [N]; meaningless where none is."""
        newest = int(arrays["count"]) - 1
        return newest - (newest - np.arange(self.places)) % self.places

    def trials(self, arrays: Arrays, step: int) -> list[Trial]:
        """All that are kept, the oldest first."""
        numbers = np.sort(self.numbers(arrays)[self._filled(arrays)])
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
            how=self.how[arrays["how"][row]],
            reason=f"its loss is {loss}" if state == "failed" else None,
        )

    def _filled(self, arrays: Arrays) -> np.ndarray:
        return np.arange(self.places) < arrays["count"]

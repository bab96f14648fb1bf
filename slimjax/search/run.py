"""The loop of a search: ask, score, tell, with the log of trials as its memory."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from slimjax.errors import RunError, UserError
from slimjax.nn.space import Space
from slimjax.search.base import Cost, Searcher, usable
from slimjax.search.trials import Trial, TrialLog, latest

Score = Callable[[np.ndarray], Any]
"""int32 [N, G] -> [N]: scores of subnets, the lower, the better; each depends on its own subnet alone."""


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """When failed trials end a search: more than `share` of all, once there are `trials` of them.

    Args:
      errors: exceptions of `score` that are failures of a trial; any other ends the search.
    """

    share: float = 0.5
    trials: int = 20
    errors: tuple[type[Exception], ...] = (RunError, TimeoutError)


def run(
    searcher: Searcher,
    score: Score,
    log: TrialLog,
    space: Space,
    cost: Cost,
    *,
    how: str,
    target: float | None = None,
    tolerance: Tolerance = Tolerance(),
    share: Callable[[Any], Any] = lambda state: state,
) -> Any:
    """Runs a search to its end and returns its last state.

    The log is the truth: a trial that it has a score of, or a failure, is not scored again. So a search that was
    killed goes on, with the same log and the same arguments, at the point where it was, and ends with the same
    state and log.

    Where several processes score together, all of them run this and read the log, and one writes it. The search is
    that process's: arithmetic may differ between hosts in the last bit.

    A subnet fails if its score is not finite or `score` raises one of `tolerance.errors`; if that befalls several
    subnets at once, each is scored alone. It is logged with the reason, and told as NaN.

    Args:
      how, target: for the log.
      share: a state -> the state that the writing process has; it waits for all processes.

    Raises:
      UserError: the log is of another search.
      RunError: too many failures.
    """
    past, failures = latest(log.read()), []
    state = share(searcher.init())  # only now all have read the log, and it may be written
    numbers = itertools.count()
    for step in itertools.count():
        if searcher.done(state):
            break
        asked = searcher.ask(state)
        costs = np.asarray(cost(asked), np.float64).tolist()
        trials = [
            Trial(next(numbers), "proposed", step, space.to_channels(row), price, target=target, how=how)
            for row, price in zip(asked, costs, strict=True)
        ]
        trials = _settle(trials, asked, score, log, past, tolerance)
        failures += [trial for trial in trials if trial.state == "failed"]
        _check_failures(failures, trials[-1].trial + 1, log, tolerance)
        scores = np.array([t.score for t in trials], np.float64)  # None becomes NaN
        state = share(searcher.tell(state, scores))
    return state


def _settle(
    trials: list[Trial],
    asked: np.ndarray,
    score: Score,
    log: TrialLog,
    past: Mapping[int, Trial],
    tolerance: Tolerance,
) -> list[Trial]:
    """The trials, scored or failed: as the log has them, or, if it has not, as they turn out now."""
    known = [_recall(trial, past, log) for trial in trials]
    log.write(*[trial for trial in known if trial.trial not in past])
    waiting = [i for i, trial in enumerate(known) if trial.state == "proposed"]
    outcomes = _outcomes(score, asked[waiting], tolerance.errors) if waiting else []
    for i, outcome in zip(waiting, outcomes, strict=True):
        known[i] = dataclasses.replace(trials[i], **outcome)
    log.write(*[known[i] for i in waiting])
    return known


def _recall(trial: Trial, past: Mapping[int, Trial], log: TrialLog) -> Trial:
    old = past.get(trial.trial, trial)
    if dict(old.channels) != dict(trial.channels):
        raise UserError(
            f"{log.path}: its trial {trial.trial} is {dict(old.channels)}; this search asks for "
            f"{dict(trial.channels)}. The log is of another search, or of one with other scores. Take another "
            "file, or the arguments that it was written with."
        )
    return old


def _outcomes(score: Score, subnets: np.ndarray, errors: tuple[type[Exception], ...]) -> list[dict[str, Any]]:
    """What changes in each subnet's trial."""
    try:
        raw = score(subnets)
    except errors as error:
        if len(subnets) > 1:
            return [outcome for row in subnets for outcome in _outcomes(score, row[None], errors)]
        return [_failure(str(error) or type(error).__name__)]
    return [
        _failure(f"its score is {value}") if np.isnan(number) else {"state": "scored", "score": float(number)}
        for value, number in zip(np.asarray(raw), usable(raw, len(subnets)), strict=False)
    ]


def _failure(reason: str) -> dict[str, Any]:
    return {"state": "failed", "reason": reason}


def _check_failures(failures: list[Trial], count: int, log: TrialLog, tolerance: Tolerance) -> None:
    if count < tolerance.trials or len(failures) <= tolerance.share * count:
        return
    raise RunError(
        f"{len(failures)} of {count} trials failed, the last one because: {failures[-1].reason}. Mend the cause; "
        f"then delete the lines from step {failures[0].step} on in {log.path} and run the search again."
    )

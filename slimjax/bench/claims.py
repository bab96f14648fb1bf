"""`slimjax bench claims`: which of the papers' claims hold on a task that two CPU cores can train.

Each claim compares arms (`bench.arms`) over seeds and says whether it holds beyond doubt (95 %, paired by
seed), is refuted beyond doubt, or is unclear at this scale. Numbers are those of the reference list.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from slimjax.bench import arms, compare
from slimjax.errors import UserError
from slimjax.widths import width_name

Measured = Mapping[str, Sequence[Mapping[str, Any]]]
"""Arm name -> measurements by seed."""

NARROW, WIDE = width_name(arms.WIDTHS[0]), width_name(arms.WIDTHS[-1])
INNER = tuple(width_name(w) for w in arms.WIDTHS[1:-1])
LADDER = (NARROW, *INNER, WIDE)
SWITCHES = tuple(width_name(w) for w in arms.SWITCHES)


class Outcome(NamedTuple):
    metric: str
    compared: list[dict[str, Any]]
    holds: compare.Verdict


class Claim(NamedTuple):
    """A claim of the reference list: its number, its words, the arms it needs, how it is decided."""

    number: int
    text: str
    arms: tuple[str, ...]
    decide: Callable[[Measured], Outcome]


def run(groups: Sequence[str], seeds: int, directory: str) -> list[dict[str, Any]]:
    """Trains what is missing, then decides the claims of the given groups.

    Args:
      groups: of `GROUPS`.
      seeds: networks per arm; from 3 on a verdict can be reached.
      directory: measurements are kept in its claims.jsonl, and a later call goes on from them.
    """
    if unknown := sorted(set(groups) - set(GROUPS)):
        raise UserError(f"--only: unknown {', '.join(unknown)}. Known: {', '.join(GROUPS)}.")
    if seeds < 1:
        raise UserError(f"--seeds: expected 1 or more, got {seeds}.")
    claims = sorted((claim for group in groups for claim in GROUPS[group]), key=lambda c: c.number)
    needed = dict.fromkeys(name for claim in claims for name in claim.arms)
    measured = arms.run(tuple(needed), seeds, Path(directory) / "claims.jsonl")
    return [_decide(claim, measured, seeds) for claim in claims]


def format_table(results: Sequence[Mapping[str, Any]]) -> str:
    """One block of lines per claim."""
    blocks = []
    for result in results:
        head = f"{result['number']:>3}  {_WORDS[result['holds']]:<8} {result['text']}"
        compared = [
            f"       {arm['arm']:<36} {arm['mean']:.4g} +- {arm['spread'] or 0:.2g}" for arm in result["arms"]
        ]
        blocks.append("\n".join([head, f"       {result['metric']}", *compared]))
    return "\n".join(blocks)


_WORDS: Mapping[Any, str] = MappingProxyType({True: "holds", False: "refuted", "unclear": "unclear"})


def _decide(claim: Claim, measured: Measured, seeds: int) -> dict[str, Any]:
    outcome = claim.decide(measured)
    return {
        "number": claim.number,
        "text": claim.text,
        "metric": outcome.metric,
        "arms": outcome.compared,
        "seeds": seeds,
        "holds": outcome.holds,
    }


def _values(measured: Measured, arm: str, probe: str, name: str, key: str) -> list[float]:
    return [seed[probe][name][key] for seed in measured[arm]]


def _mean(measured: Measured, arm: str, probe: str, names: Sequence[str], key: str) -> list[float]:
    """Per seed, the mean of a score over several widths."""
    return [sum(seed[probe][n][key] for n in names) / len(names) for seed in measured[arm]]


def naive_norm_collapses(measured: Measured) -> Outcome:
    arm = "naive shared norms"
    train = _mean(measured, arm, "switches", SWITCHES, "train_top1")
    test = _mean(measured, arm, "switches", SWITCHES, "top1")
    private = _mean(measured, "private norms", "switches", SWITCHES, "top1")
    compared = [
        compare.arm("naive, training accuracy", train),
        compare.arm("naive, test accuracy", test),
        compare.arm("private norms, test accuracy", private),
    ]
    holds = compare.every([compare.greater(train, test), compare.greater(private, test)])
    return Outcome("top-1, mean over the four switches", compared, holds)


def private_norm_repairs(measured: Measured) -> Outcome:
    shared, naive = "shared affine, private statistics", "naive shared norms"
    repaired = _mean(measured, shared, "switches", SWITCHES, "top1")
    broken = _mean(measured, naive, "switches", SWITCHES, "top1")
    pairs = zip(measured[shared], measured[naive], strict=True)
    same = [a["weights"]["sha256"] == b["weights"]["sha256"] for a, b in pairs]
    compared = [
        compare.arm("private statistics, test accuracy", repaired),
        compare.arm("shared statistics, test accuracy", broken),
        compare.arm("share of seeds with bit-identical weights", [float(s) for s in same]),
    ]
    return Outcome(
        "top-1, mean over the four switches; gammas and betas shared in both",
        compared,
        compare.every([compare.greater(repaired, broken), all(same)]),
    )


def monotone_in_width(measured: Measured) -> Outcome:
    losses = {n: _values(measured, "usnet", "sweep", n, "loss") for n in LADDER}
    compared = [compare.arm(f"loss at {n}", losses[n]) for n in LADDER]
    steps = list(itertools.pairwise(LADDER))
    # Non-strict: no step up the ladder makes the loss larger beyond doubt, and the ends differ.
    rises = [compare.greater(losses[wide], losses[narrow], len(steps)) is True for narrow, wide in steps]
    ends = compare.greater(losses[NARROW], losses[WIDE])
    return Outcome(
        "test loss; no significant rise from a width to the next", compared, not any(rises) and ends
    )


def bounded_by_the_ends(measured: Measured) -> Outcome:
    narrow = _values(measured, "usnet", "sweep", NARROW, "loss")
    wide = _values(measured, "usnet", "sweep", WIDE, "loss")
    compared = [compare.arm(f"loss at {NARROW}", narrow), compare.arm(f"loss at {WIDE}", wide)]
    outside = []
    for name in INNER:
        loss = _values(measured, "usnet", "sweep", name, "loss")
        compared.append(compare.arm(f"loss at {name}", loss))
        pairs = ((loss, narrow), (wide, loss))
        outside += [compare.greater(*pair, comparisons=2 * len(INNER)) is True for pair in pairs]
    return Outcome("test loss; no inner width significantly outside the ends", compared, not any(outside))


def sandwich_beats_random(measured: Measured) -> Outcome:
    names = ("labels only", "random only", "max and random", "min and random")
    ends = {n: _mean(measured, n, "sweep", (NARROW, WIDE), "loss") for n in names}
    compared = []
    for name in names:
        for width in (NARROW, WIDE):
            label = f"{'max, min and random' if name == names[0] else name}, {width}"
            compared.append(compare.arm(label, _values(measured, name, "sweep", width, "loss")))
    verdicts = [compare.greater(ends[other], ends[names[0]]) for other in names[1:]]
    return Outcome(
        "test loss at the two ends (labels for all subnets, n = 4)", compared, compare.every(verdicts)
    )


def distillation_helps(measured: Measured) -> Outcome:
    names = {"teacher": "usnet", "labels": "labels only", "labels and teacher": "labels and teacher"}
    values = {n: _mean(measured, arm, "sweep", LADDER, "loss") for n, arm in names.items()}
    compared = [compare.arm(f"students learn from {n}, loss", v) for n, v in values.items()]
    for n, arm in names.items():
        top1 = _mean(measured, arm, "sweep", LADDER, "top1")
        compared.append(compare.arm(f"students learn from {n}, top-1", top1))
    verdicts = [compare.greater(values[n], values["teacher"]) for n in ("labels", "labels and teacher")]
    return Outcome("test loss, mean over ten widths", compared, compare.every(verdicts))


def few_images_calibrate(measured: Measured) -> Outcome:
    names = (NARROW, width_name(0.5), WIDE)
    scores = {
        n: [
            sum(seed["calibration_images"][str(n)][w]["top1"] for w in names) / len(names)
            for seed in measured["usnet"]
        ]
        for n in arms.CALIBRATION_IMAGES
    }
    compared = [compare.arm(f"{n} images", scores[n]) for n in arms.CALIBRATION_IMAGES]
    holds = compare.within(scores[1024], scores[2048], 0.005)
    return Outcome(
        "top-1, mean over three widths; 1,024 images within half a point of 2,048", compared, holds
    )


def uncalibrated_collapses(measured: Measured) -> Outcome:
    keys = {
        "calibrated": "top1",
        "statistics of the widest": "top1_uncalibrated",
        "initial statistics (0, 1)": "top1_initial_statistics",
    }
    inner = {label: _mean(measured, "usnet", "sweep", INNER, key) for label, key in keys.items()}
    verdicts = [compare.greater(inner["calibrated"], inner[label]) for label in list(keys)[1:]]
    compared = [compare.arm(label, values) for label, values in inner.items()]
    return Outcome("top-1, mean over the eight inner widths", compared, compare.every(verdicts))


def wide_range_hurts_small_widths(measured: Measured) -> Outcome:
    wide_range, narrow_range = "range .05 to 1", "range .35 to 1"
    small, full = width_name(0.35), WIDE
    loss = {
        (arm, w): _values(measured, arm, "ends", w, "loss")
        for arm in (narrow_range, wide_range)
        for w in (small, full)
    }
    compared = [compare.arm(f"{arm}, {w}", values) for (arm, w), values in loss.items()]
    holds = compare.greater(loss[wide_range, small], loss[narrow_range, small])
    return Outcome("test loss at widths .35 and 1", compared, holds)


def plain_nets_do_not_slim(measured: Measured) -> Outcome:
    plain = _mean(measured, "plain", "sweep", LADDER[:-1], "top1")
    slimmable = _mean(measured, "usnet", "sweep", LADDER[:-1], "top1")
    compared = [
        compare.arm("trained at full width only, calibrated", plain),
        compare.arm("US-Net, calibrated", slimmable),
    ]
    return Outcome("top-1, mean over nine widths below 1", compared, compare.greater(slimmable, plain))


SNET = (
    Claim(
        1,
        "Naive shared batch norm: training looks fine, test accuracy collapses.",
        ("naive shared norms", "private norms"),
        naive_norm_collapses,
    ),
    Claim(
        2,
        "Private statistics repair it, and do not change training at all.",
        ("shared affine, private statistics", "naive shared norms"),
        private_norm_repairs,
    ),
)
USNET = (
    Claim(4, "US-Net runs at any width; the loss falls with width.", ("usnet",), monotone_in_width),
    Claim(5, "Inner widths lie between the smallest and the largest.", ("usnet",), bounded_by_the_ends),
    Claim(
        6,
        "The sandwich rule beats random widths only; both ends are needed.",
        ("labels only", "random only", "max and random", "min and random"),
        sandwich_beats_random,
    ),
    Claim(
        8,
        "In-place distillation helps; adding labels for the students is worse.",
        ("usnet", "labels only", "labels and teacher"),
        distillation_helps,
    ),
    Claim(9, "One to two thousand images suffice for calibration.", ("usnet",), few_images_calibrate),
    Claim(10, "Without calibration accuracy collapses.", ("usnet",), uncalibrated_collapses),
    Claim(
        11,
        "A wider training range hurts small widths.",
        ("range .35 to 1", "range .05 to 1"),
        wide_range_hurts_small_widths,
    ),
    Claim(
        12,
        "A normally trained network, sliced and calibrated, is bad.",
        ("plain", "usnet"),
        plain_nets_do_not_slim,
    ),
)
GROUPS: Mapping[str, Sequence[Claim]] = MappingProxyType({"snet": SNET, "usnet": USNET})

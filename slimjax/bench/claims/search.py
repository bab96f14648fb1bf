"""Claims of the papers that search widths: AutoSlim, Joslim, and the two stages that Joslim is compared with."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from slimjax.bench.claims import compare
from slimjax.bench.claims.outcome import Claim, Measured, Outcome

AREA = "mean test loss over MACs, of the subnets that held-out images choose"
SIGNIFICANT = 0.05
"""Level of the Kolmogorov-Smirnov test of uniform costs."""

KINDS = ("slimmed", "uniform")
ROUNDS = ("joslim, K = 5", "joslim", "joslim, K = 30")


def slimming_beats_uniform(measured: Measured) -> Outcome:
    mean = {
        (kind, key): _over_targets(measured, kind, key) for key in ("loss", "top1", "macs") for kind in KINDS
    }
    compared = [compare.arm(f"{kind}, {key}", values) for (kind, key), values in mean.items()]
    holds = compare.greater(mean["uniform", "loss"], mean["slimmed", "loss"])
    return Outcome("test scores of subnets retrained as one S-Net, means over three budgets", compared, holds)


def early_layers_shrink(measured: Measured) -> Outcome:
    """A positive rank correlation: the later a group, the more of its channels it keeps."""
    kept = [seed["slimmed"]["kept"] for seed in measured["slimming"]]
    correlations = {target: [_rising(seed[target]) for seed in kept] for target in kept[0]}
    means = np.mean(list(correlations.values()), axis=0).tolist()
    compared = [compare.arm(target, values) for target, values in correlations.items()]
    compared.append(compare.arm("mean", means))
    holds = compare.greater(means, [0.0] * len(means))
    return Outcome("rank correlation of a group's depth and the share that it keeps", compared, holds)


def layerwise_widths_cost_alike(measured: Measured) -> Outcome:
    costs = {
        "layer-wise random widths": [seed["searched"]["drawn"] for seed in measured["two stages"]],
        "proposed by Joslim": [seed["visited"]["costs"] for seed in measured["joslim"]],
    }
    low, high = (
        {arm: [float(np.quantile(c, q)) for c in of] for arm, of in costs.items()} for q in (0.05, 0.95)
    )
    compared = []
    for arm in costs:
        compared += [compare.arm(f"{arm}, 5 %", low[arm]), compare.arm(f"{arm}, 95 %", high[arm])]
    narrow, wide = ([b - a for a, b in zip(low[arm], high[arm], strict=True)] for arm in costs)
    return Outcome("quantiles of visited MACs over the largest's", compared, compare.greater(wide, narrow))


def joslim_beats_both(measured: Measured, joslim: str, bound: str) -> Outcome:
    areas = {
        "uniform widths (US-Net)": _area(measured, "uniform widths", "uniform"),
        "layer-wise widths, then search": _area(measured, "two stages", "searched", bound),
        joslim: _area(measured, joslim, "visited"),
    }
    own = areas[joslim]
    verdicts = [compare.greater(area, own) for arm, area in areas.items() if arm != joslim]
    areas["uniform widths on Joslim's weights"] = _area(
        measured, joslim, "uniform"
    )  # is it widths or weights?
    return Outcome(AREA, [compare.arm(*one) for one in areas.items()], compare.every(verdicts))


def small_networks_gain_more(measured: Measured) -> Outcome:
    small, large = _gain(measured, ", small"), _gain(measured, "")
    compared = [
        compare.arm("ResNet-8 of 4, 8, 16 channels", small),
        compare.arm("ResNet-8 of 8, 16, 32 channels", large),
    ]
    return Outcome("share of the area that Joslim gains on US-Net", compared, compare.greater(small, large))


def search_covers_costs(measured: Measured, joslim: str) -> Outcome:
    """Both: costs nearer to uniform, and the better front."""
    arms = {"searched weight": joslim, "random weight": f"{joslim}, random weight"}
    distances, passed = {}, {}
    for label, arm in arms.items():
        tests = [_uniformity(seed["visited"]) for seed in measured[arm]]
        distances[label] = [float(test.statistic) for test in tests]
        passed[label] = [float(test.pvalue > SIGNIFICANT) for test in tests]
    areas = {label: _area(measured, arm, "visited") for label, arm in arms.items()}
    compared = [
        compare.arm(f"{label}, {what}", values[label])
        for what, values in (("distance", distances), ("share of seeds that pass", passed), ("area", areas))
        for label in arms
    ]
    verdicts = [
        compare.greater(values["random weight"], values["searched weight"]) for values in (distances, areas)
    ]
    metric = f"Kolmogorov-Smirnov distance of visited MACs from uniform ones; {AREA}"
    return Outcome(metric, compared, compare.every(verdicts))


def old_scores_mislead(measured: Measured) -> Outcome:
    areas = {arm: _area(measured, arm, "visited") for arm in ("joslim", "joslim, scored once")}
    holds = compare.greater(areas["joslim, scored once"], areas["joslim"])
    return Outcome(AREA, [compare.arm(*one) for one in areas.items()], holds)


def rounds_matter(measured: Measured) -> Outcome:
    """Some two of them differ beyond doubt; that none does would not show that all are equal."""
    areas = {arm: _area(measured, arm, "visited") for arm in ROUNDS}
    pairs = list(itertools.permutations(ROUNDS, 2))
    differ = [compare.greater(areas[a], areas[b], comparisons=len(pairs)) is True for a, b in pairs]
    labels = {arm: "K = 10" if arm == "joslim" else arm.removeprefix("joslim, ") for arm in ROUNDS}
    compared = [compare.arm(labels[arm], areas[arm]) for arm in ROUNDS]
    return Outcome(f"{AREA}; 600 steps", compared, any(differ) or "unclear")


def _area(measured: Measured, arm: str, *path: str) -> list[float]:
    """Per seed, the area that a probe found."""
    return [functools.reduce(lambda found, key: found[key], path, seed)["area"] for seed in measured[arm]]


def _gain(measured: Measured, size: str) -> list[float]:
    uniform = _area(measured, f"uniform widths{size}", "uniform")
    joslim = _area(measured, f"joslim{size}", "visited")
    return [1 - ours / theirs for ours, theirs in zip(joslim, uniform, strict=True)]


def _over_targets(measured: Measured, kind: str, key: str) -> list[float]:
    subnets = [seed["slimmed"][kind].values() for seed in measured["slimming"]]
    return [float(np.mean([scores[key] for scores in seed])) for seed in subnets]


def _rising(kept: Sequence[float]) -> float:
    """Spearman's correlation with the place in the sequence; 0 where all are equal."""
    if len(set(kept)) == 1:
        return 0.0
    return float(stats.spearmanr(range(len(kept)), kept).statistic)


def _uniformity(visited: Mapping[str, Any]) -> Any:
    """Kolmogorov-Smirnov, against costs that are uniform between the smallest and the largest network's."""
    low = visited["cheapest"]
    return stats.kstest(visited["costs"], stats.uniform(low, 1 - low).cdf)


AUTOSLIM = (
    Claim(
        14,
        "Greedily slimmed subnets, retrained, beat uniform ones of as many MACs.",
        ("slimming",),
        slimming_beats_uniform,
    ),
    Claim(15, "Slimming shrinks early layers, and keeps deep ones.", ("slimming",), early_layers_shrink),
)
BIGNAS = (
    Claim(
        18,
        "Layer-wise random widths visit a narrow band of costs.",
        ("two stages", "joslim"),
        layerwise_widths_cost_alike,
    ),
)
JOSLIM = (
    Claim(
        16,
        "Joslim's front is better than US-Net's, and than a search after training (bound as the authors have it).",
        ("uniform widths", "two stages", "joslim"),
        functools.partial(joslim_beats_both, joslim="joslim", bound="upper"),
    ),
    Claim(
        16,
        "The same with the lower bound.",
        ("uniform widths", "two stages", "joslim, lower bound"),
        functools.partial(joslim_beats_both, joslim="joslim, lower bound", bound="lower"),
    ),
    Claim(
        17,
        "Joslim gains more where the network is less over-parameterised.",
        ("uniform widths", "joslim", "uniform widths, small", "joslim, small"),
        small_networks_gain_more,
    ),
    Claim(
        18,
        "The search for the weight visits costs evenly, and the front is better for it (bound as the authors have it).",
        ("joslim", "joslim, random weight"),
        functools.partial(search_covers_costs, joslim="joslim"),
    ),
    Claim(
        18,
        "The same with the lower bound.",
        ("joslim, lower bound", "joslim, lower bound, random weight"),
        functools.partial(search_covers_costs, joslim="joslim, lower bound"),
    ),
    Claim(
        19,
        "A history that is not scored again misleads.",
        ("joslim", "joslim, scored once"),
        old_scores_mislead,
    ),
    Claim(20, "The number of steps of a round, K, matters.", ROUNDS, rounds_matter),
)

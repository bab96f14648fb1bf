"""Claims of TF-NAS: bi-sampling, sink-connecting and elasticity-scaling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slimjax.bench.claims import compare
from slimjax.bench.claims.outcome import Claim, Measured, Outcome

RANDOM, ONE = "random second path", "one path"
GUMBEL, LIKELIEST, LEAST = "gumbel second path", "likeliest second path", "least likely second path"
SKIPPING = "skip is an operator"
SCALED = ("linear cost", "log cost")
ALONE = ", not scaled"

ON_TARGET = 0.01
"""A cost that is so near to the target has hit it: a channel of these networks is about 0.1 % of it."""


def bisampling_helps(measured: Measured) -> Outcome:
    compared, verdicts = [], []
    for label, probe, keys in (
        ("top-1 on training images", "supernet", ("train", "top1")),
        ("top-1 on held-out images", "supernet", ("holdout", "top1")),
        ("entropy of operators", "operators", ("selected",)),
    ):
        values = {arm: _values(measured, arm, probe, *keys) for arm in (RANDOM, ONE)}
        compared += [compare.arm(f"{arm}, {label}", values[arm]) for arm in values]
        verdicts.append(compare.greater(values[RANDOM], values[ONE], 3))
    for key in ("by_block", "chosen", "largest_share"):
        compared += [
            compare.arm(f"{arm}, {key}", _values(measured, arm, "operators", key)) for arm in (RANDOM, ONE)
        ]
    return Outcome(
        "32 random paths of the supernet; operators that are selected over all blocks, 1 is evenly",
        compared,
        compare.every(verdicts),
    )


def random_second_path_is_best(measured: Measured) -> Outcome:
    others = (GUMBEL, LIKELIEST, LEAST)
    return _second_paths(measured, [(RANDOM, other) for other in others])


def likely_second_paths_harm(measured: Measured) -> Outcome:
    return _second_paths(measured, [(ONE, GUMBEL), (ONE, LIKELIEST)])


def _second_paths(measured: Measured, pairs: Sequence[tuple[str, str]]) -> Outcome:
    """Each pair's first arm should be the better one."""
    arms = dict.fromkeys(arm for pair in pairs for arm in pair)
    top1 = {arm: _values(measured, arm, "supernet", "holdout", "top1") for arm in arms}
    compared = [compare.arm(arm, values) for arm, values in top1.items()]
    verdicts = [compare.greater(top1[better], top1[worse], len(pairs)) for better, worse in pairs]
    return Outcome(
        "top-1 on held-out images, 32 random paths of the supernet", compared, compare.every(verdicts)
    )


def skipping_shortens(measured: Measured) -> Outcome:
    blocks = {arm: _values(measured, arm, "architecture", "blocks") for arm in (RANDOM, SKIPPING)}
    compared = [
        compare.arm("depths by sink-connecting, blocks", blocks[RANDOM]),
        compare.arm("skip is an operator, blocks", blocks[SKIPPING]),
    ]
    return Outcome(
        "blocks of the network that was found, of six",
        compared,
        compare.greater(blocks[RANDOM], blocks[SKIPPING]),
    )


def sinks_find_better_networks(measured: Measured) -> Outcome:
    compared, top1 = [], {}
    for label, arm in (("depths by sink-connecting", RANDOM), ("skip is an operator", SKIPPING)):
        top1[arm] = _values(measured, arm, "retrained", "found", "top1")
        compared.append(compare.arm(f"{label}, top-1", top1[arm]))
        for key in ("loss", "macs"):
            values = _values(measured, arm, "retrained", "found", key)
            compared.append(compare.arm(f"{label}, {key if key == 'loss' else 'MACs'}", values))
    return Outcome(
        "test scores of the found network, trained from scratch",
        compared,
        compare.greater(top1[RANDOM], top1[SKIPPING]),
    )


def scaling_hits_the_target(measured: Measured) -> Outcome:
    percents = {
        "before scaling": "first_error_percent",
        "after one pass": "global_error_percent",
        "after all passes": "mean_error_percent",
        "largest": "max_error_percent",
    }
    error = {k: [v / 100 for v in _values(measured, RANDOM, "scaled", key)] for k, key in percents.items()}
    trained = _values(measured, RANDOM, "architecture", "cost")
    above = [seed["scaled"]["above_target"] + _exceeds(seed["architecture"]) for seed in measured[RANDOM]]
    compared = [compare.arm(f"random architectures, {label}", values) for label, values in error.items()]
    compared += [
        compare.arm("random architectures that can cost it", _values(measured, RANDOM, "scaled", "feasible")),
        compare.arm("searched architectures", [abs(cost - 1) for cost in trained]),
        compare.arm("architectures above it", above),
    ]
    bound = [ON_TARGET] * len(trained)
    verdicts = [
        not any(above),
        compare.greater(error["before scaling"], bound, 2),
        compare.greater(bound, error["after all passes"], 2),
    ]
    return Outcome(
        "distance from the target, over it, means over architectures; 1 % is a hit",
        compared,
        compare.every(verdicts),
    )


def scaling_repairs_other_losses(measured: Measured) -> Outcome:
    compared, verdicts = [], []
    for arm in SCALED:
        cost = {name: _values(measured, name, "architecture", "cost") for name in (arm, arm + ALONE)}
        off = {name: [abs(value - 1) for value in values] for name, values in cost.items()}
        most = _values(measured, arm, "architecture", "most")
        compared += [
            *(compare.arm(f"{name}, distance", values) for name, values in off.items()),
            *(compare.arm(f"{name}, cost", values) for name, values in cost.items()),
            compare.arm(f"{arm}, cost at the most channels", most),
        ]
        bound = [ON_TARGET] * len(most)
        verdicts += [
            all(value <= 1 for value in cost[arm]),
            compare.greater(bound, off[arm], 2 * len(SCALED)),
            compare.greater(off[arm + ALONE], bound, 2 * len(SCALED)),
        ]
    return Outcome(
        "cost over the target, and its distance from 1; within 1 % is a hit",
        compared,
        compare.every(verdicts),
    )


def _exceeds(found: Mapping[str, float]) -> bool:
    """Whether a searched network costs more than the target, though it could cost it."""
    return found["fewest"] <= 1 < found["cost"]


def _values(measured: Measured, arm: str, probe: str, *keys: str) -> list[float]:
    """One number by seed."""
    found = []
    for seed in measured[arm]:
        value = seed[probe]
        for key in keys:
            value = value[key]
        found.append(float(value))
    return found


TFNAS = (
    Claim(
        24,
        "Bi-sampling raises the supernet's accuracy, on training and on held-out images, and operators collapse less.",
        (RANDOM, ONE),
        bisampling_helps,
    ),
    Claim(
        25,
        "The second path is best drawn at random.",
        (RANDOM, GUMBEL, LIKELIEST, LEAST),
        random_second_path_is_best,
    ),
    Claim(
        25,
        "A second path by the operators' probabilities, or of the likeliest ones, is worse than none.",
        (ONE, GUMBEL, LIKELIEST),
        likely_second_paths_harm,
    ),
    Claim(26, "Skipping as an operator shortens networks.", (RANDOM, SKIPPING), skipping_shortens),
    Claim(
        26,
        "With depths by sink-connecting instead, what is found is better.",
        (RANDOM, SKIPPING),
        sinks_find_better_networks,
    ),
    Claim(
        27,
        "Elasticity-scaling brings costs to the target, and never above it.",
        (RANDOM,),
        scaling_hits_the_target,
    ),
    Claim(
        28,
        "It does so with other losses of the cost, which miss the target without it.",
        tuple(arm + end for arm in SCALED for end in ("", ALONE)),
        scaling_repairs_other_losses,
    ),
)

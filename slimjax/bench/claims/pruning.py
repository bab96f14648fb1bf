"""Claims of the papers whose subnets come from pruning: WPC, and Joint Search-and-Training."""

from __future__ import annotations

from slimjax.bench.claims import compare
from slimjax.bench.claims.outcome import Claim, Measured, Outcome

CLIPPED, PLAIN = "clipped lasso", "plain lasso"
ONLY = ", pruned only"
SUBNETS = ("subnet1", "subnet2", "subnet3")
POINTS = 0.02
"""How far below networks that are trained alone the paper says that its subnets stay."""

LEARNED = "learned thresholds"
FIXED = ("one threshold, .55", "one threshold, .65", "one threshold, .75")
AT_RANDOM = "thresholds at random"
GREEDY, GREEDY_FIXED = "learned thresholds, no noise", "one threshold, .65, no noise"


def clipping_beats_plain_lasso(measured: Measured) -> Outcome:
    compared, norms, top1 = [], {}, {}
    for arm in (CLIPPED, PLAIN):
        norms[arm] = [seed["pruned"]["norms"][SUBNETS[-1]] for seed in measured[arm + ONLY]]
        top1[arm] = _mean(measured, arm, "nested", "found", "top1")
        before = _mean(measured, arm + ONLY, "pruned", "found", "top1")
        macs = _mean(measured, arm, "nested", "found", "macs")
        compared += [
            compare.arm(f"{arm}, mean norm of the smallest subnet's channels", norms[arm]),
            compare.arm(f"{arm}, top-1 after pruning", before),
            compare.arm(f"{arm}, top-1 in the end", top1[arm]),
            compare.arm(f"{arm}, MACs", macs),
        ]
    verdicts = [compare.greater(values[CLIPPED], values[PLAIN]) for values in (norms, top1)]
    return Outcome("means over three nested subnets of the same budgets", compared, compare.every(verdicts))


def only_small_filters_are_penalised(measured: Measured) -> Outcome:
    compared, exact = [], []
    for arm in (CLIPPED, PLAIN):
        found = [seed["penalised"] for seed in measured[arm + ONLY]]
        compared += [
            compare.arm(f"{arm}, share of channels with a gradient", [f["share"] for f in found]),
            compare.arm(f"{arm}, largest gradient above the threshold", [f["above"] for f in found]),
        ]
        exact += [f["above"] == 0 and f["below"] < 1e-4 for f in found]  # rounding
    share = {arm: [seed["penalised"]["share"] for seed in measured[arm + ONLY]] for arm in (CLIPPED, PLAIN)}
    verdicts = [all(exact), compare.greater(share[PLAIN], share[CLIPPED])]
    return Outcome(
        "norms of the penalty's gradient by channel, over lambda, in the last round; 1 below the threshold",
        compared,
        compare.every(verdicts),
    )


def nested_beats_snet(measured: Measured) -> Outcome:
    kinds = {
        "nested, non-uniform": ("nested", "found"),
        "S-Net, uniform": ("rivals", "snet"),
        "each alone": ("rivals", "alone"),
    }
    compared, top1 = [], {}
    for label, (probe, kind) in kinds.items():
        top1[label] = _mean(measured, CLIPPED, probe, kind, "top1")
        compared.append(compare.arm(f"{label}, top-1", top1[label]))
        compared += [
            compare.arm(
                f"{label}, top-1 of {name}", [seed[probe][kind][name]["top1"] for seed in measured[CLIPPED]]
            )
            for name in SUBNETS
        ]
        compared.append(compare.arm(f"{label}, loss", _mean(measured, CLIPPED, probe, kind, "loss")))
        compared.append(compare.arm(f"{label}, MACs", _mean(measured, CLIPPED, probe, kind, "macs")))
    own, uniform, alone = top1.values()
    verdicts = [compare.greater(own, uniform), compare.greater(own, [value - POINTS for value in alone])]
    return Outcome(
        "test scores after as many steps, means over three subnets; uniform ones have no fewer MACs",
        compared,
        compare.every(verdicts),
    )


def learned_thresholds_beat_one(measured: Measured) -> Outcome:
    compared = []
    for arm in (LEARNED, *FIXED, AT_RANDOM):
        for key in ("objective", "top1", "share", "reward"):
            compared.append(compare.arm(f"{arm}, {key}", _sampled(measured, arm, key)))
    own = _sampled(measured, LEARNED, "objective")
    verdicts = [compare.greater(_sampled(measured, arm, "objective"), own, len(FIXED)) for arm in FIXED]
    return Outcome(
        "test loss + 2 x share of the parameters, of the fine-tuned subnet", compared, compare.every(verdicts)
    )


def noise_explores(measured: Measured) -> Outcome:
    pairs = ((LEARNED, GREEDY), (FIXED[1], GREEDY_FIXED))
    distinct = {arm: _sampled(measured, arm, "distinct") for pair in pairs for arm in pair}
    compared = [compare.arm(arm, values) for arm, values in distinct.items()]
    verdicts = [compare.greater(distinct[noisy], distinct[greedy], len(pairs)) for noisy, greedy in pairs]
    return Outcome("different subnets among 30 that were sampled", compared, compare.every(verdicts))


def _mean(measured: Measured, arm: str, probe: str, kind: str, key: str) -> list[float]:
    """Per seed, the mean over the subnets."""
    return [sum(seed[probe][kind][name][key] for name in SUBNETS) / len(SUBNETS) for seed in measured[arm]]


def _sampled(measured: Measured, arm: str, key: str) -> list[float]:
    return [seed["sampled"][key] for seed in measured[arm]]


WPC = (
    Claim(
        21,
        "At equal budgets the clipped lasso beats the plain one; what survives has larger norms.",
        (CLIPPED, PLAIN, CLIPPED + ONLY, PLAIN + ONLY),
        clipping_beats_plain_lasso,
    ),
    Claim(
        22,
        "The clipped lasso penalises small filters only.",
        (CLIPPED + ONLY, PLAIN + ONLY),
        only_small_filters_are_penalised,
    ),
    Claim(
        23,
        "Nested non-uniform subnets beat S-Net, and stay within two points of networks trained alone.",
        (CLIPPED,),
        nested_beats_snet,
    ),
)
JST = (
    Claim(
        29,
        "Learned thresholds, one for each layer, beat one fixed rate.",
        (LEARNED, *FIXED, AT_RANDOM),
        learned_thresholds_beat_one,
    ),
    Claim(
        30,
        "The noise of choice visits more different subnets.",
        (LEARNED, GREEDY, FIXED[1], GREEDY_FIXED),
        noise_explores,
    ),
)

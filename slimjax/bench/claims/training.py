"""Claims of the papers that train slimmable networks: S-Net and US-Net."""

from __future__ import annotations

import itertools

from slimjax.bench.claims import compare, probes
from slimjax.bench.claims.outcome import Claim, Measured, Outcome, by_seed, mean_by_seed
from slimjax.nn.widths import width_name

NARROW, WIDE = width_name(probes.WIDTHS[0]), width_name(probes.WIDTHS[-1])
INNER = tuple(width_name(w) for w in probes.WIDTHS[1:-1])
LADDER = (NARROW, *INNER, WIDE)
SWITCHES = tuple(width_name(w) for w in probes.SWITCHES)


def naive_norm_collapses(measured: Measured) -> Outcome:
    arm = "naive shared norms"
    train = mean_by_seed(measured, arm, "switches", SWITCHES, "train_top1")
    test = mean_by_seed(measured, arm, "switches", SWITCHES, "top1")
    private = mean_by_seed(measured, "private norms", "switches", SWITCHES, "top1")
    compared = [
        compare.arm("naive, training accuracy", train),
        compare.arm("naive, test accuracy", test),
        compare.arm("private norms, test accuracy", private),
    ]
    holds = compare.every([compare.greater(train, test), compare.greater(private, test)])
    return Outcome("top-1, mean over the four switches", compared, holds)


def private_norm_repairs(measured: Measured) -> Outcome:
    shared, naive = "shared affine, private statistics", "naive shared norms"
    repaired = mean_by_seed(measured, shared, "switches", SWITCHES, "top1")
    broken = mean_by_seed(measured, naive, "switches", SWITCHES, "top1")
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
    losses = {n: by_seed(measured, "usnet", "sweep", n, "loss") for n in LADDER}
    compared = [compare.arm(f"loss at {n}", losses[n]) for n in LADDER]
    steps = list(itertools.pairwise(LADDER))
    # Non-strict: no step up the ladder makes the loss larger beyond doubt, and the ends differ.
    rises = [compare.greater(losses[wide], losses[narrow], len(steps)) is True for narrow, wide in steps]
    ends = compare.greater(losses[NARROW], losses[WIDE])
    return Outcome(
        "test loss; no significant rise from a width to the next", compared, not any(rises) and ends
    )


def bounded_by_the_ends(measured: Measured) -> Outcome:
    narrow = by_seed(measured, "usnet", "sweep", NARROW, "loss")
    wide = by_seed(measured, "usnet", "sweep", WIDE, "loss")
    compared = [compare.arm(f"loss at {NARROW}", narrow), compare.arm(f"loss at {WIDE}", wide)]
    outside = []
    for name in INNER:
        loss = by_seed(measured, "usnet", "sweep", name, "loss")
        compared.append(compare.arm(f"loss at {name}", loss))
        pairs = ((loss, narrow), (wide, loss))
        outside += [compare.greater(*pair, comparisons=2 * len(INNER)) is True for pair in pairs]
    return Outcome("test loss; no inner width significantly outside the ends", compared, not any(outside))


def sandwich_beats_random(measured: Measured) -> Outcome:
    names = ("labels only", "random only", "max and random", "min and random")
    ends = {n: mean_by_seed(measured, n, "sweep", (NARROW, WIDE), "loss") for n in names}
    compared = []
    for name in names:
        for width in (NARROW, WIDE):
            label = f"{'max, min and random' if name == names[0] else name}, {width}"
            compared.append(compare.arm(label, by_seed(measured, name, "sweep", width, "loss")))
    verdicts = [compare.greater(ends[other], ends[names[0]]) for other in names[1:]]
    return Outcome(
        "test loss at the two ends (labels for all subnets, n = 4)", compared, compare.every(verdicts)
    )


def distillation_helps(measured: Measured) -> Outcome:
    names = {"teacher": "usnet", "labels": "labels only", "labels and teacher": "labels and teacher"}
    values = {n: mean_by_seed(measured, arm, "sweep", LADDER, "loss") for n, arm in names.items()}
    compared = [compare.arm(f"students learn from {n}, loss", v) for n, v in values.items()]
    for n, arm in names.items():
        top1 = mean_by_seed(measured, arm, "sweep", LADDER, "top1")
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
        for n in probes.CALIBRATION_IMAGES
    }
    compared = [compare.arm(f"{n} images", scores[n]) for n in probes.CALIBRATION_IMAGES]
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
    inner = {label: mean_by_seed(measured, "usnet", "sweep", INNER, key) for label, key in keys.items()}
    verdicts = [compare.greater(inner["calibrated"], inner[label]) for label in list(keys)[1:]]
    compared = [compare.arm(label, values) for label, values in inner.items()]
    return Outcome("top-1, mean over the eight inner widths", compared, compare.every(verdicts))


def wide_range_hurts_small_widths(measured: Measured) -> Outcome:
    wide_range, narrow_range = "range .05 to 1", "range .35 to 1"
    small, full = width_name(0.35), WIDE
    loss = {
        (arm, w): by_seed(measured, arm, "ends", w, "loss")
        for arm in (narrow_range, wide_range)
        for w in (small, full)
    }
    compared = [compare.arm(f"{arm}, {w}", values) for (arm, w), values in loss.items()]
    holds = compare.greater(loss[wide_range, small], loss[narrow_range, small])
    return Outcome("test loss at widths .35 and 1", compared, holds)


def plain_nets_do_not_slim(measured: Measured) -> Outcome:
    plain = mean_by_seed(measured, "plain", "sweep", LADDER[:-1], "top1")
    slimmable = mean_by_seed(measured, "usnet", "sweep", LADDER[:-1], "top1")
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

"""How the claims about subnets born from pruning are measured and decided.

What they decide is in docs/results/claims.md, not here.
"""

import json

import numpy as np
import pytest

from helpers.runs import small
from slimjax.bench.claims import pruning, pruning_probes, search_probes
from slimjax.bench.claims.fit import fit
from slimjax.bench.claims.pruning import (
    AT_RANDOM,
    CLIPPED,
    FIXED,
    GREEDY,
    GREEDY_FIXED,
    JST,
    LEARNED,
    ONLY,
    PLAIN,
    WPC,
)
from slimjax.experiment import recipes
from slimjax.experiment.build import build

SEEDS = range(4)


def rows(top1):
    return {name: {"top1": top1, "loss": 1 - top1, "macs": 10} for name in pruning.SUBNETS}


def pruned(top1, norm, share, above=0.0):
    return {
        "pruned": {"found": rows(top1), "norms": dict.fromkeys(pruning.SUBNETS, norm)},
        "penalised": {"share": share, "above": above, "below": 1e-7},
    }


def sampled(objective, distinct):
    return {
        "sampled": {"objective": objective, "top1": 0.9, "share": 0.3, "reward": -1.0, "distinct": distinct}
    }


def world(own=0.95, uniform=0.92, alone=0.955, norm=1.0, above=0.0, objective=0.5, distinct=29):
    """Measurements in which every claim holds, beyond doubt."""
    e = [0.001 * seed for seed in SEEDS]
    return {
        CLIPPED: [
            {"nested": {"found": rows(own + x)}, "rivals": {"snet": rows(uniform), "alone": rows(alone)}}
            for x in e
        ],
        PLAIN: [{"nested": {"found": rows(0.9 + 2 * x)}} for x in e],
        CLIPPED + ONLY: [pruned(0.9, norm + x, 0.4 + x, above) for x in e],
        PLAIN + ONLY: [pruned(0.8, 0.5, 1.0) for x in e],
        LEARNED: [sampled(objective + x, distinct + seed) for seed, x in enumerate(e)],
        AT_RANDOM: [sampled(0.7, 30) for _ in e],
        **{arm: [sampled(0.7 + 2 * x, 25 + 2 * seed) for seed, x in enumerate(e)] for arm in FIXED},
        GREEDY: [sampled(0.7, 12) for _ in e],
        GREEDY_FIXED: [sampled(0.7, 2) for _ in e],
    }


def decided(number, measured):
    (claim,) = (claim for claim in (*WPC, *JST) if claim.number == number)
    return claim.decide({arm: measured[arm] for arm in claim.arms}).holds  # no others are looked at


@pytest.mark.parametrize("claim", [*WPC, *JST], ids=lambda claim: str(claim.number))
def test_claim_holds_where_it_should(claim):
    outcome = claim.decide({arm: world()[arm] for arm in claim.arms})
    assert outcome.holds is True
    assert json.loads(json.dumps(outcome.compared)) == outcome.compared


def test_claims_are_refuted_by_the_opposite():
    assert decided(21, world(own=0.85)) is False
    assert decided(21, world(norm=0.4)) is False
    assert decided(22, world(above=0.1)) is False
    assert decided(23, world(own=0.9)) is False
    assert decided(23, world(alone=0.99)) is False, "more than two points below"
    assert decided(29, world(objective=0.9)) is False
    assert decided(30, world(distinct=2)) is False


def arm(algorithm, **options):
    """A run of a few steps, trained."""
    config = small(steps=8)
    config.algorithm = recipes.algorithm(algorithm, **options)
    config.model.min_width = 0.25
    config.model.options.channels = (8, 8, 16)
    config.engine.policy = "masked"
    config.calibration.images = 128
    config.evaluation.widths = ()
    config.devices = 1
    return config


@pytest.mark.slow
@pytest.mark.parametrize("clip", [1.0, float("inf")])
def test_what_pruning_has_left_and_penalised(clip):
    """After one round, as the last phase would begin with it."""
    config = arm("wpc", budgets=("macs<=0.5",), clip=clip, dense=1.0, lasso=1.0, fused=0.0)
    experiment, state, last = fit(build(config), "wpc")
    assert int(state.algorithm["phase"]) == 1, "the run ends within the round"
    found = pruning_probes.penalised(experiment, state, last)
    assert (found["above"], found["below"] < 1e-5) == (0.0, True)
    assert found["share"] == 1 if clip == float("inf") else 0.2 < found["share"] < 0.8
    result = pruning_probes.pruned(experiment, state, last)
    (row,) = result["found"].values()
    assert row["macs"] <= 0.5 * experiment.net.macs(experiment.net.space.largest)
    assert result["norms"]["subnet1"] > 0


@pytest.mark.slow
def test_rivals_are_trained_at_the_same_size(monkeypatch):
    config = arm("wpc", budgets=("macs<=0.6", "macs<=0.4"), dense=1.0, lasso=1.0, fused=1.0)
    experiment, state, last = fit(build(config), "wpc")
    trained = []
    monkeypatch.setattr(
        search_probes, "retrained", lambda _, subnets: trained.append(subnets) or {key: {} for key in subnets}
    )
    assert {kind: set(own) for kind, own in pruning_probes.rivals(experiment, state, last).items()} == {
        "snet": {"subnet1", "subnet2"},
        "alone": {"subnet1", "subnet2"},
    }
    first, second, together = trained
    for own in (first, second):
        ((name, subnet),) = own.items()
        np.testing.assert_array_equal(subnet, state.algorithm["subnets"][int(name[-1]) - 1])
        assert experiment.net.macs(together[name]) >= experiment.net.macs(subnet)
        widths = together[name] / experiment.net.space.largest
        assert np.ptp(widths) < 0.13, "they are uniform, to a channel of eight"
    rows = pruning_probes.nested(experiment, state, last)["found"]
    assert [rows[name]["macs"] for name in ("subnet1", "subnet2")] == sorted(
        (r["macs"] for r in rows.values()), reverse=True
    )


@pytest.mark.slow
def test_sampled_subnets_are_counted_and_the_best_is_tested():
    lengths = dict.fromkeys(("coarse", "weights", "alphas", "fine_tuning"), 1.0)
    config = arm("jst", num_subnets=3, thresholds=(0.5,), noise="none", **lengths)
    config.data.holdout = config.scoring.images = 64
    experiment, state, last = fit(build(config), "jst")
    found = pruning_probes.sampled(experiment, state, last)
    trials = experiment.algorithm.trials(state.algorithm, 8)
    assert found["distinct"] == len({str(trial.channels) for trial in trials}) < 3
    assert found["reward"] == pytest.approx(-np.mean([trial.score for trial in trials[1:]]))
    best = min(trials, key=lambda trial: trial.score)
    assert found["share"] == pytest.approx(best.cost)
    assert found["objective"] - 2 * found["share"] > 0

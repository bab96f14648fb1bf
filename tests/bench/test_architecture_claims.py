"""How the claims about TF-NAS are measured and decided.

What they decide is in docs/results/claims.md, not here.
"""

import json

import numpy as np
import pytest

from helpers.runs import small
from slimjax.bench.claims import architecture_probes, arms, probes
from slimjax.bench.claims.architecture import (
    ALONE,
    GUMBEL,
    LEAST,
    LIKELIEST,
    ONE,
    RANDOM,
    SCALED,
    SKIPPING,
    TFNAS,
)
from slimjax.bench.claims.fit import fit
from slimjax.experiment import recipes
from slimjax.experiment.build import build

SEEDS = range(4)


def trained(seed, train=0.9, holdout=0.85, selected=0.9):
    """A supernet and its operators; all of it differs a little between seeds."""
    e = 0.001 * seed
    scores = {
        split: {"top1": top1 + e, "loss": 0.5} for split, top1 in (("train", train), ("holdout", holdout))
    }
    evenness = {"selected": selected + e, "by_block": 0.7, "chosen": 0.6, "largest_share": 0.4}
    return {"supernet": scores, "operators": evenness}


def found(seed, cost=0.998, blocks=6, top1=0.95, fewest=0.7, most=1.3):
    ends = {"before": 1.1, "fewest": fewest, "most": most}
    return {
        "architecture": {"blocks": blocks - (seed == 0), "cost": cost - 1e-4 * seed, **ends},
        "retrained": {"found": {"top1": top1 + 0.001 * seed, "loss": 0.2, "macs": 1000}},
    }


def scaled(seed, first=12.0, last=0.2, above=0):
    percents = {"first_error_percent": first + 0.1 * seed, "global_error_percent": 1.5}
    percents |= {"mean_error_percent": last + 0.01 * seed, "max_error_percent": 1.2}
    return {"scaled": {"feasible": 200, "above_target": above, **percents}}


def world(
    one=0.8, selected=0.9, others=0.7, skipping=3, skipping_top1=0.9, cost=0.998, first=12.0, last=0.2, above=0,
    swapped=0.997, alone=0.8,
):  # fmt: skip
    """Measurements in which every claim holds, beyond doubt."""
    arm = lambda make: [make(seed) for seed in SEEDS]  # noqa: E731
    return {
        RANDOM: arm(
            lambda s: {**trained(s, selected=selected), **found(s, cost), **scaled(s, first, last, above)}
        ),
        ONE: arm(lambda s: trained(2 * s, train=one, holdout=one, selected=0.5)),
        **{name: arm(lambda s: trained(2 * s, holdout=others)) for name in (GUMBEL, LIKELIEST, LEAST)},
        SKIPPING: arm(lambda s: found(2 * s, blocks=skipping, top1=skipping_top1)),
        **{name: arm(lambda s: found(s, swapped)) for name in SCALED},
        **{name + ALONE: arm(lambda s: found(s, alone)) for name in SCALED},
    }


def decided(number, measured):
    """The verdicts of the claims of a number; no other arms are looked at."""
    claims = [claim for claim in TFNAS if claim.number == number]
    return [claim.decide({arm: measured[arm] for arm in claim.arms}).holds for claim in claims]


@pytest.mark.parametrize("claim", TFNAS, ids=lambda claim: claim.decide.__name__)
def test_claim_holds_where_it_should(claim):
    outcome = claim.decide({arm: world()[arm] for arm in claim.arms})
    assert outcome.holds is True
    assert json.loads(json.dumps(outcome.compared)) == outcome.compared


def test_bisampling_must_raise_both_accuracies_and_the_entropy():
    assert decided(24, world(one=0.95)) == [False]
    assert decided(24, world(selected=0.3)) == [False]
    measured = world()
    for seed in measured[ONE]:
        seed["supernet"]["train"]["top1"] = 0.99
    assert decided(24, measured) == [False], "on training images alone"


def test_second_paths_are_compared_with_random_ones_and_with_none():
    assert decided(25, world(others=0.95)) == [False, False]
    assert decided(25, world(others=0.82)) == [True, False], "no harm where one path is worse still"
    measured = world()
    measured[LEAST] = [trained(seed, holdout=0.99) for seed in SEEDS]
    assert decided(25, measured) == [False, True], "the least likely operators are no part of the harm"


def test_skipping_is_judged_by_blocks_and_by_the_retrained_network():
    assert decided(26, world(skipping=8)) == [False, True]
    assert decided(26, world(skipping_top1=0.99)) == [True, False]


def test_one_architecture_above_the_target_refutes_scaling():
    assert decided(27, world(above=1)) == [False]
    assert decided(27, world(cost=1.01)) == [False], "the searched one"
    assert decided(27, world(last=2.0)) == [False]
    assert decided(27, world(first=0.5)) == [False], "nothing to scale"


def test_a_searched_network_that_cannot_cost_the_target_is_no_miss_of_scaling():
    measured = world()
    measured[RANDOM][0]["architecture"] |= {"fewest": 1.2, "cost": 1.2}
    assert decided(27, measured) == [True]


def test_other_losses_must_miss_alone_and_hit_with_scaling():
    assert decided(28, world(swapped=0.9)) == [False]
    assert decided(28, world(swapped=1.005)) == [False], "above it"
    assert decided(28, world(alone=0.999)) == [False], "scaling was not needed"


@pytest.mark.parametrize("claim", TFNAS, ids=lambda claim: claim.decide.__name__)
def test_one_seed_decides_nothing_alone(claim):
    assert claim.decide({arm: world()[arm][:1] for arm in claim.arms}).holds == "unclear"


def test_evenness_is_one_where_shares_are_equal_and_zero_where_one_has_all():
    assert architecture_probes._evenness(np.full(4, 0.25)) == pytest.approx(1)
    assert architecture_probes._evenness(np.eye(4)[0]) == pytest.approx(0, abs=1e-12)
    assert architecture_probes._evenness(np.array([0.5, 0.5, 0, 0])) == pytest.approx(0.5)


def tiny(**options):
    """An arm of few steps on a supernet of two operators."""
    config = small(steps=None)
    recipes.tfnas(config, warmup=1, search=1, budget="macs<=0.6")
    config.algorithm.update(arch_rate=0.1, **options)
    stages = ((2, 4, 2, "relu"), (1, 6, 1, "swish"))
    config.model.options = {
        **arms.NETWORK, "stages": stages, "operators": ("k3e3", "k3e6"), "stem": 4, "first": 4, "tail": 8
    }  # fmt: skip
    config.data.update(holdout=64, train_examples=64)
    config.train.batch_size = 32
    config.evaluation.widths = ()
    return config


@pytest.mark.slow
def test_probes_measure_a_supernet_that_was_searched(monkeypatch):
    monkeypatch.setattr(architecture_probes, "IMAGES", 64)
    monkeypatch.setattr(architecture_probes, "PATHS", 4)
    experiment, state, last = fit(build(tiny()), "tfnas")
    measured = {
        name: probes.PROBES[name](experiment, state, last)
        for name in ("supernet", "operators", "architecture", "scaled")
    }
    assert json.loads(json.dumps(measured)) == measured
    logits = np.array([v for name, v in state.structure["choices"].items() if name.endswith("/operator")])
    assert np.abs(logits - logits[:, :1]).max() > 0, "the architecture step has its turns"
    shares = np.exp(logits).mean(axis=0)
    assert measured["operators"]["selected"] == pytest.approx(-(shares * np.log2(shares)).sum(), abs=1e-5)
    assert measured["operators"]["largest_share"] == pytest.approx(shares.max())
    own = measured["architecture"]
    net, (chosen,) = experiment.net, experiment.algorithm.choose(state, None).values()
    target = 0.6 * net.macs(net.space.largest)
    assert own["cost"] == pytest.approx(net.macs(chosen.subnet) / target)
    assert own["fewest"] <= own["cost"] <= own["most"]
    assert own["blocks"] == sum(own["operators"].values()) <= 3
    assert measured["scaled"]["above_target"] == 0 < measured["scaled"]["feasible"]

"""How the claims about width search are measured and decided.

What they decide is in docs/results/claims.md, not here.
"""

import json

import jax
import numpy as np
import pytest

from helpers.nets import named
from slimjax.bench.claims import arms, search_probes
from slimjax.bench.claims.fit import fit, with_seed
from slimjax.bench.claims.search import AUTOSLIM, BIGNAS, JOSLIM
from slimjax.experiment import recipes
from slimjax.experiment.build import build

EVEN, NARROW = np.linspace(0.2, 1, 50).tolist(), np.linspace(0.45, 0.55, 50).tolist()


def areas(value, seeds=4):
    """Areas near a value, of a few seeds."""
    return [{"area": value + 0.001 * seed} for seed in range(seeds)]


def world(**changes):
    """Measurements in which every claim holds, beyond doubt; `changes` are areas by arm."""
    given = {
        "uniform widths": 0.3, "uniform widths, small": 0.6, "joslim": 0.2, "joslim, lower bound": 0.2,
        "joslim, random weight": 0.25, "joslim, lower bound, random weight": 0.25, "joslim, scored once": 0.25,
        "joslim, K = 5": 0.15, "joslim, K = 30": 0.3, "joslim, small": 0.2, **changes,
    }  # fmt: skip
    measured = {}
    for arm, area in given.items():
        costs = NARROW if "random weight" in arm else EVEN
        probe = "uniform" if "uniform" in arm else "visited"
        measured[arm] = [
            {probe: {**found, "costs": costs, "cheapest": 0.2}, "uniform": found} for found in areas(area)
        ]
    search = [{"upper": found, "lower": found} for found in areas(changes.get("two stages", 0.28))]
    measured["two stages"] = [{"searched": {**found, "drawn": NARROW}} for found in search]
    measured["slimming"] = [slimming(0.1 + 0.001 * seed, 0.2 + 0.003 * seed, 1) for seed in range(4)]
    return measured


def slimming(slimmed, uniform, direction):
    kept = {"target0.5": [0.2, 0.4, 0.5, 0.9][::direction]}
    losses = {"slimmed": slimmed, "uniform": uniform}
    scores = {kind: {"target0.5": {"loss": x, "top1": 1 - x, "macs": 10}} for kind, x in losses.items()}
    return {"slimmed": {"kept": kept, **scores}}


@pytest.mark.parametrize(
    "claim", [*AUTOSLIM, *BIGNAS, *JOSLIM], ids=lambda claim: f"{claim.number} {claim.text[:30]}"
)
def test_claim_holds_where_it_should(claim):
    measured = {arm: world()[arm] for arm in claim.arms}  # no others are looked at
    outcome = claim.decide(measured)
    assert outcome.holds is True
    assert json.loads(json.dumps(outcome.compared)) == outcome.compared


def decided(group, number, measured, nth=0):
    return [claim for claim in group if claim.number == number][nth].decide(measured).holds


def test_claims_are_refuted_by_the_opposite():
    worse = world(joslim=0.4, **{"joslim, lower bound": 0.4})
    assert decided(JOSLIM, 16, worse) is decided(JOSLIM, 16, worse, 1) is False
    assert decided(JOSLIM, 17, world(**{"joslim, small": 0.59})) is False
    assert decided(JOSLIM, 18, worse) is decided(JOSLIM, 18, worse, 1) is False
    assert decided(JOSLIM, 19, worse) is False
    even = {**world(), "two stages": [{"searched": {"drawn": EVEN}}] * 4}
    even["joslim"] = [{"visited": {"costs": NARROW}}] * 4
    assert decided(BIGNAS, 18, even) is False
    reverse = {"slimming": [slimming(0.2 + 0.001 * seed, 0.1, -1) for seed in range(4)]}
    assert decided(AUTOSLIM, 14, reverse) is decided(AUTOSLIM, 15, reverse) is False


def test_one_better_rival_refutes_joslim():
    assert decided(JOSLIM, 16, world(**{"two stages": 0.1})) is False
    assert decided(JOSLIM, 16, world(**{"uniform widths": 0.1})) is False


def test_costs_are_held_to_the_whole_range_of_the_network():
    """Evenly spread over its upper half only, they are not uniform, though their own range they fill."""
    upper = world()
    for arm in ("joslim", "joslim, random weight"):
        for seed in upper[arm]:
            seed["visited"]["costs"] = np.linspace(0.6, 1, 50).tolist()
    claim = next(claim for claim in JOSLIM if claim.number == 18)
    passed = {row["arm"]: row["mean"] for row in claim.decide(upper).compared}
    assert passed["searched weight, share of seeds that pass"] == 0


def test_rounds_that_do_not_differ_are_unclear():
    alike = world(joslim=0.2, **{"joslim, K = 5": 0.2, "joslim, K = 30": 0.2})
    assert decided(JOSLIM, 20, alike) == "unclear"


def test_front_is_chosen_by_held_out_images_and_measured_on_test_images(monkeypatch):
    net = named("resnet8", channels=(4, 8, 8))
    space = net.space
    subnets = np.stack([space.smallest, space.uniform(0.5), space.uniform(0.75), space.largest])
    macs = net.macs(subnets)
    held_out, test = (
        [0.9, 0.5, 0.6, 0.2],
        [0.8, 0.9, 0.1, 0.3],
    )  # the third is dominated, though good at the test

    def evaluate(experiment, state, chosen, quiet):
        rows = [(tuple(subnets[i]), test[i], int(macs[i])) for i in range(4)]
        subs = {tuple(choice.subnet) for choice in chosen.values()}
        return [
            {"loss": loss, "top1": 1 - loss, "macs": cost} for subnet, loss, cost in rows if subnet in subs
        ]

    def score(rows):
        return np.array([held_out[int((subnets == row).all(1).argmax())] for row in rows])

    monkeypatch.setattr(search_probes.measure, "evaluate", evaluate)
    monkeypatch.setattr(search_probes, "_scores", lambda *_: score)
    experiment = type("E", (), {"net": net})
    found = search_probes._front(experiment, None, subnets[1:3])
    share = np.diff(macs[[0, 1, 3]]) / (macs[3] - macs[0])
    assert found["area"] == pytest.approx(share[0] * 0.8 + share[1] * 0.9)
    assert found["subnets"] == 3


def test_uniform_rival_has_no_fewer_macs():
    net = named("resnet8", channels=(4, 8, 8))
    costs = np.sort(net.macs(search_probes._uniform_subnets(net)))
    for macs in (costs[0], costs[2] - 1, costs[2], costs[-1]):
        assert net.macs(search_probes.no_cheaper(net, int(macs))) == costs[costs >= macs][0]


def tiny(algorithm):
    config = recipes.embedded("synthetic")
    config.algorithm = algorithm
    config.data.update(image_size=8, channels=1, num_classes=4, holdout=32)
    config.model.options = {"channels": (2, 4, 4)}
    config.engine.policy = "masked"
    config.devices = 1
    config.scoring.images = 32
    config.train.steps = 6
    config.calibration.update(images=64, batch_size=64)
    return config


def test_seeds_share_programs_but_nothing_else():
    experiment = build(tiny(recipes.algorithm("bignas")))
    again = with_seed(experiment, 1)
    assert again.algorithm.phases is experiment.algorithm.phases
    assert (again.algorithm.propose({}, 0) != experiment.algorithm.propose({}, 0)).any()
    first, second = (jax.tree.leaves(e.algorithm.init(e.config.seed).params) for e in (experiment, again))
    assert any((a != b).any() for a, b in zip(first, second, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["joslim", "two stages", "slimming"])
def test_probes_measure_what_they_say(arm, monkeypatch):
    """On tiny networks; Joslim's optimiser has proposed by then."""
    monkeypatch.setattr(search_probes, "HOLDOUT", 32)
    monkeypatch.setattr(search_probes, "TRIALS", 23)
    monkeypatch.setattr(search_probes, "TARGETS", (0.5,))
    algorithm = {
        "joslim": recipes.algorithm("joslim", steps_per_round=1),
        "two stages": recipes.algorithm("bignas"),
        "slimming": recipes.algorithm("usnet"),
    }[arm]  # fmt: skip
    config = tiny(algorithm)
    config.train.steps = 14 if arm == "joslim" else 4
    probe = arms.ARMS[arm].probes[0]
    found = arms.probes.PROBES[probe](*fit(build(config), arm))
    assert json.loads(json.dumps(found)) == found
    if arm == "joslim":
        assert len(found["costs"]) == 2 * 14 - 21
        assert 0 < found["area"] < 10
    if arm == "two stages":
        assert set(found) == {"upper", "lower", "drawn"}
        assert len(found["drawn"]) == 2 * 23
    if arm == "slimming":
        assert set(found["slimmed"]) == set(found["uniform"]) == set(found["kept"])
        for name, scores in found["slimmed"].items():
            assert scores["macs"] <= found["uniform"][name]["macs"]

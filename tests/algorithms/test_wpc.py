"""Subnets born from pruning: phases, budgets, nesting, and what each phase leaves alone."""

import itertools
import json
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from helpers.engines import batches, engine_of, in_run, small_net, states
from helpers.runs import final_state, lines, small, unbroken_and_killed
from helpers.trees import assert_trees_close, assert_trees_equal
from slimjax.algorithms import wpc
from slimjax.errors import BadValue, UserError
from slimjax.experiment import config_file, recipes
from slimjax.experiment.build import build
from slimjax.experiment.loop import train
from slimjax.nn import filters
from slimjax.workdir import architecture
from slimjax.workdir.rundir import RunDir

BUDGETS = ("macs<=0.75", "macs<=0.5", "macs<=0.25")


def run_config():
    """Five phases of six steps each."""
    config = small(steps=30, log_every=2, checkpoint_every=30)
    config.algorithm = recipes.algorithm("wpc", dense=1.0, lasso=1.0, fused=1.0)
    config.model.min_width = 0.1
    config.model.options.channels = (8, 8, 16)
    config.evaluation.widths = ()
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run: its directory, rows, last state and what it printed."""
    directory = tmp_path_factory.mktemp("wpc")
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr(
            "sys.stderr", SimpleNamespace(write=said.append, flush=lambda: None, isatty=lambda: False)
        )
        rows = train(run_config(), str(directory))
    return SimpleNamespace(
        directory=directory, rows=rows, state=final_state(run_config(), directory), said="".join(said)
    )


def test_budgets_are_met_by_nested_subnets_of_rising_cost(run):
    net = build(run_config()).net
    subnets = run.state.algorithm["subnets"]
    whole = net.macs(net.space.largest)
    # A channel of this small network is up to 3 % of its MACs, so half of it is what a cutoff can miss.
    np.testing.assert_allclose(net.macs(subnets) / whole, [0.75, 0.5, 0.25], atol=0.03)
    assert (np.diff(subnets, axis=0) <= 0).all(), "they are not nested"
    assert len({tuple(np.round(row / net.space.largest, 2)) for row in subnets}) == 3
    assert any(len(set(row / net.space.largest)) > 1 for row in subnets), "they are uniform"
    assert [row["name"] for row in run.rows] == ["subnet3", "subnet2", "subnet1"]
    assert [list(row["channels"].values()) for row in run.rows] == subnets[::-1].tolist()


def test_plan_news_and_metrics_show_the_phases(run):
    assert "dense  6 steps: dense" in run.said
    assert "lasso  3 times 6 steps: pruned" in run.said
    assert "fused  6 steps: subnet1, subnet2, subnet3" in run.said
    for line in (
        "step 6: lasso begins\n",
        "step 12: lasso begins; round 1 has left",
        "step 24: fused begins",
    ):
        assert line in run.said
    by_step = {line["step"]: line for line in lines(run.directory)}
    assert "prune/round" not in by_step[6]
    assert [by_step[step]["prune/round"] for step in (8, 12, 14, 20, 24)] == [1, 1, 2, 3, 3]
    assert "prune/round" not in by_step[26]
    line = by_step[12]
    shares = [value for name, value in line.items() if name.startswith("prune/norms_")]
    assert sum(shares) == pytest.approx(1)
    assert 0 <= line["prune/sparsity"] <= 1
    assert line["prune/course_over_budget"] == 1
    assert line["prune/cost_over_budget"] >= 0
    assert by_step[2]["learning_rate"] == pytest.approx(by_step[26]["learning_rate"]), (
        "each phase has the schedule"
    )


def test_norms_are_the_subnets_own_and_statistics_too(run):
    state = run.state
    assert set(state.affine) == {"shared", "subnet1", "subnet2", "subnet3"}
    sets = [jax.tree.leaves(state.affine[f"subnet{i}"]) for i in (1, 2, 3)]
    assert any((a != b).any() for a, b in zip(sets[0], sets[1], strict=True))
    chosen = build(run_config()).algorithm.choose(state, None)
    assert {name: (c.affine, c.stats) for name, c in chosen.items()} == {
        name: (name, name) for name in ("subnet1", "subnet2", "subnet3")
    }
    with pytest.raises(UserError, match=r"none of them \(subnet1, subnet2, subnet3\)"):
        build(run_config()).algorithm.choose(state, {"x": np.array([8] * 6)})


def test_nested_subnets_are_leading_slices_and_run_the_same_in_every_form(run):
    """The dense cut of a subnet is the state's leading slices; masked, bucketed, sliced and cut agree."""
    net, state = build(run_config()).net, run.state
    image = np.random.default_rng(0).normal(size=(4, *net.image_shape)).astype(np.float32)
    for name, subnet in zip(("subnet1", "subnet2", "subnet3"), state.algorithm["subnets"], strict=True):
        variables = state.variables(name, name)
        rung = np.minimum(subnet + 1, net.space.largest)
        widths = (net.space.masked(subnet), net.space.bucketed(rung, subnet), net.space.sliced(subnet))
        logits = [net.apply(variables, image, form, train=False) for form in widths]
        cut = net.cut(variables, subnet)
        logits.append(net.apply(cut, image, net.space.sliced(subnet, portable=True), train=False))
        for other in logits[1:]:
            assert_trees_close(other, logits[0])
        kernel, whole = (v["params"]["stem"]["kernel"] for v in (cut, variables))
        np.testing.assert_array_equal(kernel, whole[..., : subnet[0]])


def test_what_was_found_can_be_trained_from_scratch_together_and_alone(run):
    net = build(run_config()).net
    folder = run.directory / "search-wpc"
    for row in run.rows:
        found = architecture.load(folder / f"{row['name']}.json")
        assert (found.channels, found.costs["macs"]) == (row["channels"], row["macs"])
        assert found.how == {"method": "wpc", "subnet": row["name"]}
    config = config_file.load(f"{folder}/retrain.py", [])
    assert (config.algorithm.name, config.train.steps) == ("snet", 30)
    assert len(config.algorithm.architectures) == 3
    alone = build(config_file.load(f"{folder}/retrain.py:only=subnet2", ["--config.train.steps=2"]))
    (slot,) = alone.algorithm.at(0).step.slots
    np.testing.assert_array_equal(slot.subnet, run.state.algorithm["subnets"][1])
    assert alone.net.space.index == net.space.index
    with pytest.raises(UserError, match="subnet2"):
        config_file.load(f"{folder}/retrain.py:only=subnet9", [])


def small_wpc(steps=8, decay=5e-4, **options):
    engine = in_run(engine_of(min_width=0.1, decay=decay), steps)
    return wpc(
        engine, **{"budgets": ("macs<=0.6", "macs<=0.3"), "dense": 1, "lasso": 1, "fused": 1, **options}
    )


@pytest.fixture(scope="module")
def four_phases():
    """Two steps each of dense training, two rounds, and all together."""
    return states(small_wpc(), 8)


def test_a_round_moves_nothing_outside_of_what_it_prunes(four_phases):
    net = small_net(0.1)
    before, after = four_phases[4], four_phases[5]  # the first step of the second round
    active = before.algorithm["subnets"][0]
    inside = lambda state: filters.within(net.records, net.space, state.params, active)  # noqa: E731
    outside = lambda state: jax.tree.map(np.subtract, state.params, inside(state))  # noqa: E731
    assert_trees_equal(outside(before), outside(after))
    moved = [
        (a != b).any() for a, b in zip(*map(jax.tree.leaves, (inside(before), inside(after))), strict=True)
    ]
    assert all(moved)


def test_pruning_brings_the_largest_norms_to_the_front_and_changes_no_function(four_phases, images):
    """Within the first round's subnet; what is outside of it stays outside."""
    net = small_net(0.1)
    algorithm = small_wpc()
    state = algorithm.init(0)
    for step, batch in enumerate(batches(6)):
        before = jax.tree.map(np.asarray, state)
        state = algorithm.revise(state, step, None)
        if step == 4:
            break
        state, _ = algorithm.at(step).step(state, batch, algorithm.propose(state.algorithm, step))
    logits = [net.model.apply(s.variables(), images, train=True) for s in (before, state)]
    np.testing.assert_allclose(*logits, atol=1e-5)
    norms = filters.norms(net.records, state.params)
    inner = norms["stage2/block1"]
    assert (np.diff(inner) <= 0).all(), "a group that nothing is tied to is sorted"
    kept = state.algorithm["subnets"][0]
    assert kept[net.space.index["stage2/block1"]] < 8


def test_momentum_starts_anew_with_a_phase(four_phases):
    for first, rests in ((2, True), (3, False), (4, True), (6, True)):
        momentum = [leaf for leaf in jax.tree.leaves(four_phases[first].opt_state) if leaf.ndim]
        assert all((leaf == 0).all() for leaf in momentum) == rests, first


def test_all_subnets_begin_the_last_phase_with_what_pruning_has_left(four_phases):
    for name in ("subnet1", "subnet2"):
        assert_trees_equal(four_phases[6].affine[name], four_phases[6].affine["shared"])
        assert_trees_equal(four_phases[6].batch_stats[name], four_phases[6].batch_stats["dense"])


def test_without_strength_a_round_is_dense_training():
    """Reduces to: a round on the whole network whose lambda is next to nothing goes on as dense training does."""
    pruned = small_wpc(4, budgets=(), penalties=((1e-30, 1.0),), dense=1, lasso=1, fused=0)
    dense = small_wpc(4, dense=1, lasso=0, fused=0)
    state = states(pruned, 4)[4]
    want = states(dense, 4)
    assert int(state.algorithm["phase"]) == 1
    # Momentum began anew after two steps; so do the plain network's.
    assert_trees_close(states(pruned, 2)[2].params, want[2].params)
    assert np.isfinite(jax.tree.leaves(state.params)[0]).all()


def test_an_infinite_clip_shrinks_the_large_filters_too():
    """Where the clipped penalty leaves them alone: the norm of the strongest channel falls by its gradient only."""
    net = small_net(0.1)
    tops = {}
    for clip in (1.0, math.inf):
        small_wpc(30, clip=clip)  # legal with budgets, too
        end = states(small_wpc(30, budgets=(), penalties=((0.05, clip),), dense=0, lasso=1, fused=0), 30)[-1]
        tops[clip] = np.mean([np.max(norm) for norm in filters.norms(net.records, end.params).values()])
    assert tops[math.inf] < 0.8 * tops[1.0]


def test_the_search_for_lambda_is_bounded_by_what_the_rate_allows():
    net = small_net(0.1)
    found = states(small_wpc(30, budgets=("macs<=0.3",), strength=100.0, dense=0, lasso=1, fused=0), 6)
    strengths = [float(state.algorithm["penalty"]["strength"]) for state in found]
    assert strengths[0] == 100, "where the search begins"
    largest = np.mean([np.max(norm) for norm in filters.norms(net.records, found[1].params).values()])
    assert 0 < max(strengths[2:]) < 0.01 * largest / 0.1


def test_no_group_is_emptied_and_the_log_says_so():
    algorithm = small_wpc(8, budgets=(), penalties=((50.0, math.inf),), cutoff=1.0)
    found = states(algorithm, 8)
    arrays = found[-1].algorithm
    space = small_net(0.1).space
    assert (arrays["subnets"][0] >= space.lowest).all()
    assert arrays["subnets"][0].min() >= 1
    before = found[5].algorithm
    news = [
        line for a, b in itertools.pairwise(found) for line in algorithm.news(a.algorithm, b.algorithm, 0)
    ]
    assert before["floored"].any() == any("smallest width" in line for line in news)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalties": ((0.1, 1.0),)}, "budgets or penalties"),
        ({"budgets": ()}, "budgets or penalties"),
        ({"budgets": ("macs<=0.3", "macs<=0.6")}, "the largest first"),
        ({"budgets": ("macs<=0.0001",)}, "expected a cost of at least"),
        ({"budgets": ("0.5",)}, "COST<=NUMBER"),
        ({"budgets": (), "penalties": ((0.1,),)}, r"penalties\[0\]"),
        (
            {"budgets": (), "penalties": ((-0.1, 1.0),)},
            r"penalties\[0\]\[0\]: expected a number of at least 0",
        ),
        ({"budgets": (), "penalties": ((0.1, math.nan),)}, r"penalties\[0\]\[1\]"),
        ({"strength": math.inf}, "strength: expected a number above 0, got inf"),
        ({"clip": 0.0}, "clip: expected a number above 0, or infinity"),
        ({"cutoff": 1.5}, "cutoff"),
        ({"cutoff": 0.0}, "cutoff"),
        ({"dense": -1.0}, "lengths"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(BadValue, match=message):
        small_wpc(**options)


def test_a_network_whose_channels_cannot_move_is_refused():
    from helpers.nets import named

    engine = in_run(engine_of(), 4)
    net = named("s_shufflenet", small_images=True, multiplier=0.25, units=(2, 1, 1))
    with pytest.raises(BadValue, match="interleaves"):
        wpc(engine.__class__(**{**vars(engine), "net": net}))


KILLS = (
    "--config.train.steps=8", "--config.model.options.channels=(4,4,8)", "--config.engine.policy=masked",
    "--config.algorithm.budgets=('macs<=0.7','macs<=0.4')", "--config.calibration.images=128",
    "--config.algorithm.dense=1.0", "--config.algorithm.lasso=1.0", "--config.algorithm.fused=1.0",
)  # fmt: skip


@pytest.mark.slow
def test_killed_in_every_step_of_every_phase_it_ends_bit_identical(tmp_path):
    """Two steps of each phase: dense, two rounds with what is pruned and reordered after them, and all together."""
    runs = unbroken_and_killed("configs/digits_wpc.py", KILLS, tmp_path, steps=8)
    config = RunDir(runs[0]).read_config()
    assert_trees_equal(*(final_state(config, run) for run in runs))
    rows = [json.loads((run / "front.json").read_text()) for run in runs]
    assert rows[0] == rows[1]

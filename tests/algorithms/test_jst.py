"""Joint Search-and-Training: what is sampled, what each phase moves, rewards, and the best subnet's return."""

import itertools
import json

import jax
import numpy as np
import pytest

from helpers.engines import engine_of, in_run, small_net, states
from helpers.runs import final_state, lines, small, unbroken_and_killed
from helpers.trees import assert_trees_equal
from slimjax.algorithms import jst
from slimjax.errors import BadValue, UserError
from slimjax.experiment import recipes
from slimjax.experiment.build import build
from slimjax.experiment.loop import train
from slimjax.nn import slicing
from slimjax.search import sampler, trials
from slimjax.workdir import architecture
from slimjax.workdir.rundir import RunDir

PHASES = ("coarse", *("weights", "alphas") * 3, "fine-tuning")


def small_jst(steps=16, **options):
    """Three subnets; two steps of each of the eight phases."""
    engine = in_run(engine_of(min_width=0.1, decay=5e-4), steps)
    lengths = {"coarse": 1, "weights": 1, "alphas": 1, "fine_tuning": 1}
    return jst(engine, num_subnets=3, **lengths | options)


def second_is_best():
    """Stands for the losses of trained subnets, in the order in which they are asked for."""
    losses = iter((0.9, 0.1, 0.8))
    return lambda subnets: np.array([next(losses) for _ in subnets])


@pytest.fixture(scope="module")
def followed():
    # Norms leave the alphas next to no gradient: a large rate makes them change places.
    algorithm = small_jst(params_weight=0.01, alpha_rate=1e4)
    return algorithm, states(algorithm, 16, second_is_best())


def moved(before, after):
    """Which parts of the state differ."""
    parts = ("params", "affine", "opt_state", "structure", "structure_opt")
    return {
        part
        for part in parts
        if any(
            (a != b).any()
            for a, b in zip(*(jax.tree.leaves(getattr(s, part)) for s in (before, after)), strict=True)
        )
    }


WEIGHTS, ALPHAS = {"params", "affine", "opt_state"}, {"structure", "structure_opt"}


def test_each_phase_moves_what_it_should(followed):
    """Coarse: everything. Weights and fine-tuning: no alphas. Alphas: no weights."""
    algorithm, found = followed
    for number, name in enumerate(PHASES):
        phase = algorithm.at(2 * number)
        assert (phase.name, phase.first) == (name, 2 * number)
        assert phase.split == ("holdout" if name == "alphas" else "train")
        # The second step of a phase: none is revised in between.
        parts = moved(found[2 * number], found[2 * number + 1])
        want = {"coarse": WEIGHTS | ALPHAS, "alphas": ALPHAS}.get(name, WEIGHTS)
        assert parts == want, name


def test_a_sampled_subnet_moves_nothing_outside_of_it(followed):
    _, found = followed
    net = small_net(0.1)
    for step in (2, 4, 14):
        before, after = found[step], found[step + 1]
        subnet = before.algorithm["subnet"]
        assert (subnet < net.space.largest).any()
        tree = lambda s: {"params": s.params, "affine": s.affine, "structure": s.structure}  # noqa: E731
        zeros = jax.tree.map(np.zeros_like, tree(before))
        outside = [slicing.merged(net.records, net.space, zeros, tree(s), subnet) for s in (before, after)]
        assert_trees_equal(*outside)


def test_a_subnet_is_what_the_sampler_keeps_of_the_alphas_as_they_were(followed):
    """From the alphas before: the controller's thresholds, the softmax with noise; the largest alphas in front."""
    _, found = followed
    net, arrays = small_net(0.1), found[2].algorithm
    names = list(net.space.index)
    thresholds = dict(zip(names, arrays["thresholds"].astype(float).round(6).tolist(), strict=True))
    assert set(thresholds.values()) <= {0.55, 0.6, 0.65, 0.7, 0.75}
    alphas = {name: arrays["alphas"][name] for name in names}  # noise is drawn in the space's order
    counts = sampler.sample(alphas, thresholds, "uniform", np.random.default_rng((3080, 0)))
    assert net.space.to_channels(arrays["subnet"]) == {
        name: max(count, int(net.space.lowest[net.space.index[name]])) for name, count in counts.items()
    }
    # A group that nothing is tied to by position is sorted; what was drawn was not.
    block = found[2].structure["alphas"]["stage2/block1"]
    assert (np.diff(block) <= 0).all()
    assert sorted(block) == sorted(arrays["alphas"]["stage2/block1"])


def test_rewards_are_minus_loss_and_share_of_parameters_and_teach_the_controller(followed):
    algorithm, found = followed
    net = small_net(0.1)
    last = found[-1].algorithm
    share = net.params(last["subnets"]) / net.params(net.space.largest)
    np.testing.assert_allclose(last["loss"], [0.9, 0.1, 0.8])
    np.testing.assert_allclose(last["share"], share, rtol=1e-6)
    log = algorithm.trials(last, 16)
    np.testing.assert_allclose([t.score for t in log], np.array([0.9, 0.1, 0.8]) + 0.01 * share, rtol=1e-6)
    assert [t.state for t in algorithm.trials(found[5].algorithm, 5)] == ["proposed"]
    learned = [state.algorithm["controller"]["params"] for state in (found[5], found[6], found[7])]
    changed = [
        any((a != b).any() for a, b in zip(*map(jax.tree.leaves, pair), strict=True))
        for pair in itertools.pairwise(learned)
    ]
    assert changed == [True, False]


def test_the_best_subnet_is_fine_tuned_on_the_channels_that_it_had(followed):
    """The second; since then channels have changed places twice."""
    _, found = followed
    net = small_net(0.1)
    drawn, last = found[6].algorithm, found[14].algorithm
    np.testing.assert_array_equal(last["subnet"], drawn["subnet"])
    others = found[10].algorithm["ids"]
    assert any((others[name] != drawn["ids"][name]).any() for name in others), "nothing had been reordered"
    for name, index in net.space.index.items():
        np.testing.assert_array_equal(last["ids"][name], drawn["ids"][name], err_msg=name)
        assert sorted(last["ids"][name]) == list(range(net.space.groups[index].channels))


def test_one_threshold_is_one_rate_for_all_layers():
    algorithm = small_jst(thresholds=(0.7,), noise="none")
    state = algorithm.init(0)
    score = second_is_best()
    for step in range(0, 14, 2):
        state = algorithm.revise(state, step, score)
    arrays = state.algorithm
    np.testing.assert_allclose(arrays["thresholds"], 0.7)
    # Nothing was trained, and nothing is random: one subnet again and again. Noise makes them differ.
    assert len(np.unique(arrays["subnets"], axis=0)) == 1


def test_noise_visits_different_subnets():
    algorithm = small_jst(thresholds=(0.7,))
    state, score = algorithm.init(0), second_is_best()
    for step in range(0, 14, 2):
        state = algorithm.revise(state, step, score)
    assert len(np.unique(state.algorithm["subnets"], axis=0)) == 3


def run_config():
    config = small(steps=16, log_every=2, checkpoint_every=16)
    config.algorithm = recipes.algorithm(
        "jst", num_subnets=3, coarse=1.0, weights=1.0, alphas=1.0, fine_tuning=1.0
    )
    config.data.holdout = 200
    config.scoring.images = 64
    config.model.min_width = 0.1
    config.model.options.channels = (8, 8, 16)
    config.evaluation.widths = ()
    return config


def test_a_run_shows_its_phases_trials_and_the_best_subnet(tmp_path, capsys):
    rows = train(run_config(), str(tmp_path))
    said = capsys.readouterr().err
    for line in (
        "coarse  2 steps: largest",
        "alphas  3 times 2 steps on the holdout images: subnet",
        "subnet 1 of 3: ",
        "step 14: fine-tuning begins",
    ):
        assert line in said
    (row,) = rows
    state = final_state(run_config(), tmp_path)
    assert row["name"] == "best"
    assert list(row["channels"].values()) == state.algorithm["subnet"].tolist()
    log = trials.latest(trials.read(tmp_path / "trials.jsonl"))
    assert [(n, t.state) for n, t in log.items()] == [(0, "scored"), (1, "scored"), (2, "scored")]
    best = min(log.values(), key=lambda t: t.score)
    assert dict(best.channels) == row["channels"]
    by_step = {line["step"]: line for line in lines(tmp_path)}
    assert "search/subnet" not in by_step[2]
    assert [by_step[step]["search/subnet"] for step in (4, 8, 12)] == [1, 2, 3]
    assert by_step[14]["search/best_reward"] >= by_step[14]["search/reward"]
    assert "structure_grad_norm" in by_step[2]
    assert "structure_grad_norm" not in by_step[4]
    assert "grad_norm" not in by_step[6]
    rates = [by_step[step]["learning_rate"] for step in (2, 4, 6, 8, 10)]
    alpha_rate = run_config().algorithm.get("alpha_rate", 0.001)
    assert [rates[i] == pytest.approx(alpha_rate) for i in range(5)] == [False, False, True, False, True]
    assert architecture.load(tmp_path / "search-jst/best.json").channels == row["channels"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": "salt"}, "noise"),
        ({"policy": "greedy"}, "policy"),
        ({"thresholds": ()}, "thresholds"),
        ({"thresholds": (0.5, 1.5)}, "thresholds"),
        ({"params_weight": -1.0}, "params_weight"),
        ({"baseline": 2.0}, "baseline"),
        ({"controller_rate": 0.0}, "controller_rate"),
        ({"fine_tuning_rate": 0.0}, "fine_tuning_rate"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(BadValue, match=message):
        small_jst(**options)


def test_images_to_learn_alphas_from_are_asked_for_before_training():
    config = run_config()
    config.data.holdout = 0
    with pytest.raises(UserError, match=r"data\.holdout"):
        build(config)


KILLS = (
    "--config.train.steps=10", "--config.model.options.channels=(4,4,8)", "--config.calibration.images=128",
    "--config.algorithm.num_subnets=2", "--config.algorithm.coarse=2.0", "--config.algorithm.weights=1.5",
    "--config.algorithm.alphas=1.5", "--config.algorithm.fine_tuning=2.0", "--config.scoring.images=64",
)  # fmt: skip


@pytest.mark.slow
def test_killed_in_every_step_of_every_phase_it_ends_bit_identical(tmp_path):
    """Coarse training, sampling, weights, alphas, the controller's update, fine-tuning: ten steps, ten kills."""
    runs = unbroken_and_killed("configs/digits_jst.py", KILLS, tmp_path, steps=10)
    config = RunDir(runs[0]).read_config()
    assert len({phase.first for phase in build(config).algorithm.phases}) == 6
    assert_trees_equal(*(final_state(config, run) for run in runs))
    rows = [json.loads((run / "front.json").read_text()) for run in runs]
    assert rows[0] == rows[1]
    visited = [[vars(trial) | {"time": None} for trial in trials.read(run / "trials.jsonl")] for run in runs]
    assert visited[0] == visited[1]
